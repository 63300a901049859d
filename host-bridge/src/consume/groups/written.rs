//! What clients can have, by what is in the logs.

use std::time::Duration;

use kafka_client::At;

use crate::consume::cursor::Cursor;
use crate::consume::reader::FeedReader;

/// A cursor without the positions that are beyond the log end: nobody has what is not written. Where
/// brokers do not say in time it may be.
pub(super) async fn written(reader: &FeedReader, cursor: &Cursor, within: Duration) -> Cursor {
    let mut written = cursor.clone();
    for (name, positions) in &mut written.topics {
        let topic = reader.hub.topic(name);
        let is_known = |partition, next| {
            topic.log.lock().log_end(partition).is_some_and(|log_end| next <= log_end)
        };
        let asked = positions.partitions.iter().filter_map(|(partition, position)| {
            (!is_known(*partition, position.next()?)).then_some(*partition)
        });
        let asked: Vec<_> = asked.collect();
        if asked.is_empty() {
            continue;
        }
        let log_ends = reader.hub.offsets(&topic, &asked, At::Latest, within).await;
        for (partition, log_end) in asked.iter().zip(log_ends) {
            let next = positions.partitions.get(partition).and_then(|position| position.next());
            if next.zip(log_end.ok()).is_some_and(|(next, log_end)| next > log_end) {
                positions.partitions.remove(partition);
            }
        }
    }
    written
}
