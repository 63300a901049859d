//! Host calls on header maps.

use crate::abi::{self, Pair, map, status};
use crate::hostcalls::{Cx, words};
use crate::profile::Profile;
use crate::rule::Rule;
use crate::vm::Stop;
use crate::world::World;

pub(crate) fn pairs(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [kind, data, size] = words(arguments);
    let found = find(&mut cx.world(), kind);
    match found {
        Err(refused) => Ok(refused),
        Ok(pairs) => {
            let mut world = cx.world();
            check_host(&mut world, kind, None)?;
            if world.profile == Profile::Wasmx && pairs.len() >= WASMX_PAIRS {
                let what = format!("a map of {} pairs is read", pairs.len());
                return Err(Stop::Broken(Rule(28), what));
            }
            let encoded = match world.settings.broken_map.take() {
                Some(cut) => abi::encode(&pairs)[..cut].to_vec(),
                None => abi::encode(&pairs),
            };
            drop(world);
            cx.give(&encoded, data, size)
        }
    }
}

pub(crate) fn size(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [kind, at] = words(arguments);
    let found = find(&mut cx.world(), kind);
    match found {
        Err(refused) => Ok(refused),
        Ok(pairs) => {
            cx.write_number(at, u32::try_from(abi::encode(&pairs).len()).unwrap())?;
            Ok(status::OK)
        }
    }
}

pub(crate) fn value(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [kind, name, name_size, data, size] = words(arguments);
    let name = cx.read_text(name, name_size)?;
    let found = find(&mut cx.world(), kind);
    let pairs = match found {
        Ok(pairs) => pairs,
        Err(refused) => return Ok(refused),
    };
    check_host(&mut cx.world(), kind, Some(&name))?;
    match abi::header(&pairs, &name) {
        Some(value) => cx.give(value, data, size),
        None => Ok(status::NOT_FOUND),
    }
}

pub(crate) fn add(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [kind, name, name_size, value, value_size] = words(arguments);
    let pair = (cx.read(name, name_size)?, cx.read(value, value_size)?);
    Ok(change(cx, kind, |headers| headers.push(pair)))
}

pub(crate) fn replace(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [kind, name, name_size, value, value_size] = words(arguments);
    let pair = (cx.read(name, name_size)?, cx.read(value, value_size)?);
    Ok(change(cx, kind, |headers| {
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&pair.0));
        headers.push(pair);
    }))
}

pub(crate) fn remove(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [kind, name, name_size] = words(arguments);
    let gone = cx.read(name, name_size)?;
    Ok(change(cx, kind, |headers| headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&gone))))
}

fn change(cx: &mut Cx<'_>, kind: u32, change: impl FnOnce(&mut Vec<Pair>)) -> u32 {
    let mut world = cx.world();
    match (kind, world.effective_stream()) {
        (map::REQUEST, Some(stream)) => {
            change(&mut world.streams.get_mut(&stream).unwrap().headers);
            status::OK
        }
        _ => status::BAD_ARGUMENT,
    }
}

fn find(world: &mut World, kind: u32) -> Result<Vec<Pair>, u32> {
    let stream = world.effective_stream();
    match (kind, stream) {
        (map::REQUEST, Some(stream)) => Ok(world.streams[&stream].headers.clone()),
        (map::REQUEST_TRAILERS, Some(stream)) => {
            Ok(world.streams[&stream].request.trailers.clone())
        }
        (map::RESPONSE, Some(stream)) if world.profile.is_envoy() => {
            Ok(world.streams[&stream].response.clone())
        }
        (map::CALLOUT_REPLY, _) => {
            let reply = world.frame().reply.clone();
            reply.map(|(reply, _)| reply.headers).ok_or(status::BAD_ARGUMENT)
        }
        _ => Err(status::BAD_ARGUMENT),
    }
}

/// APISIX looks for the Host header where it makes `:authority`, and does not check that it is
/// there.
fn check_host(world: &mut World, kind: u32, name: Option<&str>) -> Result<(), Stop> {
    let Some(stream) = world.effective_stream() else { return Ok(()) };
    let headers = &world.streams[&stream].request.headers;
    let touches = kind == map::REQUEST && name.is_none_or(|name| name == ":authority");
    if world.profile == Profile::Apisix && touches && abi::header(headers, "host").is_none() {
        return Err(Stop::Broken(Rule(41), format!("{name:?} of a request without Host")));
    }
    Ok(())
}

/// Pairs of a map with which WasmX writes past its end.
const WASMX_PAIRS: usize = 100;
