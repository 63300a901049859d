//! One API call each, all of the same shape: what is asked, and what the answer must look like.

pub(crate) mod api_versions;
pub(crate) mod consumer_group_heartbeat;
pub(crate) mod epoch_ends;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_fetch;
pub(crate) mod produce;
pub(crate) mod sasl_authenticate;
pub(crate) mod sasl_handshake;
pub(crate) mod sync_group;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::error::Malformed;
use crate::frame::{Frame, FrameWriter};
use crate::shape::{self, Dialect, Struct};
use crate::versions::{API_VERSIONS, Api};

/// A request, and the answer it gets.
pub(crate) trait Call: Send + Sync + 'static {
    /// The checked answer, in our own types.
    type Answer: Send + 'static;
    /// Which API, in which versions.
    const API: &'static Api;

    /// Writes the request as `version` has it. Fails only on values that no version can carry.
    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String>;

    /// Reads the body of the answer to this request, sent as `version` has it, and for how long the
    /// broker asks us to pause. An answer is not always complete without its request: Fetch from
    /// version 13 on names topics by their id alone (KIP-516).
    fn take(&self, version: i16, body: Bytes) -> Result<(Self::Answer, Duration), String>;
}

/// Who speaks to the coordinator of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Empty without a membership.
    pub(crate) member: Arc<str>,
    /// Or the member epoch (KIP-848); −1 without a membership.
    pub(crate) generation: i32,
    /// Of a static member (KIP-345).
    pub(crate) instance: Option<Arc<str>>,
}

impl Default for Identity {
    /// Without a membership.
    fn default() -> Self {
        Self { member: "".into(), generation: -1, instance: None }
    }
}

/// Partitions by their topics, as requests have them. Topics stand in the order in which their first
/// partitions come: a broker fills an answer in that order.
pub(crate) fn by_topic<K: Ord + Copy, P>(
    partitions: impl Iterator<Item = (K, P)>,
) -> Vec<(K, Vec<P>)> {
    let (mut places, mut topics) = (BTreeMap::new(), Vec::<(K, Vec<P>)>::new());
    for (topic, partition) in partitions {
        let place = *places.entry(topic).or_insert(topics.len());
        match topics.get_mut(place) {
            Some((_, of_topic)) => of_topic.push(partition),
            None => topics.push((topic, vec![partition])),
        }
    }
    topics
}

/// Writes a whole request: length, header, body.
pub(crate) fn encode<C: Call>(
    call: &C,
    version: i16,
    correlation: i32,
    client_id: &str,
) -> Result<Frame, String> {
    let header = RequestHeader::default()
        .with_request_api_key(C::API.key)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
    let header_version = if C::API.is_flexible(version) { 2 } else { 1 };
    let mut frame = FrameWriter::default();
    header.encode(frame.tail(), header_version).map_err(|error| error.to_string())?;
    call.put(version, &mut frame)?;
    frame.finish().map_err(|error| error.to_string())
}

/// Reads the whole answer to a request, whose correlation id was checked.
pub(crate) fn decode<C: Call>(
    call: &C,
    version: i16,
    frame: Bytes,
) -> Result<(C::Answer, Duration), Malformed> {
    let malformed = |what| Malformed { api: C::API.name, version, what };
    let mut body = frame;
    body.advance(CORRELATION_BYTES.min(body.len()));
    // The header of ApiVersions stays at version 0, so that a client can read it before it knows
    // the broker's versions.
    if C::API.is_flexible(version) && C::API != &API_VERSIONS {
        let rest =
            shape::skip_tagged_fields(&body).map_err(|error| malformed(error.to_string()))?;
        body = body.slice_ref(rest);
    }
    call.take(version, body).map_err(malformed)
}

/// Checks a body against its table, then decodes it.
fn take_message<M: Decodable>(
    api: &Api,
    version: i16,
    body: &mut Bytes,
    table: &Struct,
) -> Result<M, String> {
    let dialect = Dialect { version, flexible: api.is_flexible(version) };
    shape::check(body, table, dialect).map_err(|error| error.to_string())?;
    let message = M::decode(body, version).map_err(|error| error.to_string())?;
    // The table and the message would be out of step, and the check of the counts worth nothing.
    if body.has_remaining() { Err(format!("{} bytes left over", body.len())) } else { Ok(message) }
}

fn pause(throttle_time_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(throttle_time_ms).unwrap_or(0))
}

/// Bytes of the correlation id in front of every answer.
pub(crate) const CORRELATION_BYTES: usize = 4;

/// A broker's answer to the request of correlation id 1, for tests of a call.
#[cfg(test)]
fn answered(api: &Api, version: i16, response: &impl Encodable) -> Bytes {
    let mut bytes = bytes::BytesMut::from(&[0, 0, 0, 1][..]);
    if api.is_flexible(version) && api != &API_VERSIONS {
        bytes.extend_from_slice(&[0]);
    }
    response.encode(&mut bytes, version).unwrap();
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::api_versions::AskVersions;
    use super::consumer_group_heartbeat::ConsumerGroupHeartbeat;
    use super::epoch_ends::AskEpochEnds;
    use super::fetch::{Fetch, FetchByName};
    use super::find_coordinator::FindCoordinator;
    use super::heartbeat::Heartbeat;
    use super::init_producer_id::AskProducerId;
    use super::join_group::JoinGroup;
    use super::leave_group::LeaveGroup;
    use super::list_offsets::ListOffsets;
    use super::metadata::AskMetadata;
    use super::offset_commit::CommitOffsets;
    use super::offset_fetch::FetchOffsets;
    use super::produce::Append;
    use super::sasl_authenticate::Prove;
    use super::sasl_handshake::ChooseMechanism;
    use super::sync_group::SyncGroup;
    use super::*;

    fn survives<C: Call>(call: &C, bytes: &Bytes) {
        for version in C::API.least..=C::API.most {
            let _answer = decode(call, version, bytes.clone());
        }
    }

    fn all_survive(bytes: &Bytes) {
        survives(&AskVersions, bytes);
        survives(&AskMetadata::default(), bytes);
        survives(&Append::default(), bytes);
        survives(&AskProducerId, bytes);
        survives(&Fetch::default(), bytes);
        survives(&FetchByName(Fetch::default()), bytes);
        survives(&ListOffsets::default(), bytes);
        survives(&AskEpochEnds::default(), bytes);
        survives(&FindCoordinator::default(), bytes);
        survives(&FetchOffsets::default(), bytes);
        survives(&CommitOffsets::default(), bytes);
        survives(&JoinGroup::default(), bytes);
        survives(&SyncGroup::default(), bytes);
        survives(&Heartbeat::default(), bytes);
        survives(&LeaveGroup::default(), bytes);
        survives(&ConsumerGroupHeartbeat::default(), bytes);
        survives(&ChooseMechanism("PLAIN"), bytes);
        survives(&Prove(Bytes::new()), bytes);
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            all_survive(&bytes);
        }

        /// Mostly zeros: deep into the arrays, where counts are found.
        #[test]
        fn sparse_answers_never_panic(
            marks in vec((0usize..120, any::<u8>()), 0..12), len in 0usize..120,
        ) {
            let mut bytes = vec![0; len];
            for (at, byte) in marks {
                bytes.get_mut(at).into_iter().for_each(|place| *place = byte);
            }
            let bytes = Bytes::from(bytes);
            all_survive(&bytes);
        }
    }
}
