//! The ledger of acknowledgements: which records a client was sent and has not acknowledged, and up to
//! where all is settled.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::cursor::{Cursor, Position, is_same_topic};

/// Records that were sent, by topic and partition, in the order of their offsets.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, VecDeque<Unacked>>>,
    records: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Unacked {
    offset: i64,
    /// Leader epoch of the record.
    epoch: Option<i32>,
    bytes: usize,
    /// Acknowledged by itself, before others in front of it.
    is_settled: bool,
}

/// An acknowledgement is of what was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsent {
    #[error("the connection does not read partition {1} of the topic `{0}`")]
    Partition(String, i32),
    #[error("offset {2} of {0}-{1} is ahead of what was sent")]
    Ahead(String, i32, i64),
}

impl Acks {
    /// A record is sent. Those of a partition come in the order of their offsets.
    pub(crate) fn send(
        &mut self,
        topic: &Arc<str>,
        partition: i32,
        (offset, epoch): (i64, Option<i32>),
        bytes: usize,
    ) {
        let sent = Unacked { offset, epoch, bytes, is_settled: false };
        let partitions = self.topics.entry(Arc::clone(topic)).or_default();
        partitions.entry(partition).or_default().push_back(sent);
        self.records += 1;
        self.bytes += bytes;
    }

    /// Records from the oldest of each partition on that is not acknowledged: those that may come again.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// And their bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Acknowledges all that was sent before a cursor's positions, with the connection's own cursor
    /// now. Says whether that settles anything. Partitions that are not the connection's, as when a
    /// topic was deleted, are passed over.
    ///
    /// # Errors
    /// [`Unsent`]; nothing is acknowledged then.
    pub(crate) fn ack(&mut self, acked: &Cursor, now: &Cursor) -> Result<bool, Unsent> {
        let mut all = Vec::new();
        for (topic, positions) in &acked.topics {
            let Some(ours) = now.topics.get(topic) else { continue };
            // Of a topic of the same name that was deleted: none of it is owed any more.
            if !is_same_topic(positions.tag, ours.tag) {
                continue;
            }
            for (partition, position) in &positions.partitions {
                if let Position::Offset { next, .. } = position
                    && ours.partitions.contains_key(partition)
                {
                    check(now, topic, *partition, *next)?;
                    all.push((topic, *partition, *next));
                }
            }
        }
        let settled = all
            .into_iter()
            .map(|(topic, partition, next)| self.take(topic, partition, |sent| sent.offset < next));
        Ok(settled.sum::<usize>() > 0)
    }

    /// Acknowledges all of a partition up to a record, included. Says whether that settles anything.
    ///
    /// # Errors
    /// [`Unsent`].
    pub(crate) fn ack_up_to(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        now: &Cursor,
    ) -> Result<bool, Unsent> {
        let next = offset.saturating_add(1);
        check(now, topic, partition, next)?;
        Ok(self.take(topic, partition, |sent| sent.offset < next) > 0)
    }

    /// Whether a record may have been sent, by the connection's own cursor now.
    ///
    /// # Errors
    /// [`Unsent`].
    pub(crate) fn check(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        now: &Cursor,
    ) -> Result<(), Unsent> {
        check(now, topic, partition, offset.saturating_add(1))
    }

    /// Whether a record was sent and is not acknowledged.
    pub(crate) fn owes(&self, topic: &str, partition: i32, offset: i64) -> bool {
        let sent = self.topics.get(topic).and_then(|partitions| partitions.get(&partition));
        let at = sent.map(|sent| (sent, sent.binary_search_by_key(&offset, |sent| sent.offset)));
        let found = at.and_then(|(sent, at)| sent.get(at.ok()?));
        found.is_some_and(|sent| !sent.is_settled)
    }

    /// Acknowledges one record.
    pub(crate) fn ack_one(&mut self, topic: &str, partition: i32, offset: i64) {
        let partitions = self.topics.get_mut(topic);
        let Some(sent) = partitions.and_then(|partitions| partitions.get_mut(&partition)) else {
            return;
        };
        let Ok(at) = sent.binary_search_by_key(&offset, |sent| sent.offset) else { return };
        if let Some(sent) = sent.get_mut(at) {
            sent.is_settled = true;
        }
        self.take(topic, partition, |sent| sent.is_settled);
    }

