//! `bench produce-with`: one client as a process of its own, with the options of
//! ProducerPerformance.

#[cfg(feature = "librdkafka")]
mod librdkafka;
mod ours;

use std::fs;
use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use super::client::process::summary;

/// The same choices in every run.
const SEED: u64 = 3;

#[derive(Args)]
pub(crate) struct Options {
    client: Client,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    num_records: u64,
    /// Payloads, one a line; each record has a random one
    #[arg(long)]
    payload_file: PathBuf,
    #[arg(long, num_args = 1.., value_parser = property)]
    producer_props: Vec<(String, String)>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Client {
    KafkaClient,
    #[cfg(feature = "librdkafka")]
    Librdkafka,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a property is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let text = fs::read_to_string(&options.payload_file)?;
    let payloads = Payloads::new(&text)?;
    let acknowledged = match options.client {
        Client::KafkaClient => ours::produce(options, payloads).await?,
        #[cfg(feature = "librdkafka")]
        Client::Librdkafka => librdkafka::produce(options, payloads)?,
    };
    println!("{}", summary(acknowledged));
    Ok(())
}

/// Random payloads out of a pool.
struct Payloads<'a> {
    pool: Vec<&'a [u8]>,
    random: fastrand::Rng,
}

impl<'a> Payloads<'a> {
    fn new(text: &'a str) -> anyhow::Result<Self> {
        let pool: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
        ensure!(!pool.is_empty(), "the file of payloads is empty");
        Ok(Self { pool, random: fastrand::Rng::with_seed(SEED) })
    }

    fn next(&mut self) -> &'a [u8] {
        self.random.choice(&self.pool).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_from_the_pool() {
        let mut payloads = Payloads::new("a\nb").unwrap();
        let taken: Vec<_> = (0..100).map(|_| payloads.next()).collect();
        assert!(taken.contains(&&b"a"[..]) && taken.contains(&&b"b"[..]));
        assert!(Payloads::new("").is_err());
    }
}
