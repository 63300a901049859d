//! What a fake broker answers to clients of groups.

use bytes::BytesMut;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, FindCoordinatorRequest,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::answers::encode;
use super::exchange::{BrokerReply, Request, body, throttle};
use super::faults::{Fault, Trace};
use super::groups::{self, GroupReply};
use super::requests::{
    CONSUMER_GROUP_HEARTBEAT, FIND_COORDINATOR, HEARTBEAT, JOIN_GROUP, LEAVE_GROUP, OFFSET_COMMIT,
    OFFSET_FETCH, SYNC_GROUP,
};
use super::state::ClusterState;

/// Whether an API is about groups.
pub(super) fn is_of_groups(api: i16) -> bool {
    matches!(
        api,
        FIND_COORDINATOR
            | OFFSET_FETCH
            | OFFSET_COMMIT
            | JOIN_GROUP
            | SYNC_GROUP
            | HEARTBEAT
            | LEAVE_GROUP
            | CONSUMER_GROUP_HEARTBEAT
    )
}

/// The answer, or what it waits for.
pub(super) fn answer(
    state: &mut ClusterState,
    broker: i32,
    request: &Request,
    now: Instant,
) -> Option<BrokerReply> {
    let (version, code) = (request.version, refusal(request));
    match request.api {
        JOIN_GROUP => {
            let asked = body::<JoinGroupRequest>(request)?;
            let joining = match code {
                0 => state.join(broker, &asked, version, now),
                code => Err((code, asked.member_id.to_string())),
            };
            match joining {
                Ok(waiter) => Some(BrokerReply::Group(waiter)),
                Err((code, member)) => {
                    let response = JoinGroupResponse::default()
                        .with_error_code(code)
                        .with_generation_id(-1)
                        .with_protocol_name(Some("".into()))
                        .with_member_id(StrBytes::from_string(member));
                    joined(&response, request).map(BrokerReply::Answer)
                }
            }
        }
        SYNC_GROUP => {
            let asked = body::<SyncGroupRequest>(request)?;
            let syncing = match code {
                0 => state.sync(broker, &asked, now),
                code => Err(code),
            };
            match syncing {
                Ok(waiter) => Some(BrokerReply::Group(waiter)),
                Err(code) => {
                    let response = SyncGroupResponse::default().with_error_code(code);
                    synced(response, request).map(BrokerReply::Answer)
                }
            }
        }
        _ => prompt(state, broker, request, now).map(BrokerReply::Answer),
    }
}

/// The bytes for who has waited; `None` closes the connection.
pub(super) fn waited(reply: GroupReply, request: &Request) -> Option<BytesMut> {
    match reply {
        GroupReply::Joined(response) => joined(&response, request),
        GroupReply::Synced(response) => synced(response, request),
        GroupReply::Nothing => None,
    }
}

fn joined(response: &JoinGroupResponse, request: &Request) -> Option<BytesMut> {
    encode(response, request.version, request.correlation)
}

fn synced(mut response: SyncGroupResponse, request: &Request) -> Option<BytesMut> {
    response.throttle_time_ms = pause(request);
    encode(&response, request.version, request.correlation)
}

/// What waits for nobody.
fn prompt(
    state: &mut ClusterState,
    broker: i32,
    request: &Request,
    now: Instant,
) -> Option<BytesMut> {
    let Request { api, version, correlation, .. } = request;
    let (code, pause) = (refusal(request), pause(request));
    match *api {
        FIND_COORDINATOR => {
            let asked = body::<FindCoordinatorRequest>(request)?;
            let mut response = groups::find_coordinator(state, &asked, *version, code);
            response.throttle_time_ms = pause;
            encode(&response, *version, *correlation)
        }
        OFFSET_FETCH => {
            let asked = body::<OffsetFetchRequest>(request)?;
            let mut response = groups::committed(state, broker, &asked, *version, code);
            response.throttle_time_ms = pause;
            encode(&response, *version, *correlation)
        }
        OFFSET_COMMIT => {
            let asked = body::<OffsetCommitRequest>(request)?;
            let mut response = groups::commit(state, broker, &asked, code);
            response.throttle_time_ms = pause;
            if request.fault == Some(Fault::MissingPartition)
                && let Some(last) = response.topics.last_mut()
            {
                last.partitions.pop();
            }
            encode(&response, *version, *correlation)
        }
        HEARTBEAT => {
            let asked = body::<HeartbeatRequest>(request)?;
            let code = if code == 0 { state.heartbeat(broker, &asked, now) } else { code };
            let response = HeartbeatResponse::default().with_error_code(code);
            encode(&response.with_throttle_time_ms(pause), *version, *correlation)
        }
        LEAVE_GROUP => {
            let asked = body::<LeaveGroupRequest>(request)?;
            let response = match code {
                0 => state.leave(broker, &asked, *version, now),
                code => LeaveGroupResponse::default().with_error_code(code),
            };
            encode(&response.with_throttle_time_ms(pause), *version, *correlation)
        }
        CONSUMER_GROUP_HEARTBEAT => {
            let asked = body::<ConsumerGroupHeartbeatRequest>(request)?;
            let response = match code {
                0 => state.consume(broker, &asked, now),
                code => ConsumerGroupHeartbeatResponse::default().with_error_code(code),
            };
            encode(&response.with_throttle_time_ms(pause), *version, *correlation)
        }
        _ => None,
    }
}

fn refusal(request: &Request) -> i16 {
    match request.fault {
        Some(Fault::Refuse { code, trace: Trace::Nothing }) => code,
        _ => 0,
    }
}

fn pause(request: &Request) -> i32 {
    if request.tells_pause() { throttle(request.fault.as_ref()) } else { 0 }
}
