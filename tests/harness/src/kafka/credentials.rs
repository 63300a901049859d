//! Credentials that brokers make or change while they run.

use std::fs;
use std::num::NonZeroU32;

use anyhow::{Context, ensure};
use bytes::Bytes;
use kafka_protocol::messages::AlterUserScramCredentialsRequest;
use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use kafka_protocol::protocol::StrBytes;
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};

use super::Kafka;
use super::dump::run;
use super::wire::call;
use xtask::tools;

/// The mechanism's number in Kafka's protocol.
const SCRAM_SHA_256: i8 = 1;

const ITERATIONS: u32 = 4096;

const SALT: &[u8] = b"kafka-upstream-harness";

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

    /// Gives a user another password for SCRAM-SHA-256, within milliseconds (KIP-554).
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn change_password(&self, user: &str, password: &str) -> anyhow::Result<()> {
        let mut salted = [0; 32];
        let iterations = NonZeroU32::new(ITERATIONS).context("no iterations")?;
        pbkdf2::derive(PBKDF2_HMAC_SHA256, iterations, SALT, password.as_bytes(), &mut salted);
        let upsertion = ScramCredentialUpsertion::default()
            .with_name(StrBytes::from_string(user.to_owned()))
            .with_mechanism(SCRAM_SHA_256)
            .with_iterations(ITERATIONS.cast_signed())
            .with_salt(Bytes::from_static(SALT))
            .with_salted_password(Bytes::from(salted.to_vec()));
        let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]);
        let address = self.answering().into_iter().next().context("no broker runs")?;
        let response = call(&address, 0, &request).await?;
        ensure!(response.results.iter().all(|it| it.error_code == 0), "{:?}", response.results);
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
