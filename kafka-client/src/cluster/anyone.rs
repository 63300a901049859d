//! A question that any broker can answer: put to one, and to the next as well when that is slow.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::Cluster;
use crate::calls::Call;
use crate::connection::{Connection, LostReason};
use crate::error::Cause;
use crate::limits::SLOW_ANSWER;
use crate::resolve::Endpoint;

/// Where to ask, on a connection that is there already or on a new one.
pub(crate) type Candidate = (Endpoint, Option<Connection>);

/// The first answer that `judge` takes, and where it came from; else the last failure.
///
/// A broker that is frozen keeps its connections open, so a question must not wait for it as long
/// as a request may take.
pub(crate) async fn ask<C, T, E>(
    cluster: &Arc<Cluster>,
    call: C,
    candidates: impl IntoIterator<Item = Candidate>,
    judge: impl Fn(&Endpoint, C::Answer) -> Result<T, E> + Clone + Send + 'static,
) -> Result<(T, Endpoint, Connection), E>
where
    C: Call,
    T: Send + 'static,
    E: From<Cause> + Send + 'static,
{
    let call = Arc::new(call);
    let mut candidates = candidates.into_iter().fuse();
    let mut asked = JoinSet::new();
    let mut last = E::from("no broker is known".into());
    loop {
        let next = candidates.next();
        let is_last = next.is_none();
        if let Some(candidate) = next {
            let asking = ask_one(cluster.clone(), call.clone(), candidate, judge.clone());
            asked.spawn(asking.in_current_span());
        }
        let ended = if is_last {
            asked.join_next().await
        } else {
            timeout(SLOW_ANSWER, asked.join_next()).await.unwrap_or_default()
        };
        match ended {
            Some(Ok(Ok(answer))) => return Ok(answer),
            Some(Ok(Err(failure))) => last = failure,
            Some(Err(_)) => {}
            None if is_last => return Err(last),
            None => {}
        }
    }
}

async fn ask_one<C: Call, T, E: From<Cause>>(
    cluster: Arc<Cluster>,
    call: Arc<C>,
    (endpoint, connection): Candidate,
    judge: impl Fn(&Endpoint, C::Answer) -> Result<T, E> + Clone + Send + 'static,
) -> Result<(T, Endpoint, Connection), E> {
    let is_new = connection.is_none();
    let connection = match connection {
        Some(connection) => connection,
        None => cluster.connect(&endpoint, 0).await.map_err(|error| E::from(error.cause()))?,
    };
    let patience = cluster.config.request_timeout;
    let reply = match connection.submit(call, patience).await {
        Ok(reply) => reply.answer().await,
        Err(lost) => Err(lost),
    };
    let answer = reply.map_err(|lost| match lost.fault {
        LostReason::Closed if is_new => E::from(cluster.closed_at_request(&endpoint).cause()),
        _ => E::from(format!("{endpoint}: {lost}").into()),
    })?;
    judge(&endpoint, answer).map(|judged| (judged, endpoint, connection))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::fake_broker::{FakeCluster, FakeSettings, Fault, When};
    use crate::versions::{INIT_PRODUCER_ID, METADATA};
    use crate::{Client, Config};

    fn client(brokers: i32, faults: &[(i16, u64)]) -> Client {
        let cluster = FakeCluster::new(FakeSettings { brokers, ..FakeSettings::default() });
        for (api, nth) in faults {
            cluster.arm(*api, When::Nth(*nth), Fault::NoAnswer);
        }
        let bootstrap = cluster.bootstrap();
        cluster.client(Config::from_properties([("bootstrap.servers", &*bootstrap)]).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_broker_holds_up_no_question_that_others_can_answer() {
        let client = client(3, &[(METADATA.key, 1), (METADATA.key, 2), (INIT_PRODUCER_ID.key, 1)]);
        let _in_use = client.producer();
        let started = Instant::now();
        assert_eq!(client.ready(Duration::from_secs(10)).await, Ok(()));
        let took = started.elapsed().as_millis();
        assert!((3000..3100).contains(&took), "{took} ms for three silent answers");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_of_the_only_broker_still_counts() {
        let cluster = FakeCluster::new(FakeSettings { brokers: 1, ..FakeSettings::default() });
        let slow = Fault::SlowAnswer(Duration::from_secs(5));
        cluster.arm(METADATA.key, When::Nth(1), slow);
        let bootstrap = cluster.bootstrap();
        let config = [("bootstrap.servers", &*bootstrap), ("acks", "1")];
        let client = cluster.client(Config::from_properties(config).unwrap());
        assert_eq!(client.ready(Duration::from_secs(6)).await, Ok(()));
        assert_eq!(cluster.requests(METADATA.key), 1);
    }
}
