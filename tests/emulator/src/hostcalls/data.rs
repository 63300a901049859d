//! Host calls on shared data and shared queues.

use std::collections::VecDeque;

use crate::abi::status;
use crate::hostcalls::{Cx, words};
use crate::profile::Profile;
use crate::vm::Stop;
use crate::world::{Posted, Queue};

pub(crate) fn get(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [key, key_size, data, size, cas] = words(arguments);
    let key = cx.read(key, key_size)?;
    if let Some(refused) = no_data(cx)? {
        return Ok(refused);
    }
    let found = cx.world().shared_data.get(&key).cloned();
    let Some(value) = found else { return Ok(status::NOT_FOUND) };
    cx.write_number(cas, 1)?;
    cx.give(&value, data, size)
}

pub(crate) fn set(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [key, key_size, value, value_size, _cas] = words(arguments);
    let (key, value) = (cx.read(key, key_size)?, cx.read(value, value_size)?);
    if let Some(refused) = no_data(cx)? {
        return Ok(refused);
    }
    cx.world().shared_data.insert(key, value);
    Ok(status::OK)
}

pub(crate) fn register_queue(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [name, size, at] = words(arguments);
    let name = cx.read(name, size)?;
    if let Some(refused) = no_queues(cx)? {
        return Ok(refused);
    }
    let mut world = cx.world();
    let (vm, effective) = (world.frame().vm, world.frame().effective);
    let Some(root) = world.root_of(vm, effective) else { return Ok(status::BAD_ARGUMENT) };
    let owner = (vm, root.context);
    let known = world.queues.iter().position(|queue| queue.name == name);
    let index = known.unwrap_or(world.queues.len());
    match known {
        Some(index) => world.queues[index].owner = owner,
        None => world.queues.push(Queue { name, items: VecDeque::new(), owner }),
    }
    drop(world);
    cx.write_number(at, u32::try_from(index).unwrap() + 1)?;
    Ok(status::OK)
}

pub(crate) fn resolve_queue(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [_vm_id, _vm_id_size, name, size, at] = words(arguments);
    let name = cx.read(name, size)?;
    if let Some(refused) = no_queues(cx)? {
        return Ok(refused);
    }
    let known = cx.world().queues.iter().position(|queue| queue.name == name);
    let Some(index) = known else { return Ok(status::NOT_FOUND) };
    cx.write_number(at, u32::try_from(index).unwrap() + 1)?;
    Ok(status::OK)
}

pub(crate) fn enqueue(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [queue, data, size] = words(arguments);
    let item = cx.read(data, size)?;
    if let Some(refused) = no_queues(cx)? {
        return Ok(refused);
    }
    let mut world = cx.world();
    let Some(found) = world.queues.get_mut((queue as usize).wrapping_sub(1)) else {
        return Ok(status::NOT_FOUND);
    };
    found.items.push_back(item);
    world.posted.push_back(Posted::Wake { queue });
    Ok(status::OK)
}

pub(crate) fn dequeue(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [queue, data, size] = words(arguments);
    if let Some(refused) = no_queues(cx)? {
        return Ok(refused);
    }
    let mut world = cx.world();
    let Some(found) = world.queues.get_mut((queue as usize).wrapping_sub(1)) else {
        return Ok(status::NOT_FOUND);
    };
    let Some(item) = found.items.pop_front() else { return Ok(status::EMPTY) };
    drop(world);
    cx.give(&item, data, size)
}

fn no_data(cx: &Cx<'_>) -> Result<Option<u32>, Stop> {
    let world = cx.world();
    match world.profile {
        Profile::Wasmx if !world.settings.shared_zone => {
            Err(Stop::Trap("rule 23: shared data without a zone".to_owned()))
        }
        Profile::Apisix => Ok(Some(status::UNIMPLEMENTED)),
        _ => Ok(None),
    }
}

fn no_queues(cx: &Cx<'_>) -> Result<Option<u32>, Stop> {
    match cx.world().profile {
        Profile::Wasmx => Err(Stop::Trap("rule 23: there are no shared queues".to_owned())),
        Profile::Apisix => Ok(Some(status::UNIMPLEMENTED)),
        _ => Ok(None),
    }
}
