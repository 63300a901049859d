//! The body of a page: made piece by piece while it is sent, so that it takes no thread for long.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::unfold;
use serde_json::json;
use tokio::task::yield_now;

use super::connections::Connection;
use super::cursor::Cursor;
use super::envelope::{Envelope, Raw, Shape};
use super::feeds::Entrypoint;
use super::groups::Turn;
use super::memory::Held;
use super::page::Page;
use super::query::{Media, Query};
use super::reader::FeedReader;
use super::refusal::Refusal;
use crate::limits::FEED_PIECE_BYTES;

/// A page on its way to its reader.
pub(crate) struct PageBody {
    page: Page,
    reader: Arc<FeedReader>,
    media: Media,
    shape: Shape,
    limit: usize,
    /// Items that were made.
    made: usize,
    has_ended: bool,
    /// Pieces that were made before they are asked for.
    ready: VecDeque<Bytes>,
    /// Memory for the records, which are kept until all are made.
    unmade: Option<Held>,
    connection: Connection,
    /// Of a group, with the cursor behind the page.
    turn: Option<(Turn, Cursor)>,
}

impl PageBody {
    pub(crate) fn new(
        page: Page,
        reader: &Arc<FeedReader>,
        media: Media,
        query: &Query,
        connection: Connection,
    ) -> Self {
        Self {
            page,
            reader: Arc::clone(reader),
            media,
            shape: query.shape,
            limit: query.limit,
            made: 0,
            has_ended: false,
            ready: VecDeque::new(),
            unmade: None,
            connection,
            turn: None,
        }
    }

    /// The same, of a group.
    pub(crate) fn after(self, turn: Option<(Turn, Cursor)>) -> Self {
        Self { turn, ..self }
    }

    /// Its pieces are made as they are sent. Where many pages wait for their readers they are made
    /// before: slow ones would keep the records, which are in the memory that tails need.
    pub(crate) async fn into_body(mut self) -> Body {
        self.unmade = self.reader.hub.resources.unmade.try_hold(self.page.records_bytes());
        while self.unmade.is_none()
            && let Some(piece) = self.make()
        {
            self.ready.push_back(piece);
            yield_now().await;
        }
        Body::from_stream(unfold(self, |mut body| async {
            let next = body.next().await?;
            Some((Ok::<_, Infallible>(next), body))
        }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.ready.pop_front() {
            return Some(piece);
        }
        if self.made > 0 && !self.has_ended {
            // Others have their turn.
            yield_now().await;
        }
        let piece = self.make();
        if piece.is_none()
            && let Some((turn, end)) = self.turn.take()
        {
            // All pieces have been taken: nothing is committed of a reply that is cut off before.
            turn.after(&end).await;
        }
        piece
    }

    /// The next piece, with an item at least, unless there is none left.
    fn make(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        let (mut out, first) = (Vec::with_capacity(FEED_PIECE_BYTES), self.made);
        if first == 0 {
            out.extend_from_slice(self.beginning());
        }
        while let Some(bytes) = self.page.item_bytes(self.made)
            && (self.made == first || out.len() + bytes <= FEED_PIECE_BYTES)
        {
            self.make_item(&mut out);
            self.made += 1;
        }
        if self.made == self.page.len() {
            self.end(&mut out);
            self.has_ended = true;
            self.page.forget_records();
            self.unmade = None;
        }
        self.connection.metrics.by(Entrypoint::Get).bytes.inc_by(out.len() as u64);
        let rest = if self.has_ended { usize::MAX } else { out.len() };
        let held = self.page.held.split(rest);
        (!out.is_empty()).then(|| held.keep(out))
    }

    fn beginning(&self) -> &'static [u8] {
        match self.media {
            Media::Json => b"{\"items\":[",
            Media::Text => b"items\n\n",
            Media::Ndjson | Media::OctetStream => b"",
        }
    }

    fn make_item(&self, out: &mut Vec<u8>) {
        self.page.look_at(self.made, |id, record| {
            let envelope = Envelope::new(id, &record, &self.reader.feed, self.shape);
            match self.media {
                Media::Json => {
                    out.extend_from_slice(if self.made == 0 { b"" } else { b"," });
                    envelope.write(out);
                }
                Media::Ndjson => envelope.write_line(out),
                Media::Text => envelope.write_text(out),
                Media::OctetStream => {
                    out.extend_from_slice(Raw::new(&record, &self.reader.feed, self.shape).body);
                }
            }
        });
    }

    /// What is behind the items.
    fn end(&self, out: &mut Vec<u8>) {
        let Self { page, limit, .. } = self;
        let next_cursor = self.reader.feed.delivery.has_cursors().then_some(&page.cursor);
        match self.media {
            Media::Json => {
                let rest = json!({
                    "pagination": { "nextCursor": next_cursor, "limit": limit },
                    "gaps": page.gaps,
                    "error": page.error.as_ref().map(Refusal::body),
                });
                let rest = rest.to_string();
                out.extend_from_slice(b"],");
                out.extend_from_slice(rest.strip_prefix('{').unwrap_or(&rest).as_bytes());
            }
            Media::Text => {
                let next = next_cursor.map(|next| format!("nextCursor: {next}\n"));
                let next = next.unwrap_or_default();
                out.extend_from_slice(format!("pagination\n{next}limit: {limit}\n").as_bytes());
            }
            Media::Ndjson | Media::OctetStream => {}
        }
    }
}
