//! Which reader of this bridge has which of the partitions that its member of a group has (pure).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A topic's partition.
pub(crate) type Partition = (Arc<str>, i32);

/// Whether it is one of these.
pub(crate) fn is_among(partitions: &[Partition], topic: &str, partition: i32) -> bool {
    partitions.iter().any(|(of, it)| (&**of, *it) == (topic, partition))
}

/// The partitions of a member, shared among its readers: as evenly as can be, and with as few moves.
#[derive(Debug, Default)]
pub(super) struct Shares {
    places: BTreeMap<Partition, Place>,
    /// With the partitions that were taken without asking, and of which they do not know yet.
    readers: BTreeMap<u64, BTreeSet<Partition>>,
    /// Who had a partition last, so that it comes back after a rebalance.
    former: BTreeMap<Partition, u64>,
}

#[derive(Debug, Default)]
struct Place {
    /// The member has it, and is not about to give it back.
    is_held: bool,
    reader: Option<u64>,
    /// The reader knows that it has it.
    is_known: bool,
    /// The reader is to give it up, and knows that.
    goes: bool,
    is_asked: bool,
}

/// What a reader has not heard of yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) given: Vec<Partition>,
    /// To stop at, and to give up.
    pub(crate) taken: Vec<Partition>,
    /// To stop at: others may have them already.
    pub(crate) gone: Vec<Partition>,
}

impl News {
    pub(crate) fn is_empty(&self) -> bool {
        self.given.is_empty() && self.taken.is_empty() && self.gone.is_empty()
    }
}

impl Shares {
    pub(super) fn enter(&mut self, reader: u64) {
        self.readers.entry(reader).or_default();
        self.balance();
    }

    pub(super) fn exit(&mut self, reader: u64) {
        self.readers.remove(&reader);
        self.former.retain(|_, former| *former != reader);
        for place in self.places.values_mut().filter(|place| place.reader == Some(reader)) {
            *place = Place { is_held: place.is_held, ..Place::default() };
        }
        self.places.retain(|_, place| place.is_held || place.reader.is_some());
        self.balance();
    }

    pub(super) fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }

    /// The member has these, too.
    pub(super) fn hold(&mut self, partitions: impl IntoIterator<Item = Partition>) {
        for partition in partitions {
            self.places.entry(partition).or_default().is_held = true;
        }
        self.balance();
    }

    /// The member is to give these back as soon as nobody reads them.
    pub(super) fn let_go(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            if let Some(place) = self.places.get_mut(partition) {
                (place.is_held, place.goes) = (false, true);
                self.former.extend(place.reader.map(|reader| (partition.clone(), reader)));
            }
        }
        self.places.retain(|_, place| place.is_held || place.is_known);
        self.balance();
    }

    /// The member has these no longer, whoever reads them.
    pub(super) fn lose(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            let Some(place) = self.places.remove(partition) else { continue };
            let Some(reader) = place.reader else { continue };
            self.former.insert(partition.clone(), reader);
            let believes = place.is_known && !place.is_asked;
            if let Some(gone) = self.readers.get_mut(&reader).filter(|_| believes) {
                gone.insert(partition.clone());
            }
        }
        self.balance();
    }

    pub(super) fn is_held(&self, partition: &Partition) -> bool {
        self.places.get(partition).is_some_and(|place| place.is_held)
    }

    /// Whether a reader has a partition, and knows that it has.
    pub(super) fn is_read_by(&self, reader: u64, partition: &Partition) -> bool {
        let of_reader = |place: &&Place| place.is_known && place.reader == Some(reader);
        self.places.get(partition).filter(of_reader).is_some()
    }

    /// Whether any of these is still read.
    pub(super) fn are_read(&self, partitions: &[Partition]) -> bool {
        let is_read = |it: &Partition| self.places.get(it).is_some_and(|place| place.is_known);
        partitions.iter().any(is_read)
    }

    pub(super) fn news(&mut self, reader: u64) -> News {
        let gone = self.readers.get_mut(&reader).map(std::mem::take).unwrap_or_default();
        let mut news = News { gone: gone.into_iter().collect(), ..News::default() };
        for (partition, place) in &mut self.places {
            match place {
                Place { reader: Some(of), .. } if *of != reader => {}
                Place { reader: None, .. } => {}
                Place { is_known: false, .. } => {
                    place.is_known = true;
                    news.given.push(partition.clone());
                }
                Place { goes: true, is_asked: false, .. } => {
                    place.is_asked = true;
                    news.taken.push(partition.clone());
                }
                _ => {}
            }
        }
        news
    }

    /// A reader has given up what was taken.
    pub(super) fn given_up(&mut self, reader: u64, partition: &Partition) {
        let is_its = |place: &&mut Place| place.is_asked && place.reader == Some(reader);
        let Some(place) = self.places.get_mut(partition).filter(is_its) else { return };
        *place = Place { is_held: place.is_held, ..Place::default() };
        if !place.is_held {
            self.places.remove(partition);
        }
        self.balance();
    }

    fn balance(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let mut counts: BTreeMap<u64, usize> = self.readers.keys().map(|it| (*it, 0)).collect();
        let held = || self.places.values().filter(|place| place.is_held);
        for reader in held().filter(|place| !place.goes).filter_map(|place| place.reader) {
            *counts.entry(reader).or_default() += 1;
        }
        let fair = held().count().div_ceil(self.readers.len());
        let free = |place: &Place| place.is_held && place.reader.is_none();
        for (partition, place) in self.places.iter_mut().filter(|(_, place)| free(place)) {
            let former = self.former.get(partition).copied();
            let has_room = |it: &u64| counts.get(it).is_some_and(|count| *count < fair);
            let reader = former.filter(has_room).or_else(|| least(&counts));
            place.reader = reader;
            counts.entry(reader.unwrap_or_default()).and_modify(|count| *count += 1);
        }
        // Those that are being given up go to who has least then.
        for _ in self.places.values().filter(|place| place.is_held && place.goes) {
            let reader = least(&counts).unwrap_or_default();
            counts.entry(reader).and_modify(|count| *count += 1);
        }
        while let (Some(poor), Some(rich)) = (least(&counts), most(&counts)) {
            let of = |reader| counts.get(&reader).copied().unwrap_or_default();
            if of(rich) <= of(poor) + 1 {
                break;
            }
            let of_rich = self.places.values_mut();
            let of_rich = of_rich.filter(|place| place.reader == Some(rich) && !place.goes);
            // One that its reader has not heard of moves at once.
            let Some(place) = of_rich.min_by_key(|place| place.is_known) else { break };
            match place.is_known {
                true => place.goes = true,
                false => place.reader = Some(poor),
            }
            counts.entry(rich).and_modify(|count| *count -= 1);
            counts.entry(poor).and_modify(|count| *count += 1);
        }
    }
}

fn least(counts: &BTreeMap<u64, usize>) -> Option<u64> {
    counts.iter().min_by_key(|(_, count)| **count).map(|(reader, _)| *reader)
}

fn most(counts: &BTreeMap<u64, usize>) -> Option<u64> {
    counts.iter().max_by_key(|(_, count)| **count).map(|(reader, _)| *reader)
}

#[cfg(test)]
mod tests;
