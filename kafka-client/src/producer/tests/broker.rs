//! A small scripted cluster on loopback sockets, for the producer's tests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, InitProducerIdResponse, MetadataRequest, MetadataResponse,
    ProduceRequest, ProduceResponse, ProducerId, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::rules::Rules;
use crate::lock::Lock;
use crate::record_batch::{self, Stamp};
use crate::versions::{API_VERSIONS, Api, INIT_PRODUCER_ID, METADATA, PRODUCE};

const APIS: [&Api; 4] = [&PRODUCE, &METADATA, &API_VERSIONS, &INIT_PRODUCER_ID];

/// What a broker does with the next Produce request; without a script it appends.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Append,
    /// Refuses each batch with this code.
    Refuse(i16),
    /// Refuses batches of this topic only.
    RefuseTopic(&'static str, i16),
    /// Refuses batches of more records than this as too large.
    RefuseOver(usize),
    /// Refuses, and says that this broker leads now.
    Hint(i32),
    CloseBefore,
    CloseAfter,
    /// Appends, and never answers.
    Silence,
    /// Appends, and answers when told.
    Hold(Arc<Notify>),
    /// Appends, and forgets the partitions in the answer.
    Forget,
    /// Appends, and answers with bytes that are no answer.
    Garble,
}

/// The brokers and what they have seen.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    state: Lock<ScriptedState>,
}

#[derive(Debug, Default)]
struct ScriptedState {
    addresses: BTreeMap<i32, u16>,
    /// Leaders by partition.
    topics: BTreeMap<String, Vec<i32>>,
    /// Of all leaders: it grows with each change.
    epoch: i32,
    script: VecDeque<Act>,
    logs: BTreeMap<(String, i32), Rules>,
    /// Codes of the refusals of a producer id that come first.
    refused_ids: VecDeque<i16>,
    producer_ids: i64,
    produced_at: Vec<i32>,
    /// The codec of each batch that arrived.
    codecs: Vec<i16>,
    /// The highest version of Produce, if it is not ours.
    produce_most: Option<i16>,
}

impl Scripted {
    /// Starts broker 1, with the topic `orders` of one partition.
    pub(super) async fn start() -> Arc<Self> {
        let scripted = Arc::new(Self::default());
        scripted.add_broker(1).await;
        scripted.lead("orders", &[1]);
        scripted
    }

