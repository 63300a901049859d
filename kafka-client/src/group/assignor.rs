//! How a leader shares the partitions of a group among its members (pure).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::subscription::{Partitions, Subscription};
use crate::config::Assignor;

/// A member, as its leader knows it.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) member: String,
    pub(super) instance: Option<String>,
    pub(super) subscription: Subscription,
}

/// How many partitions each topic has; one that is not there does not exist.
pub(super) type Counts = BTreeMap<Arc<str>, usize>;

/// What each member gets; every member is in it.
pub(super) fn assign(
    assignor: Assignor,
    members: &[Candidate],
    counts: &Counts,
) -> BTreeMap<String, Partitions> {
    let mut ordered: Vec<&Candidate> = members.iter().collect();
    // As Java's assignors: static members first, by their own names.
    ordered.sort_by(|a, b| rank(a).cmp(&rank(b)));
    let parts = match assignor {
        Assignor::Range => range(&ordered, counts),
        Assignor::CooperativeSticky => {
            let mut parts = sticky(&ordered, counts);
            hold_back(&ordered, &mut parts);
            parts
        }
    };
    ordered.iter().map(|it| it.member.clone()).zip(parts).collect()
}

fn rank(it: &Candidate) -> (bool, &String) {
    (it.instance.is_none(), it.instance.as_ref().unwrap_or(&it.member))
}

/// Of each topic a range for each member that wants it: the first ones get one more.
fn range(members: &[&Candidate], counts: &Counts) -> Vec<Partitions> {
    let mut parts = vec![Partitions::new(); members.len()];
    for (topic, count) in counts {
        let wants = |it: &&Candidate| it.subscription.topics.contains(topic);
        let wanting = members.iter().filter(|it| wants(it)).count();
        let takers = members.iter().zip(&mut parts).filter(|(it, _)| wants(it));
        let mut next = 0;
        for (place, (_, part)) in takers.enumerate() {
            let share = count / wanting + usize::from(place < count % wanting);
            part.extend((next..next + share).filter_map(|it| Some((topic.clone(), index(it)?))));
            next += share;
        }
    }
    parts
}

/// As many partitions for one as for the other, as far as they want the same topics. Members keep
/// what they have as long as nobody has two less.
fn sticky(members: &[&Candidate], counts: &Counts) -> Vec<Partitions> {
    let mut parts = vec![Partitions::new(); members.len()];
    let takers: BTreeMap<&Arc<str>, Vec<usize>> = counts
        .keys()
        .map(|topic| {
            let wants = |at: &usize| {
                members.get(*at).is_some_and(|it| it.subscription.topics.contains(topic))
            };
            (topic, (0..members.len()).filter(wants).collect())
        })
        .collect();
    let mut free = Vec::new();
    for (topic, count) in counts {
        let taking = takers.get(topic).map_or(&[][..], Vec::as_slice);
        for partition in (0..*count).filter_map(index) {
            let partition = (topic.clone(), partition);
            let owner = owner(members, &partition).filter(|owner| taking.contains(owner));
            match owner.and_then(|owner| parts.get_mut(owner)) {
                Some(part) => drop(part.insert(partition)),
                None => free.push(partition),
            }
        }
    }
    let poorest = |parts: &[Partitions], topic: &Arc<str>| {
        let taking = takers.get(topic).into_iter().flatten().copied();
        taking.min_by_key(|at| parts.get(*at).map_or(usize::MAX, BTreeSet::len))
    };
    for partition in free {
        let taker = poorest(&parts, &partition.0);
        taker.and_then(|at| parts.get_mut(at)).map(|part| part.insert(partition));
    }
    // Each move brings two members closer together, so this ends.
    loop {
        let mut has_moved = false;
        for from in 0..parts.len() {
            let held: Vec<_> = parts.get(from).into_iter().flatten().cloned().collect();
            for partition in held {
                let Some(to) = poorest(&parts, &partition.0) else { continue };
                let len = |at: usize| parts.get(at).map_or(0, BTreeSet::len);
                if len(from) > len(to) + 1 {
                    parts.get_mut(from).map(|part| part.remove(&partition));
                    parts.get_mut(to).map(|part| part.insert(partition));
                    has_moved = true;
                }
            }
        }
        if !has_moved {
            return parts;
        }
    }
}

