//! Futures of a client. Most clients never have any, and have no room for them.

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

pub(super) struct Several<T>(Option<Box<FuturesUnordered<BoxFuture<'static, T>>>>);

impl<T> Default for Several<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Several<T> {
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |futures| futures.len())
    }

    pub(super) fn push(&mut self, future: BoxFuture<'static, T>) {
        self.0.get_or_insert_default().push(future);
    }

    /// The result of the first that is done; `None` if there is none. Dropped before, nothing is lost.
    pub(super) async fn next(&mut self) -> Option<T> {
        self.0.as_mut()?.next().await
    }
}
