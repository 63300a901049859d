//! Transactions that are aborted, committed and left open, written by Java's producer.

use std::path::Path;

use anyhow::ensure;
use harness::kafka::Kafka;
use tokio::task::spawn_blocking;
use xtask::tools;

/// Makes the topic `bank`, of one partition, and writes them: committed are `committed-1` to
/// `committed-3`, and the last stable offset is 11.
///
/// # Errors
/// When Kafka refuses, or Java is missing or fails.
pub async fn write(kafka: &Kafka) -> anyhow::Result<()> {
    kafka.create_topic("bank", 1).await?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("java/Transactions.java");
    tools::javac()?;
    let mut java = tools::kafka_java(kafka.version())?.command(&[])?;
    java.args(tools::QUICK).arg(source).args([&kafka.bootstrap(), "bank"]);
    let output = spawn_blocking(move || java.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