/// The member that has a partition, of those that claim it the one of the latest generation.
fn owner(members: &[&Candidate], partition: &(Arc<str>, i32)) -> Option<usize> {
    let claims = members.iter().enumerate();
    let claims = claims.filter(|(_, it)| it.subscription.owned.contains(partition));
    let (mut latest, mut owner) = (i32::MIN, None);
    for (at, member) in claims {
        let generation = member.subscription.generation;
        if generation > latest {
            (latest, owner) = (generation, Some(at));
        } else if generation == latest {
            // Both cannot be right: neither keeps it.
            owner = None;
        }
    }
    owner
}

/// What is to move is given to nobody until whoever has it has given it back (KIP-429).
fn hold_back(members: &[&Candidate], parts: &mut [Partitions]) {
    let mut claims = BTreeMap::<&(Arc<str>, i32), Vec<usize>>::new();
    for (at, member) in members.iter().enumerate() {
        for partition in &member.subscription.owned {
            claims.entry(partition).or_default().push(at);
        }
    }
    for (at, part) in parts.iter_mut().enumerate() {
        part.retain(|partition| {
            let claimed = claims.get(partition).map_or(&[][..], Vec::as_slice);
            claimed.is_empty() || owner(members, partition) == Some(at)
        });
    }
}

fn index(place: usize) -> Option<i32> {
    i32::try_from(place).ok()
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn candidate(member: &str, topics: &[&str], owned: &[(&str, i32)]) -> Candidate {
        let topics = topics.iter().map(|topic| Arc::from(*topic)).collect();
        let owned = owned.iter().map(|(topic, index)| (Arc::from(*topic), *index)).collect();
        let subscription = Subscription { topics, owned, generation: 1 };
        Candidate { member: member.to_owned(), instance: None, subscription }
    }

    fn counts(topics: &[(&str, usize)]) -> Counts {
        topics.iter().map(|(topic, count)| (Arc::from(*topic), *count)).collect()
    }

    fn shown(parts: &BTreeMap<String, Partitions>) -> Vec<String> {
        let part = |(member, part): (&String, &Partitions)| {
            let part: Vec<_> =
                part.iter().map(|(topic, index)| format!("{topic}{index}")).collect();
            format!("{member}: {}", part.join(" "))
        };
        parts.iter().map(part).collect()
    }

    #[test]
    fn ranges_are_those_of_javas_assignor() {
        let members = [candidate("a", &["x", "y"], &[]), candidate("b", &["x", "y"], &[])];
        let given = assign(Assignor::Range, &members, &counts(&[("x", 3), ("y", 3)]));
        assert_eq!(shown(&given), ["a: x0 x1 y0 y1", "b: x2 y2"]);
        let other = candidate("c", &["y"], &[]);
        let named = Candidate { instance: Some("z".into()), ..candidate("d", &["x"], &[]) };
        let members = [members[0].clone(), other, named];
        let given = assign(Assignor::Range, &members, &counts(&[("x", 3), ("y", 1)]));
        assert_eq!(shown(&given), ["a: x2 y0", "c: ", "d: x0 x1"], "static members come first");
    }

    #[test]
    fn a_partition_that_moves_is_given_back_before_it_is_given() {
        let owned: Vec<_> = (0..4).map(|index| ("x", index)).collect();
        let members = [candidate("a", &["x"], &owned), candidate("b", &["x"], &[])];
        let all = counts(&[("x", 4)]);
        let given = assign(Assignor::CooperativeSticky, &members, &all);
        assert_eq!(shown(&given), ["a: x2 x3", "b: "]);
        let members = [candidate("a", &["x"], &[("x", 2), ("x", 3)]), members[1].clone()];
        let given = assign(Assignor::CooperativeSticky, &members, &all);
        assert_eq!(shown(&given), ["a: x2 x3", "b: x0 x1"]);
    }

    #[test]
    fn of_two_that_claim_a_partition_the_later_generation_has_it() {
        let mut former = candidate("a", &["x"], &[("x", 0)]);
        former.subscription.generation = 0;
        let members = [former.clone(), candidate("b", &["x"], &[("x", 0)])];
        let given = assign(Assignor::CooperativeSticky, &members, &counts(&[("x", 1)]));
        assert_eq!(shown(&given), ["a: ", "b: x0"]);
        former.subscription.generation = 1;
        let members = [former, members[1].clone()];
        let given = assign(Assignor::CooperativeSticky, &members, &counts(&[("x", 1)]));
        assert_eq!(shown(&given), ["a: ", "b: "], "until both have given it back");
    }

    fn group() -> impl Strategy<Value = (Vec<Candidate>, Counts)> {
        let topics = ["x", "y", "z"];
        let member = (btree_set(0usize..3, 0..=3), vec((0usize..3, 0i32..9), 0..8), 0i32..3);
        (vec(member, 1..7), vec(0usize..9, 3)).prop_map(move |(members, sizes)| {
            let members =
                members.into_iter().enumerate().map(|(at, (wants, owned, generation))| {
                    let wants: Vec<_> = wants.into_iter().map(|topic| topics[topic]).collect();
                    let owned: Vec<_> =
                        owned.into_iter().map(|(at, index)| (topics[at], index)).collect();
                    let mut member = candidate(&format!("m{at}"), &wants, &owned);
                    member.subscription.generation = generation;
                    member
                });
            let sizes: Vec<_> = topics.into_iter().zip(sizes).collect();
            (members.collect(), counts(&sizes))
        })
    }

    /// Everyone rejoins with what it was given, as often as that changes something.
    fn settle(mut members: Vec<Candidate>, counts: &Counts) -> BTreeMap<String, Partitions> {
        for generation in 10..20 {
            let given = assign(Assignor::CooperativeSticky, &members, counts);
            let mut is_settled = true;
            for member in &mut members {
                let part = given[&member.member].clone();
                is_settled &= part == member.subscription.owned;
                member.subscription.owned = part;
                member.subscription.generation = generation;
            }
            if is_settled {
                return given;
            }
        }
        panic!("it never settles");
    }

    proptest! {
        #[test]
        fn nothing_is_given_twice_or_to_who_does_not_want_it_or_while_another_has_it(
            (members, counts) in group(),
        ) {
            for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
                let given = assign(assignor, &members, &counts);
                prop_assert_eq!(given.len(), members.len());
                let mut seen = Partitions::new();
                for member in &members {
                    for partition in &given[&member.member] {
                        prop_assert!(member.subscription.topics.contains(&partition.0));
                        prop_assert!((partition.1 as usize) < counts[&partition.0]);
                        prop_assert!(seen.insert(partition.clone()), "{:?} twice", partition);
                        let others = members.iter().filter(|it| it.member != member.member);
                        let claims = |it: &Candidate| {
                            it.subscription.owned.contains(partition)
                                && it.subscription.generation >= member.subscription.generation
                        };
                        let is_held = others.clone().any(claims);
                        prop_assert!(assignor == Assignor::Range || !is_held, "{:?}", partition);
                    }
                }
            }
        }

        #[test]
        fn a_sticky_group_settles_with_all_partitions_in_equal_parts(
            (mut members, counts) in group(),
        ) {
            let given = settle(members.clone(), &counts);
            let wanted: BTreeSet<_> =
                members.iter().flat_map(|it| it.subscription.topics.clone()).collect();
            let all = counts.iter().filter(|(topic, _)| wanted.contains(*topic));
            let total: usize = given.values().map(BTreeSet::len).sum();
            prop_assert_eq!(total, all.map(|(_, count)| count).sum::<usize>());
            for member in &mut members {
                member.subscription.topics = counts.keys().cloned().collect();
            }
            let sizes: Vec<_> = settle(members, &counts).values().map(BTreeSet::len).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }
    }
}
