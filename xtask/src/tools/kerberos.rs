//! MIT Kerberos: a KDC, and what a build with the feature `gssapi` needs.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::debian::{libraries, unpack};
use super::install::install;

/// The KDC and its tools, headers and libraries, and the libclang that reads the headers.
const PACKAGES: [&str; 6] = [
    "krb5-kdc",
    "krb5-admin-server",
    "krb5-user",
    "libkrb5-dev",
    "libclang1-14",
    "libclang-common-14-dev",
];

/// Where the packages are unpacked; what is installed is not there, and is used where it is.
#[derive(Clone, Debug)]
pub struct Kerberos {
    root: PathBuf,
}

/// Kerberos from Debian's packages.
///
/// # Errors
/// When it cannot be fetched; the line that installs it is named.
pub fn kerberos() -> anyhow::Result<Kerberos> {
    let root = install("kerberos", "fetching Kerberos from Debian", fetch).with_context(|| {
        let packages = PACKAGES.join(" ");
        format!(
            "Kerberos, for the tests of GSSAPI, cannot be unpacked from Debian's packages\n  \
             Debian, Ubuntu: sudo apt-get install --yes {packages}"
        )
    })?;
    Ok(Kerberos { root })
}

fn fetch(dir: &Path) -> anyhow::Result<()> {
    unpack(&PACKAGES, dir)?;
    // The layout that the build of `libgssapi-sys` looks for.
    let prefix = dir.join("prefix");
    fs::create_dir(&prefix)?;
    symlink("../usr/include", prefix.join("include"))?;
    Ok(symlink(format!("../usr/lib/{}", triplet()), prefix.join("lib"))?)
}

/// The name of Debian's folder for libraries.
fn triplet() -> String {
    format!("{}-linux-gnu", env::consts::ARCH)
}

impl Kerberos {
    /// Variables by which `libgssapi-sys` finds headers, library and libclang, and what is linked
    /// finds the library when it runs.
    ///
    /// # Errors
    /// When a path has a colon.
    pub fn build_env(&self) -> anyhow::Result<Vec<(&'static str, OsString)>> {
        let mut variables = vec![
            ("LIBGSSAPI_IMPL", "mit".into()),
            ("LIBGSSAPI_PREFIX", self.root.join("prefix").into()),
            self.run_env()?,
        ];
        let clang = self.root.join("usr/lib/llvm-14/lib");
        if clang.join("libclang-14.so.1").exists() {
            variables.push(("LIBCLANG_PATH", clang.into()));
        }
        let mut headers = OsString::from("-isystem ");
        headers.push(self.place("usr/lib/clang/14/include"));
        variables.push(("BINDGEN_EXTRA_CLANG_ARGS", headers));
        Ok(variables)
    }

    /// Variables by which a program finds the library when it runs.
    ///
    /// # Errors
    /// When a path has a colon.
    pub fn run_env(&self) -> anyhow::Result<(&'static str, OsString)> {
        Ok(("LD_LIBRARY_PATH", libraries(&self.root)?))
    }

    /// A command of a program such as `usr/sbin/krb5kdc`.
    ///
    /// # Errors
    /// As [`Kerberos::run_env`].
    pub fn command(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.place(program));
        command.envs([self.run_env()?]);
        Ok(command)
    }

    /// The folder of the KDC's databases' code.
    #[must_use]
    pub fn database_modules(&self) -> PathBuf {
        self.place(&format!("usr/lib/{}/krb5/plugins/kdb", triplet()))
    }

    /// Where it is unpacked, else where it is installed.
    fn place(&self, path: &str) -> PathBuf {
        let unpacked = self.root.join(path);
        if unpacked.exists() { unpacked } else { Path::new("/").join(path) }
    }
}
