//! The only file that calls the host. The SDK's wrappers panic on a status that they do not
//! list, and a panic ends the VM: here a status stays a number and every result is checked.

#![expect(unsafe_code, reason = "host calls are foreign functions that write through pointers")]

use std::ptr::null_mut;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kafka_upstream_core::config::Bridge;
use kafka_upstream_core::outbox::Callout;
use kafka_upstream_core::pairs;
use kafka_upstream_core::reply::Reply;

/// Severity of a log line, by the ABI's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// Header maps by the ABI's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Map {
    Request = 0,
    Response = 2,
    CalloutReply = 6,
}

/// Buffers by the ABI's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buffer {
    RequestBody = 0,
    CalloutReplyBody = 4,
    PluginConfiguration = 7,
}

/// Metric types by the ABI's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

pub(crate) fn log(level: Level, message: &str) {
    // SAFETY: the host reads `message` during the call.
    unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// The status of a read of a property; no property of ours fails for another reason than the host.
pub(crate) fn property_status(path: &[u8]) -> u32 {
    read_property(path).0
}

/// A property of the stream, by its path with a NUL between its parts; none when it has none.
pub(crate) fn property(path: &[u8]) -> Option<Vec<u8>> {
    let (status, value) = read_property(path);
    (status == OK).then_some(value)
}

fn read_property(path: &[u8]) -> (u32, Vec<u8>) {
    // SAFETY: `path` lives through the call; the answer, if there is one, is owned from here on.
    returned(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Sets a property of the stream; false when the host refuses.
pub(crate) fn set_property(path: &[u8], value: &[u8]) -> bool {
    // SAFETY: both slices live through the call.
    OK == unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) }
}

/// A header map; none when the host does not return it or its lengths do not fit.
pub(crate) fn headers(map: Map) -> Option<Vec<pairs::Pair>> {
    // SAFETY: the host writes through both pointers or not at all.
    let (status, bytes) =
        returned(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) });
    if status == OK { pairs::decode(&bytes) } else { None }
}

/// One header by name; none when it is absent.
pub(crate) fn header(map: Map, name: &str) -> Option<Vec<u8>> {
    // SAFETY: `name` lives through the call.
    let (status, bytes) = returned(|data, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    });
    (status == OK).then_some(bytes)
}

/// The first `size` bytes of a buffer; none when the host does not return them.
pub(crate) fn buffer(buffer: Buffer, size: usize) -> Option<Vec<u8>> {
    // SAFETY: the host writes through both pointers or not at all.
    let (status, bytes) = returned(|data, length| unsafe {
        proxy_get_buffer_bytes(buffer as u32, 0, size, data, length)
    });
    (status == OK).then_some(bytes)
}

/// Answers the stream that the current callback, or the effective context, belongs to.
pub(crate) fn answer(reply: &Reply) {
    let headers: Vec<_> =
        reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let headers = pairs::encode(&headers);
    // SAFETY: all slices live through the call.
    let status = unsafe {
        proxy_send_local_response(
            u32::from(reply.status),
            null_mut(),
            0,
            reply.body.as_ptr(),
            reply.body.len(),
            headers.as_ptr(),
            headers.len(),
            reply.grpc_status(),
        )
    };
    if status != OK {
        log(Level::Error, &format!("event=reply_refused status={} by={status}", reply.status));
    }
}

/// Makes another context the one that host calls act on; false when it has ended.
pub(crate) fn act_for(context: u32) -> bool {
    // SAFETY: no pointers.
    unsafe { proxy_set_effective_context(context) == OK }
}

/// Registers a shared queue whose items wake `on_queue_ready` of the calling root.
pub(crate) fn register_queue(name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: `name` and `id` live through the call.
    let status = unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &mut id) };
    (status == OK).then_some(id)
}

/// Puts one byte into a queue; false when the host refuses.
pub(crate) fn wake(queue: u32) -> bool {
    // SAFETY: the byte lives through the call.
    unsafe { proxy_enqueue_shared_queue(queue, [1_u8].as_ptr(), 1) == OK }
}

