//! Certificates for tests: an authority, whom it empowers, and what they issue.

use pkcs8::der::{Reader as _, SliceReader};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SigningKey as _,
    date_time_ymd,
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

    /// The same as of X.509 version 1, signed by `key` again: without a version and extensions.
    fn of_version_1(certificate: &CertificateDer<'_>, key: &KeyPair) -> CertificateDer<'static> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
        let signed = parsed.tbs_certificate.as_ref();
        let fields = parts(signed);
        // The version stands first, as [0], and the extensions last, as [3].
        let fields = fields.iter().filter(|field| ![0xa0, 0xa3].contains(&field[0]));
        let signed = tlv(0x30, &fields.copied().collect::<Vec<_>>());
        let algorithm = parts(certificate)[1];
        let signature = [&[0][..], &key.sign(&signed).unwrap()].concat();
        tlv(0x30, &[&signed, algorithm, &tlv(0x03, &[&signature])]).into()
    }

    /// A certificate of X.509 version 1, as `openssl x509 -req` makes it without `-extfile`.
    pub(super) fn issue_version_1(&self) -> Issued {
        let issued = self.issue(&[]);
        let own = Self::of_version_1(&issued.chain[0], self.issuer.key());
        Issued { chain: vec![own], ..issued }
    }

    /// An authority that this one empowers, by a certificate of X.509 version 1.
    pub(super) fn subordinate_of_version_1(&self, name: &str) -> Self {
        let mut middle = self.subordinate(name);
        middle.above[0] = Self::of_version_1(&middle.above[0], self.issuer.key());
        middle
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

/// What a sequence of DER has in it, each part with its tag and length.
fn parts(sequence: &[u8]) -> Vec<&[u8]> {
    let read = SliceReader::new(sequence).unwrap().sequence(|reader| {
        let mut parts = Vec::new();
        while !reader.is_finished() {
            parts.push(reader.tlv_bytes()?);
        }
        Ok::<_, pkcs8::der::Error>(parts)
    });
    read.unwrap()
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match u16::try_from(content.len()).unwrap().to_be_bytes() {
        [0, short @ ..=0x7f] => vec![short],
        [0, byte] => vec![0x81, byte],
        [high, low] => vec![0x82, high, low],
    };
    [&[tag][..], &length, &content].concat()
}

fn authority_params(name: &str, from: i32, to: i32) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params
}
