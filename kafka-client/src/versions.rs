//! Which version of which API this broker and we both speak.

/// One API, and the versions of it that we can use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Api {
    pub(crate) key: i16,
    pub(crate) name: &'static str,
    pub(crate) least: i16,
    pub(crate) most: i16,
    /// From this version on the message uses compact lengths and tagged fields (KIP-482).
    pub(crate) flexible: i16,
}

/// Floors are those of KIP-896, so one code path covers brokers 2.1 to 4.x; the top of Produce is the
/// last version that addresses topics by name.
pub(crate) const PRODUCE: Api = Api { key: 0, name: "Produce", least: 3, most: 12, flexible: 9 };
/// From this version of Produce on, brokers read zstd (KIP-110).
pub(crate) const PRODUCE_WITH_ZSTD: i16 = 7;
/// Up to the last version that topics without an id can be named in, and to the last one that has
/// more for readers (KIP-951).
pub(crate) const FETCH_BY_NAME: Api =
    Api { key: 1, name: "Fetch", least: 4, most: 12, flexible: 12 };
pub(crate) const FETCH: Api = Api { most: 17, ..FETCH_BY_NAME };
/// The first version of Fetch that names topics by their ids alone (KIP-516).
pub(crate) const FETCH_WITH_IDS: i16 = 13;
pub(crate) const LIST_OFFSETS: Api =
    Api { key: 2, name: "ListOffsets", least: 2, most: 7, flexible: 6 };
/// The first version that who may read a topic may ask (KIP-320).
pub(crate) const OFFSET_FOR_LEADER_EPOCH: Api =
    Api { key: 23, name: "OffsetForLeaderEpoch", least: 3, most: 4, flexible: 4 };
pub(crate) const METADATA: Api = Api { key: 3, name: "Metadata", least: 4, most: 13, flexible: 9 };
pub(crate) const INIT_PRODUCER_ID: Api =
    Api { key: 22, name: "InitProducerId", least: 0, most: 4, flexible: 2 };
pub(crate) const FIND_COORDINATOR: Api =
    Api { key: 10, name: "FindCoordinator", least: 1, most: 4, flexible: 3 };
/// Up to the last versions that name topics.
pub(crate) const OFFSET_COMMIT: Api =
    Api { key: 8, name: "OffsetCommit", least: 2, most: 9, flexible: 8 };
pub(crate) const OFFSET_FETCH: Api =
    Api { key: 9, name: "OffsetFetch", least: 1, most: 9, flexible: 6 };
/// From version 2 on members wait for each other for a time of their own (KIP-62).
pub(crate) const JOIN_GROUP: Api =
    Api { key: 11, name: "JoinGroup", least: 2, most: 9, flexible: 6 };
pub(crate) const HEARTBEAT: Api =
    Api { key: 12, name: "Heartbeat", least: 1, most: 4, flexible: 4 };
pub(crate) const LEAVE_GROUP: Api =
    Api { key: 13, name: "LeaveGroup", least: 1, most: 5, flexible: 4 };
pub(crate) const SYNC_GROUP: Api =
    Api { key: 14, name: "SyncGroup", least: 1, most: 5, flexible: 4 };
pub(crate) const CONSUMER_GROUP_HEARTBEAT: Api =
    Api { key: 68, name: "ConsumerGroupHeartbeat", least: 0, most: 1, flexible: 0 };
/// Version 1 is framed SASL; it never became flexible.
pub(crate) const SASL_HANDSHAKE: Api =
    Api { key: 17, name: "SaslHandshake", least: 1, most: 1, flexible: i16::MAX };
/// From version 1 on, the answer says for how long it holds (KIP-368).
pub(crate) const SASL_AUTHENTICATE: Api =
    Api { key: 36, name: "SaslAuthenticate", least: 0, most: 2, flexible: 2 };
pub(crate) const API_VERSIONS: Api =
    Api { key: 18, name: "ApiVersions", least: 0, most: 4, flexible: 3 };

/// What a broker told about itself on this connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Versions(Vec<Range>);

/// The versions of one API that a broker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) key: i16,
    pub(crate) least: i16,
    pub(crate) most: i16,
}

/// Broker and client have no version of an API in common.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the broker has {api} {theirs}, this client needs {least}–{most}")]
pub(crate) struct NoCommonVersion {
    pub(crate) api: &'static str,
    pub(crate) theirs: String,
    pub(crate) least: i16,
    pub(crate) most: i16,
}

impl Versions {
    pub(crate) fn new(ranges: Vec<Range>) -> Self {
        Self(ranges)
    }

    /// The highest version that both sides have. Never a lower one: Kafka 4.0 advertises Produce
    /// 0–2 and refuses them (KAFKA-18659).
    pub(crate) fn highest(&self, api: &Api) -> Result<i16, NoCommonVersion> {
        let theirs = self.0.iter().find(|range| range.key == api.key);
        let common = theirs.map(|range| (range.least.max(api.least), range.most.min(api.most)));
        match common {
            Some((least, most)) if least <= most => Ok(most),
            _ => Err(NoCommonVersion {
                api: api.name,
                theirs: theirs
                    .map_or("not at all".into(), |range| format!("{}–{}", range.least, range.most)),
                least: api.least,
                most: api.most,
            }),
        }
    }
}

impl Api {
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(least: i16, most: i16) -> Versions {
        Versions::new(vec![Range { key: 0, least, most }])
    }

    #[test]
    fn the_highest_common_version_wins() {
        assert_eq!(broker(0, 13).highest(&PRODUCE), Ok(12));
        assert_eq!(broker(0, 7).highest(&PRODUCE), Ok(7));
        assert_eq!(broker(3, 3).highest(&PRODUCE), Ok(3));
    }

    #[test]
    fn no_overlap_names_api_and_both_ranges() {
        let error = broker(0, 2).highest(&PRODUCE).unwrap_err().to_string();
        assert_eq!(error, "the broker has Produce 0–2, this client needs 3–12");
        let error = broker(14, 15).highest(&PRODUCE).unwrap_err().to_string();
        assert!(error.contains("14–15"));
        let error = broker(0, 2).highest(&METADATA).unwrap_err().to_string();
        assert_eq!(error, "the broker has Metadata not at all, this client needs 4–13");
    }
}
