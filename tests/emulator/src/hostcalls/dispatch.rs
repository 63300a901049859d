//! The host call that dispatches a callout.

use std::net::SocketAddr;

use crate::abi::{self, Pair, status};
use crate::callout::Callout;
use crate::hostcalls::{Cx, words};
use crate::profile::Profile;
use crate::rule::Rule;
use crate::vm::Stop;
use crate::world::{Open, World};

pub(crate) fn http_call(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [to, to_size, pairs, pairs_size, body, body_size, _, _, timeout, at] = words(arguments);
    let target = cx.read_text(to, to_size)?;
    let pairs = cx.read(pairs, pairs_size)?;
    let body = cx.read(body, body_size)?;
    let Some(headers) = abi::decode(&pairs) else { return Ok(status::BAD_ARGUMENT) };
    let mut world = cx.world();
    let checked = match world.profile {
        Profile::Envoy | Profile::EnvoyNoStop => envoy(&world, &target, &headers),
        Profile::Wasmx => wasmx(&mut world, &target, &headers, &body)?,
        Profile::Apisix => apisix(&mut world, &target),
    };
    if checked != status::OK {
        return Ok(checked);
    }
    let token = open(&mut world, target, headers, body, timeout);
    drop(world);
    cx.write_number(at, token)?;
    Ok(status::OK)
}

fn open(
    world: &mut World,
    target: String,
    mut headers: Vec<Pair>,
    body: Vec<u8>,
    timeout_ms: u32,
) -> u32 {
    let (vm, context) = (world.frame().vm, world.frame().effective);
    let stream = world.effective_stream();
    let token = world.vms[vm].next_token;
    world.vms[vm].next_token += 1;
    let id = world.next_callout;
    world.next_callout += 1;
    if world.profile == Profile::Apisix {
        stale_pseudo(world, &mut headers);
    }
    if let (Profile::Wasmx, Some(stream)) = (world.profile, stream) {
        let connection = world.streams[&stream].request.connection.ok_or(stream);
        *world.callout_memory.entry(connection).or_default() += body.len() + CALLOUT_BYTES;
    }
    let at_ms = world.now_ms;
    let callout = Callout { id, vm, context, token, target, headers, body, timeout_ms, at_ms };
    world.note(format!("  callout {id} {} {}", callout.path(), callout.target));
    world.callouts.insert(id, Open { callout, stream, plan: None });
    world.frame().dispatched.push(id);
    token
}

fn envoy(world: &World, target: &str, headers: &[Pair]) -> u32 {
    let has = |name| abi::header(headers, name).is_some();
    let listed = |clusters: &[String]| clusters.iter().any(|cluster| cluster == target);
    if listed(&world.settings.empty_clusters) {
        status::INTERNAL_FAILURE
    } else if listed(&world.settings.clusters)
        && [":method", ":path", ":authority"].into_iter().all(has)
    {
        status::OK
    } else {
        status::BAD_ARGUMENT
    }
}

fn wasmx(world: &mut World, target: &str, headers: &[Pair], body: &[u8]) -> Result<u32, Stop> {
    let trap = |why: &str| Err(Stop::Trap(format!("rule 23: {why}")));
    let callback = world.frame().callback;
    let stream = world.effective_stream();
    if matches!(callback, "proxy_on_log" | "proxy_on_done" | "proxy_on_configure") {
        return trap(&format!("a callout in {callback}"));
    }
    if stream.is_none() && callback != "proxy_on_tick" {
        return trap("a callout from a root outside its tick");
    }
    let is_address = target.starts_with("unix:/")
        || target.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0)
        || target.rsplit_once(':').is_some_and(|(name, port)| {
            !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
    if !is_address {
        return trap(&format!("the callout's target {target:?} is bad"));
    }
    if let Some(missing) =
        [":method", ":path", ":authority"].iter().find(|name| abi::header(headers, name).is_none())
    {
        return trap(&format!("the callout has no {missing}"));
    }
    let after_bodiless = stream.is_some_and(|stream| world.streams[&stream].bodiless_reply);
    if callback == "proxy_on_http_call_response" && after_bodiless && !body.is_empty() {
        return Err(Stop::Broken(Rule(27), "a body after a reply without one".to_owned()));
    }
    Ok(status::OK)
}

fn apisix(world: &mut World, target: &str) -> u32 {
    let callback = world.frame().callback;
    let request_phases =
        ["proxy_on_request_headers", "proxy_on_request_body", "proxy_on_http_call_response"];
    let Some(stream) = world.effective_stream() else { return status::BAD_ARGUMENT };
    if !request_phases.contains(&callback) || target.contains('/') && !target.starts_with("unix:") {
        return status::BAD_ARGUMENT;
    }
    match world.callouts.values().any(|open| open.stream == Some(stream)) {
        true => status::INTERNAL_FAILURE,
        false => status::OK,
    }
}

/// What a callout lacks of these, the previous one gives.
fn stale_pseudo(world: &mut World, headers: &mut Vec<Pair>) {
    for name in [":method", ":scheme", ":path"] {
        match abi::header(headers, name) {
            Some(value) => {
                world.last_pseudo.insert(name.to_owned(), value.to_vec());
            }
            None => {
                if let Some(value) = world.last_pseudo.get(name) {
                    headers.insert(0, (name.as_bytes().to_vec(), value.clone()));
                }
            }
        }
    }
}

/// What a callout of WasmX holds besides its body.
const CALLOUT_BYTES: usize = 4096;
