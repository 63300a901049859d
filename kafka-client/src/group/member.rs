//! A membership in a group, driven: what its protocol wants done is done, and its reader is told.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::assignor::Counts;
use super::classic::Classic;
use super::coordinator::{Coordinator, Failure};
use super::error::GroupError;
use super::modern::Modern;
use super::offset::GroupOffset;
use super::offsets::Commit;
use super::protocol::{Action, Answer, Known, Question, Reply, Unanswered};
use super::standing::Standing;
use super::subscription::Partitions;
use crate::calls::Identity;
use crate::calls::leave_group::LeaveGroup;
use crate::config::{GroupConfig, GroupProtocol};
use crate::limits::{COUNTED_WITHIN, GROUP_EVENTS};
use crate::metadata::Trust;

/// A member of a group. Cheap to clone: any task may commit.
#[derive(Debug, Clone)]
pub struct Member {
    coordinator: Arc<Coordinator>,
    /// The client ends with its last handle.
    _client: Arc<dyn Any + Send + Sync>,
    standing: Arc<Standing>,
    commands: mpsc::Sender<Command>,
}

/// What happens to a member, in order. When this is dropped the membership ends silently: the group
/// gives its partitions to others when its session is over, or sooner after [`Member::leave`].
#[derive(Debug)]
pub struct MemberEvents(mpsc::Receiver<GroupEvent>);

/// What happens to a member.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupEvent {
    /// These partitions, by topic, are the member's from now on, beside those that it has.
    Assigned(Vec<(Arc<str>, i32)>),
    /// These partitions go to others as soon as the member has given them back: settle and commit what
    /// was read, then drop this.
    Revoked(Revocation),
    /// These partitions are no longer the member's: others may have them already, and nothing of them
    /// can be committed.
    Lost(Vec<(Arc<str>, i32)>),
    /// The membership is over; the last event.
    Failed(GroupError),
}

/// Partitions to give back, which is done by dropping it.
pub struct Revocation {
    /// The partitions.
    pub partitions: Vec<(Arc<str>, i32)>,
    /// When the member gives them back in any case: what is committed of them later is
    /// [`GroupError::NotAssigned`].
    pub until: Instant,
    number: u64,
    commands: mpsc::Sender<Command>,
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partitions, until, .. } = self;
        f.debug_struct("Revocation").field("partitions", partitions).field("until", until).finish()
    }
}

impl Drop for Revocation {
    fn drop(&mut self) {
        // With a full queue it is given back when its time is over.
        let _is_over = self.commands.try_send(Command::GivenBack(self.number));
    }
}

#[derive(Debug)]
enum Command {
    /// The revocation of this number.
    GivenBack(u64),
    Leave(Instant, oneshot::Sender<()>),
}

impl Member {
    /// Joins in a task of the client's.
    pub(super) fn join(
        coordinator: Arc<Coordinator>,
        client: Arc<dyn Any + Send + Sync>,
        topics: &[&str],
        config: &GroupConfig,
    ) -> (Member, MemberEvents) {
        let (events, heard) = mpsc::channel(GROUP_EVENTS);
        let (commands, ordered) = mpsc::channel(GROUP_EVENTS);
        let (answers, answered) = mpsc::channel(GROUP_EVENTS);
        let standing = Arc::<Standing>::default();
        let topics: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
        let protocol = match config.protocol {
            GroupProtocol::Negotiated => Protocol::modern(&coordinator, &topics, config),
            GroupProtocol::Classic => Protocol::classic(&coordinator, &topics, config),
        };
        let driver = Driver {
            config: config.clone(),
            topics,
            protocol,
            standing: standing.clone(),
            events,
            commands: commands.clone(),
            ordered,
            answers,
            answered,
            revocation: 0,
            coordinator: coordinator.clone(),
        };
        let settings = &coordinator.cluster.settings;
        settings.tasks.spawn(settings.shutdown.clone().run_until_cancelled_owned(driver.run()));
        (Member { coordinator, _client: client, standing, commands }, MemberEvents(heard))
    }

