//! FindCoordinator: which broker keeps the members and offsets of a group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, pause, take_message};
use crate::frame::FrameWriter;
use crate::shape::FieldKind::{Fixed, List, Text};
use crate::shape::{Field, Struct, always, since};
use crate::versions::{Api, FIND_COORDINATOR};

/// Who coordinates this group?
#[derive(Debug, Default)]
pub(crate) struct FindCoordinator {
    pub(crate) group: Arc<str>,
}

/// The first version that asks for several groups at a time (KIP-699).
const BATCHED_FROM: i16 = 4;

const fn single(kind: crate::shape::FieldKind) -> Field {
    Field { least: 0, most: BATCHED_FROM - 1, kind }
}

const COORDINATOR: Struct = Struct {
    fields: &[
        always(Text),
        always(Fixed(4)),
        always(Text),
        always(Fixed(4)),
        always(Fixed(2)),
        always(Text),
    ],
    tagged: &[],
    memory: size_of::<Coordinator>(),
};
const ANSWER: Struct = Struct {
    fields: &[
        always(Fixed(4)),
        single(Fixed(2)),
        single(Text),
        single(Fixed(4)),
        single(Text),
        single(Fixed(4)),
        since(BATCHED_FROM, List(&COORDINATOR)),
    ],
    tagged: &[],
    memory: 0,
};

impl Call for FindCoordinator {
    /// The broker's number, or the code of a refusal.
    type Answer = Result<i32, i16>;
    const API: &'static Api = &FIND_COORDINATOR;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let key = StrBytes::from_string(self.group.to_string());
        let request = FindCoordinatorRequest::default();
        let request = match version {
            BATCHED_FROM.. => request.with_coordinator_keys(vec![key]),
            _ => request.with_key(key),
        };
        request.encode(frame.tail(), version).map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(Self::Answer, Duration), String> {
        let message: FindCoordinatorResponse =
            take_message(Self::API, version, &mut body, &ANSWER)?;
        let (code, broker) = match message.coordinators.first() {
            _ if version < BATCHED_FROM => (message.error_code, message.node_id.0),
            Some(found) if *found.key == *self.group => (found.error_code, found.node_id.0),
            _ => return Err("the group is not in the answer".into()),
        };
        let answer = match code {
            0 if broker < 0 => return Err(format!("the coordinator is broker {broker}")),
            0 => Ok(broker),
            code => Err(code),
        };
        Ok((answer, pause(message.throttle_time_ms)))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId;

    use super::*;
    use crate::calls::{answered, decode, encode};

    fn answer(version: i16, code: i16, broker: i32) -> Bytes {
        let response = FindCoordinatorResponse::default();
        let response = match version {
            BATCHED_FROM.. => {
                let found = Coordinator::default().with_key("readers".into());
                let found = found.with_error_code(code).with_node_id(BrokerId(broker));
                response.with_coordinators(vec![found])
            }
            _ => response.with_error_code(code).with_node_id(BrokerId(broker)),
        };
        answered(&FIND_COORDINATOR, version, &response)
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        let call = FindCoordinator { group: "readers".into() };
        for version in FIND_COORDINATOR.least..=FIND_COORDINATOR.most {
            assert!(encode(&call, version, 1, "me").is_ok(), "v{version}");
            assert_eq!(decode(&call, version, answer(version, 0, 7)).unwrap().0, Ok(7));
            assert_eq!(decode(&call, version, answer(version, 15, -1)).unwrap().0, Err(15));
            assert!(decode(&call, version, answer(version, 0, -1)).is_err(), "v{version}");
        }
    }

    #[test]
    fn an_answer_about_another_group_is_none() {
        let call = FindCoordinator { group: "writers".into() };
        assert!(decode(&call, 4, answer(4, 0, 7)).is_err());
    }
}
