//! SyncGroup: the leader gives what it has assigned, and each member gets its part.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{GroupId, SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::join_group::CONSUMER;
use super::{Call, Identity, pause, take_message};
use crate::frame::FrameWriter;
use crate::shape::FieldKind::{Blob, Fixed, Text};
use crate::shape::{Struct, always, since};
use crate::versions::{Api, SYNC_GROUP};

/// Give me my part. The broker answers when the leader has told.
#[derive(Debug, Clone, Default)]
pub(crate) struct SyncGroup {
    pub(crate) group: Arc<str>,
    pub(crate) identity: Identity,
    /// The assignor.
    pub(crate) protocol: String,
    /// What the leader gives each member; empty for all others.
    pub(crate) assignments: Vec<(String, Bytes)>,
}

const ANSWER: Struct = Struct {
    fields: &[since(1, Fixed(4)), always(Fixed(2)), since(5, Text), since(5, Text), always(Blob)],
    tagged: &[],
    memory: 0,
};

impl Call for SyncGroup {
    /// This member's part, or the code of a refusal.
    type Answer = Result<Bytes, i16>;
    const API: &'static Api = &SYNC_GROUP;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let assignments = self.assignments.iter().map(|(member, assignment)| {
            let to = SyncGroupRequestAssignment::default().with_member_id(text(member));
            to.with_assignment(assignment.clone())
        });
        let Identity { member, generation, instance } = &self.identity;
        let instance = instance.as_deref().filter(|_| version >= 3);
        let kind = Some(StrBytes::from_static_str(CONSUMER)).filter(|_| version >= 5);
        SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(*generation)
            .with_member_id(text(member))
            .with_group_instance_id(instance.map(text))
            .with_protocol_type(kind)
            .with_protocol_name(Some(text(&self.protocol)).filter(|_| version >= 5))
            .with_assignments(assignments.collect())
            .encode(frame.tail(), version)
            .map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(Self::Answer, Duration), String> {
        let message: SyncGroupResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let wait = pause(message.throttle_time_ms);
        Ok((
            if message.error_code == 0 { Ok(message.assignment) } else { Err(message.error_code) },
            wait,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{answered, decode, encode};

    #[test]
    fn every_version_encodes_and_is_understood() {
        let identity = Identity { member: "a".into(), generation: 4, instance: Some("i".into()) };
        let assignments = vec![("a".to_owned(), Bytes::from_static(b"part"))];
        let (group, protocol) = ("readers".into(), "range".to_owned());
        let call = SyncGroup { group, identity, protocol, assignments };
        for version in SYNC_GROUP.least..=SYNC_GROUP.most {
            assert!(encode(&call, version, 1, "me").is_ok(), "v{version}");
            let part = Bytes::from_static(b"part");
            let sound = SyncGroupResponse::default().with_assignment(part.clone());
            let sound = answered(&SYNC_GROUP, version, &sound);
            assert_eq!(decode(&call, version, sound).unwrap().0, Ok(part));
            let refused = SyncGroupResponse::default().with_error_code(27);
            let refused = answered(&SYNC_GROUP, version, &refused);
            assert_eq!(decode(&call, version, refused).unwrap().0, Err(27));
        }
    }
}
