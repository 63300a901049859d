//! What verifies signatures of Standard Webhooks: its libraries for Python, from PyPI, and for Node.js,
//! from npm.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::install::{install, run};
use super::wheels;
use crate::prerequisites::{Prerequisite, require};

const WHEELS: &str = "\
standardwebhooks==1.1.0 --hash=sha256:9a88d48a1f198be61517fc7ad328cf58ba02b73f0fbd8941d4213e9c0b6c2a61
";
const PACKAGE: &str = r#"{"dependencies": {"standardwebhooks": "1.1.1"}}"#;
const LOCK: &str = r#"{
  "lockfileVersion": 3,
  "packages": {
    "": {"dependencies": {"standardwebhooks": "1.1.1"}},
    "node_modules/standardwebhooks": {
      "version": "1.1.1",
      "integrity": "sha512-bCbX9ZEyFkWPsRz7Bl3NuQUJohmwGSev/yhr7vhaGPlc4AfIrspIRa6cPTBuI1ItmrTDJ4d/S2hCsfe4+vQGnQ==",
      "dependencies": {"@stablelib/base64": "^1.0.0", "fast-sha256": "^1.3.0"}
    },
    "node_modules/@stablelib/base64": {
      "version": "1.0.1",
      "integrity": "sha512-1bnPQqSxSuc3Ii6MhBysoWCg58j97aUjuCSZrGSmDxNqtytIi0k8utUenAwTZN4V5mXXYGsVUI9zeBqy+jBOSQ=="
    },
    "node_modules/fast-sha256": {
      "version": "1.3.0",
      "integrity": "sha512-n11RGP/lrWEFI/bWdygLxhI+pVeo1ZYIVwvvPkW7azl/rOy+F3HYRZ2K5zeE9mmkhQppyv9sQFx0JM9UabnpPQ=="
    }
  }
}
"#;

/// The folder from which Python imports `standardwebhooks`.
///
/// # Errors
/// When Python or pip is missing, or the download fails.
pub fn standard_webhooks() -> anyhow::Result<PathBuf> {
    let what = "fetching standardwebhooks 1.1.0 from PyPI";
    install("standardwebhooks-1.1.0", what, |dir| wheels(WHEELS, dir))
}

/// The folder from which Node.js requires `standardwebhooks`.
///
/// # Errors
/// When Node.js or npm is missing, or the download fails.
pub fn standard_webhooks_of_node() -> anyhow::Result<PathBuf> {
    let folder =
        install("standardwebhooks-npm-1.1.1", "fetching standardwebhooks from npm", |dir| {
            require(Prerequisite::Npm)?;
            fs::write(dir.join("package.json"), PACKAGE)?;
            fs::write(dir.join("package-lock.json"), LOCK)?;
            let mut npm = Command::new("npm");
            npm.args(["ci", "--silent", "--ignore-scripts"]).current_dir(dir);
            run(npm)
        })?;
    Ok(folder.join("node_modules"))
}
