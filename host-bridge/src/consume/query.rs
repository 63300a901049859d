//! What a GET asks for: its query, and the media type of the reply.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use kafka_upstream_core::expression::RecordExpression;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::cursor::Cursor;
use super::envelope::Shape;
use super::refusal::{Code, Refusal};
use super::start::{Given, Start};

/// A checked query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) start: Given,
    /// Narrows the feed.
    pub(crate) topics: Option<Vec<String>>,
    /// Most items of the reply.
    pub(crate) limit: usize,
    /// Items that are worth a reply before the timeout.
    pub(crate) min: usize,
    pub(crate) timeout: Duration,
    /// Bytes of items after which the reply is full.
    pub(crate) max_bytes: usize,
    pub(crate) shape: Shape,
    /// The reader's own.
    pub(crate) filter: Option<RecordExpression>,
    /// Of a WebSocket: whether its client acknowledges what it is sent, where the feed leaves it that.
    pub(crate) acks: bool,
    /// And the most records of a message.
    pub(crate) batch: usize,
}

/// A media type of replies, in the order in which they are preferred among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Ndjson,
    OctetStream,
    Text,
}

/// How a feed can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Page(Media),
    Stream,
}

/// The parameters that are known, with their values.
struct Parameters<'a>(BTreeMap<&'static str, Cow<'a, str>>);

impl Query {
    /// Reads a URL's query and the header `Last-Event-ID`. That wins over the URL, because a browser
    /// reconnects with the old URL and the newer header.
    ///
    /// # Errors
    /// [`Code::InvalidParameter`] names the parameter; those of [`Cursor::parse`].
    pub(crate) fn parse(query: &str, last_event_id: Option<&str>) -> Result<Self, Refusal> {
        let parameters = Parameters::parse(query)?;
        let limit = parameters.number("limit", 1, LIMIT)?;
        let min = parameters.number("min", 1, MIN)?;
        if min > limit {
            return Err(invalid("min", &format!("{min} is above the limit, {limit}")));
        }
        Ok(Self {
            start: parameters.start(last_event_id)?,
            topics: parameters.topics()?,
            limit: limit.min(LIMIT_MAX),
            min: min.min(LIMIT_MAX),
            timeout: Duration::from_millis(
                parameters.number("timeout", 0, TIMEOUT_MS)?.min(TIMEOUT_MS_MAX) as u64,
            ),
            max_bytes: parameters.number("max_bytes", 1, BYTES_MAX)?.min(BYTES_MAX),
            shape: Shape {
                headers: parameters.choice("headers", &FLAGS)?.unwrap_or(false),
                metadata: parameters.choice("metadata", &FLAGS)?.unwrap_or(true),
                big_as_string: parameters.choice("big", &BIG)?.unwrap_or(false),
            },
            filter: parameters.filter()?,
            acks: parameters.choice("acks", &FLAGS)?.unwrap_or(false),
            batch: parameters.number("batch", 1, BATCH)?.min(BATCH_MAX),
        })
    }
}

