//! Readers that come when the process is about to end.

use tokio_util::sync::CancellationToken;

use super::refusal::{Code, Refusal};
use crate::limits::FEED_GRACE;
use crate::shutdown::finish;

/// As [`finish`]: what a reader came for, unless it comes too late for that.
///
/// # Errors
/// [`Code::Overloaded`]; those of the work.
pub(super) async fn unless_ending<T>(
    work: impl Future<Output = Result<T, Refusal>>,
    shutdown: &CancellationToken,
) -> Result<T, Refusal> {
    let late = || Code::Overloaded.because("the bridge is about to end: come again");
    finish(work, shutdown, FEED_GRACE).await.unwrap_or_else(|| Err(late()))
}
