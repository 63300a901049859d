//! Programs that read a feed, come back by themselves, and write what they get to their log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use harness::process::{Process, wait_until};
use serde_json::Value;
use tokio::task::spawn_blocking;
use xtask::tools;

use crate::followers::Ledger;

const SOON: Duration = Duration::from_secs(60);

/// A program that writes a line `opened` for each connection, and one for each event: name, data and
/// id as an array of JSON.
pub struct Client {
    /// For messages.
    pub name: &'static str,
    process: Process,
    log: PathBuf,
}

impl Client {
    /// Starts it; its log is in this folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(name: &'static str, command: Command, dir: &Path) -> anyhow::Result<Self> {
        let log = dir.join(name);
        Ok(Self { name, process: Process::spawn(name, command, &log)?, log })
    }

    /// Starts Chromium with a page whose console is the log.
    ///
    /// # Errors
    /// When there is no Chromium, or it does not start.
    pub async fn chromium(
        name: &'static str,
        page: &str,
        options: &[&str],
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = spawn_blocking(tools::chromium).await??;
        // A container has no user namespaces; what is loaded is ours.
        command.args(["--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]);
        // Otherwise it ends as soon as the page is there.
        command.arg("--remote-debugging-port=0");
        let profile = dir.join(format!("{name}-profile"));
        command.arg(format!("--user-data-dir={}", profile.display())).args(options).arg(page);
        Self::start(name, command, dir)
    }

    fn text(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Ends it at once; its log stays.
    ///
    /// # Errors
    /// When it has not ended.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill9().map(drop)
    }

    /// How often it was connected.
    ///
    /// # Errors
    /// When there is no log.
    pub fn connections(&self) -> anyhow::Result<usize> {
        Ok(self.text()?.lines().filter(|line| line.contains("opened")).count())
    }

    /// What follows a word in each line that has it, as JSON.
    ///
    /// # Errors
    /// When there is no log, or something else follows.
    pub fn told(&self, word: &str) -> anyhow::Result<Vec<Value>> {
        let mut told = Vec::new();
        for line in self.text()?.lines() {
            // Chromium logs more behind it.
            let Some((_, rest)) = line.split_once(word) else { continue };
            let mut rest = serde_json::Deserializer::from_str(rest).into_iter();
            told.push(rest.next().with_context(|| line.to_owned())??);
        }
        Ok(told)
    }

    /// What it has got; each record once and in the order of its partition, with ids.
    ///
    /// # Errors
    /// When it is not so.
    pub fn ledger(&self) -> anyhow::Result<Ledger> {
        let mut ledger = Ledger::default();
        for event in self.told("event ")? {
            let [name, data, id]: [String; 3] = serde_json::from_value(event)?;
            ensure!(!id.is_empty(), "{name} {data} has no id");
            match &*name {
                "message" => ledger.record(&data).with_context(|| self.name)?,
                "goaway" => ledger.goaways += 1,
                _ => bail!("{}: {name}: {data}", self.name),
            }
        }
        Ok(ledger)
    }

    /// Waits until it has got all that was written to each partition, over several connections, of which
    /// one ended with `goaway`.
    ///
    /// # Errors
    /// When it is not so.
    pub async fn came_back_and_read(&self, written: &[u64]) -> anyhow::Result<()> {
        let ledger = self.until(written.iter().sum()).await?;
        let (name, connections) = (self.name, self.connections()?);
        ensure!(ledger.next == written, "{name}: {ledger:?}, not {written:?}");
        println!("{name}: {connections} connections, {ledger:?}");
        ensure!(connections > 2 && ledger.goaways > 0, "{name}: {connections}, {ledger:?}");
        Ok(())
    }

    /// Waits until it has got so many records.
    ///
    /// # Errors
    /// When it does not get them.
    pub async fn until(&self, records: u64) -> anyhow::Result<Ledger> {
        wait_until(self.name, SOON, async || {
            let ledger = self.ledger()?;
            let read: u64 = ledger.next.iter().sum();
            ensure!(read >= records, "{read} of {records}: {}", self.process.log_tail());
            Ok(ledger)
        })
        .await
    }
}
