//! Bounds of the bridge, with their units and reasons.

use std::time::Duration;

/// Bytes of what is remembered of batches: a quarter of a million of them. At the bound new batches
/// are refused, because an answer that is forgotten would let its batch be written twice.
pub(crate) const ANSWERS_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that a remembered batch, or a VM, takes besides its outcomes.
pub(crate) const ANSWER_BYTES: usize = 256;
/// Bytes of a remembered outcome at most: two tags, a partition and an offset at their longest.
pub(crate) const OUTCOME_BYTES: usize = 17;
/// How long an answer is kept beyond its sender's patience: a copy may have lain in the buffers of a
/// machine that stood still.
pub(crate) const RESEND_MARGIN: Duration = Duration::from_secs(60);
/// How long an answer of memory mode is kept for a VM that has not said that it has it. Its batches
/// have no deadline; this is how long gateway and bridge may lose sight of one another.
pub(crate) const MEMORY_ANSWER_KEPT: Duration = Duration::from_secs(3600);
/// How often what is out of date is looked for: all answers are passed then, in milliseconds.
pub(crate) const ANSWERS_SWEEP: Duration = Duration::from_secs(5);

/// How long records of memory mode stay with the producer, whatever their callout's budget: half of
/// the day after which a broker knows a batch no more (`producer.id.expiration.ms`).
pub(crate) const MEMORY_DELIVERY: Duration = Duration::from_secs(12 * 3600);
/// What an answer may take beyond the callout's budget: outcomes come within 100 ms of their
/// deadline, and the gateway waits for 500 ms.
pub(crate) const ANSWER_GRACE: Duration = Duration::from_millis(200);

/// Records that all of the bridge's queue holds. A topic gets what is left free at most, and so half
/// of it when it is alone: as much as the filter's own queue by default.
pub(crate) const QUEUE_RECORDS: usize = 100_000;
/// Bytes of the batches that hold them.
pub(crate) const QUEUE_BYTES: usize = 128 * 1024 * 1024;
/// Topics that have records in the queue, each with a task.
pub(crate) const QUEUE_LANES: usize = 1000;
/// Records that are sent at a time.
pub(crate) const WAVE_RECORDS: usize = 10_000;
/// Bytes of batches that are sent at a time, unless one alone has more: a quarter of what a producer
/// holds for a partition by default.
pub(crate) const WAVE_BYTES: usize = 4 * 1024 * 1024;
/// How long a wave waits for its topic and for the producer's memory: long enough that a topic is
/// known to be missing.
pub(crate) const WAVE_PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a wave that was not written, and what it grows to.
pub(crate) const WAVE_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(1));

/// A batch without outcomes for so long has its brokers asked whether they are there.
pub(crate) const PROBE_AFTER: Duration = Duration::from_secs(1);
/// A cluster that has answered nobody for so long is away.
pub(crate) const CLUSTER_AWAY: Duration = Duration::from_secs(5);
/// How long a request waits for a cluster that is away: it may come back at any time.
pub(crate) const AWAY_PATIENCE: Duration = Duration::from_secs(2);

/// Most profiles at a time; several may share a client.
pub(crate) const PROFILES_MAX: usize = 4096;
/// Refused profiles that are told of, the latest ones.
pub(crate) const REFUSED_PROFILES: usize = 100;
/// Bytes of the reason for which a profile was refused: a filter's names may have any length.
pub(crate) const REFUSAL_BYTES: usize = 1024;
/// A refused profile that no filter asks for any more is forgotten after this.
pub(crate) const REFUSED_KEPT: Duration = Duration::from_secs(300);

/// How long before the process's end, a quarter of its drain at most, nothing more is queued: what is queued
/// by then has the time to be written.
pub(crate) const LAST_WRITES: Duration = Duration::from_secs(2);
/// How often it is looked at whether the queue has been emptied.
pub(crate) const DRAIN_POLL: Duration = Duration::from_millis(10);