    /// A partition is read on from another offset, or nowhere: what was sent behind that is not there
    /// any more.
    pub(crate) fn go_on_from(&mut self, topic: &str, partition: i32, next: Option<i64>) {
        let partitions = self.topics.get_mut(topic);
        let Some(sent) = partitions.and_then(|partitions| partitions.get_mut(&partition)) else {
            return;
        };
        let next = next.unwrap_or(0);
        while let Some(last) = sent.pop_back_if(|sent| sent.offset >= next) {
            self.records -= 1;
            self.bytes -= last.bytes;
        }
    }

    /// The cursor before which everything that was sent is acknowledged, with the connection's own
    /// cursor now: what was not sent is settled with what was sent before it.
    pub(crate) fn settled(&self, now: Cursor) -> Cursor {
        let mut settled = now;
        for (topic, partitions) in &self.topics {
            let Some(positions) = settled.topics.get_mut(&**topic) else { continue };
            for (partition, sent) in partitions {
                let first = sent.front().map(|first| (first.offset, first.epoch));
                // The record's own epoch is that of a log which has the record before, too.
                if let (Some((next, epoch)), Some(position)) =
                    (first, positions.partitions.get_mut(partition))
                {
                    *position = Position::Offset { next, epoch };
                }
            }
        }
        settled
    }

    /// Takes what is first in a partition while that is so. Returns how many of these were owed.
    fn take(
        &mut self,
        topic: &str,
        partition: i32,
        mut is_over: impl FnMut(&Unacked) -> bool,
    ) -> usize {
        let partitions = self.topics.get_mut(topic);
        let Some(sent) = partitions.and_then(|partitions| partitions.get_mut(&partition)) else {
            return 0;
        };
        let mut taken = 0;
        while let Some(first) = sent.pop_front_if(|sent| sent.is_settled || is_over(sent)) {
            taken += usize::from(!first.is_settled);
            self.records -= 1;
            self.bytes -= first.bytes;
        }
        if sent.is_empty() {
            sent.shrink_to(KEPT);
        }
        taken
    }
}

/// Whether a position is not ahead of the connection's own.
fn check(now: &Cursor, topic: &str, partition: i32, next: i64) -> Result<(), Unsent> {
    let positions = now.topics.get(topic);
    match positions.and_then(|positions| positions.partitions.get(&partition)) {
        None => Err(Unsent::Partition(topic.to_owned(), partition)),
        Some(Position::Offset { next: sent, .. }) if next <= *sent => Ok(()),
        Some(_) => Err(Unsent::Ahead(topic.to_owned(), partition, next.saturating_sub(1))),
    }
}

