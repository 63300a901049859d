//! APISIX's pubsub protocol over a WebSocket: commands in, replies in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::messages::{Command, ErrorResp, PubSubReq, PubSubResp, Reply};
use super::connections::Connection;
use super::feeds::Entrypoint;
use super::memory::Held;
use super::reader::FeedReader;
use crate::websocket::{self, Gone, Kind, Received, Socket};

mod commands;
mod messages;

/// Serves a connection until its client leaves, the process is to end, or what the client may do
/// expires.
pub(crate) async fn serve(
    mut socket: Socket,
    reader: Arc<FeedReader>,
    connection: Connection,
    expires_in: Option<Duration>,
    shutdown: CancellationToken,
) {
    let mut expiry = std::pin::pin!(async {
        match expires_in {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    });
    let mut running = FuturesOrdered::new();
    let mut queued: VecDeque<(PubSubReq, Held)> = VecDeque::new();
    // Of requests that have not been replied to.
    let mut bytes = 0;
    loop {
        while running.len() < RUNNING_MAX
            && let Some((request, held)) = queued.pop_front()
        {
            // Apart: whoever reads slowly must not keep the hub's places meanwhile.
            let replying = tokio::spawn(reply(Arc::clone(&reader), request));
            let replying = AbortOnDropHandle::new(replying);
            running.push_back(async move { (replying.await, held) });
        }
        tokio::select! {
            Some((replied, held)) = running.next() => {
                bytes -= held.bytes();
                let sent = match replied {
                    Ok(reply) => socket.send(&[reply]).await,
                    Err(_) => Ok(()),
                };
                if let Err(gone) = sent {
                    let slow = &connection.metrics.by(Entrypoint::Pubsub).slow_closes;
                    slow.inc_by(u64::from(gone == Gone::Slow));
                    return;
                }
            }
            received = socket.receive(), if queued.len() < QUEUED_MAX && bytes < REQUEST_BYTES_MAX
            => match received {
                None => return,
                Some(Received::Binary(frame)) => {
                    let held = reader.hub.resources.answers.hold(frame.len());
                    if let Some(request) = request(frame) {
                        bytes += held.bytes();
                        queued.push_back((request, held));
                    }
                }
                // As in APISIX, without a reply.
                Some(Received::Text(_)) => {}
            },
            () = shutdown.cancelled() => return socket.close(1012, "shutdown").await,
            () = &mut expiry => return socket.close(4401, "auth_expired").await,
        }
    }
}

/// The request of a frame; none where it has no command that is known. What cannot be decoded is a
/// request of its own.
fn request(frame: Bytes) -> Option<PubSubReq> {
    match PubSubReq::decode(frame) {
        Ok(request) => request.req.is_some().then_some(request),
        Err(_) => Some(PubSubReq { sequence: 0, req: None }),
    }
}

async fn reply(reader: Arc<FeedReader>, request: PubSubReq) -> Bytes {
    let mut room = None;
    let resp = match request.req {
        None => error("wrong command".to_owned()),
        Some(Command::Empty(_)) => error("unknown command".to_owned()),
        Some(Command::Ping(ping)) => Reply::Pong(ping),
        Some(Command::Fetch(command)) => {
            let (topic, partition) = (command.topic.clone(), command.partition);
            match commands::fetch(&reader, command).await {
                Ok((records, held)) => {
                    room = Some(held);
                    Reply::Fetch(records)
                }
                Err(why) => failed("fetch message", &topic, partition, &why),
            }
        }
        Some(Command::ListOffset(command)) => {
            let (topic, partition) = (command.topic.clone(), command.partition);
            commands::list_offset(&reader, command).await.map_or_else(
                |why| failed("list offset", &topic, partition, &why),
                Reply::ListOffset,
            )
        }
    };
    let reply = PubSubResp { sequence: request.sequence, resp: Some(resp) };
    let mut frame = Vec::with_capacity(HEAD_BYTES + reply.encoded_len());
    websocket::write_head(&mut frame, Kind::Binary, reply.encoded_len());
    let _infallible = reply.encode(&mut frame);
    // It counts until it is sent.
    let room = room.unwrap_or_else(|| reader.hub.resources.answers.hold(frame.len()));
    room.keep(frame)
}

fn failed(what: &str, topic: &str, partition: i32, why: &str) -> Reply {
    error(format!("failed to {what}, topic: {topic}, partition: {partition}, err: {why}"))
}

fn error(message: String) -> Reply {
    Reply::Error(ErrorResp { code: 0, message })
}

/// Bytes of a request: its topic's name and a few numbers, or the state of a ping. It is APISIX's
/// own bound.
pub(crate) const REQUEST_BYTES_MAX: usize = 65_535;
/// Commands of a connection that run at a time, and that wait before its socket is not read; it is
/// not read, either, while they have more bytes together than one may have.
const RUNNING_MAX: usize = 8;
const QUEUED_MAX: usize = 64;
/// Bytes before a reply at most.
const HEAD_BYTES: usize = 10;

#[cfg(test)]
mod tests;