/// Failing topics that are remembered by name; clients may choose the names.
pub(crate) const FAILING_TOPICS: usize = 100;
/// Failing topics that a line of the log names.
pub(crate) const FAILING_TOPICS_LOGGED: usize = 10;
/// How often failing topics are logged.
pub(crate) const FAILING_LOGGED: Duration = Duration::from_secs(60);
/// A topic that nobody writes to is no longer failing after this.
pub(crate) const FAILING_KEPT: Duration = Duration::from_secs(300);
/// A batch that is under way for so long is in trouble.
pub(crate) const SLOW_BATCH: Duration = Duration::from_secs(10);

/// How long a cluster may take to answer when the bridge watches it.
pub(crate) const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How often a cluster that answers is asked again: a metric is scraped as often.
pub(crate) const READY_AGAIN: Duration = Duration::from_secs(30);
/// Pause before a cluster that does not answer is asked again.
pub(crate) const READY_RETRY: Duration = Duration::from_secs(1);

/// How old a look at files that are followed may be.
pub(crate) const FILES_LOOK: Duration = Duration::from_secs(5);
/// Bytes of the largest file: a bundle of every public authority has a quarter of it.
pub(crate) const FILE_BYTES: usize = 1024 * 1024;

/// How long a kind of event has no other line.
pub(crate) const LOG_AGAIN: Duration = Duration::from_secs(60);
/// Kinds of events with a line in that time: places that log, for each of 256 clients and of the
/// webhooks, of which there may be thousands.
pub(crate) const LOG_KINDS: usize = 16_384;
/// Bytes of a value in the log; a broker's own words are shorter.
pub(crate) const LOG_VALUE_BYTES: usize = 1024;
/// Lines that wait to be written; with more the log is behind for good.
pub(crate) const LOG_QUEUE_LINES: usize = 1024;

/// Descriptors that no caller gets: connections to brokers and token endpoints, files, and one
/// connection of each listener that waits for its place. Never more than half of what there is.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 4096;
/// Connections of a listener at a time; more wait to be accepted. What a connection costs in
/// memory, some 30 KB, times this is what one listener may take.
pub(crate) const CONNECTIONS_MAX: u64 = 8192;
/// How long a TLS handshake may take: two round trips to the farthest machine, ten times over.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time from the accept to the first authorized request. A gateway connects when it has a request
/// to send.
pub(crate) const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of one connection before the first authorized one: probes make one each.
pub(crate) const UNAUTHORIZED_REQUESTS_MAX: usize = 16;
/// How long requests of a connection that is being closed may still take.
pub(crate) const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams of an HTTP/2 connection at a time, as in nginx; a gateway that has more batches under way
/// opens another connection. A stream takes 3 KB before its request is known to be authorized.
pub(crate) const STREAMS_MAX: u32 = 128;
/// How long a write to a connection may wait for its peer to read.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may leave an answer unread, by HTTP/2's flow control; at most twice that.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of answers on a connection that its peer has not taken: some hundred batches whose every
/// record failed with a reason. The connection is closed beyond.
pub(crate) const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of an answer that are queued to a stream at a time; times the streams this is 2 MiB.
pub(crate) const STREAM_SEND_BYTES: usize = 16 * 1024;
/// Bytes that are read of a connection to see which HTTP it is: the heads of most requests.
pub(crate) const FIRST_BYTES: usize = 1024;
/// Bytes of a connection's read buffer: the longest head, which is what a gateway's client sent.
pub(crate) const HEAD_BYTES_MAX: usize = 128 * 1024;
/// Connections of a listener that wait to be accepted. nginx makes one for each callout, as many at once
/// as it has clients; Linux cuts it to `net.core.somaxconn`, which is 4096.
pub(crate) const BACKLOG: u32 = 4096;
/// Pause after a failed accept: another connection may have ended.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a request body may take: it comes from this machine or from one that is near.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the body of a request that is captured may take: it comes from a client, through a proxy that
/// may not wait for all of it.
pub(crate) const CAPTURE_BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long what is left of a body is read after its answer, so that its client comes to see that.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// Bytes of request bodies at a time, of all connections; more are answered "not now".
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// And of those of requests that are captured, with their records.
pub(crate) const CAPTURED_BODY_BYTES: usize = 128 * 1024 * 1024;
/// Bytes that are taken for a body before any of it has arrived.
pub(crate) const BODY_BYTES_FIRST: usize = 64 * 1024;

