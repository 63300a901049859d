//! Every bound of the crate, with its unit and its reason.

use std::time::Duration;

/// Largest frame we read, bytes: as much as a broker takes (`socket.request.max.bytes`).
pub(crate) const FRAME_BYTES: usize = 100 * 1024 * 1024;

/// Largest frame we read before the peer has proven to be a broker, bytes. An ApiVersions answer
/// is about 1 KiB.
pub(crate) const HANDSHAKE_FRAME_BYTES: usize = 512 * 1024;

/// Largest message of a SASL mechanism that we read, bytes; a Kerberos ticket is the largest.
pub(crate) const SASL_ANSWER_BYTES: usize = 64 * 1024;

/// How long a token endpoint, or whoever else gives credentials, may take.
pub(crate) const CREDENTIAL_PATIENCE: Duration = Duration::from_secs(15);

/// How long a new credential is waited for while the old one is still good.
pub(crate) const CREDENTIAL_OVERLAP: Duration = Duration::from_secs(1);

/// Pause after a credential could not be had, before it is asked for again.
pub(crate) const CREDENTIAL_RETRY: Duration = Duration::from_secs(5);

/// Pause after a failed authentication, and what it grows to: brokers answer such attempts slowly
/// on purpose, and some accounts are locked after a few.
pub(crate) const LOGIN_BACKOFF: Duration = Duration::from_secs(1);
pub(crate) const LOGIN_BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Brokers whose last failure is remembered; more than clusters have brokers.
pub(crate) const FAULTS: usize = 1024;

/// How much a read buffer grows at least, bytes. It doubles, and holds the old buffer while it does:
/// memory is 3 times what has arrived at most, whatever a length field promises.
pub(crate) const READ_STEP_BYTES: usize = 64 * 1024;

/// Requests that wait in front of one connection; more callers wait for a place.
pub(crate) const QUEUED_REQUESTS: usize = 64;

/// Produce requests in flight per broker, at most: the broker works on one at a time, the rest
/// hides the round trip. Batches of one partition too, with idempotence: a broker remembers the
/// last 5 of a producer. Without it there is one, because a retry would overtake its successor.
pub(crate) const PRODUCE_IN_FLIGHT: usize = 5;

/// How long a broker may still execute what it had read from a connection that is closed.
pub(crate) const LATE_APPEND: Duration = Duration::from_secs(1);

/// Slices handed to one vectored write; the kernel takes at most 1,024.
pub(crate) const WRITE_SLICES: usize = 64;

/// Longest time we respect a broker's `throttle_time_ms`; its quota window is 11 s by default.
pub(crate) const THROTTLE: Duration = Duration::from_secs(60);

/// When an address of a host has not answered for this long, the next one is tried as well (RFC
/// 8305).
pub(crate) const ADDRESS_STAGGER: Duration = Duration::from_millis(250);

/// Largest connect timeout that the growth of KIP-601 reaches.
pub(crate) const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// What we wait on a connection beyond the broker's own timeout of a Produce request, else every
/// slow acknowledgement would end as a disconnect.
pub(crate) const PRODUCE_PATIENCE: Duration = Duration::from_secs(2);

/// Largest `fetch.max.bytes`: an answer is larger only by one batch, the first, and that is in the
/// frame alone then.
pub(crate) const FETCH_BYTES_MOST: usize = 64 * 1024 * 1024;

/// What a reader waits for brokers beyond the time that it gives records to come.
pub(crate) const FETCH_PATIENCE: Duration = Duration::from_secs(2);

/// How long other brokers have for their part of a fetch once one has given records.
pub(crate) const FETCH_GATHERING: Duration = Duration::from_millis(50);

/// Connections for readers per broker. Each carries one request at a time, because a broker does not
/// look at the next one while a Fetch waits for records; more readers wait for a connection.
pub(crate) const READER_CONNECTIONS: usize = 64;

/// Bytes that batches are decompressed to at a time, by all readers of a client: two of the largest.
pub(crate) const INFLATING_BYTES: usize = 2 * INFLATED_BATCH_BYTES;

/// How many times its size a batch may become before its reader waits for room for the largest one:
/// text that repeats itself shrinks to a tenth or so.
pub(crate) const INFLATION: usize = 16;

/// Connections per broker for who joins a group: a broker keeps each waiting until all members of its
/// group have joined. More members of a client wait for a connection.
pub(crate) const JOINING_CONNECTIONS: usize = 1_000;

/// Events of a membership, and commands to it, that wait to be taken.
pub(crate) const GROUP_EVENTS: usize = 64;

/// How long the leader of a group looks for the partitions of its topics.
pub(crate) const COUNTED_WITHIN: Duration = Duration::from_secs(10);

/// How long one broker may take to say who coordinates a group before the next one is asked.
pub(crate) const COORDINATOR_SOUGHT: Duration = Duration::from_secs(2);

/// Topics whose metadata and queues we keep. Names can come from HTTP clients.
pub(crate) const TOPICS: usize = 10_000;

/// Topics that a list of all of them may have: more than a cluster of Kafka's is run with, and some
/// 10 MB.
pub(crate) const TOPICS_LISTED: usize = 50_000;

/// Partitions in one Metadata answer, gaps included: about what the largest clusters hold.
pub(crate) const PARTITIONS_IN_ANSWER: usize = 200_000;

/// Brokers in one Metadata answer; the largest known clusters have a few hundred.
pub(crate) const BROKERS_IN_ANSWER: usize = 4_096;

/// How many times the bytes of an answer it may take in memory when it is decoded, and how much
/// beyond that, bytes: 10,000 topics and 200,000 partitions with the shortest names and no replicas
/// take as much.
pub(crate) const ANSWER_GROWTH: usize = 4;
pub(crate) const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// A topic that nobody used for this long leaves the metadata requests.
pub(crate) const TOPIC_IDLE: Duration = Duration::from_secs(300);

