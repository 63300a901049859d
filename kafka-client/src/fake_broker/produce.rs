//! Produce: one batch per partition goes into a log, or does not, as the real broker decides.

use bytes::Bytes;
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::faults::{Fault, Trace};
use super::log;
use super::sequences::SequenceCheck;
use super::state::{Arrival, ClusterState, Fate};
use crate::record_batch::BatchHeader;

/// A Produce request at a broker.
pub(super) struct Produce<'a> {
    pub(super) state: &'a mut ClusterState,
    pub(super) broker: i32,
    pub(super) version: i16,
    pub(super) fault: Option<&'a Fault>,
}

/// What the answer says about one batch.
struct BatchAnswer {
    code: i16,
    base_offset: i64,
}

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_REQUIRED_ACKS: i16 = 21;
/// From this version on a refusal may name the new leader (KIP-951).
const HINTS_FROM: i16 = 10;

impl Produce<'_> {
    pub(super) fn execute(&mut self, request: &ProduceRequest) -> ProduceResponse {
        let mut response = ProduceResponse::default();
        for topic in &request.topic_data {
            let name = topic.name.as_str();
            let mut answers = Vec::new();
            for partition in &topic.partition_data {
                let batch = partition.records.clone().unwrap_or_default();
                let told = self.partition(name, partition.index, request.acks, batch);
                answers.push(self.answer(name, partition.index, &told, &mut response));
            }
            let name = TopicName(StrBytes::from_string(name.to_owned()));
            let topic = TopicProduceResponse::default().with_name(name);
            response.responses.push(topic.with_partition_responses(answers));
        }
        if self.fault == Some(&Fault::MissingPartition)
            && let Some(last) = response.responses.last_mut()
        {
            last.partition_responses.pop();
        }
        response
    }

    fn partition(&mut self, topic: &str, index: i32, acks: i16, batch: Bytes) -> BatchAnswer {
        if self.fault == Some(&Fault::MoveLeader) {
            self.state.move_leader(topic, index);
        }
        let header = BatchHeader::parse(&batch).ok();
        let fate = self.append(topic, index, acks, &batch);
        if self.state.settings.records_arrivals {
            let (at, broker, topic) = (Instant::now(), self.broker, topic.to_owned());
            let partition = index;
            self.state.arrivals.push(Arrival {
                at,
                broker,
                topic,
                partition,
                acks,
                batch,
                header,
                fate,
            });
        }
        let refusal = match self.fault {
            Some(Fault::Refuse { code, trace }) => Some((*code, *trace)),
            _ => None,
        };
        match (fate, refusal) {
            (Fate::Refused(code), Some((_, Trace::Truncated))) => {
                let end = self.state.partition(topic, index).map(|it| it.log.end());
                BatchAnswer { code, base_offset: end.unwrap_or(-1) }
            }
            (Fate::Refused(code), _) => BatchAnswer { code, base_offset: -1 },
            // Another request's success, for whoever takes it for his own.
            (Fate::Dropped, _) => BatchAnswer { code: 0, base_offset: 0 },
            (Fate::Appended(base_offset), Some((code, Trace::Appended))) => {
                BatchAnswer { code, base_offset }
            }
            (Fate::Appended(_), Some((code, _))) => BatchAnswer { code, base_offset: -1 },
            (Fate::Appended(base_offset) | Fate::Duplicate(base_offset), _) => {
                BatchAnswer { code: 0, base_offset }
            }
        }
    }

    fn append(&mut self, topic: &str, index: i32, acks: i16, batch: &Bytes) -> Fate {
        match self.fault {
            Some(Fault::CloseBefore | Fault::WrongCorrelation) => return Fate::Dropped,
            Some(Fault::Refuse { code, trace: Trace::Nothing | Trace::Truncated }) => {
                return Fate::Refused(*code);
            }
            _ => {}
        }
        let settings = &self.state.settings;
        let (without_state, most) = (settings.without_state, settings.batch_bytes);
        let (broker, retention_bytes) = (self.broker, settings.retention_bytes);
        let Some(partition) = self.state.partition_mut(topic, index) else {
            return Fate::Refused(UNKNOWN_TOPIC_OR_PARTITION);
        };
        if !partition.leadership.is_led_by(broker, Instant::now()) {
            return Fate::Refused(NOT_LEADER_OR_FOLLOWER);
        }
        if !(-1..=1).contains(&acks) {
            return Fate::Refused(INVALID_REQUIRED_ACKS);
        }
        if batch.len() > most {
            return Fate::Refused(MESSAGE_TOO_LARGE);
        }
        let checked = match log::check(batch) {
            Ok(checked) => checked,
            Err(code) => return Fate::Refused(code),
        };
        let verdict = if checked.header.producer_id < 0 {
            SequenceCheck::Append
        } else {
            partition.log.producers.judge(&checked.header, without_state)
        };
        match verdict {
            SequenceCheck::Append => {
                let epoch = partition.leadership.now().epoch;
                let offset = partition.log.append(&checked, epoch);
                if let Some(most) = retention_bytes {
                    partition.log.retain(most);
                }
                self.state.changed.notify_waiters();
                Fate::Appended(offset)
            }
            SequenceCheck::Duplicate(offset) => Fate::Duplicate(offset),
            SequenceCheck::Refuse(code) => Fate::Refused(code),
        }
    }

    fn answer(
        &self,
        topic: &str,
        index: i32,
        told: &BatchAnswer,
        response: &mut ProduceResponse,
    ) -> PartitionProduceResponse {
        let answer = PartitionProduceResponse::default()
            .with_index(index)
            .with_error_code(told.code)
            .with_base_offset(told.base_offset);
        let hints = self.state.settings.leader_hints && self.version >= HINTS_FROM;
        let leader = self.state.partition(topic, index).map(|it| it.leadership.now());
        let (true, NOT_LEADER_OR_FOLLOWER, Some(leader)) = (hints, told.code, leader) else {
            return answer;
        };
        let Some((id, node)) = leader.id.and_then(|id| Some((id, self.state.brokers.get(&id)?)))
        else {
            return answer;
        };
        let id = BrokerId(id);
        if !response.node_endpoints.iter().any(|node| node.node_id == id) {
            let host = StrBytes::from_string(node.host.clone());
            let node = NodeEndpoint::default().with_host(host).with_port(node.port.into());
            response.node_endpoints.push(node.with_node_id(id));
        }
        let leader = LeaderIdAndEpoch::default().with_leader_id(id).with_leader_epoch(leader.epoch);
        answer.with_current_leader(leader)
    }
}
