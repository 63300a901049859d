//! One request to one broker, on a connection of its own: what the harness asks, it asks anew.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for a response; shorter than one look of [`crate::process::wait_until`].
const REPLY: Duration = Duration::from_secs(4);

/// Largest response, in bytes; a Fetch asks for less.
const MAX_RESPONSE_BYTES: i32 = 64 * 1024 * 1024;

/// Sends a request in a version and returns the response.
pub(crate) async fn call<R: Request>(
    address: &str,
    version: i16,
    request: &R,
) -> anyhow::Result<R::Response> {
    let exchange = async {
        let mut frame = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_client_id(Some(StrBytes::from_static_str("kafka-upstream-harness")));
        header.encode(&mut frame, R::header_version(version))?;
        request.encode(&mut frame, version)?;
        let mut stream = TcpStream::connect(address).await?;
        let mut bytes = BytesMut::with_capacity(frame.len() + 4);
        bytes.put_i32(i32::try_from(frame.len())?);
        bytes.extend_from_slice(&frame);
        stream.write_all(&bytes).await?;
        let length = stream.read_i32().await?;
        ensure!((4..=MAX_RESPONSE_BYTES).contains(&length), "a response of {length} bytes");
        let mut response = vec![0; usize::try_from(length)?];
        stream.read_exact(&mut response).await?;
        let mut response = Bytes::from(response);
        ResponseHeader::decode(&mut response, R::Response::header_version(version))?;
        R::Response::decode(&mut response, version)
    };
    tokio::time::timeout(REPLY, exchange)
        .await
        .context("no response in 4 s")?
        .with_context(|| format!("request {} to {address}", R::KEY))
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
