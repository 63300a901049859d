//! Everything that reads a broker's bytes, callable one by one, for tests that throw bytes at it.

use bytes::Bytes;

use crate::calls::api_versions::AskVersions;
use crate::calls::consumer_group_heartbeat::ConsumerGroupHeartbeat;
use crate::calls::epoch_ends::AskEpochEnds;
use crate::calls::fetch::{Fetch, FetchAsked};
use crate::calls::find_coordinator::FindCoordinator;
use crate::calls::heartbeat::Heartbeat;
use crate::calls::init_producer_id::AskProducerId;
use crate::calls::join_group::JoinGroup;
use crate::calls::leave_group::LeaveGroup;
use crate::calls::list_offsets::ListOffsets;
use crate::calls::metadata::AskMetadata;
use crate::calls::offset_commit::CommitOffsets;
use crate::calls::offset_fetch::FetchOffsets;
use crate::calls::produce::Append;
use crate::calls::sasl_authenticate::Prove;
use crate::calls::sasl_handshake::ChooseMechanism;
use crate::calls::sync_group::SyncGroup;
use crate::calls::{self, Call};
use crate::frame::Decoder;
use crate::handshake::Handshake;
use crate::limits;
use crate::versions::{
    API_VERSIONS, Api, CONSUMER_GROUP_HEARTBEAT, FETCH, FIND_COORDINATOR, HEARTBEAT,
    INIT_PRODUCER_ID, JOIN_GROUP, LEAVE_GROUP, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH,
    OFFSET_FOR_LEADER_EPOCH, PRODUCE, SASL_AUTHENTICATE, SASL_HANDSHAKE, SYNC_GROUP,
};

/// How many times its bytes an answer may take when it is read.
pub const ANSWER_GROWTH: usize = limits::ANSWER_GROWTH;
/// How much it may take beyond that, bytes.
pub const ANSWER_BYTES: usize = limits::ANSWER_BYTES;
/// The largest frame before the handshake is done, bytes.
pub const HANDSHAKE_FRAME_BYTES: usize = limits::HANDSHAKE_FRAME_BYTES;
/// How much a stream's buffer grows at once, bytes.
pub const READ_STEP_BYTES: usize = limits::READ_STEP_BYTES;

/// The group whose coordinator answers.
pub const GROUP: &str = "g";

/// The reader of an API's answers in one version.
#[derive(Debug, Clone, Copy)]
pub struct Answers {
    api: &'static Api,
    /// The version.
    pub version: i16,
}

impl Answers {
    /// The readers of all answers, in all versions that are spoken.
    pub fn all() -> Vec<Self> {
        let work = [
            &PRODUCE,
            &FETCH,
            &LIST_OFFSETS,
            &OFFSET_FOR_LEADER_EPOCH,
            &METADATA,
            &INIT_PRODUCER_ID,
            &FIND_COORDINATOR,
            &OFFSET_FETCH,
            &OFFSET_COMMIT,
        ];
        let members =
            [&JOIN_GROUP, &SYNC_GROUP, &HEARTBEAT, &LEAVE_GROUP, &CONSUMER_GROUP_HEARTBEAT];
        let handshake = [&API_VERSIONS, &SASL_HANDSHAKE, &SASL_AUTHENTICATE];
        handshake
            .into_iter()
            .chain(work)
            .chain(members)
            .flat_map(|api| (api.least..=api.most).map(|version| Self { api, version }))
            .collect()
    }

    /// The API's key.
    pub fn key(&self) -> i16 {
        self.api.key
    }

    /// Whether the version has compact lengths and tagged fields.
    pub fn is_flexible(&self) -> bool {
        self.api.is_flexible(self.version)
    }

    /// Reads a frame, and drops what it says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, frame: Bytes) -> Result<(), String> {
        match self.api.key {
            key if key == API_VERSIONS.key => read(&AskVersions, self.version, frame),
            key if key == METADATA.key => read(&AskMetadata::default(), self.version, frame),
            key if key == PRODUCE.key => read(&Append::default(), self.version, frame),
            key if key == FETCH.key => read(&fetch(), self.version, frame),
            key if key == LIST_OFFSETS.key => read(&ListOffsets::default(), self.version, frame),
            key if key == OFFSET_FOR_LEADER_EPOCH.key => {
                read(&AskEpochEnds::default(), self.version, frame)
            }
            key if key == FIND_COORDINATOR.key => {
                read(&FindCoordinator { group: GROUP.into() }, self.version, frame)
            }
            key if key == OFFSET_FETCH.key => {
                let call = FetchOffsets { group: GROUP.into(), ..FetchOffsets::default() };
                read(&call, self.version, frame)
            }
            key if key == OFFSET_COMMIT.key => read(&CommitOffsets::default(), self.version, frame),
            key if key == JOIN_GROUP.key => read(&JoinGroup::default(), self.version, frame),
            key if key == SYNC_GROUP.key => read(&SyncGroup::default(), self.version, frame),
            key if key == HEARTBEAT.key => read(&Heartbeat::default(), self.version, frame),
            key if key == LEAVE_GROUP.key => read(&LeaveGroup::default(), self.version, frame),
            key if key == CONSUMER_GROUP_HEARTBEAT.key => {
                read(&ConsumerGroupHeartbeat::default(), self.version, frame)
            }
            key if key == SASL_HANDSHAKE.key => {
                read(&ChooseMechanism("PLAIN"), self.version, frame)
            }
            key if key == SASL_AUTHENTICATE.key => read(&Prove(Bytes::new()), self.version, frame),
            _ => read(&AskProducerId, self.version, frame),
        }
    }
}

/// Answers of Fetch are read with what was asked: here partition 0 of as many topics as a test names.
fn fetch() -> Fetch {
    let asked = |number: u32| FetchAsked {
        topic: format!("{number:x}").into(),
        topic_id: u128::from(number) + 1,
        partition: 0,
        epoch: -1,
        offset: 0,
        last_epoch: None,
    };
    Fetch { partitions: (0..2).map(asked).collect(), ..Fetch::default() }
}

fn read<C: Call>(call: &C, version: i16, frame: Bytes) -> Result<(), String> {
    calls::decode(call, version, frame).map(drop).map_err(|malformed| malformed.to_string())
}

/// Cuts a stream into frames of at most `limit` bytes, which arrives in `parts`; gives their
/// lengths.
///
/// # Errors
/// What is wrong with a length.
pub fn frames<'a>(
    limit: usize,
    parts: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<usize>, String> {
    let mut decoder = Decoder::new(limit);
    let mut lengths = Vec::new();
    for part in parts {
        decoder.spare().extend_from_slice(part);
        while let Some(frame) = decoder.poll_frame().map_err(|error| error.to_string())? {
            lengths.push(frame.len());
        }
    }
    Ok(lengths)
}

/// Lives through a handshake in which the broker says `bytes`; whether it came to an end.
///
/// # Errors
/// What is wrong with it.
pub fn handshake(bytes: &[u8]) -> Result<bool, String> {
    let mut handshake =
        Handshake::new("test", API_VERSIONS.most, None).map_err(|e| e.to_string())?;
    let mut decoder = Decoder::new(HANDSHAKE_FRAME_BYTES);
    for part in bytes.chunks(READ_STEP_BYTES) {
        decoder.spare().extend_from_slice(part);
        while let Some(frame) = decoder.poll_frame().map_err(|error| error.to_string())? {
            if handshake.on_frame(frame).map_err(|error| error.to_string())?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
