//! The task of a membership: it takes over what is assigned, gives back what is revoked, and commits.

use std::sync::Arc;
use std::time::Duration;

use kafka_client::{GroupEvent, MemberEvents, Revocation};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::membership::Membership;
use super::memberships::{Key, Memberships};
use super::shares::Partition;
use crate::consume::groups::answers::refused;
use crate::consume::refusal::{Code, Refusal};
use crate::limits::{
    FEED_COMMIT_ALL_EVERY, FEED_COMMIT_EVERY, FEED_GIVE_BACK, FEED_GRACE, FEED_MEMBER_IDLE,
    FEED_PATIENCE, FEED_RETRY,
};

pub(super) struct Keeper {
    membership: Arc<Membership>,
    events: MemberEvents,
    /// Where the membership is, until it is over.
    place: (Memberships, Key),
    /// Assigned, and not taken over yet: Kafka is asked at that time where the group is in them.
    assigned: Vec<Partition>,
    adopt_at: Instant,
    /// To be given back, at that time in any case.
    revoked: Option<(Revocation, Instant)>,
    commit_at: Instant,
    commit_all_at: Instant,
}

impl Keeper {
    pub(super) fn new(
        membership: Arc<Membership>,
        events: MemberEvents,
        place: (Memberships, Key),
    ) -> Self {
        let now = Instant::now();
        Self {
            membership,
            events,
            place,
            assigned: Vec::new(),
            adopt_at: now,
            revoked: None,
            commit_at: now + FEED_COMMIT_EVERY,
            commit_all_at: now + FEED_COMMIT_ALL_EVERY,
        }
    }

    /// Until the membership ends: nobody reads for a time, or the process is to end.
    pub(super) async fn keep(mut self, shutdown: CancellationToken) {
        let mut ends_at = None;
        loop {
            let next = self.act().await;
            if self.is_over(ends_at) {
                break;
            }
            let membership = Arc::clone(&self.membership);
            tokio::select! {
                event = self.events.next() => if let Err(refusal) = self.hear(event) {
                    return self.fail(refusal);
                },
                () = membership.wake.notified() => {}
                () = shutdown.cancelled(), if ends_at.is_none() => {
                    ends_at = Some(Instant::now() + FEED_GRACE);
                }
                () = sleep_until(next.min(ends_at.unwrap_or(next))) => {}
            }
        }
        self.membership.news.send_replace(());
        self.commit(true).await;
        let patience = if ends_at.is_some() { LEAVING } else { FEED_PATIENCE };
        self.membership.member.leave(patience).await;
    }

    /// # Errors
    /// The membership is over.
    fn hear(&mut self, event: Option<GroupEvent>) -> Result<(), Refusal> {
        let membership = &self.membership;
        match event {
            Some(GroupEvent::Assigned(partitions)) => {
                self.assigned.extend(partitions);
                self.adopt_at = Instant::now();
            }
            Some(GroupEvent::Revoked(revocation)) => {
                if let Some((before, _)) = self.revoked.take() {
                    membership.lock().lose(&before.partitions);
                }
                let gone = &revocation.partitions;
                self.assigned.retain(|partition| !gone.contains(partition));
                membership.lock().shares.let_go(gone);
                let until = revocation.until.min(Instant::now() + FEED_GIVE_BACK);
                self.revoked = Some((revocation, until));
            }
            Some(GroupEvent::Lost(gone)) => {
                self.assigned.retain(|partition| !gone.contains(partition));
                membership.lock().lose(&gone);
            }
            Some(GroupEvent::Failed(error)) => return Err(refused(&error)),
            Some(_) => return Ok(()),
            None => return Err(Code::KafkaUnavailable.because("the client has ended")),
        }
        membership.reader.metrics.rebalances.inc();
        membership.news.send_replace(());
        Ok(())
    }

    /// Does what there is to do now. Says when there may be more.
    async fn act(&mut self) -> Instant {
        let now = Instant::now();
        let (have_ended, waits) = self.membership.lock().look_at_waits(now);
        if have_ended {
            self.membership.news.send_replace(());
        }
        if !self.assigned.is_empty() && now >= self.adopt_at {
            match self.membership.adopt(&self.assigned).await {
                Ok(()) => self.assigned.clear(),
                Err(refusal) => {
                    tracing::debug!(group = self.group(), %refusal, "group_position_unknown");
                    self.adopt_at = Instant::now() + FEED_RETRY;
                }
            }
        }
        self.give_back(now).await;
        let is_urgent = std::mem::take(&mut self.membership.lock().is_urgent);
        let is_all = now >= self.commit_all_at;
        if is_urgent || is_all || now >= self.commit_at {
            self.commit(is_all).await;
        }
        let adopt_at = (!self.assigned.is_empty()).then_some(self.adopt_at);
        let give_back_at = self.revoked.as_ref().map(|(_, until)| *until);
        let others = [waits, adopt_at, give_back_at].into_iter().flatten();
        others.chain([self.commit_at]).min().unwrap_or(self.commit_at)
    }

    /// Gives back what is revoked once nobody reads it, or when it is time.
    async fn give_back(&mut self, now: Instant) {
        let Some((revocation, until)) = &self.revoked else { return };
        let is_read = self.membership.lock().shares.are_read(&revocation.partitions);
        if is_read && now < *until {
            return;
        }
        self.commit(false).await;
        let Some((revocation, _)) = self.revoked.take() else { return };
        self.membership.lock().lose(&revocation.partitions);
        self.membership.news.send_replace(());
    }

    async fn commit(&mut self, is_all: bool) {
        if let Err(refusal) = self.membership.commit(is_all).await {
            tracing::debug!(group = self.group(), %refusal, "group_not_committed");
        }
        let now = Instant::now();
        self.commit_at = now + FEED_COMMIT_EVERY;
        if is_all {
            self.commit_all_at = now + FEED_COMMIT_ALL_EVERY;
        }
    }

    fn is_over(&self, ends_at: Option<Instant>) -> bool {
        let now = Instant::now();
        let (memberships, key) = &self.place;
        let mut all = memberships.lock();
        let mut state = self.membership.lock();
        let is_over = match (ends_at, state.idle_since) {
            (None, since) => since.is_some_and(|since| now >= since + FEED_MEMBER_IDLE),
            (Some(_), Some(_)) => true,
            (Some(at), None) => now >= at,
        };
        if !is_over {
            return false;
        }
        state.end = Some(Code::Overloaded.because("the bridge has left the group: come again"));
        all.remove(key);
        true
    }

    fn fail(self, refusal: Refusal) {
        tracing::warn!(group = self.group(), %refusal, effect = "its_streams_end", "group_failed");
        let (memberships, key) = self.place;
        memberships.lock().remove(&key);
        self.membership.lock().end = Some(refusal);
        self.membership.news.send_replace(());
    }

    fn group(&self) -> &str {
        &self.place.1.1
    }
}

/// How long leaving may take when the process is to end.
const LEAVING: Duration = Duration::from_secs(1);
