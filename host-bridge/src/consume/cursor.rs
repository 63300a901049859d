//! A cursor: the next offset of every partition, as text that any bridge can go on from.
//!
//! ```text
//! plain = ";" / part *( ";" part ) [ ";" ]     a trailing ";": a complete vector
//! part  = topic [ ":" 8HEXDIG ] "@" [ pair *( "," pair ) ]     "orders@": no partition known
//! pair  = partition "#" ( offset [ "." epoch ] / "t" millis )
//! ```
//! Text with neither `@` nor `;` is the base64 of that.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::refusal::{Code, Refusal};

/// Positions by topic, ordered as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) topics: BTreeMap<String, TopicPositions>,
    /// Whether all of the feed is in it, so that what is missing was created later.
    pub(crate) complete: bool,
}

/// The positions in one topic; none if it had no partition when it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicPositions {
    /// Begins the topic's id: a topic that was deleted and created again has another.
    pub(crate) tag: Option<u32>,
    pub(crate) partitions: BTreeMap<i32, Position>,
}

/// Whether tags are of the same topic, as far as both are known: one that was created again has another.
pub(crate) fn is_same_topic(one: Option<u32>, other: Option<u32>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

/// Where to go on in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// The next offset, and the leader epoch of the record before it if it is known.
    Offset { next: i64, epoch: Option<i32> },
    /// The first record at or after a time in ms: the partition had no leader that could be asked
    /// for an offset.
    Time(i64),
}

impl Position {
    /// The next offset, if it is known.
    pub(crate) fn next(self) -> Option<i64> {
        match self {
            Self::Offset { next, .. } => Some(next),
            Self::Time(_) => None,
        }
    }
}

impl Cursor {
    /// Reads plain text or its base64, with padding or without.
    ///
    /// # Errors
    /// [`Code::CursorMalformed`], [`Code::CursorDuplicate`].
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() > CURSOR_BYTES {
            return Err(malformed(format!("has more than {CURSOR_BYTES} bytes")));
        }
        let plain = plain(text.trim())?;
        let plain = plain.trim();
        let (parts, complete) = match plain.strip_suffix(';') {
            Some(parts) => (parts, true),
            None => (plain, false),
        };
        let mut cursor = Self { complete, ..Self::default() };
        if !(complete && parts.is_empty()) {
            parts.split(';').try_for_each(|part| cursor.read_part(part))?;
        }
        Ok(cursor)
    }

    /// Merges a part into what was read before: a topic may be repeated.
    fn read_part(&mut self, part: &str) -> Result<(), Refusal> {
        let no_topic = || malformed(format!("`{part}` is not TOPIC@PARTITION#OFFSET"));
        let (topic, pairs) = part.split_once('@').ok_or_else(no_topic)?;
        let (topic, tag) = match topic.split_once(':') {
            Some((topic, tag)) => (topic, Some(read_tag(tag)?)),
            None => (topic, None),
        };
        if !is_topic(topic) {
            return Err(malformed(format!("`{topic}` is not a topic's name")));
        }
        let positions = self.topics.entry(topic.to_owned()).or_default();
        if tag.is_some() && positions.tag.is_some_and(|before| Some(before) != tag) {
            return Err(malformed(format!("the topic `{topic}` has two ids")));
        }
        positions.tag = tag.or(positions.tag);
        for pair in pairs.split(',').filter(|_| !pairs.is_empty()) {
            let (partition, position) = read_pair(pair)?;
            let Entry::Vacant(entry) = positions.partitions.entry(partition) else {
                let message = format!("cursor: {topic} has partition {partition} twice");
                return Err(Code::CursorDuplicate.because(message));
            };
            entry.insert(position);
        }
        Ok(())
    }

    /// Leaves the positions of some partitions.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&str, i32) -> bool) {
        for (topic, positions) in &mut self.topics {
            positions.partitions.retain(|partition, _| is_kept(topic, *partition));
        }
        self.topics.retain(|_, positions| !positions.partitions.is_empty());
    }

    /// Has the positions of another one, too; of a topic that was created again only those.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (topic, positions) in &other.topics {
            let of_topic = self.topics.entry(topic.clone()).or_default();
            if !is_same_topic(of_topic.tag, positions.tag) {
                of_topic.partitions.clear();
            }
            of_topic.tag = positions.tag.or(of_topic.tag);
            of_topic.partitions.extend(&positions.partitions);
        }
    }

    /// Every partition that it has.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32, Position)> {
        self.topics.iter().flat_map(|(topic, positions)| {
            let partitions = positions.partitions.iter();
            partitions.map(move |(partition, position)| (&**topic, *partition, *position))
        })
    }

    /// Takes out the positions of topics that are others of the same names there.
    pub(crate) fn take_former(&mut self, now: &Self) -> Self {
        let is_former = |topic: &String, positions: &mut TopicPositions| {
            now.topics.get(topic).is_some_and(|now| !is_same_topic(positions.tag, now.tag))
        };
        Self { topics: self.topics.extract_if(.., is_former).collect(), complete: false }
    }

    pub(crate) fn position(&self, topic: &str, partition: i32) -> Option<&Position> {
        self.topics.get(topic)?.partitions.get(&partition)
    }

    /// The one text for these positions: base64, so that it needs no escape in a URL, or plain.
    pub(crate) fn encode(&self, encode_message_id: bool) -> String {
        let plain = self.plain();
        if encode_message_id { STANDARD.encode(plain) } else { plain }
    }

    /// # Errors
    /// [`Code::FeedTooWide`] if a header line could not hold it.
    pub(crate) fn check_width(&self) -> Result<(), Refusal> {
        check_bytes(self.plain().len())
    }

    fn plain(&self) -> String {
        let mut text = String::new();
        for (index, (topic, positions)) in self.topics.iter().enumerate() {
            text.push_str(if index == 0 { "" } else { ";" });
            text.push_str(topic);
            positions.write(&mut text);
        }
        text.push_str(if self.complete { ";" } else { "" });
        text
    }
}