    /// The partitions that it has now, those included that it is about to give back.
    #[must_use]
    pub fn assignment(&self) -> Vec<(Arc<str>, i32)> {
        self.standing.partitions()
    }

    /// Commits offsets of partitions that the member has. Each is kept or refused by itself, in their
    /// order. It is tried again while the group rebalances, as long as the partition is the member's.
    ///
    /// # Errors
    /// Of each partition [`GroupError`], after at most `within`; [`GroupError::NotAssigned`] if it is
    /// not, or no longer, the member's.
    pub async fn commit(
        &self,
        offsets: &[GroupOffset<'_>],
        within: Duration,
    ) -> Vec<Result<(), GroupError>> {
        let deadline = Instant::now() + within;
        Commit::new(offsets).by(&self.standing).run(&self.coordinator, deadline).await
    }

    /// Leaves the group for good, also as a static member: others have its partitions at once. Commit
    /// before; afterwards [`MemberEvents::next`] has no more events.
    pub async fn leave(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let (done, is_done) = oneshot::channel();
        let left = async {
            let _is_over = self.commands.send(Command::Leave(deadline, done)).await;
            let _is_done = is_done.await;
        };
        let _in_time = timeout_at(deadline, left).await;
    }
}

impl MemberEvents {
    /// The next event; `None` when the membership has ended. Who has 64 events wait has given up its
    /// membership.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<GroupEvent> {
        self.0.recv().await
    }
}

/// Either protocol.
#[derive(Debug)]
enum Protocol {
    Classic(Classic),
    Modern(Modern),
}

impl Protocol {
    fn classic(coordinator: &Coordinator, topics: &[Arc<str>], config: &GroupConfig) -> Self {
        let (group, retry) = (coordinator.group.clone(), coordinator.cluster.config.retry);
        let now = Instant::now();
        Self::Classic(Classic::new(group, topics.to_vec(), config.clone(), retry, now))
    }

    fn modern(coordinator: &Coordinator, topics: &[Arc<str>], config: &GroupConfig) -> Self {
        let (group, retry) = (coordinator.group.clone(), coordinator.cluster.config.retry);
        let (member, now) = (member_id(), Instant::now());
        Self::Modern(Modern::new(group, topics.to_vec(), config.clone(), retry, member, now))
    }

    fn poll(&mut self, now: Instant) -> Option<Action> {
        match self {
            Self::Classic(it) => it.poll(now),
            Self::Modern(it) => it.poll(now),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Classic(it) => it.poll_timeout(),
            Self::Modern(it) => it.poll_timeout(),
        }
    }

    fn on_answer(&mut self, answer: Answer, now: Instant) {
        match self {
            Self::Classic(it) => it.on_answer(answer, now),
            Self::Modern(it) => it.on_answer(answer, now),
        }
    }

    fn on_given_back(&mut self, now: Instant) {
        match self {
            Self::Classic(it) => it.on_given_back(now),
            Self::Modern(it) => it.on_given_back(now),
        }
    }

    fn on_known(&mut self, known: &Known, now: Instant) {
        match self {
            Self::Classic(it) => it.on_known(known, now),
            Self::Modern(it) => it.on_known(known, now),
        }
    }

    fn watched(&self) -> &[Arc<str>] {
        match self {
            Self::Classic(it) => it.watched(),
            Self::Modern(it) => it.watched(),
        }
    }

    /// Who commits, and what it has.
    fn standing(&self) -> (Option<Identity>, &Partitions) {
        match self {
            Self::Classic(it) => (it.committer(), &it.owned),
            Self::Modern(it) => (it.committer(), &it.owned),
        }
    }
}

/// Why a membership ends by itself.
enum End {
    Failed,
    /// Its reader takes no events.
    Unheard,
}

/// The one task of a membership.
struct Driver {
    coordinator: Arc<Coordinator>,
    topics: Vec<Arc<str>>,
    config: GroupConfig,
    protocol: Protocol,
    standing: Arc<Standing>,
    events: mpsc::Sender<GroupEvent>,
    commands: mpsc::Sender<Command>,
    ordered: mpsc::Receiver<Command>,
    answers: mpsc::Sender<Answer>,
    answered: mpsc::Receiver<Answer>,
    /// How many there were.
    revocation: u64,
}