    pub(super) async fn add_broker(self: &Arc<Self>, id: i32) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        self.state.lock().addresses.insert(id, listener.local_addr().unwrap().port());
        let scripted = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(scripted.clone().serve(id, stream));
            }
        });
    }

    /// A broker whose address nobody listens on.
    pub(super) async fn add_dead_broker(&self, id: i32) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        self.state.lock().addresses.insert(id, listener.local_addr().unwrap().port());
    }

    pub(super) fn lead(&self, topic: &str, leaders: &[i32]) {
        let mut state = self.state.lock();
        state.epoch += 1;
        state.topics.insert(topic.to_owned(), leaders.to_vec());
    }

    pub(super) fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.state.lock().script.extend(acts);
    }

    pub(super) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.state.lock().addresses[&1])
    }

    /// The values appended to a partition, in order.
    pub(super) fn log(&self, topic: &str, partition: i32) -> Vec<String> {
        let state = self.state.lock();
        state
            .logs
            .get(&(topic.to_owned(), partition))
            .map(|rules| rules.log.clone())
            .unwrap_or_default()
    }

    /// The stamps of all batches that came for a partition of `orders`.
    pub(super) fn stamps(&self, partition: i32) -> Vec<Stamp> {
        let state = self.state.lock();
        let rules = state.logs.get(&("orders".to_owned(), partition));
        rules.map(|rules| rules.stamps.clone()).unwrap_or_default()
    }

    pub(super) fn refuse_ids(&self, codes: impl IntoIterator<Item = i16>) {
        self.state.lock().refused_ids.extend(codes);
    }

    /// How many producer ids were given.
    pub(super) fn producer_ids(&self) -> i64 {
        self.state.lock().producer_ids
    }

    /// The broker of each Produce request.
    pub(super) fn produced_at(&self) -> Vec<i32> {
        self.state.lock().produced_at.clone()
    }

    /// The codec of each batch that arrived.
    pub(super) fn codecs(&self) -> Vec<i16> {
        self.state.lock().codecs.clone()
    }

    /// Makes the brokers as old as this version of Produce.
    pub(super) fn speak_produce_up_to(&self, version: i16) {
        self.state.lock().produce_most = Some(version);
    }

    async fn serve(self: Arc<Self>, id: i32, mut stream: TcpStream) {
        while let Ok(length) = stream.read_i32().await {
            let mut frame = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut frame).await.unwrap();
            let mut frame = Bytes::from(frame);
            let (key, version) = (frame[1], i16::from(frame[3]));
            let flexible =
                APIS.iter().any(|api| api.key == i16::from(key) && api.is_flexible(version));
            let header = RequestHeader::decode(&mut frame, if flexible { 2 } else { 1 }).unwrap();
            let version = header.request_api_version;
            let mut body = BytesMut::new();
            match header.request_api_key {
                18 => self.versions().encode(&mut body, version).unwrap(),
                22 => self.producer_id().encode(&mut body, version).unwrap(),
                3 => self.metadata(&mut frame, version).encode(&mut body, version).unwrap(),
                _ => {
                    let request = ProduceRequest::decode(&mut frame, version).unwrap();
                    let Ok(answer) = self.produce(id, &request).await else { return };
                    match answer {
                        Some(_) if request.acks == 0 => continue,
                        Some(answer) => answer.encode(&mut body, version).unwrap(),
                        None => body.put_slice(&[0xff; 7]),
                    }
                }
            }
            let mut answer = BytesMut::new();
            let tagged = i16::from(flexible && header.request_api_key != 18);
            let head = ResponseHeader::default().with_correlation_id(header.correlation_id);
            head.encode(&mut answer, tagged).unwrap();
            answer.put_slice(&body);
            stream.write_i32(i32::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    }

    fn versions(&self) -> ApiVersionsResponse {
        let produce_most = self.state.lock().produce_most;
        let keys = APIS.map(|api| {
            let most = produce_most.filter(|_| api.key == PRODUCE.key).unwrap_or(api.most);
            ApiVersion::default()
                .with_api_key(api.key)
                .with_min_version(api.least)
                .with_max_version(most)
        });
        ApiVersionsResponse::default().with_api_keys(keys.to_vec())
    }

    fn producer_id(&self) -> InitProducerIdResponse {
        let mut state = self.state.lock();
        let answer = InitProducerIdResponse::default();
        if let Some(code) = state.refused_ids.pop_front() {
            return answer.with_error_code(code);
        }
        state.producer_ids += 1;
        answer.with_producer_id(ProducerId(state.producer_ids)).with_producer_epoch(0)
    }

    fn metadata(&self, frame: &mut Bytes, version: i16) -> MetadataResponse {
        let request = MetadataRequest::decode(frame, version).unwrap();
        let state = self.state.lock();
        let brokers = state.addresses.iter().map(|(id, port)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(*id))
                .with_host(StrBytes::from_static_str("127.0.0.1"))
                .with_port(i32::from(*port))
        });
        let topics = request.topics.unwrap().into_iter().map(|topic| {
            let name = topic.name.unwrap();
            let leaders = state.topics.get(name.as_str());
            let partitions = leaders.into_iter().flatten().enumerate().map(|(index, leader)| {
                MetadataResponsePartition::default()
                    .with_partition_index(i32::try_from(index).unwrap())
                    .with_leader_id(BrokerId(*leader))
                    .with_leader_epoch(state.epoch)
            });
            MetadataResponseTopic::default()
                .with_error_code(if leaders.is_some() { 0 } else { 3 })
                .with_partitions(partitions.collect())
                .with_name(Some(name))
        });
        MetadataResponse::default().with_brokers(brokers.collect()).with_topics(topics.collect())
    }

    /// `None` is garbage, `Err` closes the connection.
    async fn produce(
        &self,
        id: i32,
        request: &ProduceRequest,
    ) -> Result<Option<ProduceResponse>, ()> {
        let act = {
            let mut state = self.state.lock();
            state.produced_at.push(id);
            state.script.pop_front().unwrap_or(Act::Append)
        };
        if matches!(act, Act::CloseBefore) {
            return Err(());
        }
        let answer = self.answer(&act, request);
        match act {
            Act::CloseAfter => return Err(()),
            Act::Garble => return Ok(None),
            Act::Silence => std::future::pending().await,
            Act::Hold(open) => open.notified().await,
            _ => {}
        }
        Ok(Some(answer))
    }

    fn answer(&self, act: &Act, request: &ProduceRequest) -> ProduceResponse {
        let mut response = ProduceResponse::default();
        if let Act::Hint(leader) = act {
            let port = i32::from(self.state.lock().addresses[leader]);
            let node = NodeEndpoint::default().with_node_id(BrokerId(*leader)).with_port(port);
            let node = node.with_host(StrBytes::from_static_str("127.0.0.1"));
            response.node_endpoints.push(node);
        }
        for topic in &request.topic_data {
            let partitions = topic.partition_data.iter().map(|partition| {
                let batch = partition.records.as_ref().unwrap();
                self.append(act, topic.name.as_str(), partition.index, batch)
            });
            let name = TopicName(StrBytes::from_string(topic.name.to_string()));
            let answer = TopicProduceResponse::default()
                .with_name(name)
                .with_partition_responses(partitions.flatten().collect());
            response.responses.push(answer);
        }
        response
    }

    fn append(
        &self,
        act: &Act,
        topic: &str,
        index: i32,
        batch: &Bytes,
    ) -> Option<PartitionProduceResponse> {
        let (header, records) = record_batch::decode_all(batch).unwrap();
        self.state.lock().codecs.push(header.codec());
        let answer = PartitionProduceResponse::default().with_index(index).with_base_offset(-1);
        let code = match act {
            Act::Refuse(code) => *code,
            Act::RefuseTopic(name, code) if *name == topic => *code,
            Act::RefuseOver(most) if records.len() > *most => 10,
            Act::Hint(leader) => {
                let leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(*leader));
                let answer = answer.with_current_leader(leader.with_leader_epoch(9));
                return Some(answer.with_error_code(6));
            }
            _ => 0,
        };
        let mut state = self.state.lock();
        let rules = state.logs.entry((topic.to_owned(), index)).or_default();
        if code != 0 {
            rules.see(batch);
            return Some(answer.with_error_code(code));
        }
        let answer = match rules.append(batch) {
            Ok(base) => answer.with_base_offset(base),
            Err(code) => answer.with_error_code(code),
        };
        (!matches!(act, Act::Forget)).then_some(answer)
    }
}