impl<'a> Parameters<'a> {
    /// Unknown ones are ignored.
    fn parse(query: &'a str) -> Result<Self, Refusal> {
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(known) = KNOWN.iter().find(|known| **known == name) else { continue };
            if parameters.insert(*known, value).is_some() {
                return Err(invalid(known, "is given twice"));
            }
        }
        Ok(Self(parameters))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| &**value)
    }

    fn start(&self, last_event_id: Option<&str>) -> Result<Given, Refusal> {
        if let Some(cursor) = last_event_id.filter(|cursor| !cursor.is_empty()) {
            return Cursor::parse(cursor).map(Given::Cursor);
        }
        let cursor = self.get("cursor").filter(|cursor| !cursor.is_empty());
        match (cursor, self.get("from")) {
            (Some(_), Some(_)) => Err(invalid("from", "cannot stand beside a cursor")),
            (Some(cursor), None) => Cursor::parse(cursor).map(Given::Cursor),
            (None, Some(from)) => start("from", from).map(Given::From),
            (None, None) => Ok(Given::Nothing),
        }
    }

    fn filter(&self) -> Result<Option<RecordExpression>, Refusal> {
        let Some(source) = self.get("filter").filter(|source| !source.is_empty()) else {
            return Ok(None);
        };
        let compiled = RecordExpression::compile_of_reader("filter", source);
        let checked = compiled.and_then(|filter| filter.check_filter().map(|()| Some(filter)));
        checked.map_err(|error| Code::FilterInvalid.because(error.to_string()))
    }

    fn topics(&self) -> Result<Option<Vec<String>>, Refusal> {
        let Some(text) = self.get("topics") else { return Ok(None) };
        let mut topics: Vec<_> = text.split(',').map(|topic| topic.trim().to_owned()).collect();
        if topics.iter().any(String::is_empty) {
            return Err(invalid("topics", "must be names, separated by commas"));
        }
        topics.sort_unstable();
        topics.dedup();
        Ok(Some(topics))
    }

    /// Not below `least`. However large a number is, its cap is what counts.
    fn number(&self, name: &str, least: usize, default: usize) -> Result<usize, Refusal> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_decimal.then(|| text.parse().unwrap_or(usize::MAX));
        let reason = || format!("must be a number from {least}, not `{}`", shown(text));
        number.filter(|number| *number >= least).ok_or_else(|| invalid(name, &reason()))
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(Some(*choice));
        }
        let accepted: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let reason = format!("must be {}, not `{}`", accepted.join(" or "), shown(text));
        Err(invalid(name, &reason))
    }
}

impl Media {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::OctetStream => "application/octet-stream",
            Self::Text => "text/plain",
        }
    }
}

impl Form {
    /// What a client likes best, by RFC 9110, 12.5.1: the highest weight; among equals a type that is
    /// named before one that a wildcard allows, then what stands first. `accept` has the values of
    /// all header lines; `offers` are what can be had, best first.
    ///
    /// # Errors
    /// [`Code::NotAcceptable`].
    pub(crate) fn negotiate<'a>(
        accept: impl Iterator<Item = &'a str>,
        offers: &[Self],
    ) -> Result<Self, Refusal> {
        let items = accept.flat_map(|line| line.split(','));
        let ranges: Vec<_> = items.filter_map(Range::parse).collect();
        if let ([], Some(first)) = (&*ranges, offers.first()) {
            return Ok(*first);
        }
        // The last of equals is chosen.
        let types = offers.iter().copied().rev();
        let liked = types.filter_map(|form| {
            let matching = ranges.iter().enumerate().filter_map(|(at, range)| {
                range.specificity(form.name()).map(|specificity| (specificity, at, range))
            });
            let (specificity, at, range) = matching.max_by_key(|(found, at, _)| (*found, !*at))?;
            (range.weight > 0).then_some(((range.weight, specificity, !at), form))
        });
        let best = liked.max_by_key(|(preference, _)| *preference);
        best.map(|(_, form)| form).ok_or_else(|| {
            let names: Vec<_> = offers.iter().map(|form| form.name()).collect();
            let names = names.join(", ");
            Code::NotAcceptable.because(format!("accept: the feed can be had as {names}"))
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Page(media) => media.name(),
            Self::Stream => "text/event-stream",
        }
    }

    /// Those of a page.
    pub(crate) const PAGES: [Self; 4] = [
        Self::Page(Media::Json),
        Self::Page(Media::Ndjson),
        Self::Page(Media::OctetStream),
        Self::Page(Media::Text),
    ];
}

/// One of the media ranges of `Accept`.
struct Range {
    /// In lower case, without parameters.
    name: String,
    /// In thousandths.
    weight: u16,
}

impl Range {
    /// `None` if it is no range; it is ignored then, as most servers do.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let weight = weight.map_or(Some(1000), weight_of)?;
        name.contains('/').then_some(Self { name, weight })
    }

    /// How closely it matches a type, if it does.
    fn specificity(&self, media: &str) -> Option<u8> {
        let (family, _) = media.split_once('/')?;
        match self.name.split_once('/')? {
            _ if self.name == media => Some(2),
            (of, "*") if of == family => Some(1),
            ("*", "*") => Some(0),
            _ => None,
        }
    }
}

