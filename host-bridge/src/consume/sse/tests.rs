//! Events as a parser that others wrote reads them.

use bytes::Bytes;
use eventsource_stream::{Event, EventStream};
use futures_util::{StreamExt as _, stream};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::consume::feeds::Sse;
use crate::consume::selection::{Deserializer, Selected};

fn feed(data: Data, comments: bool) -> Feed {
    let feed = Feed::of_topics(&["orders"]);
    let sse = Sse { data, metadata_as_comment: comments, headers_as_comment: comments, ..feed.sse };
    Feed { sse, ..feed }
}

fn record<'a>(value: Option<&'a [u8]>, headers: &'a [(Bytes, Option<Bytes>)]) -> Record<'a> {
    Record {
        topic: "orders",
        partition: 1,
        offset: 5,
        timestamp_ms: 1_700_000_000_000,
        timestamp_type: TimestampType::CreateTime,
        key: Some(b"k"),
        value,
        headers,
        selected: &Selected::Whole,
        is_checked: false,
    }
}

const SHAPE: Shape = Shape { headers: false, metadata: true, big_as_string: false };

fn text_of(record: &Record<'_>, feed: &Feed) -> String {
    let Rendered { mut text, id_at } = render(record, feed, SHAPE);
    if let Some(at) = id_at {
        text.splice(at..at, *b"ID");
    }
    String::from_utf8(text).unwrap()
}

/// What a client makes of it, cut into pieces of so many bytes.
fn parse(text: &str, piece: usize) -> Vec<Event> {
    let pieces: Vec<_> = text.as_bytes().chunks(piece).map(|it| Ok::<_, ()>(it.to_vec())).collect();
    let events = EventStream::new(stream::iter(pieces)).map(Result::unwrap);
    futures_util::FutureExt::now_or_never(events.collect()).unwrap()
}

fn event_of(value: Option<&[u8]>, feed: &Feed) -> Event {
    let text = format!("id: ID\n{}", text_of(&record(value, &[]), feed));
    let mut events = parse(&text, 7);
    assert_eq!(events.len(), 1, "{text:?}");
    events.remove(0)
}

#[test]
fn a_value_arrives_as_it_is_or_as_base64_of_it() {
    for (value, event, data) in [
        (Some(&b"plain"[..]), "message", "plain"),
        (Some(b""), "message", ""),
        (Some(b" two\nlines\n"), "message", " two\nlines\n"),
        (Some(b"\n\nevent: x\ndata: y\n\n"), "message", "\n\nevent: x\ndata: y\n\n"),
        (Some(b"nul\0 and \xe2\x80\xa8"), "message", "nul\0 and \u{2028}"),
        (Some(b"a\rb"), "binary", "YQ1i"),
        (Some(b"a\r\n\r\nevent: x"), "binary", "YQ0KDQpldmVudDogeA=="),
        (Some(b"\xff"), "binary", "/w=="),
        (None, "tombstone", ""),
    ] {
        let found = event_of(value, &feed(Data::Raw, true));
        assert_eq!((&*found.event, &*found.data, &*found.id), (event, data, "ID"), "{value:?}");
    }
}

#[test]
fn in_an_envelope_the_cursor_stands_in_the_data_too() {
    let event = event_of(Some(b"a\r\nb"), &feed(Data::Envelope, false));
    let data: Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!(
        (&*event.event, &data["id"], &data["content"]),
        ("message", &json!("ID"), &json!("a\r\nb"))
    );
    assert_eq!(data["metadata"]["offset"], 5);
    let tombstone = event_of(None, &feed(Data::Envelope, false));
    let data: Value = serde_json::from_str(&tombstone.data).unwrap();
    assert_eq!((&*tombstone.event, &data["tombstone"]), ("message", &json!(true)));
}

