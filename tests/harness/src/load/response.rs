//! Reads HTTP/1.1 replies from bytes as they come, with as little work as a generator can do.

use anyhow::{Context, bail, ensure};

use super::Placement;

/// More headers than the server under test may send.
const MAX_HEADERS: usize = 64;

/// Longest head of a reply.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What is kept of a reply; its body is counted, not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Where the record is, if the reply says so.
    pub placement: Option<Placement>,
    /// Bytes of body.
    pub body_bytes: usize,
    /// Whether the connection can take another request.
    pub keep_alive: bool,
}

/// Collects bytes and gives replies; interim (1xx) replies are left out.
#[derive(Debug, Default)]
pub struct ResponseReader {
    buffer: Vec<u8>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// So many bytes of body are still to come.
    Length(Reply, usize),
    /// A chunk's size line comes next.
    ChunkSize(Reply),
    /// So many bytes of this chunk, with its line end, are still to come.
    Chunk(Reply, usize),
    /// Trailers, up to an empty line.
    Trailers(Reply),
    /// The body ends with the connection.
    ToEnd(Reply),
}

impl ResponseReader {
    /// Where to append what the socket gave.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// The next whole reply, if it has come.
    ///
    /// # Errors
    /// When the bytes are not HTTP/1.1; the connection is then of no use.
    pub fn poll(&mut self) -> anyhow::Result<Option<Reply>> {
        loop {
            let next = match std::mem::take(&mut self.state) {
                State::Head => match self.head()? {
                    Some(next) => next,
                    None => return Ok(None),
                },
                State::Length(reply, left) => {
                    let left = left - self.skip(left);
                    if left == 0 {
                        return Ok(Some(reply));
                    }
                    return Ok(self.wait(State::Length(reply, left)));
                }
                State::ChunkSize(reply) => match self.line()? {
                    Some(line) => chunk(reply, &line)?,
                    None => return Ok(self.wait(State::ChunkSize(reply))),
                },
                State::Chunk(reply, left) => {
                    let left = left - self.skip(left);
                    if left > 0 {
                        return Ok(self.wait(State::Chunk(reply, left)));
                    }
                    State::ChunkSize(reply)
                }
                State::Trailers(reply) => match self.line()? {
                    Some(line) if line.is_empty() => return Ok(Some(reply)),
                    Some(_) => State::Trailers(reply),
                    None => return Ok(self.wait(State::Trailers(reply))),
                },
                State::ToEnd(mut reply) => {
                    reply.body_bytes += self.skip(usize::MAX);
                    return Ok(self.wait(State::ToEnd(reply)));
                }
            };
            self.state = next;
        }
    }

    /// The reply that ends with the connection, when it has ended.
    pub fn closed(&mut self) -> Option<Reply> {
        match std::mem::take(&mut self.state) {
            State::ToEnd(reply) => Some(reply),
            _ => None,
        }
    }

    fn wait(&mut self, state: State) -> Option<Reply> {
        self.state = state;
        None
    }

    /// Takes up to `most` bytes away, and says how many.
    fn skip(&mut self, most: usize) -> usize {
        let count = most.min(self.buffer.len());
        self.buffer.drain(..count);
        count
    }

    fn line(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
            ensure!(self.buffer.len() < MAX_HEAD_BYTES, "a line without an end");
            return Ok(None);
        };
        let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
        line.truncate(line.trim_ascii_end().len());
        Ok(Some(line))
    }

    fn head(&mut self) -> anyhow::Result<Option<State>> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = response.parse(&self.buffer)? else {
            ensure!(self.buffer.len() < MAX_HEAD_BYTES, "a head without an end");
            return Ok(None);
        };
        let state = Head::read(&response)?.into_state();
        self.skip(length);
        Ok(Some(state))
    }
}

/// What of a head decides how the body is read.
struct Head {
    reply: Reply,
    length: Option<usize>,
    chunked: bool,
}

