//! The `server.properties` of a broker, which may be a controller too.

use std::fmt::Write;
use std::path::Path;

/// What spares a broker work at its start that only much traffic is worth: threads, and a buffer of
/// 128 MB that is filled with zeros.
pub(super) const QUICK: [(&str, &str); 4] = [
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "2"),
    ("log.cleaner.dedupe.buffer.size", "2097152"),
];

/// A broker and its ports.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: usize,
    pub(super) port: u16,
    /// Where it listens if it is a controller.
    pub(super) controller: u16,
    /// Further listeners: name, protocol, port.
    pub(super) listeners: Vec<(String, String, u16)>,
}

/// Renders the file; a key in `extra` replaces the built-in one, because the last line wins.
pub(super) fn render(
    own: &Node,
    nodes: &[Node],
    controllers: usize,
    data: &Path,
    extra: &[(&str, &str)],
) -> String {
    let voters = nodes.iter().take(controllers);
    let quorum: Vec<String> =
        voters.map(|node| format!("{}@127.0.0.1:{}", node.id, node.controller)).collect();
    let replicas = nodes.len().min(3);
    let (mut roles, mut listener) = ("broker", String::new());
    let (mut advertised, mut protocols) = (String::new(), String::new());
    for (name, protocol, port) in &own.listeners {
        advertised.push_str(&format!(",{name}://127.0.0.1:{port}"));
        protocols.push_str(&format!(",{name}:{protocol}"));
    }
    if own.id <= controllers {
        roles = "broker,controller";
        listener = format!(",CONTROLLER://127.0.0.1:{}", own.controller);
    }
    let mut text = format!(
        "process.roles={roles}\n\
         node.id={id}\n\
         controller.quorum.voters={quorum}\n\
         listeners=PLAINTEXT://127.0.0.1:{port}{advertised}{listener}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n\
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
        port = own.port,
        quorum = quorum.join(","),
        data = data.display(),
    );
    // A killed broker is noticed in seconds instead of nine, so that tests need not wait.
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

    fn rendered(own: usize, controllers: usize) -> String {
        let nodes = [1, 2, 3].map(|id| Node {
            id,
            port: 90 + id as u16,
            controller: 10 + id as u16,
            listeners: vec![("SASL".into(), "SASL_PLAINTEXT".into(), 70 + id as u16)],
        });
        render(&nodes[own - 1], &nodes, controllers, Path::new("/d"), &[("log.dirs", "/e")])
    }

    #[test]
    fn three_brokers_vote_and_replicate() {
        let text = rendered(2, 3);
        assert!(text.contains("process.roles=broker,controller\nnode.id=2\n"));
        assert!(text.contains("voters=1@127.0.0.1:11,2@127.0.0.1:12,3@127.0.0.1:13\n"));
        let own = "listeners=PLAINTEXT://127.0.0.1:92,SASL://127.0.0.1:72";
        assert!(text.contains(&format!("\n{own},CONTROLLER://127.0.0.1:12\nadvertised.{own}\n")));
        assert!(text.contains("CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT\n"));
        assert!(text.contains("offsets.topic.replication.factor=3\n"));
        assert!(text.ends_with("log.dirs=/e\n"));
    }

    #[test]
    fn a_broker_alone_has_no_vote() {
        let text = rendered(2, 1);
        assert!(text.contains("process.roles=broker\n"));
        assert!(text.contains("voters=1@127.0.0.1:11\n"));
        assert!(text.contains("listeners=PLAINTEXT://127.0.0.1:92,SASL://127.0.0.1:72\n"));
        assert!(rendered(1, 1).contains("process.roles=broker,controller\n"));
    }
}
