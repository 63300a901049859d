//! Every bound that filter and bridge share, with its unit and its reason.

/// Default of `max_body_bytes`: Kafka's own default for the largest record batch.
pub const BODY_BYTES_DEFAULT: u64 = 1_048_576;
/// Largest `max_body_bytes`: callouts of 6 MB are known to pass, and a frame holds one such body.
pub const BODY_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Largest encoded record in bytes. Escaping and `body_args` can make a Kong message twelve times
/// as large as the body it came from; one that would not fit into a frame is refused with 413.
pub const RECORD_BYTES_MAX: usize = FRAME_BYTES_MAX - 4096;
/// Largest produce frame in bytes that the bridge reads.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most records in one frame; `producer_request_limits_messages_per_request` stays within it.
pub const FRAME_RECORDS_MAX: usize = 10_000;
/// Largest reply to a callout in bytes that the filter reads: 10,000 outcomes with their reasons.
pub const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest reason in bytes that an outcome carries; a reason is for people, not for data.
pub const REASON_BYTES_MAX: usize = 256;
/// Largest profile in bytes that the bridge reads.
pub const PROFILE_BYTES_MAX: usize = 64 * 1024;
/// Group commit: batches in flight from one VM whose topics share them. Fewer leave the bridge idle
/// while a reply is on its way; more make the batches smaller.
pub const BATCHES_IN_FLIGHT_SHARED: usize = 4;
/// Batches in flight of one topic in memory mode, so that a key's records stay in order, and of one
/// that has not been written to yet in acked mode, so that it delays no other.
pub const BATCHES_IN_FLIGHT_LANE: usize = 1;
/// Batches in flight of all topics that have lanes of their own, and of those of them whose last
/// batch was not written: the others always have some left.
pub const LANES_IN_FLIGHT_MAX: (usize, usize) = (32, 16);
/// Topics that have lanes of their own at a time, and topics that are known to be written: each is
/// looked at when a batch is due.
pub const LANES_MAX: usize = 1000;
/// Acked mode: how much younger than its oldest a batch's record may be in ms. They have one
/// deadline, that of the oldest.
pub const BATCH_AGE_MAX_MS: u64 = 1000;
/// Streams that a filter's root answers in one host callback; the others follow in the next wake-up
/// of the same loop. Envoy carries each reply out when the callback has returned, within the one
/// before, and somewhere between 380 and 1,000 of them overflow its stack and end the VM.
pub const ANSWERS_PER_CALLBACK_MAX: usize = 100;
/// Bytes of the headers of requests in one VM whose bodies are not complete: a VM never gives back
/// the memory that it once took.
pub const UNFINISHED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What an unfinished request takes besides its headers' bytes, and each of its headers.
pub const UNFINISHED_OVERHEAD_BYTES: (usize, usize) = (512, 48);
/// What a callout may take beyond the records' deadline in ms: the bridge answers first.
pub const CALLOUT_GRACE_MS: u64 = 500;
/// How long a probe of the bridge may take in ms: it answers from memory.
pub const PROBE_TIMEOUT_MS: u64 = 1000;
/// How often a request that makes its own callouts sends a batch again: no backoff spaces these
/// out.
pub const PER_REQUEST_RESENDS_MAX: u32 = 3;
/// Shortest and longest tick of a filter's root in ms: deadlines and flushes are due within it.
pub const TICK_MS: (u64, u64) = (10, 100);
/// Longest topic name in bytes (Kafka's own limit).
pub const TOPIC_BYTES_MAX: usize = 249;
/// Longest multipart boundary in bytes (RFC 2046, 5.1.1).
pub const BOUNDARY_BYTES_MAX: usize = 70;
/// Header pairs of one multipart part: a browser sends at most three.
pub const PART_HEADERS_MAX: usize = 16;
/// Lists and objects in one another in a plugin configuration; a right one has nine, and each takes
/// its part of a VM's stack.
pub const CONFIG_DEPTH_MAX: usize = 16;
/// Longest expression in bytes: about fifty lines.
pub const EXPRESSION_BYTES_MAX: usize = 4096;
/// Deepest nesting of an expression; each level takes its part of a VM's stack.
pub const EXPRESSION_DEPTH_MAX: u16 = 48;
/// Operators, members and brackets of an expression in a row or in one another: the parser goes as
/// deep before it knows the depth.
pub const EXPRESSION_CHAIN_MAX: usize = 256;
/// Nodes that an expression's text may become.
pub const EXPRESSION_NODES_MAX: usize = 2000;
/// Longest expression of a reader in bytes, and its nodes.
pub const READER_EXPRESSION_BYTES_MAX: usize = 2048;
/// See [`READER_EXPRESSION_BYTES_MAX`].
pub const READER_EXPRESSION_NODES_MAX: usize = 256;
/// Steps of one evaluation: a node, an element, or 128 bytes that are made or looked at: some
/// ten milliseconds at most, and no more than 16 MiB.
pub const EXPRESSION_COST_MAX: usize = 100_000;
/// Values in a JSON body that an expression can look at; each takes about 100 bytes.
pub const EXPRESSION_VALUES_MAX: usize = 100_000;
/// Largest compiled `path_regex` in bytes, some thousand states: a request's time grows with them.
pub const REGEX_BYTES_MAX: usize = 64 * 1024;
/// Largest compiled pattern of an expression's `matches` in bytes, some hundred states.
pub const EXPRESSION_REGEX_BYTES_MAX: usize = 32 * 1024;
/// Seconds in `Retry-After` of a 503.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// Longest body of `success_response` in bytes: it is copied into every reply.
pub const SUCCESS_BYTES_MAX: usize = 64 * 1024;
/// Idle seconds after which the bridge closes a connection: longer than any gateway's pool.
pub const BRIDGE_IDLE_SECONDS: u64 = 75;

const _: () = assert!(ANSWERS_PER_CALLBACK_MAX <= 300);
const _: () = assert!(RECORD_BYTES_MAX > BODY_BYTES_MAX as usize);
const _: () = assert!(FRAME_RECORDS_MAX * (REASON_BYTES_MAX + 8) < REPLY_BYTES_MAX);
