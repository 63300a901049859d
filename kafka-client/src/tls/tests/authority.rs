//! Certificates for tests: an authority, whom it empowers, and what they issue.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Someone who issues certificates.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own certificate and those above it, without the root's.
    above: Vec<CertificateDer<'static>>,
}

/// A certificate with its chain and its key.
pub(super) struct Issued {
    pub(super) chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        Self::new_for_years(name, 2020, 4000)
    }

    pub(super) fn new_for_years(name: &str, from: i32, to: i32) -> Self {
        let params = authority_params(name, from, to);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, above: Vec::new() }
    }

    /// An authority that this one empowers.
    pub(super) fn subordinate(&self, name: &str) -> Self {
        let params = authority_params(name, 2020, 4000);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::signed_by(params, key, &self.issuer).unwrap();
        let above = std::iter::once(issuer.der().clone()).chain(self.above.iter().cloned());
        Self { above: above.collect(), issuer }
    }

    pub(super) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for_years(names, 2020, 4000)
    }

    pub(super) fn issue_for_years(&self, names: &[&str], from: i32, to: i32) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "issued");
        (params.not_before, params.not_after) =
            (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = std::iter::once(certificate.der().clone()).chain(self.above.iter().cloned());
        Issued { chain: chain.collect(), key }
    }

    /// Its own certificate, used as a broker's.
    pub(super) fn itself(&self) -> Issued {
        let key = KeyPair::from_pem(&self.issuer.key().serialize_pem()).unwrap();
        Issued { chain: vec![self.der()], key }
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }
}

impl Issued {
    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub(super) fn chain_pem(&self) -> String {
        use base64::Engine as _;
        let encode = |der: &CertificateDer<'_>| {
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        self.chain.iter().map(encode).collect()
    }
}

fn authority_params(name: &str, from: i32, to: i32) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params
}
