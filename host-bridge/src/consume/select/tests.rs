//! What readers get, by a feed's filter and expression, and of records that cannot be decoded.

use std::time::Duration;

use super::*;
use crate::consume::feeds::Feed;
use crate::consume::fixture::{Fixture, WITHIN};
use crate::consume::follow::Follower;
use crate::consume::page::Page;
use crate::consume::query::Query;
use crate::consume::refusal::Code;
use crate::consume::selection::Selection;
use crate::consume::start::{Given, Start};
use tokio_util::sync::CancellationToken;

fn expression(source: &str) -> Option<RecordExpression> {
    Some(RecordExpression::compile("filter", source).unwrap())
}

/// A follower of a feed of JSON with this selection, from the log start.
async fn follower(fixture: &Fixture, selection: Selection) -> Follower {
    let reader = fixture.reader(|feed| {
        (feed.deserializer, feed.selection) = (Deserializer::Json, selection);
    });
    Follower::open(reader, &Given::From(Start::Earliest), None, WITHIN).await.unwrap()
}

/// Offsets and values of all records that a follower gets.
async fn all(follower: &mut Follower) -> Result<Vec<(i64, Selected)>, Code> {
    let mut taken = Vec::new();
    loop {
        let until = tokio::time::Instant::now() + Duration::from_secs(1);
        let portions = follower.more(until, WITHIN).await.unwrap();
        if portions.is_empty() {
            return Ok(taken);
        }
        let took = follower.take(portions, |record| {
            let offset = record.segment.records[record.index].record.offset;
            taken.push((offset, record.selected));
            false
        });
        took.map_err(|refusal| refusal.code)?;
    }
}

async fn written(values: &[&[u8]]) -> Fixture {
    let fixture = Fixture::new(&[1], 1 << 30);
    fixture.cluster.create_topic("dead", &[1]);
    for value in values {
        fixture.write(0, value).await;
    }
    fixture
}

