//! Delegation tokens (KIP-48), made by Kafka's own tool.

use std::fs;

use anyhow::Context;

use super::Kafka;
use super::broker::{Java, java_command};
use super::dump::run;
use crate::tools;

/// A token: what a client gives as user name and password of SCRAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegationToken {
    /// Its id.
    pub id: String,
    /// Its HMAC, in base64.
    pub hmac: String,
}

impl Kafka {
    /// Makes a token for whoever the properties of Java's client log in at a listener of
    /// [`super::Setup::listeners`]. The brokers need a `delegation.token.secret.key`.
    ///
    /// # Errors
    /// When the tool fails; its output is shown.
    pub async fn delegation_token(
        &self,
        listener: &str,
        properties: &[(&str, &str)],
    ) -> anyhow::Result<DelegationToken> {
        let java = Java { binary: tools::java()?, libs: tools::kafka_libs(self.version)? };
        let lines: Vec<_> =
            properties.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let file = self.dir().join("delegation.properties");
        fs::write(&file, lines.concat())?;
        let mut command = java_command(&java, &[])?;
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        command.args(["org.apache.kafka.tools.DelegationTokenCommand", "--create"]);
        command.args(["--max-life-time-period", "-1", "--bootstrap-server"]);
        command.arg(self.bootstrap_at(listener)?).arg("--command-config").arg(file);
        let output = tokio::task::spawn_blocking(move || run(command)).await??;
        parse(&output).with_context(|| format!("no token in:\n{output}"))
    }
}

/// The first two columns below the table's head.
fn parse(output: &str) -> Option<DelegationToken> {
    let lines = output.lines().filter(|line| !line.is_empty());
    let mut lines = lines.skip_while(|line| !line.starts_with("TOKENID"));
    let mut words = lines.nth(1)?.split_whitespace();
    Some(DelegationToken { id: words.next()?.to_owned(), hmac: words.next()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_the_table() {
        let output = "Created delegation token with tokenId : a_B\n\n\
            TOKENID         HMAC      OWNER     REQUESTER  RENEWERS  ISSUEDATE\n\n\
            a_B             c/D+==    User:bob  User:bob   []        2026-01-01\n";
        let token = DelegationToken { id: "a_B".to_owned(), hmac: "c/D+==".to_owned() };
        assert_eq!(parse(output), Some(token));
        assert_eq!(parse("refused"), None);
    }
}