impl Head {
    fn read(response: &httparse::Response<'_, '_>) -> anyhow::Result<Self> {
        let status = response.code.context("a reply without a status")?;
        let reply = Reply { status, placement: None, body_bytes: 0, keep_alive: true };
        let mut head = Self { reply, length: None, chunked: false };
        let (mut partition, mut offset) = (None, None);
        for header in response.headers.iter() {
            let name = header.name;
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Some(number(header.value).context("a bad content-length")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.chunked = header.value.eq_ignore_ascii_case(b"chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                head.reply.keep_alive = !header.value.eq_ignore_ascii_case(b"close");
            } else if name.eq_ignore_ascii_case("kafka-partition") {
                partition = number(header.value);
            } else if name.eq_ignore_ascii_case("kafka-offset") {
                offset = number(header.value);
            }
        }
        if let (Some(partition), Some(offset)) = (partition, offset) {
            head.reply.placement = Some(Placement { partition, offset });
        }
        Ok(head)
    }

    fn into_state(self) -> State {
        let mut reply = self.reply;
        match (reply.status, self.chunked, self.length) {
            (100..=199, ..) => State::Head,
            (204 | 304, ..) => State::Length(reply, 0),
            (_, true, _) => State::ChunkSize(reply),
            (_, false, Some(length)) => {
                reply.body_bytes = length;
                State::Length(reply, length)
            }
            (_, false, None) => {
                reply.keep_alive = false;
                State::ToEnd(reply)
            }
        }
    }
}

/// The state after a chunk's size line, whose extensions are left out.
fn chunk(mut reply: Reply, line: &[u8]) -> anyhow::Result<State> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let text = std::str::from_utf8(size)?.trim();
    let size = usize::from_str_radix(text, 16).with_context(|| format!("chunk size {text:?}"))?;
    reply.body_bytes += size;
    match size.checked_add(2) {
        Some(2) => Ok(State::Trailers(reply)),
        Some(with_line_end) => Ok(State::Chunk(reply, with_line_end)),
        None => bail!("a chunk of {size} bytes"),
    }
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the same bytes whole and byte by byte: both must give the same replies.
    fn read(bytes: &[u8]) -> Vec<Reply> {
        let mut whole = ResponseReader::default();
        whole.buffer().extend_from_slice(bytes);
        let mut replies = Vec::new();
        while let Some(reply) = whole.poll().unwrap() {
            replies.push(reply);
        }
        let mut slow = ResponseReader::default();
        let mut one_by_one = Vec::new();
        for byte in bytes {
            slow.buffer().push(*byte);
            one_by_one.extend(slow.poll().unwrap());
        }
        assert_eq!(replies, one_by_one);
        replies
    }

    #[test]
    fn replies_with_a_length_follow_each_other() {
        let replies = read(
            b"HTTP/1.1 200 OK\r\nKafka-Partition: 2\r\nkafka-offset: 77\r\ncontent-length: 2\r\n\
              \r\nokHTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
        assert_eq!(replies.len(), 2);
        assert_eq!(replies[0].placement, Some(Placement { partition: 2, offset: 77 }));
        assert_eq!((replies[0].status, replies[0].body_bytes), (200, 2));
        assert_eq!((replies[1].status, replies[1].keep_alive), (503, false));
    }

    #[test]
    fn chunks_trailers_and_interim_replies_are_understood() {
        let replies = read(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
              3;x=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nt: 1\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        );
        assert_eq!(replies.len(), 2);
        assert_eq!((replies[0].status, replies[0].body_bytes), (200, 13));
        assert_eq!(replies[1].status, 204);
    }

    #[test]
    fn a_reply_without_a_length_ends_with_the_connection() {
        let mut reader = ResponseReader::default();
        reader.buffer().extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\nabc");
        assert_eq!(reader.poll().unwrap(), None);
        assert_eq!(reader.closed().map(|reply| reply.body_bytes), Some(3));
        assert_eq!(reader.closed(), None);
    }

    #[test]
    fn a_cut_reply_is_none() {
        let mut reader = ResponseReader::default();
        reader.buffer().extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc");
        assert_eq!(reader.poll().unwrap(), None);
        assert_eq!(reader.closed(), None);
    }

    #[test]
    fn garbage_is_an_error() {
        let mut reader = ResponseReader::default();
        reader.buffer().extend_from_slice(b"SSH-2.0-x\r\n\r\n");
        assert!(reader.poll().is_err());
    }
}
