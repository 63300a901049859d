//! The messages of APISIX's `pubsub.proto`, field for field.

use bytes::Bytes;
use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct PubSubReq {
    #[prost(int64, tag = "1")]
    pub(super) sequence: i64,
    /// The last on the wire, where there are two.
    #[prost(oneof = "Command", tags = "31, 32, 33, 34")]
    pub(super) req: Option<Command>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Command {
    #[prost(message, tag = "31")]
    Empty(CmdEmpty),
    #[prost(message, tag = "32")]
    Ping(Ping),
    #[prost(message, tag = "33")]
    Fetch(CmdKafkaFetch),
    #[prost(message, tag = "34")]
    ListOffset(CmdKafkaListOffset),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CmdEmpty {}

/// `CmdPing` and `PongResp`, which are alike.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ping {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) state: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CmdKafkaFetch {
    #[prost(string, tag = "1")]
    pub(super) topic: String,
    #[prost(int32, tag = "2")]
    pub(super) partition: i32,
    #[prost(int64, tag = "3")]
    pub(super) offset: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CmdKafkaListOffset {
    #[prost(string, tag = "1")]
    pub(super) topic: String,
    #[prost(int32, tag = "2")]
    pub(super) partition: i32,
    #[prost(int64, tag = "3")]
    pub(super) timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PubSubResp {
    #[prost(int64, tag = "1")]
    pub(super) sequence: i64,
    #[prost(oneof = "Reply", tags = "31, 32, 33, 34")]
    pub(super) resp: Option<Reply>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Reply {
    #[prost(message, tag = "31")]
    Error(ErrorResp),
    #[prost(message, tag = "32")]
    Pong(Ping),
    #[prost(message, tag = "33")]
    Fetch(KafkaFetchResp),
    #[prost(message, tag = "34")]
    ListOffset(KafkaListOffsetResp),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ErrorResp {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KafkaFetchResp {
    #[prost(message, repeated, tag = "1")]
    pub(super) messages: Vec<KafkaMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KafkaMessage {
    #[prost(int64, tag = "1")]
    pub(super) offset: i64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub(super) timestamp: i64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KafkaListOffsetResp {
    #[prost(int64, tag = "1")]
    pub(super) offset: i64,
}
