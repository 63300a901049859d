//! What is read as a cursor, and how one is written.

use proptest::prelude::*;

use super::*;

fn plain_of(text: &str) -> String {
    Cursor::parse(text).unwrap().encode(false)
}

#[test]
fn each_form_of_the_grammar_is_read_and_written_in_one_way() {
    for (text, canonical) in [
        ("my-topic@1#0,2#0", "my-topic@1#0,2#0"),
        ("a@0#1;b@1#10", "a@0#1;b@1#10"),
        ("a@0#1;a@1#2", "a@0#1,1#2"),
        ("b@10#1,9#007;A@0#0;", "A@0#0;b@9#7,10#1;"),
        ("orders:00c0FFEE@0#5.3,1#t1700000000000;", "orders:00c0ffee@0#5.3,1#t1700000000000;"),
        ("a@0#1;a:00000001@1#2", "a:00000001@0#1,1#2"),
        ("orders@", "orders@"),
        ("orders@;", "orders@;"),
        (";", ";"),
        ("a@0#9223372036854775807", "a@0#9223372036854775807"),
        (" a@0#1\n", "a@0#1"),
    ] {
        assert_eq!(plain_of(text), canonical, "{text}");
    }
    let cursor = Cursor::parse("orders:00c0ffee@0#5.3,1#t17;").unwrap();
    assert!(cursor.complete);
    let positions = &cursor.topics["orders"];
    assert_eq!(positions.tag, Some(0x00c0_ffee));
    assert_eq!(positions.partitions[&0], Position::Offset { next: 5, epoch: Some(3) });
    assert_eq!(positions.partitions[&1], Position::Time(17));
}

#[test]
fn base64_is_read_with_any_padding_and_the_newline_of_echo() {
    let expected = Cursor::parse("my-topic@1#0,2#0").unwrap();
    for text in [
        "bXktdG9waWNAMSMwLDIjMA==",
        "bXktdG9waWNAMSMwLDIjMA",
        "bXktdG9waWNAMSMwLDIjMAo=",
        "bXktdG9waWNAMSMwLDIjMAo",
        " bXktdG9waWNAMSMwLDIjMA==\r\n",
    ] {
        assert_eq!(Cursor::parse(text).as_ref(), Ok(&expected), "{text}");
    }
    assert_eq!(expected.encode(true), "bXktdG9waWNAMSMwLDIjMA==");
    assert_eq!(plain_of("ZGVtbzFAMCMw"), "demo1@0#0");
}

#[test]
fn what_is_no_cursor_says_why() {
    for (text, reason) in [
        ("demo1@0", "`0` has no `#` before its offset; in a URL it is written `%23`"),
        ("a@0#1,1", "`1` has no `#` before its offset; in a URL it is written `%23`"),
        ("a@0#-1", "`-1` is not a valid offset"),
        ("a@-1#1", "`-1` is not a valid partition"),
        ("a@0#+1", "`+1` is not a valid offset"),
        ("a@0#9223372036854775808", "`9223372036854775808` is not a valid offset"),
        ("a@2147483648#0", "`2147483648` is not a valid partition"),
        ("a@0#1.-1", "`-1` is not a valid epoch"),
        ("a@0#1.2147483648", "`2147483648` is not a valid epoch"),
        ("a@0#t", "`` is not a valid time"),
        ("a@0#t1.2", "`1.2` is not a valid time"),
        ("a@0#", "`` is not a valid offset"),
        ("a@0#1,", "`` has no `#` before its offset; in a URL it is written `%23`"),
        ("a:123@0#1", "`123` is not the 8 digits of a topic's id"),
        ("a:+0000001@0#1", "`+0000001` is not the 8 digits of a topic's id"),
        ("a:00000001@;a:00000002@", "the topic `a` has two ids"),
        ("@0#1", "`` is not a topic's name"),
        ("a b@0#1", "`a b` is not a topic's name"),
        ("..@0#1", "`..` is not a topic's name"),
        ("a@0#1;;", "`` is not TOPIC@PARTITION#OFFSET"),
        (";a@0#1", "`` is not TOPIC@PARTITION#OFFSET"),
        ("a@0#1;b", "`b` is not TOPIC@PARTITION#OFFSET"),
        ("orders", "is neither TOPIC@PARTITION#OFFSET nor the base64 of that"),
        ("YWJj", "`abc` is not TOPIC@PARTITION#OFFSET"),
        ("", "`` is not TOPIC@PARTITION#OFFSET"),
    ] {
        let refusal = Cursor::parse(text).unwrap_err();
        assert_eq!(refusal.message, format!("cursor: {reason}"), "{text}");
        assert_eq!(refusal.code, Code::CursorMalformed, "{text}");
    }
    let twice = Cursor::parse("a@0#1;b@;a@00#2").unwrap_err();
    assert_eq!(twice, Code::CursorDuplicate.because("cursor: a has partition 0 twice"));
    let long = Cursor::parse(&"a".repeat(9 * 1024)).unwrap_err();
    assert_eq!(long.message, "cursor: has more than 8192 bytes");
    assert!(Cursor::parse(&format!("{}@", "a".repeat(250))).is_err());
}

