//! What happens to a cluster while records are sent: moves, kills, upgrades, forgotten producers.

use std::sync::Arc;
use std::time::Duration;

use kafka_client::fake_broker::{API_VERSIONS, Dice, FETCH, METADATA, PRODUCE};
use tokio::time::sleep;

use crate::run::World;

/// Unsettles the cluster for a while, then sets everything right again.
pub(crate) async fn unsettle(world: Arc<World>, mut dice: Dice) {
    for _ in 0..world.scenario.events {
        sleep(Duration::from_millis(dice.between(1, 1500))).await;
        event(&world, &mut dice);
    }
    sleep(Duration::from_millis(dice.between(0, 4000))).await;
    world.cluster.disarm();
    for broker in 1..=world.scenario.cluster.brokers {
        world.cluster.restart(broker);
    }
    for (topic, leaders) in &world.scenario.topics {
        for (partition, leader) in (0..).zip(leaders) {
            world.cluster.lead(topic, partition, Some(*leader));
        }
    }
}

fn event(world: &World, dice: &mut Dice) {
    let (cluster, scenario) = (&world.cluster, &world.scenario);
    let (topic, leaders) = dice.pick(&scenario.topics).unwrap();
    let last = leaders.len() as u64 - 1;
    let partition = i32::try_from(dice.between(0, last)).unwrap();
    let most = u64::try_from(scenario.cluster.brokers).unwrap();
    let broker = i32::try_from(dice.between(1, most)).unwrap();
    let version = |dice: &mut Dice, least, most| i16::try_from(dice.between(least, most)).unwrap();
    match dice.between(0, 7) {
        0..=2 => cluster.lead(topic, partition, Some(broker)),
        3 => cluster.lead(topic, partition, None),
        4 => cluster.kill(broker),
        5 => cluster.restart(broker),
        6 => {
            let (metadata, fetch) = scenario.least_versions();
            let (api, (least, most)) = match dice.between(0, 3) {
                0 => (PRODUCE, (3, version(dice, 3, 12))),
                1 => (METADATA, (4, version(dice, metadata, 13))),
                2 => (FETCH, (4, version(dice, fetch, 17))),
                _ => (API_VERSIONS, (0, version(dice, 0, 4))),
            };
            cluster.upgrade(broker, api, least, most);
        }
        _ if scenario.forgets => cluster.expire_producers(topic, partition),
        _ => cluster.lead(topic, partition, Some(broker)),
    }
}