/// How long a topic may stay unknown: brokers learn of new topics at different times.
pub(crate) const UNKNOWN_TOPIC: Duration = Duration::from_secs(5);

/// How long a refused or unknown topic is refused again without a question to the broker.
pub(crate) const NEGATIVE_ENTRY: Duration = Duration::from_secs(1);

/// When a question that any broker can answer has waited this long, another broker is asked too.
pub(crate) const SLOW_ANSWER: Duration = Duration::from_secs(1);

/// Known brokers that are asked before the bootstrap servers: if so many fail or are silent, all
/// may have moved (KIP-899).
pub(crate) const KNOWN_ASKED_FIRST: usize = 3;

/// No broker has answered for this long: only `bootstrap.servers` are asked (KIP-1102).
pub(crate) const REBOOTSTRAP: Duration = Duration::from_secs(300);

/// Longest topic name of a broker, bytes.
pub(crate) const TOPIC_NAME_BYTES: usize = 249;

/// Memory a record takes beside its key, value and headers, bytes: framing (at most 43), its
/// ticket, and a batch header and settle cell in case it travels alone. It also bounds the number
/// of records.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 128;

/// Memory a header takes beside its key and value, bytes: two lengths of at most 5.
pub(crate) const HEADER_OVERHEAD_BYTES: usize = 10;

/// One partition may hold 1/4 of `buffer.memory`, so that a dead leader cannot starve the others.
pub(crate) const PARTITION_SHARE_DIVISOR: usize = 4;

/// Attempts at a batch that a broker refuses for a reason we do not know.
pub(crate) const UNEXPLAINED_ATTEMPTS: u32 = 3;

/// A batch whose connection closed this often in a row without an answer is sent alone, so that it
/// cannot take others with it.
pub(crate) const SENT_ALONE_AFTER: u32 = 3;

/// Bytes of a Produce request around the batches of one partition: index, length, tags, and its
/// topic's name and array in the worst case.
pub(crate) const PRODUCE_PARTITION_BYTES: usize = TOPIC_NAME_BYTES + 32;

/// How long a batch takes records (or `linger.ms`, if that is longer). Its earliest deadline is
/// everyone's, so while a broker is away a batch must not collect for minutes.
pub(crate) const BATCH_AGE: Duration = Duration::from_secs(1);

/// Memory from which a batch buffer starts to grow, bytes.
pub(crate) const BATCH_BUFFER_BYTES: usize = 512;

/// Bytes of one batch's records when they are decompressed: far beyond what clients batch, and a
/// bound for what a small frame can make of itself. Reading takes up to twice as much, because the
/// buffer doubles; with zstd a window of as many bytes comes to it, and with LZ4 two blocks of up to
/// 8 MiB. The records themselves take nothing: they are slices, read one by one.
pub(crate) const INFLATED_BATCH_BYTES: usize = 64 * 1024 * 1024;

/// Memory from which the buffer for a decompressed batch doubles, bytes.
pub(crate) const INFLATED_FIRST_BYTES: usize = 16 * 1024;

/// Bytes that a slow codec may compress on an IO task, about 2 ms of gzip; more goes to a thread.
pub(crate) const COMPRESSED_INLINE_BYTES: usize = 64 * 1024;

/// The highest zstd level that keeps up with an IO task.
pub(crate) const ZSTD_INLINE_LEVEL: i32 = 6;

/// Batches that are compressed on threads at a time, per client.
pub(crate) const COMPRESSION_THREADS: usize = 4;

/// Memory that an encoder keeps for its output, bytes: a batch of `batch.size` by default, should
/// it not shrink in any codec.
pub(crate) const ENCODER_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// Largest password or PEM that is read from a file, bytes: the bundles of systems, with some 150
/// roots, have 250 KiB.
pub(crate) const SECRET_BYTES: usize = 1024 * 1024;

/// Largest key or trust store, bytes: the stores of systems, with some 150 roots, have 250 KiB.
pub(crate) const STORE_BYTES: usize = 4 * 1024 * 1024;

/// Certificates and keys of one store.
pub(crate) const STORE_ENTRIES: usize = 10_000;

/// Iterations of SCRAM: fewer are a broker that wants the password to be guessed. Kafka's own minimum.
pub(crate) const ITERATIONS_LEAST: u32 = 4096;
/// More are a broker that wants our processor: these take about half a second.
pub(crate) const ITERATIONS_MOST: u32 = 1_000_000;

/// Iterations of PBKDF2 that we make to open a key: half a second, and 100 times what keytool and
/// OpenSSL write.
pub(crate) const KDF_ITERATIONS: u32 = 1_000_000;

/// Memory that scrypt may take to open a key, bytes: 4 times what OpenSSL's defaults need.
pub(crate) const SCRYPT_BYTES: u64 = 64 * 1024 * 1024;

/// Names of advertised brokers that are looked up at a time: each takes a thread meanwhile.
pub(crate) const NAMES_AT_A_TIME: usize = 8;

/// How long readiness waits for names that are being looked up: a name server that is well answers
/// in milliseconds.
pub(crate) const NAMES_LOOKED_UP: Duration = Duration::from_secs(1);

/// How often the files of a TLS configuration are looked at for a change.
pub(crate) const FILES_LOOKED_AT: Duration = Duration::from_secs(10);

const _: () = assert!(HANDSHAKE_FRAME_BYTES < FRAME_BYTES);
const _: () = assert!(FETCH_BYTES_MOST < FRAME_BYTES);
const _: () = assert!(PRODUCE_IN_FLIGHT < QUEUED_REQUESTS);
const _: () = assert!(INFLATED_BATCH_BYTES <= INFLATING_BYTES);
