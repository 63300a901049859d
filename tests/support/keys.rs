//! An authority and what it issues, made by the machine's keytool as operators make it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use xtask::tools;

/// The password of every store.
pub const PASSWORD: &str = "pass word";

/// Flags of keytool with which it writes PKCS12 as Java 8 did.
pub const LEGACY: &[&str] = &["-J-Dkeystore.pkcs12.legacy"];

/// An authority in a folder of its own, with the stores of those to whom it issued certificates.
pub struct Authority {
    dir: TempDir,
    keytool: PathBuf,
}

impl Authority {
    /// Makes the authority; its certificate is `ca.pem`.
    ///
    /// # Errors
    /// When there is no keytool, or it refuses.
    pub fn new() -> anyhow::Result<Self> {
        let authority = Self { dir: tempfile::tempdir()?, keytool: tools::keytool()? };
        authority.generate("ca", "ca.p12", &["-ext", "bc:c"])?;
        authority.run("ca.p12", &["-exportcert", "-rfc", "-alias", "ca", "-file", "ca.pem"])?;
        Ok(authority)
    }

    /// The path of one of its files.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn path(&self, name: &str) -> anyhow::Result<String> {
        let path = self.dir.path().join(name);
        Ok(path.to_str().context("the path is not UTF-8")?.to_owned())
    }

    /// Makes a key and a certificate for `names`, in a store `{alias}.p12`.
    ///
    /// # Errors
    /// When keytool refuses.
    pub fn issue(&self, alias: &str, names: &str) -> anyhow::Result<()> {
        let store = format!("{alias}.p12");
        let (request, reply) = (format!("{alias}.csr"), format!("{alias}.pem"));
        self.generate(alias, &store, &[])?;
        self.run(&store, &["-certreq", "-alias", alias, "-file", &request])?;
        let names = format!("san={names}");
        let issue = ["-gencert", "-rfc", "-alias", "ca", "-validity", "30", "-ext", &names];
        self.run("ca.p12", &[&issue[..], &["-infile", &request, "-outfile", &reply]].concat())?;
        self.trust(&store, &[])?;
        self.run(&store, &["-importcert", "-noprompt", "-alias", alias, "-file", &reply])
    }

    /// A broker's properties of a listener with TLS: its own store `broker.p12`, those it trusts in
    /// `trust.p12`, and whether clients need a certificate (`required` or `none`).
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn listener(&self, name: &str, clients: &str) -> anyhow::Result<Vec<(String, String)>> {
        let (keystore, truststore) = (self.path("broker.p12")?, self.path("trust.p12")?);
        let properties = [
            ("client.auth", clients),
            ("keystore.location", &keystore),
            ("keystore.password", PASSWORD),
            ("key.password", PASSWORD),
            ("truststore.location", &truststore),
            ("truststore.password", PASSWORD),
        ];
        let named = |(property, value): (&str, &str)| {
            (format!("listener.name.{name}.ssl.{property}"), value.to_owned())
        };
        Ok(properties.map(named).to_vec())
    }

    /// Puts the authority's certificate into a store.
    ///
    /// # Errors
    /// When keytool refuses.
    pub fn trust(&self, store: &str, flags: &[&str]) -> anyhow::Result<()> {
        let import = ["-importcert", "-noprompt", "-alias", "ca", "-file", "ca.pem"];
        self.run(store, &[&import[..], flags].concat())
    }

    /// Copies `{alias}.p12` into another kind of store.
    ///
    /// # Errors
    /// When keytool refuses.
    pub fn convert(&self, alias: &str, store: &str, flags: &[&str]) -> anyhow::Result<()> {
        let from = format!("{alias}.p12");
        let import =
            ["-importkeystore", "-noprompt", "-srckeystore", &from, "-srcstorepass", PASSWORD];
        let to = ["-destkeystore", store, "-deststorepass", PASSWORD, "-srcalias", alias];
        self.keytool(&[&import[..], &to, flags].concat())
    }

    fn generate(&self, alias: &str, store: &str, flags: &[&str]) -> anyhow::Result<()> {
        let name = format!("CN={alias}");
        let generate = ["-genkeypair", "-alias", alias, "-dname", &name, "-keyalg", "EC"];
        self.run(store, &[&generate[..], &["-validity", "30"], flags].concat())
    }

    fn run(&self, store: &str, arguments: &[&str]) -> anyhow::Result<()> {
        self.keytool(&[arguments, &["-keystore", store, "-storepass", PASSWORD]].concat())
    }

    fn keytool(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.keytool);
        // A run of a second: a quick start matters more than fast code.
        command.args(arguments).args(["-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC"]);
        let output = command.current_dir(self.dir.path()).output().context("cannot run keytool")?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
        Ok(())
    }
}
