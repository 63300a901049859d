//! ApiVersions: the first question on every connection.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Call, pause, take_message};
use crate::frame::FrameWriter;
use crate::shape::FieldKind::{Fixed, List, Text};
use crate::shape::{Struct, always, since};
use crate::versions::{API_VERSIONS, Api, Range, Versions};

/// Which versions do you have?
pub(crate) struct AskVersions;

/// The broker's versions, or the error code it gave with them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct VersionsAnswer {
    pub(crate) code: i16,
    pub(crate) versions: Versions,
}

/// The broker does not have the version of ApiVersions that we asked in; its answer is laid out
/// as version 0.
pub(crate) const UNSUPPORTED_VERSION: i16 = 35;

const KEY: Struct = Struct {
    fields: &[always(Fixed(2)), always(Fixed(2)), always(Fixed(2))],
    tagged: &[],
    memory: size_of::<ApiVersion>() + size_of::<Range>(),
};
const FEATURE: Struct = Struct {
    fields: &[always(Text), always(Fixed(2)), always(Fixed(2))],
    tagged: &[],
    memory: max(size_of::<SupportedFeatureKey>(), size_of::<FinalizedFeatureKey>()),
};
const ANSWER: Struct = Struct {
    fields: &[always(Fixed(2)), always(List(&KEY)), since(1, Fixed(4))],
    tagged: &[(0, List(&FEATURE)), (1, Fixed(8)), (2, List(&FEATURE)), (3, Fixed(1))],
    memory: 0,
};

const fn max(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

impl Call for AskVersions {
    type Answer = VersionsAnswer;
    const API: &'static Api = &API_VERSIONS;

    fn put(&self, version: i16, frame: &mut FrameWriter) -> Result<(), String> {
        // Brokers refuse names and versions with other characters than letters, digits, `-` and
        // `.` (KIP-511).
        let request = match version {
            0..=2 => ApiVersionsRequest::default(),
            _ => ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str("kafka-upstream"))
                .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION"))),
        };
        request.encode(frame.tail(), version).map_err(|error| error.to_string())
    }

    fn take(&self, version: i16, mut body: Bytes) -> Result<(VersionsAnswer, Duration), String> {
        let refused = body.get(..2) == Some(&UNSUPPORTED_VERSION.to_be_bytes());
        let version = if refused { 0 } else { version };
        let message: ApiVersionsResponse = take_message(Self::API, version, &mut body, &ANSWER)?;
        let ranges = message
            .api_keys
            .iter()
            .map(|key| Range { key: key.api_key, least: key.min_version, most: key.max_version })
            .collect();
        let answer = VersionsAnswer { code: message.error_code, versions: Versions::new(ranges) };
        Ok((answer, pause(message.throttle_time_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::answered;
    use crate::calls::{decode, encode};

    fn answer(version: i16, response: &ApiVersionsResponse) -> Bytes {
        answered(&API_VERSIONS, version, response)
    }

    fn response() -> ApiVersionsResponse {
        let key = ApiVersion::default().with_api_key(0).with_min_version(3).with_max_version(9);
        ApiVersionsResponse::default().with_api_keys(vec![key])
    }

    #[test]
    fn every_version_encodes_and_is_understood() {
        for version in 0..=4 {
            assert!(encode(&AskVersions, version, 1, "me").is_ok());
            let mut response = response();
            if version >= 3 {
                response = response.with_supported_features(vec![SupportedFeatureKey::default()]);
            }
            let (got, _) = decode(&AskVersions, version, answer(version, &response)).unwrap();
            assert_eq!(got.versions.highest(&crate::versions::PRODUCE), Ok(9), "v{version}");
        }
    }

    #[test]
    fn an_unsupported_version_is_answered_in_the_oldest_layout() {
        let key = ApiVersion::default().with_api_key(18).with_max_version(2);
        let response = response().with_error_code(35).with_api_keys(vec![key]);
        let (got, _) = decode(&AskVersions, 4, answer(0, &response)).unwrap();
        assert_eq!((got.code, got.versions.highest(&API_VERSIONS)), (35, Ok(2)));
    }

    /// `kafka-protocol` reads 8 bytes for tag 1 whatever size it declares, so that the next tag
    /// begins elsewhere than its size says: here, at a count of 2³² − 2 features.
    #[test]
    fn a_tagged_field_that_lies_about_its_size_is_an_error() {
        for (tag, bytes) in [(1, 8), (3, 1)] {
            let mut body = vec![0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 2, tag, 0, 9];
            let hidden = [0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
            let filler = vec![0; usize::max(bytes, 2) - 2];
            body.push((filler.len() + hidden.len()) as u8);
            body.extend_from_slice(&filler);
            body.extend_from_slice(&hidden);
            assert!(decode(&AskVersions, 3, body.into()).is_err(), "tag {tag}");
        }
    }

    #[test]
    fn a_huge_count_is_an_error() {
        let classic = Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
        assert!(decode(&AskVersions, 0, classic).is_err());
        let compact = Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(decode(&AskVersions, 4, compact).is_err());
    }
}