/// Takes one item out of a queue, if there is one.
pub(crate) fn take_wake_up(queue: u32) {
    // SAFETY: the host writes through both pointers or not at all.
    let _item = returned(|data, size| unsafe { proxy_dequeue_shared_queue(queue, data, size) });
}

pub(crate) fn set_tick_period(period: Duration) {
    let millis = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: no pointers.
    let status = unsafe { proxy_set_tick_period_milliseconds(millis) };
    if status != OK {
        log(Level::Error, &format!("event=tick_refused by={status}"));
    }
}

/// Defines a metric; none when the host refuses.
pub(crate) fn define_metric(kind: MetricType, name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: `name` and `id` live through the call.
    let status = unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) };
    (status == OK).then_some(id)
}

pub(crate) fn add_to_metric(id: u32, delta: i64) {
    // SAFETY: no pointers. A metric that the host does not know is no reason to fail a request.
    unsafe { proxy_increment_metric(id, delta) };
}

pub(crate) fn record_in_metric(id: u32, value: u64) {
    // SAFETY: no pointers. As above.
    unsafe { proxy_record_metric(id, value) };
}

/// Resumes the paused stream that the effective context belongs to.
pub(crate) fn resume() {
    // SAFETY: no pointers.
    let status = unsafe { proxy_continue_stream(REQUEST_STREAM) };
    if status != OK {
        log(Level::Error, &format!("event=resume_refused by={status}"));
    }
}

/// Dispatches a callout through the SDK, which must know its token to route the reply. Its wrapper
/// panics on statuses other than 0, 2 and 10; hosts return no others for a target and headers that
/// were checked.
pub(crate) fn dispatch(bridge: &Bridge, callout: &Callout) -> Result<u32, u32> {
    let bearer = bridge.token.as_ref().map(|token| format!("Bearer {}", token.expose()));
    let mut headers = vec![
        (":method", callout.method),
        (":scheme", "http"),
        (":authority", bridge.authority.as_str()),
        (":path", callout.path.as_str()),
        // Envoy: whatever retries the bridge's cluster has, an attempt is sent once, so that its
        // end says what became of it. Retries are the outbox's.
        ("x-envoy-max-retries", "0"),
    ];
    let body = (!callout.body.is_empty()).then_some(callout.body.as_slice());
    headers.extend(body.map(|_| ("content-type", callout.content_type)));
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    let target = bridge.target.as_str();
    proxy_wasm::hostcalls::dispatch_http_call(target, headers, body, vec![], callout.timeout)
        .map_err(|status| status as u32)
}

/// Time since 1970-01-01 UTC in ms, from WASI's clock, which every host has.
pub(crate) fn timestamp_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// A clock for deadlines: setting the machine's time does not move it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since its start.
    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }
}

/// Informs the host that the root whose `on_done` returned false may end.
pub(crate) fn done() {
    // SAFETY: no pointers.
    unsafe { proxy_done() };
}

/// Random bytes from WASI.
pub(crate) fn random() -> Result<[u8; 16], getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Bytes of linear memory: it never shrinks, so a leak shows in it.
pub(crate) fn memory_bytes() -> usize {
    std::arch::wasm32::memory_size::<0>() * 65_536
}

/// Makes a call that returns bytes, and takes over what the host allocated through our exports.
fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> (u32, Vec<u8>) {
    let (mut data, mut size) = (null_mut(), 0);
    let status = call(&mut data, &mut size);
    if data.is_null() {
        return (status, Vec::new());
    }
    // SAFETY: the host allocated `size` bytes through `proxy_on_memory_allocate`, which is a `Vec`
    // of that capacity, and gives them up with this call.
    (status, unsafe { Vec::from_raw_parts(data, size, size) })
}

const OK: u32 = 0;
/// The request's direction of a stream.
const REQUEST_STREAM: u32 = 0;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_done() -> u32;
    fn proxy_register_shared_queue(name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_enqueue_shared_queue(id: u32, data: *const u8, size: usize) -> u32;
    fn proxy_dequeue_shared_queue(id: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, delta: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
}