/// Places for records that a partition keeps while it owes none.
const KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Two partitions, of which 0 to 9 were sent of the first, 5 and 7 of the second.
    fn sent() -> (Acks, Cursor) {
        let (mut acks, topic) = (Acks::default(), Arc::from("orders"));
        (0..10).for_each(|offset| acks.send(&topic, 0, (offset, Some(1)), 10));
        [5, 7].into_iter().for_each(|offset| acks.send(&topic, 1, (offset, Some(2)), 100));
        (acks, cursor("orders:0000000a@0#10.1,1#9;"))
    }

    fn cursor(text: &str) -> Cursor {
        Cursor::parse(text).unwrap()
    }

    fn settled(acks: &Acks, now: &Cursor) -> String {
        acks.settled(now.clone()).encode(false)
    }

    #[test]
    fn all_before_a_cursor_is_acknowledged() {
        let (mut acks, now) = sent();
        assert_eq!((acks.records(), acks.bytes()), (12, 300));
        assert_eq!(settled(&acks, &now), "orders:0000000a@0#0.1,1#5.2;");
        assert_eq!(acks.ack(&cursor("orders@0#4,1#6"), &now), Ok(true));
        assert_eq!((acks.records(), acks.bytes()), (7, 160));
        assert_eq!(settled(&acks, &now), "orders:0000000a@0#4.1,1#7.2;");
        // Behind, once more, and of a topic that is no more.
        for behind in [
            "orders@0#3",
            "orders@0#4,1#6",
            "orders:0000000b@0#99",
            ";",
            "orders@",
            "orders@2#5",
            "deleted@0#9",
            "orders@0#t99",
        ] {
            assert_eq!(acks.ack(&cursor(behind), &now), Ok(false), "{behind}");
        }
        assert_eq!(acks.ack(&now.clone(), &now), Ok(true));
        assert_eq!((acks.records(), acks.bytes()), (0, 0));
        assert_eq!(settled(&acks, &now), "orders:0000000a@0#10.1,1#9;");
    }

    #[test]
    fn what_was_not_sent_cannot_be_acknowledged() {
        let (mut acks, now) = sent();
        let ahead = |partition, offset| Err(Unsent::Ahead("orders".into(), partition, offset));
        // Not even in part.
        assert_eq!(acks.ack(&cursor("orders@0#5,1#10"), &now), ahead(1, 9));
        assert_eq!(acks.ack_up_to("orders", 0, 10, &now), ahead(0, 10));
        assert_eq!(acks.ack_up_to("orders", 0, i64::MAX, &now), ahead(0, i64::MAX - 1));
        let unknown = |topic: &str, partition| Err(Unsent::Partition(topic.into(), partition));
        assert_eq!(acks.ack_up_to("orders", 2, 0, &now), unknown("orders", 2));
        assert_eq!(acks.ack_up_to("secret", 0, 0, &now), unknown("secret", 0));
        assert_eq!(acks.records(), 12);
        assert_eq!(acks.ack_up_to("orders", 0, i64::MIN, &now), Ok(false));
    }

    #[test]
    fn a_record_is_acknowledged_by_itself_and_settled_with_those_before_it() {
        let (mut acks, now) = sent();
        acks.ack_one("orders", 0, 2);
        acks.ack_one("orders", 0, 2);
        acks.ack_one("orders", 0, 99);
        acks.ack_one("orders", 9, 0);
        assert!(!acks.owes("orders", 0, 2) && acks.owes("orders", 0, 3));
        assert!(!acks.owes("orders", 0, 99) && !acks.owes("secret", 0, 3));
        // It would come again with those before it.
        assert_eq!((acks.records(), acks.bytes()), (12, 300));
        assert_eq!(settled(&acks, &now), "orders:0000000a@0#0.1,1#5.2;");
        assert_eq!(acks.ack_up_to("orders", 0, 1, &now), Ok(true));
        assert_eq!((acks.records(), acks.bytes()), (9, 270));
        assert_eq!(settled(&acks, &now), "orders:0000000a@0#3.1,1#5.2;");
        // 6 is of no reader: it is settled with 5.
        acks.ack_one("orders", 1, 5);
        assert_eq!(settled(&acks, &now), "orders:0000000a@0#3.1,1#7.2;");
        acks.ack_one("orders", 1, 7);
        assert_eq!(settled(&acks, &now), "orders:0000000a@0#3.1,1#9;");
        assert_eq!((acks.records(), acks.bytes()), (7, 70));
    }

    #[test]
    fn what_the_log_has_lost_is_owed_by_nobody() {
        let (mut acks, _) = sent();
        acks.ack_one("orders", 0, 8);
        acks.go_on_from("orders", 0, Some(7));
        acks.go_on_from("orders", 1, None);
        acks.go_on_from("orders", 2, None);
        assert_eq!((acks.records(), acks.bytes()), (7, 70));
        let now = cursor("orders@0#7.3,1#0;");
        assert_eq!(settled(&acks, &now), "orders@0#0.1,1#0;");
        assert_eq!(acks.ack(&now.clone(), &now), Ok(true));
        assert_eq!((acks.records(), acks.bytes()), (0, 0));
    }
}