#[tokio::test(start_paused = true)]
async fn a_filter_leaves_records_out_and_the_position_moves_over_them() {
    let values: Vec<_> = (0..2000).map(|n| format!("{{\"n\":{n}}}")).collect();
    let values: Vec<_> = values.iter().map(String::as_bytes).collect();
    let fixture = written(&values).await;
    let filter = expression("value.n % 1000 == 999");
    let mut reader = follower(&fixture, Selection { filter, ..Selection::default() }).await;
    let offsets: Vec<_> = all(&mut reader).await.unwrap().into_iter().map(|(at, _)| at).collect();
    assert_eq!(offsets, [999, 1999]);
    let none = Selection { filter: expression("false"), ..Selection::default() };
    let mut reader = follower(&fixture, none).await;
    let before = reader.id().to_owned();
    assert_eq!(all(&mut reader).await, Ok(Vec::new()));
    assert_ne!(reader.id(), before, "nothing is read again");
    assert_eq!(reader.lag(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_cannot_tell_is_nobodys_and_goes_to_the_dead_letters() {
    let fixture = written(&[b"{\"tenant\":\"a\"}", b"{}", b"no json"]).await;
    let filter = expression("value.tenant == 'a'");
    let selection = Selection { filter, ..Selection::default() };
    let mut reader = follower(&fixture, selection.clone()).await;
    assert_eq!(all(&mut reader).await.unwrap(), [(0, Selected::Whole)]);
    assert_eq!(fixture.cluster.log("dead", 0).len(), 0);
    let dlq_topic = Some("dead".to_owned());
    let selection = Selection { dlq_topic, ..selection };
    let mut reader = follower(&fixture, selection).await;
    assert_eq!(all(&mut reader).await.unwrap(), [(0, Selected::Whole)]);
    assert_eq!(fixture.cluster.log("dead", 0).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_of_one_reader_is_no_dead_letter() {
    let fixture = written(&[b"{\"tenant\":\"a\"}", b"{\"tenant\":\"b\"}"]).await;
    let dead_letters = || Selection {
        on_decode_error: OnDecodeError::Dlq,
        dlq_topic: Some("dead".to_owned()),
        ..Selection::default()
    };
    for selection in [
        Selection { filter: expression("value.tenant == client.consumer"), ..dead_letters() },
        Selection { value_expression: expression("client.consumer"), ..dead_letters() },
    ] {
        let mut nobody = follower(&fixture, selection).await;
        assert_eq!(all(&mut nobody).await, Ok(Vec::new()));
        assert_eq!(nobody.lag(), 0, "it goes on");
    }
    assert_eq!(fixture.cluster.log("dead", 0).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_the_dead_letter_topic_what_is_before_is_delivered_and_the_reason_is_told() {
    let fixture = Fixture::new(&[1, 2], 1 << 30);
    for value in [&b"1"[..], b"2", b"no json", b"4"] {
        fixture.write(0, value).await;
    }
    let reader = fixture.reader(|feed| {
        feed.encode_message_id = false;
        feed.deserializer = Deserializer::Json;
        feed.selection.on_decode_error = OnDecodeError::Dlq;
        feed.selection.dlq_topic = Some("dead".to_owned());
    });
    let page = async |query: &str| {
        let query = Query::parse(query, None).unwrap();
        let read = Page::read(&reader, &query, None, &CancellationToken::new()).await;
        read.map(|page| {
            let mut offsets = Vec::new();
            (0..page.len()).for_each(|it| page.look_at(it, |_, item| offsets.push(item.offset)));
            (offsets, page.cursor, page.error)
        })
    };
    let mut cursor = String::new();
    for timeout in [0, 1, 300, 1000, 30_000] {
        let (offsets, next, error) =
            page(&format!("from=earliest&timeout={timeout}")).await.unwrap();
        assert_eq!(offsets, [0, 1], "{timeout}");
        if let Some(refusal) = error {
            assert_eq!(refusal.code, Code::KafkaUnavailable);
        }
        cursor = next.replace('#', "%23");
    }
    for timeout in [0, 300, 30_000] {
        let refusal = page(&format!("cursor={cursor}&timeout={timeout}")).await.unwrap_err();
        assert_eq!(refusal.code, Code::KafkaUnavailable, "{timeout}");
        assert!(refusal.message.contains("the dead-letter topic `dead`: "), "{refusal}");
    }
    let waiting = "from=earliest&timeout=9000&min=3";
    let (offsets, _, error) = page(waiting).await.unwrap();
    assert_eq!((offsets, error.unwrap().code), (vec![0, 1], Code::KafkaUnavailable));
    // Another partition is not held up.
    fixture.write(1, b"5").await;
    let (offsets, ..) = page(&format!("cursor={cursor}&timeout=300")).await.unwrap();
    assert_eq!(offsets, [0]);
    fixture.cluster.create_topic("dead", &[1]);
    tokio::time::sleep(WITHIN).await;
    let (offsets, _, error) = page(&format!("cursor={cursor}&min=2")).await.unwrap();
    assert_eq!((offsets.len(), error), (2, None));
    assert_eq!(fixture.cluster.log("dead", 0).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_decoded_meet_what_the_feed_says() {
    let fixture = written(&[b"{\"a\":1}", b"no json", b"{\"a\":2}"]).await;
    let selection = |on_decode_error| Selection {
        on_decode_error,
        dlq_topic: Some("dead".to_owned()),
        ..Selection::default()
    };
    let offsets = async |on_decode_error| {
        let mut reader = follower(&fixture, selection(on_decode_error)).await;
        let all = all(&mut reader).await?;
        Ok(all.into_iter().map(|(offset, _)| offset).collect::<Vec<_>>())
    };
    assert_eq!(offsets(OnDecodeError::ErrorItem).await, Ok(vec![0, 1, 2]));
    assert_eq!(offsets(OnDecodeError::Skip).await, Ok(vec![0, 2]));
    assert_eq!(offsets(OnDecodeError::Stop).await, Err(Code::DecodeError));
    assert_eq!(fixture.cluster.log("dead", 0).len(), 0);
    assert_eq!(offsets(OnDecodeError::Dlq).await, Ok(vec![0, 2]));
    assert_eq!(fixture.cluster.log("dead", 0).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn readers_of_a_feed_write_one_dead_letter_and_wait_until_it_is_there() {
    let fixture = written(&[b"no json", b"{}"]).await;
    let selection = Selection {
        on_decode_error: OnDecodeError::Dlq,
        dlq_topic: Some("dead".to_owned()),
        ..Selection::default()
    };
    let reader = fixture.reader(|feed| {
        (feed.deserializer, feed.selection) = (Deserializer::Json, selection);
    });
    let open = || Follower::open(reader.clone(), &Given::From(Start::Earliest), None, WITHIN);
    fixture.cluster.lead("dead", 0, None);
    let mut waiting = open().await.unwrap();
    assert_eq!(all(&mut waiting).await, Ok(Vec::new()), "the dead-letter topic has no leader");
    let before = waiting.id().to_owned();
    fixture.cluster.lead("dead", 0, Some(1));
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(open().await.unwrap());
    }
    let every = futures_util::future::join_all(others.iter_mut().map(all)).await;
    assert!(every.iter().all(|taken| *taken == Ok(vec![(1, Selected::Whole)])), "{every:?}");
    assert_eq!(all(&mut waiting).await, Ok(vec![(1, Selected::Whole)]));
    assert_ne!(waiting.id(), before);
    assert_eq!(fixture.cluster.log("dead", 0).len(), 1, "one for all readers");
}

#[tokio::test(start_paused = true)]
async fn a_readers_own_filter_does_not_hide_where_readers_end() {
    let fixture = written(&[b"{\"a\":1}", b"no json"]).await;
    let reader = fixture.reader(|feed| {
        feed.deserializer = Deserializer::Json;
        feed.selection.allow_client_filter = true;
        feed.selection.on_decode_error = OnDecodeError::Stop;
    });
    let own = reader.filtered(expression("false")).unwrap();
    let open = Follower::open(own, &Given::From(Start::Earliest), None, WITHIN);
    assert_eq!(all(&mut open.await.unwrap()).await, Err(Code::DecodeError));
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_not_written_far_ahead_of_a_reader_who_takes_little() {
    let fixture = written(&[b"{}", b"no", b"json", b"{}", b"at", b"all"]).await;
    let selection = Selection {
        on_decode_error: OnDecodeError::Dlq,
        dlq_topic: Some("dead".to_owned()),
        ..Selection::default()
    };
    let mut reader = follower(&fixture, selection).await;
    reader.wanted = 1;
    for (offset, dead) in [(0, 0), (3, 2)] {
        let mut offsets = Vec::new();
        while offsets.is_empty() {
            let until = tokio::time::Instant::now() + Duration::from_secs(1);
            let portions = reader.more(until, WITHIN).await.unwrap();
            let taken = reader.take(portions, |taken| {
                offsets.push(taken.segment.records[taken.index].record.offset);
                true
            });
            taken.unwrap();
        }
        assert_eq!((offsets, fixture.cluster.log("dead", 0).len()), (vec![offset], dead));
    }
    assert_eq!(all(&mut reader).await, Ok(Vec::new()));
    assert_eq!(fixture.cluster.log("dead", 0).len(), 4);
    let metrics = &reader.reader.metrics;
    assert_eq!((metrics.dead_letters.get(), metrics.filtered.get()), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_value_expression_gives_another_value() {
    let fixture = written(&[b"{\"card\":\"4111\",\"total\":3}", b"{\"total\":4}"]).await;
    let value_expression = expression("{'total': value.total, 'card': value.card.size()}");
    let mut reader =
        follower(&fixture, Selection { value_expression, ..Selection::default() }).await;
    let json = |text: &'static str| Selected::Changed {
        key: None,
        value: Some(ChangedValue {
            bytes: Some(Bytes::from_static(text.as_bytes())),
            deserializer: Deserializer::Json,
        }),
    };
    assert_eq!(
        all(&mut reader).await.unwrap(),
        [(0, json(r#"{"total":3,"card":4}"#)), (1, Selected::Error("expression_error"))]
    );
}

#[test]
fn a_filter_sees_who_reads() {
    let mut feed = Feed::of_topics(&["orders"]);
    feed.selection.filter = expression("headers.tenant[0] == client.consumer");
    assert!(feed.selection.is_per_client() && !feed.selection.takes_all());
}