/// A cursor that was narrow enough at open is read back when its offsets have grown.
#[test]
fn a_cursor_that_grows_is_still_read() {
    let of = |partitions, next| {
        let position = Position::Offset { next, epoch: None };
        let partitions = (0..partitions).map(|partition| (partition, position)).collect();
        let positions = TopicPositions { tag: Some(1), partitions };
        Cursor { topics: [("orders".to_owned(), positions)].into(), complete: true }
    };
    let widest = (0..).find(|count| of(*count, 1_000_000_000_000).check_width().is_err()).unwrap();
    assert!(widest > 320, "{widest}");
    let refusal = of(widest, 1_000_000_000_000).check_width().unwrap_err();
    assert_eq!(refusal.code, Code::FeedTooWide);
    let mut grown = of(widest - 1, 1_000_000_000_000);
    for positions in grown.topics.values_mut() {
        let next = Position::Offset { next: 10_000_000_000_000, epoch: None };
        positions.partitions.values_mut().take(200).for_each(|position| *position = next);
    }
    assert_eq!(Cursor::parse(&grown.encode(true)), Ok(grown));
}

fn position() -> impl Strategy<Value = Position> {
    let offset = (0..=i64::MAX, prop::option::of(0..=i32::MAX));
    prop_oneof![
        offset.prop_map(|(next, epoch)| Position::Offset { next, epoch }),
        (0..=i64::MAX).prop_map(Position::Time),
    ]
}

fn cursors() -> impl Strategy<Value = Cursor> {
    let partitions = prop::collection::btree_map(0..=i32::MAX, position(), 0..6);
    let positions = (prop::option::of(any::<u32>()), partitions)
        .prop_map(|(tag, partitions)| TopicPositions { tag, partitions });
    let topics = prop::collection::btree_map("[A-Za-z0-9_-]{1,20}", positions, 0..5);
    // Without a topic only the complete vector can be written.
    (topics, any::<bool>())
        .prop_map(|(topics, complete)| Cursor { complete: complete || topics.is_empty(), topics })
}

proptest! {
    #[test]
    fn what_is_written_is_read(cursor in cursors(), encoded: bool) {
        let text = cursor.encode(encoded);
        // So both alphabets of base64 are one here, and a URL needs no escape.
        prop_assert!(!encoded || !text.contains(['+', '/', '-', '_']), "{}", text);
        prop_assert_eq!(Cursor::parse(&text), Ok(cursor.clone()));
        prop_assert_eq!(Cursor::parse(&text.replace('=', "")), Ok(cursor));
    }

    #[test]
    fn arbitrary_text_never_panics(text: String) {
        let _ = Cursor::parse(&text);
    }

    #[test]
    fn what_resembles_a_cursor_never_panics_and_has_one_canonical_form(
        text in "[a-c]{0,2}(:[0-9a-f]{7,8})?(@|;)([0-9]{1,3}(#|@|t|\\.|,|;|-)){0,8}",
    ) {
        let encoded = STANDARD.encode(&text);
        prop_assert_eq!(Cursor::parse(&text).ok(), Cursor::parse(&encoded).ok());
        if let Ok(cursor) = Cursor::parse(&text) {
            prop_assert_eq!(Cursor::parse(&cursor.encode(false)), Ok(cursor));
        }
    }

    #[test]
    fn arbitrary_bytes_in_base64_never_panic(bytes: Vec<u8>) {
        let _ = Cursor::parse(&STANDARD.encode(bytes));
    }
}
