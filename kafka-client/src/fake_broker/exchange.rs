//! One request to a fake broker, and what it comes to.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::FetchRequest;

use super::faults::Fault;
use super::groups::GroupWaiter;
use super::requests::{
    self, API_VERSIONS, Asked, FIND_COORDINATOR, HEARTBEAT, LEAVE_GROUP, LIST_OFFSETS,
    OFFSET_COMMIT, OFFSET_FETCH, SYNC_GROUP,
};

/// One request, and what is to go wrong with it.
pub(super) struct Request {
    pub(super) api: i16,
    pub(super) version: i16,
    pub(super) correlation: i32,
    pub(super) frame: Bytes,
    pub(super) fault: Option<Fault>,
}

/// What follows from a request.
pub(super) enum BrokerReply {
    Answer(BytesMut),
    /// A Fetch, which may have to wait.
    Fetch(Box<FetchRequest>),
    /// A member of a group, which waits for others.
    Group(GroupWaiter),
    /// acks 0.
    Nothing,
    Close,
}

impl Request {
    /// Whether the answer has a place for `throttle_time_ms`.
    pub(super) fn tells_pause(&self) -> bool {
        match self.api {
            API_VERSIONS => self.version >= 1,
            FIND_COORDINATOR | HEARTBEAT | LEAVE_GROUP | SYNC_GROUP => self.version >= 1,
            LIST_OFFSETS => self.version >= 2,
            OFFSET_COMMIT | OFFSET_FETCH => self.version >= 3,
            _ => true,
        }
    }
}

pub(super) fn body<R: Asked>(request: &Request) -> Option<R> {
    requests::body(&request.frame, request.version)
}

pub(super) fn throttle(fault: Option<&Fault>) -> i32 {
    let pause = match fault {
        Some(Fault::Throttle(pause)) => *pause,
        _ => Duration::ZERO,
    };
    i32::try_from(pause.as_millis()).unwrap_or(i32::MAX)
}
