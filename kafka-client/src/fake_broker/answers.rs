//! What a fake broker answers to the APIs without a file of their own.

use bytes::BytesMut;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest,
    MetadataResponse, ProducerId, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use tokio::time::Instant;
use uuid::Uuid;

use super::state::{ClusterState, FakeTopic};

/// Header and body of an answer, without its length. `None` if this version cannot carry it.
pub(super) fn encode<R: Encodable + HeaderVersion>(
    response: &R,
    version: i16,
    correlation: i32,
) -> Option<BytesMut> {
    let mut bytes = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(correlation);
    header.encode(&mut bytes, R::header_version(version)).ok()?;
    response.encode(&mut bytes, version).ok()?;
    Some(bytes)
}

/// The versions of a broker, with an error code.
pub(super) fn api_versions(state: &ClusterState, broker: i32, code: i16) -> ApiVersionsResponse {
    let versions = state.brokers.get(&broker).map(|broker| &broker.versions);
    let key = |(api, (least, most)): (&i16, &(i16, i16))| {
        ApiVersion::default().with_api_key(*api).with_min_version(*least).with_max_version(*most)
    };
    let keys = versions.into_iter().flatten().map(key).collect();
    ApiVersionsResponse::default().with_error_code(code).with_api_keys(keys)
}

/// What a broker believes about the cluster; a `code` hits the whole answer from version 13 on,
/// and each topic before.
pub(super) fn metadata(
    state: &ClusterState,
    broker: i32,
    request: &MetadataRequest,
    version: i16,
    code: i16,
) -> MetadataResponse {
    let brokers = state.brokers.iter().filter(|(_, broker)| broker.is_up()).map(|(id, broker)| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(*id))
            .with_host(StrBytes::from_string(broker.host.clone()))
            .with_port(broker.port.into())
    });
    let topics = wanted(state, request, version).into_iter().map(|name| {
        let found = state.topics.get(name.as_str()).filter(|_| code == 0);
        topic(broker, version, name, found, if code == 0 { UNKNOWN_TOPIC } else { code })
    });
    let response = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from_string(state.cluster_id.clone())))
        .with_topics(topics.collect());
    // Tools for administrators ask until there is one; what they ask of it then is refused.
    let controller = state.brokers.iter().find(|(_, broker)| broker.is_up()).map_or(-1, |it| *it.0);
    let response =
        if version >= 1 { response.with_controller_id(BrokerId(controller)) } else { response };
    if version >= 13 { response.with_error_code(code) } else { response }
}

/// The topics that are asked for: all of them if there is no list, or in version 0 an empty one.
fn wanted(state: &ClusterState, request: &MetadataRequest, version: i16) -> Vec<TopicName> {
    match &request.topics {
        Some(topics) if version > 0 || !topics.is_empty() => {
            topics.iter().filter_map(|topic| topic.name.clone()).collect()
        }
        _ => {
            let name = |name: &String| TopicName(StrBytes::from_string(name.clone()));
            state.topics.keys().map(name).collect()
        }
    }
}

const UNKNOWN_TOPIC: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;

fn topic(
    broker: i32,
    version: i16,
    name: TopicName,
    found: Option<&FakeTopic>,
    otherwise: i16,
) -> MetadataResponseTopic {
    let answer = MetadataResponseTopic::default().with_name(Some(name));
    let Some(found) = found else { return answer.with_error_code(otherwise) };
    let now = Instant::now();
    let partitions = found.partitions.iter().zip(0..).map(|(partition, index)| {
        let leader = partition.leadership.heard_by(broker, now);
        MetadataResponsePartition::default()
            .with_error_code(if leader.id.is_some() { 0 } else { LEADER_NOT_AVAILABLE })
            .with_partition_index(index)
            .with_leader_id(BrokerId(leader.id.unwrap_or(-1)))
            .with_replica_nodes(leader.id.map(BrokerId).into_iter().collect())
            .with_isr_nodes(leader.id.map(BrokerId).into_iter().collect())
            .with_leader_epoch(if version >= 7 { leader.epoch } else { -1 })
    });
    let answer = answer.with_partitions(partitions.collect());
    let id = Uuid::from_u128(found.id);
    if version >= 10 { answer.with_topic_id(id) } else { answer }
}

/// A new producer id with epoch 0, as brokers give without a transactional id.
pub(super) fn init_producer_id(
    state: &mut ClusterState,
    request: &InitProducerIdRequest,
    code: i16,
) -> InitProducerIdResponse {
    let code = if request.transactional_id.is_some() { INVALID_REQUEST } else { code };
    if code != 0 {
        return InitProducerIdResponse::default().with_error_code(code);
    }
    state.next_producer_id += 1;
    InitProducerIdResponse::default()
        .with_producer_id(ProducerId(state.next_producer_id))
        .with_producer_epoch(0)
}

/// Transactions are not served.
const INVALID_REQUEST: i16 = 42;
