//! JoinGroup: to become a member of a group, in the classic protocol, or to stay one as it rebalances.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{GroupId, JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, Identity, pause, take_message};
use crate::frame::FrameWriter;
use crate::shape::FieldKind::{Blob, Fixed, List, Text};
use crate::shape::{Struct, always, since};
use crate::versions::{Api, JOIN_GROUP};

/// Take me as a member. The broker answers when all members have asked, or their time is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct JoinGroup {
    pub(crate) group: Arc<str>,
    /// Without a member id at first; the generation is of no matter.
    pub(crate) identity: Identity,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// Assignors by name, each with what it is to know of this member, the preferred one first.
    pub(crate) protocols: Vec<(&'static str, Bytes)>,
    pub(crate) reason: &'static str,
}

/// What the broker says of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) code: i16,
    pub(crate) generation: i32,
    /// The assignor.
    pub(crate) protocol: String,
    pub(crate) member: String,
    pub(crate) leader: String,
    /// The leader has nothing to assign (KIP-814).
    pub(crate) skips_assignment: bool,
    /// All members, for their leader alone.
    pub(crate) members: Vec<MemberJoined>,
}

/// A member, for the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberJoined {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) metadata: Bytes,
}

/// The kind of group: consumers, as Java's client spells it.
pub(crate) const CONSUMER: &str = "consumer";

const MEMBER: Struct = Struct {
    fields: &[always(Text), since(5, Text), always(Blob)],
    tagged: &[],
    memory: size_of::<JoinGroupResponseMember>() + size_of::<MemberJoined>(),
};
const ANSWER: Struct = Struct {
    fields: &[
        since(2, Fixed(4)),
        always(Fixed(2)),
        always(Fixed(4)),
        since(7, Text),
        always(Text),
        always(Text),
        since(9, Fixed(1)),
        always(Text),
        always(List(&MEMBER)),
    ],
    tagged: &[],
    memory: 0,
};

impl Call for JoinGroup {
    type Answer = Joined;
    const API: &'static Api = &JOIN_GROUP;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let protocols = self.protocols.iter().map(|(name, metadata)| {
            let name = StrBytes::from_static_str(name);
            JoinGroupRequestProtocol::default().with_name(name).with_metadata(metadata.clone())
        });
        let instance = self.identity.instance.as_deref().filter(|_| version >= 5);
        let reason = Some(StrBytes::from_static_str(self.reason)).filter(|_| version >= 8);
        JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_session_timeout_ms(millis(self.session_timeout))
            .with_rebalance_timeout_ms(millis(self.rebalance_timeout))
            .with_member_id(text(&self.identity.member))
            .with_group_instance_id(instance.map(text))
            .with_protocol_type(StrBytes::from_static_str(CONSUMER))
            .with_protocols(protocols.collect())
            .with_reason(reason)
            .encode(frame.tail(), version)
            .map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(Self::Answer, Duration), String> {
        let message: JoinGroupResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let wait = pause(message.throttle_time_ms);
        if message.error_code == 0 && message.generation_id < 0 {
            return Err(format!("the generation {}", message.generation_id));
        }
        let members = message.members.into_iter().map(|member| MemberJoined {
            member: member.member_id.to_string(),
            instance: member.group_instance_id.map(|it| it.to_string()),
            metadata: member.metadata,
        });
        let joined = Joined {
            code: message.error_code,
            generation: message.generation_id,
            protocol: message.protocol_name.unwrap_or_default().to_string(),
            member: message.member_id.to_string(),
            leader: message.leader.to_string(),
            skips_assignment: message.skip_assignment,
            members: members.collect(),
        };
        Ok((joined, wait))
    }
}

/// As groups have durations: milliseconds of 32 bits.
pub(crate) fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{answered, decode, encode};

    fn answer(version: i16) -> Bytes {
        let member = JoinGroupResponseMember::default()
            .with_member_id("a".into())
            .with_group_instance_id(Some("i".into()).filter(|_| version >= 5))
            .with_metadata(Bytes::from_static(b"topics"));
        let response = JoinGroupResponse::default()
            .with_generation_id(5)
            .with_protocol_type(Some(CONSUMER.into()).filter(|_| version >= 7))
            .with_protocol_name(Some("range".into()))
            .with_leader("a".into())
            .with_member_id("a".into())
            .with_members(vec![member]);
        answered(&JOIN_GROUP, version, &response)
    }

    fn call() -> JoinGroup {
        let identity = Identity { member: "a".into(), generation: 4, instance: Some("i".into()) };
        let protocols = vec![("range", Bytes::from_static(b"topics"))];
        let timeout = Duration::from_secs(9);
        JoinGroup {
            group: "readers".into(),
            identity,
            session_timeout: timeout,
            rebalance_timeout: timeout,
            protocols,
            reason: "why",
        }
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        for version in JOIN_GROUP.least..=JOIN_GROUP.most {
            assert!(encode(&call(), version, 1, "me").is_ok(), "v{version}");
            let (got, _) = decode(&call(), version, answer(version)).unwrap();
            assert_eq!((got.code, got.generation, &*got.protocol), (0, 5, "range"));
            let instance = (version >= 5).then(|| "i".to_owned());
            let metadata = Bytes::from_static(b"topics");
            assert_eq!(got.members, [MemberJoined { member: "a".into(), instance, metadata }]);
        }
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        for version in [2, 5, 7, 9] {
            let whole = answer(version);
            for at in 0..whole.len() {
                assert!(decode(&call(), version, whole.slice(..at)).is_err());
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = whole.to_vec();
                    bytes[at] = byte;
                    let _ = decode(&call(), version, bytes.into());
                }
            }
        }
    }
}