impl TopicPositions {
    /// Writes what follows the topic's name.
    fn write(&self, text: &mut String) {
        if let Some(tag) = self.tag {
            let _infallible = write!(text, ":{tag:08x}");
        }
        text.push('@');
        for (index, (partition, position)) in self.partitions.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _infallible = match position {
                Position::Offset { next, epoch: None } => write!(text, "{comma}{partition}#{next}"),
                Position::Offset { next, epoch: Some(epoch) } => {
                    write!(text, "{comma}{partition}#{next}.{epoch}")
                }
                Position::Time(ms) => write!(text, "{comma}{partition}#t{ms}"),
            };
        }
    }
}

/// Whether a cursor could have topics of these names: more are not even asked about.
///
/// # Errors
/// [`Code::FeedTooWide`].
pub(super) fn check_names<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<(), Refusal> {
    check_bytes(names.into_iter().map(|name| name.len() + "@;".len()).sum())
}

fn check_bytes(bytes: usize) -> Result<(), Refusal> {
    if bytes <= PLAIN_BYTES {
        return Ok(());
    }
    let message = format!(
        "the cursor has {bytes} bytes of {PLAIN_BYTES}: the feed has too many partitions; \
         narrow it with `topics`"
    );
    Err(Code::FeedTooWide.because(message))
}

/// The text that was encoded, if it was.
fn plain(text: &str) -> Result<Cow<'_, str>, Refusal> {
    if text.contains(['@', ';']) {
        return Ok(Cow::Borrowed(text));
    }
    // No cursor has the characters in which the two alphabets differ.
    let bytes = ANY_PADDING.decode(text).ok();
    let decoded = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map(Cow::Owned);
    decoded.ok_or_else(|| malformed("is neither TOPIC@PARTITION#OFFSET nor the base64 of that"))
}

fn read_pair(pair: &str) -> Result<(i32, Position), Refusal> {
    // Where `#` is not escaped, a URL ends before it.
    let no_offset = || {
        malformed(format!("`{pair}` has no `#` before its offset; in a URL it is written `%23`"))
    };
    let (partition, position) = pair.split_once('#').ok_or_else(no_offset)?;
    let position = match (position.strip_prefix('t'), position.split_once('.')) {
        (Some(millis), _) => Position::Time(number("time", millis)?),
        (None, Some((next, epoch))) => {
            Position::Offset { next: number("offset", next)?, epoch: Some(number("epoch", epoch)?) }
        }
        (None, None) => Position::Offset { next: number("offset", position)?, epoch: None },
    };
    Ok((number("partition", partition)?, position))
}

fn read_tag(tag: &str) -> Result<u32, Refusal> {
    let is_tag = tag.len() == 8 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u32::from_str_radix(tag, 16).ok().filter(|_| is_tag);
    number.ok_or_else(|| malformed(format!("`{tag}` is not the 8 digits of a topic's id")))
}

/// Decimal, zeros before it allowed, not negative.
fn number<T: FromStr>(what: &str, text: &str) -> Result<T, Refusal> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_decimal);
    number.ok_or_else(|| malformed(format!("`{text}` is not a valid {what}")))
}

/// Whether Kafka could have a topic of this name.
pub(super) fn is_topic(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=TOPIC_BYTES).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(is_legal)
}

fn malformed(reason: impl AsRef<str>) -> Refusal {
    let reason = reason.as_ref();
    let reason = reason.get(..reason.floor_char_boundary(REASON_BYTES)).unwrap_or_default();
    Code::CursorMalformed.because(format!("cursor: {reason}"))
}

/// Bytes of a cursor that is read: more fits into no header line of common gateways.
const CURSOR_BYTES: usize = 8192;
/// Bytes of a plain cursor at open. Its base64 takes 7,852, so the offsets' digits have room to grow
/// before a bridge would have to refuse its own cursor.
pub(super) const PLAIN_BYTES: usize = 5888;
/// Bytes of what is said of a malformed one, which is quoted.
const REASON_BYTES: usize = 256;
/// Bytes of a topic's name, by Kafka's rule.
const TOPIC_BYTES: usize = 249;
const ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests;
