//! Heartbeat: a member of a classic group is there, and hears when it is to join again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{GroupId, HeartbeatRequest, HeartbeatResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, Identity, pause, take_message};
use crate::frame::FrameWriter;
use crate::shape::FieldKind::Fixed;
use crate::shape::{Struct, always, since};
use crate::versions::{Api, HEARTBEAT};

/// I am there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heartbeat {
    pub(crate) group: Arc<str>,
    pub(crate) identity: Identity,
}

const ANSWER: Struct =
    Struct { fields: &[since(1, Fixed(4)), always(Fixed(2))], tagged: &[], memory: 0 };

impl Call for Heartbeat {
    /// A code.
    type Answer = i16;
    const API: &'static Api = &HEARTBEAT;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let Identity { member, generation, instance } = &self.identity;
        let instance = instance.as_deref().filter(|_| version >= 3);
        HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(*generation)
            .with_member_id(text(member))
            .with_group_instance_id(instance.map(text))
            .encode(frame.tail(), version)
            .map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(Self::Answer, Duration), String> {
        let message: HeartbeatResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        Ok((message.error_code, pause(message.throttle_time_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{answered, decode, encode};

    #[test]
    fn every_version_encodes_and_is_understood() {
        let identity = Identity { member: "a".into(), generation: 4, instance: Some("i".into()) };
        let call = Heartbeat { group: "readers".into(), identity };
        for version in HEARTBEAT.least..=HEARTBEAT.most {
            assert!(encode(&call, version, 1, "me").is_ok(), "v{version}");
            let answer = HeartbeatResponse::default().with_error_code(27);
            let answer = answered(&HEARTBEAT, version, &answer);
            assert_eq!(decode(&call, version, answer).unwrap().0, 27, "v{version}");
        }
    }
}
