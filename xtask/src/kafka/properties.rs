//! The `server.properties` of a broker that is also a controller.

use std::fmt::Write;
use std::path::Path;

/// A broker in its role as controller.
#[derive(Debug)]
pub(super) struct Voter {
    pub(super) id: usize,
    pub(super) port: u16,
}

/// Renders the file; a key in `extra` replaces the built-in one, because the last line wins.
pub(super) fn render(
    own: &Voter,
    port: u16,
    voters: &[Voter],
    data: &Path,
    extra: &[(&str, &str)],
) -> String {
    let quorum: Vec<String> =
        voters.iter().map(|voter| format!("{}@127.0.0.1:{}", voter.id, voter.port)).collect();
    let replicas = voters.len().min(3);
    let mut text = format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={quorum}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         log.dirs={data}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.num.partitions=4\n\
         offsets.topic.replication.factor={replicas}\n\
         transaction.state.log.num.partitions=4\n\
         transaction.state.log.replication.factor={replicas}\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n",
        id = own.id,
        controller = own.port,
        quorum = quorum.join(","),
        data = data.display(),
    );
    // A killed broker is noticed in seconds instead of nine, so that stories need not wait.
    text.push_str("broker.heartbeat.interval.ms=500\nbroker.session.timeout.ms=3000\n");
    for (key, value) in extra {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{key}={value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_brokers_vote_and_replicate() {
        let voters = [(1, 11), (2, 12), (3, 13)].map(|(id, port)| Voter { id, port });
        let text = render(&voters[1], 92, &voters, Path::new("/d"), &[("log.dirs", "/e")]);
        assert!(text.contains("node.id=2\n"));
        assert!(text.contains("voters=1@127.0.0.1:11,2@127.0.0.1:12,3@127.0.0.1:13\n"));
        assert!(text.contains("listeners=PLAINTEXT://127.0.0.1:92,CONTROLLER://127.0.0.1:12\n"));
        assert!(text.contains("offsets.topic.replication.factor=3\n"));
        assert!(text.ends_with("log.dirs=/e\n"));
    }
}
