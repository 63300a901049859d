//! Host calls that steer: logs, the effective context, replies, time and ticks.

use crate::abi::{self, status};
use crate::client::Reply;
use crate::envoy::grpc;
use crate::hostcalls::{Cx, words};
use crate::profile::Profile;
use crate::rule::Rule;
use crate::vm::Stop;
use crate::wasi::EPOCH_MS;
use crate::world::Log;

pub(crate) fn unimplemented(_: &mut Cx<'_>, _: &[u64]) -> Result<u32, Stop> {
    Ok(status::UNIMPLEMENTED)
}

pub(crate) fn log(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [level, at, size] = words(arguments);
    let text = cx.read_text(at, size)?;
    let mut world = cx.world();
    world.note(format!("  log {level}: {text}"));
    world.logs.push(Log { level, text });
    Ok(status::OK)
}

pub(crate) fn log_level(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [at] = words(arguments);
    cx.write_number(at, 2)?;
    Ok(status::OK)
}

pub(crate) fn done(cx: &mut Cx<'_>, _: &[u64]) -> Result<u32, Stop> {
    cx.world().frame().done = true;
    Ok(status::OK)
}

pub(crate) fn time(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [at] = words(arguments);
    let now_ms = cx.world().now_ms;
    if cx.world().profile == Profile::Apisix {
        return Ok(status::UNIMPLEMENTED);
    }
    cx.write(at, &((EPOCH_MS + now_ms) * 1_000_000).to_le_bytes())?;
    Ok(status::OK)
}

pub(crate) fn set_tick_period(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [period] = words(arguments);
    let mut world = cx.world();
    let profile = world.profile;
    if profile == Profile::Apisix {
        return Ok(status::UNIMPLEMENTED);
    }
    let (vm, context, now_ms) = (world.frame().vm, world.frame().effective, world.now_ms);
    let Some(root) = world.root_of(vm, context) else { return Ok(status::BAD_ARGUMENT) };
    if profile == Profile::Wasmx && root.tick_set && period > 0 {
        return Err(Stop::Trap("rule 23: the tick period is already set".to_owned()));
    }
    (root.tick_set, root.last_tick) = (period > 0, false);
    let period = u64::from(period);
    root.tick = (period > 0).then_some((period, now_ms + period));
    Ok(status::OK)
}

pub(crate) fn set_effective_context(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [context] = words(arguments);
    let mut world = cx.world();
    if !world.profile.is_envoy() {
        return Ok(status::OK);
    }
    let vm = world.frame().vm;
    if world.stream_of(vm, context).is_none() && !world.is_root(vm, context) {
        world.frame().strayed = true;
        return Ok(status::BAD_ARGUMENT);
    }
    let frame = world.frame();
    frame.effective = context;
    frame.strayed = false;
    Ok(status::OK)
}

pub(crate) fn continue_stream(cx: &mut Cx<'_>, _: &[u64]) -> Result<u32, Stop> {
    let context = acts_on(cx, "a resume")?;
    cx.world().frame().resumed.push(context);
    Ok(status::OK)
}

pub(crate) fn send_local_response(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [code, _, _, body, body_size, headers, headers_size, grpc_status] = words(arguments);
    let body = cx.read(body, body_size)?;
    let headers = cx.read(headers, headers_size)?;
    let Some(headers) = abi::decode(&headers) else { return Ok(status::BAD_ARGUMENT) };
    let context = acts_on(cx, "a reply")?;
    let mut world = cx.world();
    let again = world.frame().answers.iter().any(|(answered, _)| *answered == context);
    if world.profile == Profile::Wasmx && again {
        return Err(Stop::Trap("rule 23: a second local reply".to_owned()));
    }
    let phases = ["proxy_on_request_headers", "proxy_on_request_body"];
    let callback = world.frame().callback;
    if world.profile == Profile::Apisix
        && !phases.contains(&callback)
        && callback != "proxy_on_http_call_response"
    {
        return Ok(status::BAD_ARGUMENT);
    }
    let mut reply = Reply { status: code, headers, body };
    if let (true, Some(stream)) = (world.profile.is_envoy(), world.effective_stream()) {
        reply = grpc::local_reply(&world.streams[&stream].request, reply, Some(grpc_status));
    }
    world.frame().answers.push((context, reply));
    Ok(status::OK)
}

/// The context whose stream a reply or a resume is for.
fn acts_on(cx: &mut Cx<'_>, what: &str) -> Result<u32, Stop> {
    let mut world = cx.world();
    let profile = world.profile;
    let stream = world.effective_stream();
    let frame = world.frame().clone();
    let context = frame.effective;
    if profile.is_envoy() {
        if frame.strayed {
            let what = format!("{what} for a dead context goes to context {context}");
            return Err(Stop::Broken(Rule(12), what));
        }
        if stream.is_none() {
            let what = format!("{what} for context {context}, which is no live stream");
            return Err(Stop::Broken(Rule(12), what));
        }
    }
    if profile == Profile::Wasmx && stream.is_none() {
        return Err(Stop::Broken(Rule(22), format!("{what} from a root")));
    }
    Ok(context)
}
