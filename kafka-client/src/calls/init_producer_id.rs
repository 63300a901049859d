//! InitProducerId: the identity by which brokers recognise a batch they have already.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use kafka_protocol::protocol::Encodable;

use super::{Call, pause, take_message};
use crate::frame::FrameWriter;
use crate::shape::FieldKind::Fixed;
use crate::shape::{Struct, always};
use crate::versions::{Api, INIT_PRODUCER_ID};

/// Give me a new producer id. There is no transactional id, so the broker never gives an old one.
pub(crate) struct AskProducerId;

/// A producer id and its first epoch, or the code of a refusal.
pub(crate) type ProducerIdAnswer = Result<ProducerIdentity, i16>;

/// Under what a producer is known to the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerIdentity {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

const ANSWER: Struct = Struct {
    fields: &[always(Fixed(4)), always(Fixed(2)), always(Fixed(8)), always(Fixed(2))],
    tagged: &[],
    memory: 0,
};

impl Call for AskProducerId {
    type Answer = ProducerIdAnswer;
    const API: &'static Api = &INIT_PRODUCER_ID;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        // Fields of later versions keep "none", which is −1 and all that earlier ones can say.
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        request.encode(frame.tail(), version).map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(ProducerIdAnswer, Duration), String> {
        let message: InitProducerIdResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let (producer_id, epoch) = (message.producer_id.0, message.producer_epoch);
        let answer = match message.error_code {
            0 if producer_id < 0 || epoch < 0 => {
                return Err(format!("the producer id {producer_id} in epoch {epoch}"));
            }
            0 => Ok(ProducerIdentity { producer_id, epoch }),
            code => Err(code),
        };
        Ok((answer, pause(message.throttle_time_ms)))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Decodable;

    use super::*;
    use crate::calls::answered;
    use crate::calls::{decode, encode};

    fn answer(version: i16, code: i16, producer_id: i64) -> Bytes {
        let response = InitProducerIdResponse::default()
            .with_error_code(code)
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(0);
        answered(&INIT_PRODUCER_ID, version, &response)
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        for version in INIT_PRODUCER_ID.least..=INIT_PRODUCER_ID.most {
            assert!(encode(&AskProducerId, version, 1, "me").is_ok());
            let (got, _) = decode(&AskProducerId, version, answer(version, 0, 4000)).unwrap();
            assert_eq!(got, Ok(ProducerIdentity { producer_id: 4000, epoch: 0 }), "v{version}");
            let (got, _) = decode(&AskProducerId, version, answer(version, 31, -1)).unwrap();
            assert_eq!(got, Err(31), "v{version}");
        }
    }

    #[test]
    fn there_is_never_a_transactional_id() {
        for version in INIT_PRODUCER_ID.least..=INIT_PRODUCER_ID.most {
            let mut frame = FrameWriter::default();
            AskProducerId.put(version, &mut frame).unwrap();
            let mut body = Bytes::copy_from_slice(&frame.tail()[..]);
            let request = InitProducerIdRequest::decode(&mut body, version).unwrap();
            assert_eq!(request.transactional_id, None, "v{version}");
        }
    }

    #[test]
    fn success_without_an_id_is_malformed() {
        assert!(decode(&AskProducerId, 4, answer(4, 0, -1)).is_err());
    }
}