impl Driver {
    async fn run(mut self) {
        let metadata = self.coordinator.metadata.clone();
        let mut rounds = metadata.rounds();
        self.look_up();
        loop {
            match self.act() {
                Ok(()) => {}
                Err(End::Failed) => break,
                Err(End::Unheard) => {
                    self.leave(Instant::now() + self.config.session_timeout).await;
                    break;
                }
            }
            let timeout = self.protocol.poll_timeout();
            let due = async {
                match timeout {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.events.closed() => break,
                Some(command) = self.ordered.recv() => match command {
                    Command::GivenBack(number) if number == self.revocation => {
                        self.protocol.on_given_back(Instant::now());
                    }
                    Command::GivenBack(_) => {}
                    Command::Leave(deadline, done) => {
                        self.leave(deadline).await;
                        let _nobody_waits = done.send(());
                        break;
                    }
                },
                Some(answer) = self.answered.recv() => {
                    self.protocol.on_answer(answer, Instant::now());
                }
                _ = rounds.next() => self.look_up(),
                () = due => {}
            }
        }
        self.standing.set(None, &Partitions::new());
    }

    /// Does what there is to do now, unless the membership has ended.
    fn act(&mut self) -> Result<(), End> {
        while let Some(action) = self.protocol.poll(Instant::now()) {
            self.stand();
            match action {
                Action::Ask(number, question) => self.ask(number, question),
                Action::Count(number, topics) => self.count(number, topics),
                Action::Refresh => {
                    let metadata = &self.coordinator.metadata;
                    metadata.complain(metadata.generation());
                }
                Action::UseClassic => {
                    tracing::debug!(group = %self.coordinator.group, "classic_group_protocol");
                    let (coordinator, topics) = (&self.coordinator, &self.topics);
                    self.protocol = Protocol::classic(coordinator, topics, &self.config);
                }
                Action::Assign(partitions) => self.tell(GroupEvent::Assigned(list(partitions)))?,
                Action::Lose(partitions) => self.tell(GroupEvent::Lost(list(partitions)))?,
                Action::Revoke { partitions, within } => self.revoke(partitions, within)?,
                Action::Fail(error) => {
                    self.tell(GroupEvent::Failed(error))?;
                    return Err(End::Failed);
                }
            }
        }
        self.stand();
        Ok(())
    }

    /// What the member may commit from now on.
    fn stand(&self) {
        let (identity, owned) = self.protocol.standing();
        self.standing.set(identity, owned);
    }

    fn tell(&self, event: GroupEvent) -> Result<(), End> {
        match self.events.try_send(event) {
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => {
                let group = &self.coordinator.group;
                tracing::warn!(%group, effect = "membership_ends", "group_events_are_not_taken");
                Err(End::Unheard)
            }
        }
    }

    fn revoke(&mut self, partitions: Partitions, within: Duration) -> Result<(), End> {
        self.revocation += 1;
        let revocation = Revocation {
            partitions: list(partitions),
            until: Instant::now() + within,
            number: self.revocation,
            commands: self.commands.clone(),
        };
        self.tell(GroupEvent::Revoked(revocation))
    }

    /// What is known of the topics; asked for if nothing is.
    fn look_up(&mut self) {
        let metadata = &self.coordinator.metadata;
        let mut known = Known::new();
        for topic in self.protocol.watched() {
            let _puts_it_into_use = metadata.leader(topic, 0);
            known.extend(metadata.known(topic).map(|it| (topic.clone(), it)));
        }
        self.protocol.on_known(&known, Instant::now());
    }

    fn ask(&self, number: u64, question: Question) {
        // Topics that are read by members stay in use, so that changes of them are heard of.
        for topic in self.protocol.watched() {
            let _keeps_it_in_use = self.coordinator.metadata.leader(topic, 0);
        }
        let (coordinator, answers) = (self.coordinator.clone(), self.answers.clone());
        let parked = match question {
            Question::Join(_) | Question::Sync(_) => self.config.rebalance_timeout,
            Question::Beat(_) | Question::Consume(_) => Duration::ZERO,
        };
        let asked = Instant::now();
        let patience = match question {
            Question::Beat(_) | Question::Consume(_) => self.config.session_timeout / 3,
            _ => parked + coordinator.cluster.config.request_timeout,
        };
        self.spawn(async move {
            let reply = coordinator.put(question, parked, asked + patience).await;
            let _is_over = answers.send(Answer { number, asked, reply }).await;
        });
    }

    fn count(&self, number: u64, topics: Vec<Arc<str>>) {
        let (coordinator, answers) = (self.coordinator.clone(), self.answers.clone());
        let asked = Instant::now();
        let deadline = asked + COUNTED_WITHIN.min(self.config.session_timeout / 2);
        self.spawn(async move {
            let metadata = &coordinator.metadata;
            for topic in &topics {
                let _puts_it_into_use = metadata.leader(topic, 0);
            }
            let mut counts = Counts::new();
            for topic in topics {
                let count = metadata.partitions(&topic, Trust::Doubted, deadline).await;
                counts.extend(count.ok().map(|count| (topic, count)));
            }
            let _is_over =
                answers.send(Answer { number, asked, reply: Ok(Reply::Counted(counts)) }).await;
        });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let settings = &self.coordinator.cluster.settings;
        settings.tasks.spawn(settings.shutdown.clone().run_until_cancelled_owned(work));
    }

    async fn leave(&self, deadline: Instant) {
        let (group, coordinator) = (self.coordinator.group.clone(), &self.coordinator);
        self.standing.set(None, &Partitions::new());
        let failed = match &self.protocol {
            Protocol::Classic(it) if it.identity.member.is_empty() => None,
            Protocol::Classic(it) => {
                let call = LeaveGroup { group, identity: it.identity.clone() };
                coordinator.call(call, Duration::ZERO, deadline).await.err()
            }
            Protocol::Modern(it) => {
                coordinator.call(it.leaving(), Duration::ZERO, deadline).await.err()
            }
        };
        if let Some(Failure::Passing(reason) | Failure::Final(reason)) = failed {
            let effect = "its_session_has_to_end";
            tracing::warn!(group = %coordinator.group, %reason, effect, "group_not_left");
        }
    }
}

impl Coordinator {
    /// One attempt; what codes say about where the coordinator is, is noted.
    async fn put(
        &self,
        question: Question,
        parked: Duration,
        deadline: Instant,
    ) -> Result<Reply, Unanswered> {
        let reply = match question {
            Question::Join(call) => self.call(call, parked, deadline).await.map(Reply::Joined),
            Question::Sync(call) => self.call(call, parked, deadline).await.map(Reply::Synced),
            Question::Beat(call) => self.call(call, parked, deadline).await.map(Reply::Beaten),
            Question::Consume(call) => self.call(call, parked, deadline).await.map(Reply::Consumed),
        };
        if let Ok(reply) = &reply {
            let code = match reply {
                Reply::Joined(joined) => joined.code,
                Reply::Synced(synced) => synced.as_ref().err().copied().unwrap_or(0),
                Reply::Beaten(code) => *code,
                Reply::Consumed(told) => told.code,
                Reply::Counted(_) => 0,
            };
            self.on_code(code);
        }
        reply.map_err(|failure| match failure {
            Failure::Passing(_) => Unanswered::Passing,
            Failure::Final(reason) => Unanswered::Final(reason),
        })
    }
}

fn list(partitions: Partitions) -> Vec<(Arc<str>, i32)> {
    partitions.into_iter().collect()
}

/// A random id, as KIP-1082 asks for.
fn member_id() -> Arc<str> {
    let bits = u128::from(crate::backoff::random()) << 64 | u128::from(crate::backoff::random());
    let bytes = bits.to_be_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string().into()
}
