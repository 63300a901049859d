//! Host calls on metrics.

use crate::abi::status;
use crate::hostcalls::{Cx, words};
use crate::profile::Profile;
use crate::vm::Stop;
use crate::world::Metric;

pub(crate) fn define(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [kind, name, size, at] = words(arguments);
    let name = cx.read_text(name, size)?;
    let mut world = cx.world();
    if world.profile == Profile::Apisix {
        drop(world);
        cx.write_number(at, 0)?;
        return Ok(status::OK);
    }
    let known = world.metrics.iter().position(|metric| metric.name == name);
    let index = known.unwrap_or_else(|| {
        world.metrics.push(Metric { kind, name, value: 0, samples: Vec::new() });
        world.metrics.len() - 1
    });
    drop(world);
    cx.write_number(at, u32::try_from(index).unwrap() + 1)?;
    Ok(status::OK)
}

pub(crate) fn increment(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let delta = arguments[1] as i64;
    if cx.world().profile == Profile::Wasmx {
        let world = cx.world();
        let metric = world.metrics.get((arguments[0] as usize).wrapping_sub(1));
        if metric.is_none_or(|metric| metric.kind != COUNTER) {
            return Err(Stop::Trap("rule 23: adding to what is no counter".to_owned()));
        }
    }
    Ok(change(cx, arguments[0], |metric| match metric.kind {
        HISTOGRAM => status::BAD_ARGUMENT,
        COUNTER if delta < 0 => status::BAD_ARGUMENT,
        _ => {
            metric.value += delta;
            status::OK
        }
    }))
}

pub(crate) fn record(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let value = arguments[1];
    Ok(change(cx, arguments[0], |metric| {
        match metric.kind {
            HISTOGRAM => {
                metric.value += 1;
                if metric.samples.len() < SAMPLES {
                    metric.samples.push(value);
                }
            }
            _ => metric.value = value as i64,
        }
        status::OK
    }))
}

pub(crate) fn get(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [id, at] = words(arguments);
    let world = cx.world();
    let Some(metric) = world.metrics.get((id as usize).wrapping_sub(1)) else {
        return Ok(status::NOT_FOUND);
    };
    let (kind, value, profile) = (metric.kind, metric.value, world.profile);
    drop(world);
    match kind {
        HISTOGRAM if profile == Profile::Wasmx => {
            Err(Stop::Trap("rule 23: a histogram is read".to_owned()))
        }
        HISTOGRAM => Ok(status::BAD_ARGUMENT),
        _ => {
            cx.write(at, &value.to_le_bytes())?;
            Ok(status::OK)
        }
    }
}

fn change(cx: &mut Cx<'_>, id: u64, change: impl FnOnce(&mut Metric) -> u32) -> u32 {
    let mut world = cx.world();
    if world.profile == Profile::Apisix {
        return status::OK;
    }
    let metric = world.metrics.get_mut((id as usize).wrapping_sub(1));
    metric.map_or(status::NOT_FOUND, change)
}

const COUNTER: u32 = 0;
const HISTOGRAM: u32 = 2;
/// Samples that a histogram keeps for tests to look at.
const SAMPLES: usize = 10_000;
