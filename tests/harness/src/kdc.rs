//! A Kerberos realm of one's own on loopback: MIT's KDC, its database, keytabs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;

use crate::ports;
use crate::process::Process;
use crate::run_dir::RunDir;
use xtask::tools::{self, Kerberos};

/// The realm's name.
pub const REALM: &str = "STORY.TEST";

/// Longest time until it takes connections, and until it has ended.
const START: Duration = Duration::from_secs(15);

/// A KDC; it ends when this is dropped.
#[derive(Debug)]
pub struct Kdc {
    tools: Kerberos,
    process: Option<Process>,
    port: u16,
    // After the process: a folder must not go away under it.
    dir: RunDir,
}

impl Kdc {
    /// Makes an empty realm and runs its KDC.
    ///
    /// # Errors
    /// When Kerberos cannot be fetched, or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let tools = tokio::task::spawn_blocking(tools::kerberos).await??;
        let (dir, port) = (RunDir::new("kdc")?, ports::free()?);
        let mut kdc = Self { tools, process: None, port, dir };
        let modules = kdc.tools.database_modules();
        fs::write(kdc.config(), client_config(port))?;
        fs::write(kdc.profile(), kdc_config(kdc.dir.path(), port, &modules))?;
        let mut create = kdc.command("usr/sbin/kdb5_util")?;
        create.args(["create", "-s", "-r", REALM, "-P", "master"]);
        tools::run(create)?;
        kdc.restart().await?;
        Ok(kdc)
    }

    /// Runs the KDC again after [`Kdc::stop`].
    ///
    /// # Errors
    /// When it does not start; its log's end is shown.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let mut command = self.command("usr/sbin/krb5kdc")?;
        command.args(["-n", "-r", REALM]);
        let process = Process::spawn("krb5kdc", command, &self.dir.path().join("krb5kdc.log"))?;
        let process = self.process.insert(process);
        let port = self.port;
        let connect = async || Ok(TcpStream::connect(("127.0.0.1", port)).await.map(drop)?);
        process.wait_ready("to take connections", START, connect).await
    }

    /// Ends the KDC; the realm stays.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the KDC does not run")?.stop(START).await.map(drop)
    }

    /// The process: to freeze it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("the KDC does not run")
    }

    /// Makes a principal with new keys, and gives a keytab that has them. One that exists gets
    /// other keys.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn keytab(&self, principal: &str, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        // It exists when it gets a second keytab.
        let _exists = self.administer(&format!("add_principal -randkey {principal}"));
        self.administer(&format!("ktadd -k {} {principal}", path.display()))?;
        Ok(path)
    }

    /// Gets a ticket with a keytab, as `kinit` does, into a cache of this name.
    ///
    /// # Errors
    /// When the KDC refuses.
    pub fn ticket(&self, principal: &str, keytab: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        let mut kinit = self.command("usr/bin/kinit")?;
        kinit.arg("-k").arg("-t").arg(keytab).arg("-c").arg(&path).arg(principal);
        tools::run(kinit)?;
        Ok(path)
    }

    /// `krb5.conf` for clients, also Java's.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("krb5.conf")
    }

    /// Variables by which a client's C library finds itself and this realm.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn env(&self) -> anyhow::Result<Vec<(String, String)>> {
        let (name, libraries) = self.tools.run_env()?;
        let config = ("KRB5_CONFIG".to_owned(), self.config().display().to_string());
        let libraries = libraries.into_string().ok().context("a path is not UTF-8")?;
        Ok(vec![config, (name.to_owned(), libraries)])
    }

    fn profile(&self) -> PathBuf {
        self.dir.path().join("kdc.conf")
    }

    fn command(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = self.tools.command(program)?;
        command.env("KRB5_CONFIG", self.config()).env("KRB5_KDC_PROFILE", self.profile());
        Ok(command)
    }

    fn administer(&self, query: &str) -> anyhow::Result<()> {
        let mut kadmin = self.command("usr/sbin/kadmin.local")?;
        kadmin.args(["-r", REALM, "-q", query]);
        tools::run(kadmin)
    }
}

/// Names are taken as they are dialled: loopback has no DNS.
fn client_config(port: u16) -> String {
    format!(
        "[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n \
         dns_lookup_realm = false\n dns_canonicalize_hostname = false\n rdns = false\n \
         udp_preference_limit = 1\n\
         [realms]\n {REALM} = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
    )
}

fn kdc_config(dir: &Path, port: u16, modules: &Path) -> String {
    let (dir, modules) = (dir.display(), modules.display());
    format!(
        "[kdcdefaults]\n kdc_listen = \"\"\n kdc_tcp_listen = 127.0.0.1:{port}\n\
         [realms]\n {REALM} = {{\n  database_module = here\n  key_stash_file = {dir}/stash\n  \
         acl_file = {dir}/acl\n }}\n\
         [dbmodules]\n db_module_dir = {modules}\n here = {{\n  db_library = db2\n  \
         database_name = {dir}/principal\n }}\n\
         [logging]\n kdc = STDERR\n"
    )
}
