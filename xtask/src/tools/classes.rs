//! A class data sharing (CDS) archive of Kafka's classes, from which brokers and tools start in half
//! the processor time.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::install::{install, run};
use super::kafka::{CLUSTER_ID, KafkaJava, QUICK, single_node};
use crate::{progress, reaper};

/// The file, beside what was said when it was made.
const ARCHIVE: &str = "classes.jsa";

/// What a broker says when it serves.
const STARTED: &str = "Kafka Server started";

/// Longest time until the broker serves, and until it has ended and its classes are written.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often the broker is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How often it is tried: another process may take a port before the broker does.
const TRIES: usize = 2;

/// The archive for this Java and these jars; made once. None where this Java cannot make it: all
/// starts without it, so that is only told.
pub(super) fn archive(java: &KafkaJava) -> Option<PathBuf> {
    let version = java.version;
    match find(java) {
        Ok(archive) => archive,
        Err(error) => {
            progress::line(&format!("Kafka {version} has no archive of its classes: {error:#}"));
            None
        }
    }
}

fn find(java: &KafkaJava) -> anyhow::Result<Option<PathBuf>> {
    let told = Command::new(&java.binary).arg("-version").output().context("cannot run java")?;
    let (version, key) = (java.version, java.key((&java.binary, told.stderr))?);
    let name = format!("kafka-{version}-classes-{key:016x}");
    let what = format!("making a CDS archive of Kafka {version}, for quick starts");
    let folder = install(&name, &what, |dir| {
        // What fails would fail in each process again.
        if let Err(error) = fill(java, dir) {
            progress::line(&format!("Kafka {version} will start slowly: {error:#}"));
            fs::write(dir.join("failure"), format!("{error:#}\n"))?;
            let archive = dir.join(ARCHIVE);
            if archive.exists() {
                fs::remove_file(archive)?;
            }
        }
        Ok(())
    })?;
    let archive = folder.join(ARCHIVE);
    Ok(archive.is_file().then_some(archive))
}

fn fill(java: &KafkaJava, dir: &Path) -> anyhow::Result<()> {
    let mut result = Ok(());
    for _ in 0..TRIES {
        result = record(java, dir);
        fs::remove_dir_all(dir.join("data"))?;
        if result.is_ok() {
            break;
        }
    }
    result?;
    // A damaged one would crash whoever starts from it.
    let mut check = java.command(&[])?;
    check.arg(option("-XX:SharedArchiveFile=", &dir.join(ARCHIVE)));
    check.args(["-Xshare:on", "-XX:+VerifySharedSpaces", "-version"]);
    run(check)
}

/// Runs a broker until it serves, and ends it; Java then writes what classes it has.
fn record(java: &KafkaJava, dir: &Path) -> anyhow::Result<()> {
    let (data, properties, log) = (dir.join("data"), dir.join("properties"), dir.join("log"));
    fs::create_dir_all(&data)?;
    let template = java.storage(&[])?;
    fs::copy(template.join("bootstrap.checkpoint"), data.join("bootstrap.checkpoint"))?;
    let meta = format!("version=1\nnode.id=1\ncluster.id={CLUSTER_ID}\n");
    fs::write(data.join("meta.properties"), meta)?;
    fs::write(&properties, single_node(&data, free_ports()?))?;
    let mut command = java.command(&[])?;
    command.args(QUICK).arg(option("-XX:ArchiveClassesAtExit=", &dir.join(ARCHIVE)));
    command.args(["-Xmx512m", "kafka.Kafka"]).arg(properties);
    let out = File::create(&log)?;
    command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).process_group(0);
    let mut broker = command.spawn().context("cannot run java")?;
    let group = reaper::watch_child(&broker);
    let status = serve(&mut broker, &log);
    if status.is_err() {
        signal(&broker, kill_process_group, Signal::KILL);
        broker.wait()?;
    }
    drop(group);
    let status = status?;
    let is_orderly = status.success() || status.code() == Some(143) || status.signal() == Some(15);
    ensure!(is_orderly, "the broker ended with {status}; {}", tail(&log));
    ensure!(dir.join(ARCHIVE).is_file(), "java writes no archive; {}", tail(&log));
    Ok(())
}

/// Waits until the broker serves, and then until it has ended.
fn serve(broker: &mut Child, log: &Path) -> anyhow::Result<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    let mut serves = false;
    while Instant::now() < deadline {
        if let Some(status) = broker.try_wait()? {
            return Ok(status);
        }
        if !serves && String::from_utf8_lossy(&fs::read(log)?).contains(STARTED) {
            serves = true;
            signal(broker, kill_process, Signal::TERM);
        }
        thread::park_timeout(LOOK);
    }
    bail!("the broker takes longer than {PATIENCE:?}; {}", tail(log))
}

fn signal(child: &Child, send: impl Fn(Pid, Signal) -> rustix::io::Result<()>, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // The only failure is that it has ended already.
    let _gone = pid.map(|pid| send(pid, signal));
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

fn free_ports() -> anyhow::Result<[u16; 2]> {
    // Both are held until both are known, so that they differ.
    let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([one.local_addr()?.port(), other.local_addr()?.port()])
}

/// The end of what the broker said.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.reverse();
    format!("its log ends with:\n{}", lines.join("\n"))
}
