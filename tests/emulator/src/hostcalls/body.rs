//! Host calls that read buffers.

use crate::abi::{self, buffer, status};
use crate::hostcalls::{Cx, words};
use crate::profile::Profile;
use crate::rule::Rule;
use crate::vm::Stop;
use crate::world::{Stream, World};

/// What a buffer holds, in its pieces, or the status that says why it does not.
type Found = Result<Vec<Vec<u8>>, u32>;

pub(crate) fn get(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [kind, start, max, data, size] = words(arguments);
    let found = find(&mut cx.world(), kind)?;
    let profile = cx.world().profile;
    let pieces = match found {
        Ok(pieces) => pieces,
        Err(refused) => return Ok(refused),
    };
    let whole = pieces.concat();
    let (start, max) = (start as usize, max as usize);
    let range = match profile {
        Profile::Envoy | Profile::EnvoyNoStop => {
            if u32::try_from(start + max).is_err() {
                return Ok(status::BAD_ARGUMENT);
            }
            start.min(whole.len())..(start + max).min(whole.len())
        }
        Profile::Wasmx => {
            if max < whole.len() && pieces.len() > 1 {
                let what = format!("{max} of {} bytes in {} buffers", whole.len(), pieces.len());
                return Err(Stop::Broken(Rule(19), what));
            }
            0..max.min(whole.len())
        }
        Profile::Apisix => {
            if max == 0 || max > i32::MAX as usize || start >= whole.len() {
                return Ok(status::BAD_ARGUMENT);
            }
            start..(start + max).min(whole.len())
        }
    };
    cx.give(&whole[range], data, size)
}

fn find(world: &mut World, kind: u32) -> Result<Found, Stop> {
    let profile = world.profile;
    let frame = world.frame().clone();
    Ok(match kind {
        buffer::PLUGIN_CONFIGURATION if frame.callback == "proxy_on_configure" => {
            let root = world.root_of(frame.vm, frame.context);
            root.map(|root| vec![root.config.clone()]).ok_or(status::NOT_FOUND)
        }
        buffer::VM_CONFIGURATION => Ok(Vec::new()),
        buffer::REQUEST_BODY => return request_body(world),
        buffer::CALLOUT_REPLY => match frame.reply {
            Some((_, false)) => Err(status::BAD_ARGUMENT),
            Some((reply, true)) if reply.body.is_empty() => match profile {
                Profile::Envoy | Profile::EnvoyNoStop => Ok(Vec::new()),
                _ => Err(status::NOT_FOUND),
            },
            Some((reply, true)) => Ok(vec![reply.body]),
            None if profile == Profile::Wasmx => {
                return Err(Stop::Trap("rule 23: a callout's body outside its reply".to_owned()));
            }
            None => Err(status::NOT_FOUND),
        },
        _ => Err(status::NOT_FOUND),
    })
}

fn request_body(world: &mut World) -> Result<Found, Stop> {
    let callback = world.frame().callback;
    let in_body = callback == "proxy_on_request_body";
    let Some(stream) = world.effective_stream() else { return Ok(Err(status::NOT_FOUND)) };
    let limit = world.settings.client_body_buffer_size;
    let pieces = world.streams[&stream].buffered.clone();
    let size: usize = pieces.iter().map(Vec::len).sum();
    Ok(match world.profile {
        Profile::Envoy | Profile::EnvoyNoStop if in_body || size > 0 => Ok(pieces),
        Profile::Wasmx if !in_body => {
            return Err(Stop::Trap(format!("rule 23: the body is read in {callback}")));
        }
        Profile::Wasmx if size + framing(&world.streams[&stream]) > limit => Err(status::NOT_FOUND),
        Profile::Wasmx => Ok(pieces),
        Profile::Apisix if in_body && size > 0 => Ok(pieces),
        _ => Err(status::NOT_FOUND),
    })
}

/// What the chunks of a body take besides its bytes: they count for nginx's buffer.
fn framing(stream: &Stream) -> usize {
    match abi::header(&stream.headers, "transfer-encoding") {
        Some(_) => stream.buffered.iter().map(|piece| format!("{:x}", piece.len()).len() + 4).sum(),
        None => 0,
    }
}
