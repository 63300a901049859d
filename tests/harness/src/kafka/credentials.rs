//! Credentials that brokers make or change while they run, by Kafka's own tools.

use std::fs;

use anyhow::Context;

use super::Kafka;
use super::dump::run;
use xtask::tools;

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
        let lines: Vec<_> =
            properties.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let file = self.dir().join("delegation.properties");
        fs::write(&file, lines.concat())?;
        let bootstrap = self.bootstrap_at(listener)?;
        let file = file.to_str().context("the path is not UTF-8")?;
        let create = ["--create", "--max-life-time-period", "-1", "--command-config", file];
        let tool = "org.apache.kafka.tools.DelegationTokenCommand";
        let output = self.tool(tool, &bootstrap, &create).await?;
        parse(&output).with_context(|| format!("no token in:\n{output}"))
    }

    /// Gives a user another password for SCRAM-SHA-256.
    ///
    /// # Errors
    /// As [`Kafka::delegation_token`].
    pub async fn change_password(&self, user: &str, password: &str) -> anyhow::Result<()> {
        let config = format!("SCRAM-SHA-256=[password={password}]");
        let alter = ["--alter", "--entity-type", "users", "--entity-name", user];
        let alter = [&alter[..], &["--add-config", &config]].concat();
        self.tool("kafka.admin.ConfigCommand", &self.bootstrap(), &alter).await?;
        Ok(())
    }

    async fn tool(&self, class: &str, bootstrap: &str, more: &[&str]) -> anyhow::Result<String> {
        let mut command = tools::kafka_java(self.version)?.command(&[])?;
        command.args(tools::QUICK);
        command.args([class, "--bootstrap-server", bootstrap]).args(more);
        tokio::task::spawn_blocking(move || run(command)).await?
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