/// Requests that a filter holds while their headers are here already; one takes some 4 KB.
pub(crate) const BYPASSED_HELD: usize = 16_384;

/// Readers at a time, streams and pages that are waited for: of all feeds, and of one.
pub(crate) const FEEDS_CONNECTIONS: usize = 20_000;
pub(crate) const FEED_CONNECTIONS: usize = 10_000;
/// And of one client, by the names that a gateway gives it.
pub(crate) const CLIENT_CONNECTIONS: usize = 100;
/// Groups without members whose coordinators are remembered; more only while as many are read.
pub(crate) const FEED_GROUPS: usize = 10_000;
/// Credentials of requests by which feeds are read at a time: each has connections of its own.
pub(crate) const FEED_CREDENTIALS: usize = 100;
/// Groups that streams read, by topics: the bridge is a member of each.
pub(crate) const FEED_MEMBERS: usize = 500;
/// How long a bridge stays in a group that nobody reads: clients that come again cause no rebalance.
pub(crate) const FEED_MEMBER_IDLE: Duration = Duration::from_secs(30);
/// How often what members' readers have been sent is committed, and how often all that they have, so
/// that nothing expires.
pub(crate) const FEED_COMMIT_EVERY: Duration = Duration::from_secs(5);
pub(crate) const FEED_COMMIT_ALL_EVERY: Duration = Duration::from_secs(60 * 60);
/// How long a reader may take to stop at a partition that goes to another member of the group.
pub(crate) const FEED_GIVE_BACK: Duration = Duration::from_secs(5);
/// Records that may be lost by a bridge that ends before it has sent them (at most once).
pub(crate) const FEED_AT_RISK: usize = 100;
/// Bytes of a body with a cursor to commit.
pub(crate) const FEED_COMMIT_BYTES: usize = 16 * 1024;
/// How often an event stream reports how far it is behind.
pub(crate) const FEED_LAG_REPORTED: Duration = Duration::from_secs(1);
/// Records of a partition that a stream has ready at a time where each is looked at for dead letters.
pub(crate) const FEED_DEAD_LETTERS_AHEAD: usize = 100;
/// And where each is decoded, by whomever: a reader that takes a few at a time does not pass all that follow.
pub(crate) const FEED_DECODED_AHEAD: usize = 100;
/// Connections of one of their listeners at a time: more than readers may be, so that those who are
/// too many are told.
pub(crate) const FEED_LISTENER_CONNECTIONS: u64 = 20_480;
/// Memory of all readers together, bytes: what the hub keeps and streams send.
pub(crate) const FEED_MEMORY_BYTES: usize = 352 * 1024 * 1024;
/// And pages and replies, until they are sent.
pub(crate) const FEED_ANSWERS_BYTES: usize = 160 * 1024 * 1024;
/// Memory of all webhooks together, bytes: what they have read and not delivered. Each partition has one
/// record beyond that.
pub(crate) const WEBHOOK_MEMORY_BYTES: usize = 128 * 1024 * 1024;
/// Bytes of records of pages that become JSON while they are sent, with the reads that they came in: what
/// slow readers keep of the readers' memory. Other pages are made whole before, in the memory of answers.
pub(crate) const FEED_UNMADE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of a topic's tail: a reader that is further behind reads from Kafka.
pub(crate) const FEED_TAIL_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of what readers behind the tails have read, kept for others who come after them.
pub(crate) const FEED_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Reads behind the tails at a time. Each has a connection to each broker that it asks, and a client
/// has 64 to a broker: the tails need some of them.
pub(crate) const FEED_CATCH_UPS: usize = 48;
/// Bytes that one fetch may bring to the tails or a stream, and to a page.
pub(crate) const FEED_CHUNK_BYTES: usize = 256 * 1024;
pub(crate) const FEED_PAGE_CHUNK_BYTES: usize = 1024 * 1024;
/// Readers whose next page is read while they take the last one, for at most so long: half of the cache is
/// theirs, if all their pages are as large as can be.
pub(crate) const FEED_READS_AHEAD: usize = 4;
pub(crate) const FEED_AHEAD_KEPT: Duration = Duration::from_secs(5);
/// Bytes of one partition that a fetch of several asks for, so that none leaves nothing for the others.
pub(crate) const FEED_PARTITION_BYTES: usize = 1024 * 1024;
/// Bytes of the largest batch that producers write unless they are told otherwise, with what is around its
/// records if these have a KiB: brokers send the first batch of an answer whole.
pub(crate) const FEED_BATCH_BYTES: usize = 1024 * 1024 + 128 * 1024;
/// How long a fetch of the tails waits for records.
pub(crate) const FEED_TAIL_WAIT: Duration = Duration::from_secs(5);
/// A topic without readers is read for so long: they poll, and come again.
pub(crate) const FEED_IDLE: Duration = Duration::from_secs(30);
/// How often a reader that stays has brokers asked whether there are new partitions.
pub(crate) const FEED_LOOK_AGAIN: Duration = Duration::from_secs(20);
/// Pause before a partition is read again that no broker answered for.
pub(crate) const FEED_RETRY: Duration = Duration::from_secs(1);
/// How long a stream or a WebSocket waits for a registry where nothing else is to be sent: its client has
/// to learn of it.
pub(crate) const FEED_HELD: Duration = Duration::from_secs(30);
/// Bytes of events that are made ready for a client at a time, unless one alone has more.
pub(crate) const FEED_QUEUE_BYTES: usize = 32 * 1024;
/// An event with more bytes is not copied for each client.
pub(crate) const FEED_SHARED_BYTES: usize = 16 * 1024;
/// Event streams that one task writes to when they wait at the same place, and those of a feed that are worth
/// such a task.
pub(crate) const BROADCAST_MOST: usize = 256;
pub(crate) const BROADCAST_LEAST: usize = 32;
/// Streams that it writes to before others have their turn: some 200 µs.
pub(crate) const BROADCAST_WRITES: usize = 32;
/// Places of a feed's readers of which it is kept what follows, and the bytes of that: so much, rendered,
/// readers may be apart from each other and still share it.
pub(crate) const FEED_STEPS: usize = 256;
pub(crate) const FEED_STEPS_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a reader's head, and of what is queued to its socket: the queue's bound with the above.
pub(crate) const FEED_HEAD_BYTES: usize = 32 * 1024;
/// How long a reader may take nothing of what is sent to it.
pub(crate) const FEED_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// What a segment of a topic costs beside its records, bytes.
pub(crate) const SEGMENT_OVERHEAD_BYTES: usize = 256;
/// What an item costs beside its key, value and headers, bytes.
pub(crate) const ITEM_OVERHEAD_BYTES: usize = 256;
/// How long brokers may take to say which partitions there are and where they begin and end. A topic is
/// refused only when it has been unknown for 5 s.
pub(crate) const FEED_PATIENCE: Duration = Duration::from_secs(6);
/// How old what brokers said of a topic's partitions may be when a page begins. A partition that was
/// added meanwhile is read from its log start by a later page.
pub(crate) const FEED_KNOWN: Duration = Duration::from_secs(1);
/// How old what a broker said of the cluster's topics may be when a reader of a pattern begins: one that
/// was created meanwhile is read from its log start later.
pub(crate) const FEED_LISTED: Duration = Duration::from_secs(5);
/// How long a topic of a cursor may be unknown to brokers before it was deleted.
pub(crate) const FEED_UNKNOWN: Duration = Duration::from_secs(5);
/// How much longer than its `timeout` a page may take while brokers do not answer.
pub(crate) const FEED_GRACE: Duration = Duration::from_secs(2);
/// A page with as many items as are worth a reply waits so long for one more.
pub(crate) const FEED_QUIET: Duration = Duration::from_millis(100);
/// What readers wait whom the bridge cannot serve now.
pub(crate) const RETRY_AFTER_SECONDS: &str = "1";
/// Bytes of a page that are made and go out at a time: some 50 µs.
pub(crate) const FEED_PIECE_BYTES: usize = 64 * 1024;
