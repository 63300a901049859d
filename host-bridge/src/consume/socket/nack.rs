//! A record that a client refuses: it is read once more, and written to the dead-letter topic.

use std::sync::Arc;

use kafka_client::ReadError;

use super::frames::Place;
use crate::consume::hub::Wanted;
use crate::consume::reader::{FeedReader, refused};
use crate::consume::refusal::{Code, Refusal};
use crate::consume::select::Placed;
use crate::consume::topic_log::{Look, Segment};
use crate::consume::waiting::WaitsFor;
use crate::limits::FEED_CHUNK_BYTES;

/// Returns when all replicas have it.
///
/// # Errors
/// It cannot be read any more, or not be written now.
pub(super) async fn dead_letter(
    reader: &FeedReader,
    place: &Place,
    reason: &str,
) -> Result<(), Refusal> {
    let Place { topic, partition, offset } = place;
    let segment = segment(reader, place).await?;
    let stored = segment.records.get(segment.place_of(*offset));
    let Some(stored) = stored.filter(|stored| stored.record.offset == *offset) else {
        return Err(gone(place, "the record is not in the log any more"));
    };
    let placed = Placed { topic, partition: *partition, record: &stored.record };
    let Some(writing) = reader.dead_letter(placed, segment.topic_id, reason) else {
        return Err(Code::InvalidParameter.because("nack: the feed has no dlq_topic"));
    };
    match writing.done().await {
        true => Ok(()),
        false => Err(reader
            .late(WaitsFor::DeadLetterTopic)
            .unwrap_or_else(|| gone(place, "not written"))),
    }
}

async fn segment(reader: &FeedReader, place: &Place) -> Result<Arc<Segment>, Refusal> {
    let (topic, partition, next) = (reader.hub.topic(&place.topic), place.partition, place.offset);
    let look = topic.log.lock().look(None, partition, (next, None));
    if let Look::Here(segment) = look {
        return Ok(segment);
    }
    let wanted = Wanted { topic, partition, next, epoch: None, place: 0 };
    match reader.hub.read(vec![wanted], FEED_CHUNK_BYTES).await.pop() {
        Some((_, Ok(segment))) => Ok(segment),
        Some((_, Err(ReadError::Refused(reason) | ReadError::Unavailable(reason)))) => {
            Err(refused(&place.topic, &reason))
        }
        Some((_, Err(error))) => Err(gone(place, &error.to_string())),
        None => Err(Code::KafkaUnavailable.because("no broker answers")),
    }
}

fn gone(Place { topic, partition, offset }: &Place, why: &str) -> Refusal {
    Code::OffsetOutOfRange.because(format!("nack: {topic}-{partition}, offset {offset}: {why}"))
}
