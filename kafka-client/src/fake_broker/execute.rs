//! What a broker does with one request, once all of it has arrived.

use bytes::BytesMut;
use kafka_protocol::messages::{
    ApiVersionsRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use tokio::time::Instant;

use super::answers::{self, encode};
use super::epochs;
use super::exchange::{BrokerReply, Request, body, throttle};
use super::faults::{Fault, Trace};
use super::group_answers;
use super::list_offsets::ListOffsets;
use super::produce::Produce;
use super::requests::{
    API_VERSIONS, FETCH, INIT_PRODUCER_ID, LIST_OFFSETS, METADATA, OFFSET_FOR_LEADER_EPOCH,
    PRODUCE, SASL_AUTHENTICATE, SASL_HANDSHAKE,
};
use super::sasl::SaslState;
use super::state::ClusterState;

const UNSUPPORTED_VERSION: i16 = 35;

/// Executes a request. What does not decode closes the connection, as at a real broker.
pub(super) fn execute(
    state: &mut ClusterState,
    broker: i32,
    request: &Request,
    session: &mut SaslState,
) -> BrokerReply {
    let Request { api, version, correlation, .. } = request;
    let now = Instant::now();
    if !session.admits(state.settings.sasl.as_ref(), *api, now) {
        return BrokerReply::Close;
    }
    if !state.executes(broker, *api, *version) {
        if *api != API_VERSIONS {
            return BrokerReply::Close;
        }
        let response = answers::api_versions(state, broker, UNSUPPORTED_VERSION);
        return encode(&response, 0, *correlation).map_or(BrokerReply::Close, BrokerReply::Answer);
    }
    let reply = match *api {
        PRODUCE => produce(state, broker, request),
        FETCH => body(request).map(|asked| BrokerReply::Fetch(Box::new(asked))),
        SASL_HANDSHAKE | SASL_AUTHENTICATE => {
            authenticate(state, request, session, now).map(BrokerReply::Answer)
        }
        _ if group_answers::is_of_groups(*api) => {
            group_answers::answer(state, broker, request, now)
        }
        _ => answer(state, broker, request).map(BrokerReply::Answer),
    };
    reply.unwrap_or(BrokerReply::Close)
}

fn answer(state: &mut ClusterState, broker: i32, request: &Request) -> Option<BytesMut> {
    let Request { api, version, correlation, fault, .. } = request;
    let code = match fault {
        Some(Fault::Refuse { code, trace: Trace::Nothing }) => *code,
        _ => 0,
    };
    let pause = throttle(fault.as_ref());
    match *api {
        API_VERSIONS => body::<ApiVersionsRequest>(request).and_then(|_| {
            let mut response = answers::api_versions(state, broker, code);
            response.throttle_time_ms = if request.tells_pause() { pause } else { 0 };
            encode(&response, *version, *correlation)
        }),
        METADATA => body::<MetadataRequest>(request).and_then(|asked| {
            let mut response = answers::metadata(state, broker, &asked, *version, code);
            response.throttle_time_ms = if *version >= 3 { pause } else { 0 };
            encode(&response, *version, *correlation)
        }),
        INIT_PRODUCER_ID => body::<InitProducerIdRequest>(request).and_then(|asked| {
            let mut response = answers::init_producer_id(state, &asked, code);
            response.throttle_time_ms = pause;
            encode(&response, *version, *correlation)
        }),
        LIST_OFFSETS => body::<ListOffsetsRequest>(request).and_then(|asked| {
            let offsets = ListOffsets { state, broker, version: *version, code };
            let mut response = offsets.answer(&asked);
            response.throttle_time_ms = if request.tells_pause() { pause } else { 0 };
            if *fault == Some(Fault::MissingPartition)
                && let Some(last) = response.topics.last_mut()
            {
                last.partitions.pop();
            }
            encode(&response, *version, *correlation)
        }),
        OFFSET_FOR_LEADER_EPOCH => body::<OffsetForLeaderEpochRequest>(request).and_then(|asked| {
            let mut response = epochs::answer(state, broker, &asked, code);
            response.throttle_time_ms = pause;
            encode(&response, *version, *correlation)
        }),
        _ => None,
    }
}

fn authenticate(
    state: &ClusterState,
    request: &Request,
    session: &mut SaslState,
    now: Instant,
) -> Option<BytesMut> {
    let sasl = state.settings.sasl.as_ref();
    if request.api == SASL_HANDSHAKE {
        let asked = body::<SaslHandshakeRequest>(request)?;
        let response = session.handshake(sasl, &asked, now);
        return encode(&response, request.version, request.correlation);
    }
    let asked = body::<SaslAuthenticateRequest>(request)?;
    let response = session.authenticate(sasl?, &asked, request.version, now)?;
    encode(&response, request.version, request.correlation)
}

fn produce(state: &mut ClusterState, broker: i32, request: &Request) -> Option<BrokerReply> {
    let asked = body::<ProduceRequest>(request)?;
    let (version, fault) = (request.version, request.fault.as_ref());
    let mut response = Produce { state, broker, version, fault }.execute(&asked);
    response.throttle_time_ms = throttle(fault);
    if asked.acks != 0 {
        return encode(&response, version, request.correlation).map(BrokerReply::Answer);
    }
    // Without an answer, closing is the only way to tell of a refusal.
    let mut answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    let closes = matches!(fault, Some(Fault::CloseAfter | Fault::CutAnswer));
    let refused = answers.any(|answer| answer.error_code != 0);
    Some(if closes || refused { BrokerReply::Close } else { BrokerReply::Nothing })
}

/// What was on the wire is recorded even if nobody executes it.
pub(super) fn drop_batches(state: &mut ClusterState, broker: i32, request: &Request) {
    if request.api == PRODUCE && state.executes(broker, PRODUCE, request.version) {
        let (version, fault) = (request.version, request.fault.as_ref());
        let asked = body::<ProduceRequest>(request).unwrap_or_default();
        Produce { state, broker, version, fault }.execute(&asked);
    }
}
