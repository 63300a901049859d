//! LeaveGroup: a member goes for good, and its partitions need not wait for its session to end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{GroupId, LeaveGroupRequest, LeaveGroupResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, Identity, pause, take_message};
use crate::frame::FrameWriter;
use crate::shape::FieldKind::{Fixed, List, Text};
use crate::shape::{Struct, always, since};
use crate::versions::{Api, LEAVE_GROUP};

/// I go, also if I am a static member.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaveGroup {
    pub(crate) group: Arc<str>,
    pub(crate) identity: Identity,
}

/// The first version that names static members (KIP-345).
const INSTANCES_FROM: i16 = 3;

const MEMBER: Struct = Struct {
    fields: &[always(Text), always(Text), always(Fixed(2))],
    tagged: &[],
    memory: size_of::<MemberResponse>(),
};
const ANSWER: Struct = Struct {
    fields: &[since(1, Fixed(4)), always(Fixed(2)), since(INSTANCES_FROM, List(&MEMBER))],
    tagged: &[],
    memory: 0,
};

impl Call for LeaveGroup {
    /// A code.
    type Answer = i16;
    const API: &'static Api = &LEAVE_GROUP;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let member = text(&self.identity.member);
        let request = LeaveGroupRequest::default().with_group_id(GroupId(text(&self.group)));
        let request = if version >= INSTANCES_FROM {
            let instance = self.identity.instance.as_deref().map(text);
            let identity = MemberIdentity::default().with_member_id(member);
            request.with_members(vec![identity.with_group_instance_id(instance)])
        } else {
            request.with_member_id(member)
        };
        request.encode(frame.tail(), version).map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(Self::Answer, Duration), String> {
        let message: LeaveGroupResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let of_member = message.members.first().map_or(0, |member| member.error_code);
        let code = if message.error_code == 0 { of_member } else { message.error_code };
        Ok((code, pause(message.throttle_time_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{answered, decode, encode};

    #[test]
    fn every_version_encodes_and_is_understood() {
        let identity = Identity { member: "a".into(), generation: 4, instance: Some("i".into()) };
        let call = LeaveGroup { group: "readers".into(), identity };
        for version in LEAVE_GROUP.least..=LEAVE_GROUP.most {
            assert!(encode(&call, version, 1, "me").is_ok(), "v{version}");
            let answer = LeaveGroupResponse::default();
            let answer = if version >= INSTANCES_FROM {
                let member = MemberResponse::default().with_member_id("a".into());
                answer.with_members(vec![member.with_error_code(25)])
            } else {
                answer.with_error_code(25)
            };
            let answer = answered(&LEAVE_GROUP, version, &answer);
            assert_eq!(decode(&call, version, answer).unwrap().0, 25, "v{version}");
        }
    }
}
