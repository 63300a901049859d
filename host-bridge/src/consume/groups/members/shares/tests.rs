//! Shares under everything that may happen to a member and its readers.

use proptest::prelude::*;

use super::*;

fn partition(number: i32) -> Partition {
    (Arc::from("orders"), number)
}

fn partitions(numbers: std::ops::Range<i32>) -> Vec<Partition> {
    numbers.map(partition).collect()
}

/// Shares, and what each reader believes.
#[derive(Default)]
struct Model {
    shares: Shares,
    reads: BTreeMap<u64, BTreeSet<Partition>>,
    asked: Vec<(u64, Partition)>,
    /// Partitions that were taken from a reader who had to be asked.
    moves: usize,
}

impl Model {
    fn enter(&mut self, reader: u64) {
        self.reads.entry(reader).or_default();
        self.shares.enter(reader);
    }

    fn exit(&mut self, reader: u64) {
        self.reads.remove(&reader);
        self.asked.retain(|(of, _)| *of != reader);
        self.shares.exit(reader);
    }

    fn hear(&mut self, reader: u64) {
        let Some(reads) = self.reads.get_mut(&reader) else { return };
        let news = self.shares.news(reader);
        for gone in &news.gone {
            assert!(reads.remove(gone), "{gone:?} was not read");
        }
        for taken in news.taken {
            assert!(reads.remove(&taken), "{taken:?} was not read");
            self.moves += 1;
            self.asked.push((reader, taken));
        }
        for given in news.given {
            assert!(reads.insert(given), "it is read already");
        }
    }

    fn give_up(&mut self, at: usize) {
        if !self.asked.is_empty() {
            let (reader, partition) = self.asked.swap_remove(at % self.asked.len());
            self.shares.given_up(reader, &partition);
        }
    }

    /// Everybody hears of everything and gives up what is asked for.
    fn settle(&mut self) {
        for _ in 0..100 {
            for reader in self.reads.keys().copied().collect::<Vec<_>>() {
                self.hear(reader);
            }
            if self.asked.is_empty() {
                return;
            }
            while !self.asked.is_empty() {
                self.give_up(0);
            }
        }
        panic!("it never comes to rest");
    }

    fn counts(&self) -> Vec<usize> {
        self.reads.values().map(BTreeSet::len).collect()
    }
}

#[test]
fn a_newcomer_gets_a_partition_only_where_shares_differ_by_more_than_one() {
    let mut model = Model::default();
    model.enter(1);
    model.shares.hold(partitions(0..2));
    model.settle();
    assert_eq!(model.counts(), [2]);
    model.enter(2);
    model.settle();
    assert_eq!((model.counts(), model.moves), (vec![1, 1], 1));
    model.enter(3);
    model.settle();
    assert_eq!((model.counts(), model.moves), (vec![1, 1, 0], 1));
    model.exit(1);
    model.settle();
    assert_eq!((model.counts(), model.moves), (vec![1, 1], 1));
}

#[test]
fn a_partition_that_is_asked_for_is_nobodys_until_it_is_given_up() {
    let mut model = Model::default();
    model.enter(1);
    model.shares.hold(partitions(0..2));
    model.hear(1);
    model.enter(2);
    model.hear(1);
    model.hear(2);
    assert_eq!(model.counts(), [1, 0]);
    let (_, asked) = model.asked[0].clone();
    assert!(model.shares.is_read_by(1, &asked) && model.shares.is_held(&asked));
    model.give_up(0);
    model.hear(2);
    assert_eq!(model.counts(), [1, 1]);
    assert!(model.shares.is_read_by(2, &asked));
}

#[test]
fn after_a_rebalance_everybody_has_what_it_had() {
    let mut model = Model::default();
    (1..4).for_each(|reader| model.enter(reader));
    model.shares.hold(partitions(0..7));
    model.settle();
    let before = model.reads.clone();
    model.shares.let_go(&partitions(0..7));
    assert!(model.shares.are_read(&partitions(0..7)));
    model.settle();
    assert!(!model.shares.are_read(&partitions(0..7)));
    assert_eq!(model.counts(), [0; 3]);
    model.shares.hold(partitions(0..7));
    model.settle();
    assert_eq!(model.reads, before);
}

#[test]
fn who_lost_a_partition_without_hearing_of_it_stops_before_it_begins_again() {
    let mut model = Model::default();
    model.enter(1);
    model.shares.hold(partitions(0..1));
    model.hear(1);
    model.shares.lose(&partitions(0..1));
    model.shares.hold(partitions(0..1));
    let news = model.shares.news(1);
    assert_eq!((news.gone, news.given), (partitions(0..1), partitions(0..1)));
    assert!(model.shares.is_read_by(1, &partition(0)));
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u64),
    Exit(u64),
    Hear(u64),
    GiveUp(usize),
    Hold(i32, i32),
    LetGo(i32, i32),
    Lose(i32, i32),
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..9, 0..9);
    prop_oneof![
        (0..5u64).prop_map(Step::Enter),
        (0..5u64).prop_map(Step::Exit),
        (0..5u64).prop_map(Step::Hear),
        (0..9usize).prop_map(Step::GiveUp),
        range().prop_map(|(from, to)| Step::Hold(from, to)),
        range().prop_map(|(from, to)| Step::LetGo(from, to)),
        range().prop_map(|(from, to)| Step::Lose(from, to)),
    ]
}

proptest! {
    #[test]
    fn each_partition_has_one_reader_and_shares_are_even(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let (mut model, mut held) = (Model::default(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Enter(reader) => model.enter(reader),
                Step::Exit(reader) => model.exit(reader),
                Step::Hear(reader) => model.hear(reader),
                Step::GiveUp(at) => model.give_up(at),
                Step::Hold(from, to) => {
                    held.extend(partitions(from..to));
                    model.shares.hold(partitions(from..to));
                }
                Step::LetGo(from, to) => {
                    held.retain(|it| !partitions(from..to).contains(it));
                    model.shares.let_go(&partitions(from..to));
                }
                Step::Lose(from, to) => {
                    held.retain(|it| !partitions(from..to).contains(it));
                    model.asked.retain(|(_, it)| !partitions(from..to).contains(it));
                    model.shares.lose(&partitions(from..to));
                }
            }
            // Whoever has heard of all that was taken: nothing is read twice.
            let mut read = BTreeSet::new();
            for (reader, of_reader) in &model.reads {
                let gone = model.shares.readers.get(reader).cloned().unwrap_or_default();
                for partition in of_reader.difference(&gone) {
                    prop_assert!(read.insert(partition.clone()), "{partition:?} is read twice");
                }
            }
            for partition in partitions(0..9) {
                prop_assert_eq!(model.shares.is_held(&partition), held.contains(&partition));
            }
        }
        model.settle();
        let counts = model.counts();
        if let (Some(most), Some(least)) = (counts.iter().max(), counts.iter().min()) {
            prop_assert!(most - least <= 1, "{counts:?}");
            prop_assert_eq!(counts.iter().sum::<usize>(), held.len());
        }
        let moves = model.moves;
        let readers = model.reads.len();
        model.enter(9);
        model.settle();
        prop_assert!(model.moves - moves <= held.len() / (readers + 1), "as few as can be");
        let moves = model.moves;
        model.exit(9);
        model.settle();
        prop_assert_eq!(model.moves, moves, "who stays keeps what it has");
    }
}