#[test]
fn what_a_bare_value_cannot_say_is_an_item_with_an_error() {
    let small = Feed { record_bytes_max: 3, ..feed(Data::Raw, false) };
    let event = event_of(Some(b"large"), &small);
    let data: Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!((&*event.event, &data["error"]), ("error-item", &json!("record_too_large")));
    assert_eq!((&data["content"], &data["metadata"]["offset"]), (&Value::Null, &json!(5)));
    let json_feed = Feed { deserializer: Deserializer::Json, ..feed(Data::Raw, false) };
    let event = event_of(Some(b"{no"), &json_feed);
    let data: Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!((&*event.event, &data["error"]), ("error-item", &json!("decode_error")));
    let event = event_of(Some(b"{\"a\":\r\n1.10}\n"), &json_feed);
    assert_eq!((&*event.event, &*event.data), ("message", "{\"a\":  1.10}"));
}

#[test]
fn comments_have_the_metadata_first_and_cannot_end_their_line() {
    let header = |name: &'static str, value: Option<&'static [u8]>| {
        (Bytes::from_static(name.as_bytes()), value.map(Bytes::from_static))
    };
    let headers = [
        header("a\r\ndata: x", Some(b"1\n\nevent: y\r100%")),
        header("b", None),
        header("b", Some(b"\xff\xc3\xbc")),
    ];
    let text = text_of(&record(Some(b"v"), &headers), &feed(Data::Raw, true));
    assert_eq!(
        text,
        "event: message\ndata: v\n:topic: orders\n:partition: 1\n:offset: 5\n\
         :timestamp: 1700000000000\n:timestampType: CreateTime\n:key: k\n\
         :a%0D%0Adata: x: 1%0A%0Aevent: y%0D100%25\n:b: \n:b: %FF\u{fc}\n\n"
    );
    assert_eq!(parse(&text, 1).len(), 1);
}

#[test]
fn what_the_bridge_says_itself_is_read_as_it_is_meant() {
    let gap = json!({ "topic": "a", "to": null });
    let text = [
        retry(u64::MAX),
        position("ID1"),
        heartbeat(None),
        notice(Notice::Gap, &gap, Some("ID2")),
        heartbeat(Some("ID3")),
        retry_late(),
        notice(Notice::Goaway, &json!({ "reason": "shutdown" }), None),
    ];
    assert_eq!(text[1..3], ["id: ID1\n\n", ":\n\n"]);
    let events = parse(&text.concat(), 5);
    let seen: Vec<_> = events.iter().map(|it| (&*it.event, &*it.id)).collect();
    assert_eq!(seen, [("gap", "ID2"), ("goaway", "ID3")]);
    assert_eq!(events[0].data, gap.to_string());
    assert_eq!(text[5], "retry: 60000\n\n");
    for random in [0, 1, 2999, 3000, 3001, u64::MAX] {
        let text = retry(random);
        let ms: u64 = text.strip_prefix("retry: ").unwrap().trim_end().parse().unwrap();
        assert!((1500..=4500).contains(&ms), "{text}");
    }
}

proptest! {
    #[test]
    fn no_record_forges_an_event(
        value in proptest::option::of(proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), Just(0), any::<u8>()],
            0..40,
        )),
        name in "[\r\n:a]{0,9}",
        piece in 1..9_usize,
        is_envelope: bool,
    ) {
        let data = if is_envelope { Data::Envelope } else { Data::Raw };
        let headers = [(Bytes::from(name.clone()), value.clone().map(Bytes::from))];
        let record = record(value.as_deref(), &headers);
        let text = format!("id: ID\n{}", text_of(&record, &feed(data, true)));
        let events = parse(&text, piece);
        prop_assert_eq!(events.len(), 1);
        if is_envelope {
            return Ok(());
        }
        let found = match &*events[0].event {
            "message" => Some(events[0].data.as_bytes().to_vec()),
            "binary" => Some(STANDARD.decode(&events[0].data).unwrap()),
            _ => None,
        };
        prop_assert_eq!(found, value);
    }
}