/// `0`, `1`, or either with up to three decimals.
fn weight_of(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_decimal = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok().filter(|_| is_decimal)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// `at` of a request for a cursor.
///
/// # Errors
/// [`Code::InvalidParameter`].
pub(crate) fn at(query: &str) -> Result<Start, Refusal> {
    let mut given = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "at");
    match (given.next(), given.next()) {
        (Some((_, text)), None) => start("at", &text),
        (None, _) => Err(invalid("at", "is missing: earliest, latest or a time")),
        (Some(_), Some(_)) => Err(invalid("at", "is given twice")),
    }
}

/// A place in every partition, as `name` gives it.
///
/// # Errors
/// [`Code::InvalidParameter`].
pub(crate) fn start(name: &str, text: &str) -> Result<Start, Refusal> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let time = match text {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        _ if is_decimal => text.parse().ok(),
        _ => rfc3339(text),
    };
    let reason = "must be earliest, latest, milliseconds or a time of RFC 3339";
    time.map(Start::Time).ok_or_else(|| invalid(name, &format!("{reason}, not `{}`", shown(text))))
}

/// Milliseconds since 1970; Kafka knows no time before.
fn rfc3339(text: &str) -> Option<i64> {
    // In a query the `+` of a zone means a space unless it is escaped.
    let time = OffsetDateTime::parse(&text.replace(' ', "+"), &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().filter(|millis| *millis >= 0)
}

fn invalid(name: &str, reason: &str) -> Refusal {
    Code::InvalidParameter.because(format!("{name}: {reason}"))
}

/// The beginning of a value that may have any length.
fn shown(text: &str) -> &str {
    text.get(..text.floor_char_boundary(SHOWN_BYTES)).unwrap_or_default()
}

const KNOWN: [&str; 13] = [
    "cursor",
    "from",
    "topics",
    "limit",
    "min",
    "timeout",
    "max_bytes",
    "headers",
    "metadata",
    "big",
    "filter",
    "acks",
    "batch",
];
const FLAGS: [(&str, bool); 2] = [("true", true), ("false", false)];
const BIG: [(&str, bool); 2] = [("string", true), ("number", false)];
/// Items of a reply, and the most.
const LIMIT: usize = 500;
const LIMIT_MAX: usize = 10_000;
const MIN: usize = 1;
/// How long a request waits for items, and the longest: gateways give up after a minute or more.
const TIMEOUT_MS: usize = 5000;
const TIMEOUT_MS_MAX: usize = 60_000;
/// Bytes of a reply, by default and at most.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Records of a WebSocket's message, and the most.
const BATCH: usize = 1;
const BATCH_MAX: usize = 1000;
const SHOWN_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(query: &str) -> Result<Query, String> {
        Query::parse(query, None).map_err(|refusal| {
            assert_eq!(refusal.code, Code::InvalidParameter);
            refusal.message
        })
    }

    #[test]
    fn without_parameters_the_defaults_hold() {
        let defaults = Query {
            start: Given::Nothing,
            topics: None,
            limit: 500,
            min: 1,
            timeout: Duration::from_secs(5),
            max_bytes: 8 * 1024 * 1024,
            shape: Shape { headers: false, metadata: true, big_as_string: false },
            filter: None,
            acks: false,
            batch: 1,
        };
        assert_eq!(parse("").as_ref(), Ok(&defaults));
        assert_eq!(parse("cursor=&unknown=1&unknown=2").as_ref(), Ok(&defaults));
        let given = Query {
            start: Given::Cursor(Cursor::parse("a@0#1").unwrap()),
            topics: Some(vec!["a".to_owned(), "b".to_owned()]),
            limit: 10,
            min: 5,
            timeout: Duration::ZERO,
            max_bytes: 1,
            shape: Shape { headers: true, metadata: false, big_as_string: true },
            filter: RecordExpression::compile_of_reader("filter", "key != null").ok(),
            acks: true,
            batch: 1000,
        };
        let query = "cursor=a@0%231&topics=b,a,b&limit=10&min=5&timeout=0&max_bytes=1&headers=true\
            &metadata=false&big=string&filter=key+!=+null&acks=true&batch=1001";
        assert_eq!(parse(query), Ok(given));
    }

    #[test]
    fn what_is_above_a_cap_is_the_cap() {
        let huge = "99999999999999999999999";
        let query =
            parse(&format!("limit={huge}&min=20000&timeout={huge}&max_bytes=8388609")).unwrap();
        assert_eq!((query.limit, query.min), (10_000, 10_000));
        assert_eq!(query.timeout, Duration::from_secs(60));
        assert_eq!(query.max_bytes, 8 * 1024 * 1024);
        assert_eq!(parse("limit=1000000000").unwrap().limit, 10_000);
    }

    #[test]
    fn what_is_wrong_names_the_parameter() {
        for (query, message) in [
            ("limit=0", "limit: must be a number from 1, not `0`"),
            ("limit=abc", "limit: must be a number from 1, not `abc`"),
            ("limit=", "limit: must be a number from 1, not ``"),
            ("min=0", "min: must be a number from 1, not `0`"),
            ("min=501", "min: 501 is above the limit, 500"),
            ("limit=5&min=6", "min: 6 is above the limit, 5"),
            ("timeout=-1", "timeout: must be a number from 0, not `-1`"),
            ("max_bytes=0", "max_bytes: must be a number from 1, not `0`"),
            ("headers=yes", "headers: must be true or false, not `yes`"),
            ("metadata=", "metadata: must be true or false, not ``"),
            ("big=1", "big: must be string or number, not `1`"),
            ("topics=", "topics: must be names, separated by commas"),
            ("topics=a,,b", "topics: must be names, separated by commas"),
            ("limit=1&limit=1", "limit: is given twice"),
            ("cursor=&cursor=", "cursor: is given twice"),
            ("cursor=a@&from=latest", "from: cannot stand beside a cursor"),
            (
                "from=yesterday",
                "from: must be earliest, latest, milliseconds or a time of RFC 3339, not `yesterday`",
            ),
            (
                "from=1969-12-31T23:59:59Z",
                "from: must be earliest, latest, milliseconds or a time of RFC 3339, not \
                 `1969-12-31T23:59:59Z`",
            ),
            (
                "from=-1",
                "from: must be earliest, latest, milliseconds or a time of RFC 3339, not `-1`",
            ),
        ] {
            assert_eq!(parse(query), Err(message.to_owned()), "{query}");
        }
        let constant = Query::parse("filter=1", None).unwrap_err();
        let told = "filter: must be true or false, is int";
        assert_eq!((constant.code, &*constant.message), (Code::FilterInvalid, told));
        let long = parse(&format!("limit={}", "\u{fc}".repeat(10_000))).unwrap_err();
        assert!(long.len() < 120, "{long}");
        // A plain cursor whose `#` ended the URL.
        let cut = Query::parse("cursor=demo1@0", None).unwrap_err();
        assert!(cut.code == Code::CursorMalformed && cut.message.contains("`%23`"), "{cut}");
    }

    #[test]
    fn a_start_is_a_name_or_a_time() {
        for (from, start) in [
            ("earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("0", Start::Time(0)),
            ("1700000000000", Start::Time(1_700_000_000_000)),
            ("2000-02-29T00:00:00Z", Start::Time(951_782_400_000)),
            ("2000-02-29T00:00:00.123456Z", Start::Time(951_782_400_123)),
            ("2000-02-29T01:00:00%2B01:00", Start::Time(951_782_400_000)),
            ("2000-02-29T01:00:00+01:00", Start::Time(951_782_400_000)),
        ] {
            assert_eq!(parse(&format!("from={from}")).unwrap().start, Given::From(start), "{from}");
        }
    }

    #[test]
    fn the_header_wins_over_the_url() {
        let newer = Given::Cursor(Cursor::parse("demo1@0#0").unwrap());
        for url in ["", "cursor=a@0%231", "cursor=nonsense", "from=latest"] {
            let query = Query::parse(url, Some("ZGVtbzFAMCMw")).unwrap();
            assert_eq!(query.start, newer, "{url}");
        }
        let empty = Query::parse("from=latest", Some("")).unwrap();
        assert_eq!(empty.start, Given::From(Start::Latest));
    }

    fn negotiate(accept: &str) -> Option<Media> {
        let found = Form::negotiate(accept.lines(), &Form::PAGES);
        match found.inspect_err(|refusal| assert_eq!(refusal.code, Code::NotAcceptable)).ok()? {
            Form::Page(media) => Some(media),
            Form::Stream => None,
        }
    }

    #[test]
    fn the_reply_is_what_the_client_likes_best() {
        for (accept, media) in [
            ("", Some(Media::Json)),
            ("*/*", Some(Media::Json)),
            ("application/*", Some(Media::Json)),
            ("text/*", Some(Media::Text)),
            ("text/plain", Some(Media::Text)),
            ("application/x-ndjson", Some(Media::Ndjson)),
            ("Application/Octet-Stream", Some(Media::OctetStream)),
            ("application/xml", None),
            ("application/json;q=0", None),
            ("*/*;q=0", None),
            ("application/json;q=0, */*", Some(Media::Ndjson)),
            ("text/plain, */*", Some(Media::Text)),
            ("application/json, text/plain, */*", Some(Media::Json)),
            ("application/x-ndjson, application/json", Some(Media::Ndjson)),
            ("application/json;q=0.5, text/plain;q=0.51", Some(Media::Text)),
            ("application/json; charset=utf-8; q=0.9, */*;q=0.8", Some(Media::Json)),
            ("text/html,application/xml;q=0.9,*/*;q=0.8", Some(Media::Json)),
            ("text/plain;q=0.1\napplication/x-ndjson;q=0.2", Some(Media::Ndjson)),
            ("nonsense", Some(Media::Json)),
            ("text/plain;q=2, application/x-ndjson", Some(Media::Ndjson)),
        ] {
            assert_eq!(negotiate(accept), media, "{accept}");
        }
        let refusal = Form::negotiate(["a/b"].into_iter(), &Form::PAGES).unwrap_err();
        let names = Form::PAGES.map(Form::name).join(", ");
        assert_eq!(refusal.message, format!("accept: the feed can be had as {names}"));
    }

    #[test]
    fn a_stream_is_had_by_who_asks_for_it_or_can_have_nothing_else() {
        let both = [Form::PAGES.as_slice(), &[Form::Stream]].concat();
        for (accept, media) in [
            ("text/event-stream", Form::Stream),
            ("text/event-stream, application/json;q=0.5", Form::Stream),
            ("application/json, text/event-stream", Form::Page(Media::Json)),
            ("*/*", Form::Page(Media::Json)),
            ("text/*", Form::Page(Media::Text)),
        ] {
            assert_eq!(Form::negotiate([accept].into_iter(), &both), Ok(media), "{accept}");
        }
        let alone = [Form::Stream];
        assert_eq!(Form::negotiate(["*/*"].into_iter(), &alone), Ok(Form::Stream));
        assert_eq!(Form::negotiate([].into_iter(), &alone), Ok(Form::Stream));
        assert!(Form::negotiate(["text/event-stream"].into_iter(), &Form::PAGES).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(query: String, header: Option<String>) {
            let _ = Query::parse(&query, header.as_deref());
            let _ = Form::negotiate([&*query].into_iter(), &Form::PAGES);
        }

        #[test]
        fn arbitrary_values_never_panic(
            query in "((limit|min|from|topics|big)=[0-9a-zT:.+-]{0,20}&){0,4}",
            accept in "((text|\\*)/(plain|\\*)(;q=[0-9.]{0,6})?,?){0,4}",
        ) {
            let _ = Query::parse(&query, None);
            let _ = Form::negotiate([&*accept].into_iter(), &Form::PAGES);
        }
    }
}
