//! Guests of a few lines of WebAssembly text, to show a rule of a host.

use crate::abi::{self, Pair};
use crate::host::Host;
use crate::vm::Guest;

/// A guest in the making. Callbacks are given as instructions with named parameters; `@"text"` in
/// them stands for a text's address and length, `@[name=value, …]` for a header map's.
#[derive(Debug, Clone, Default)]
pub struct Small {
    functions: String,
    data: Vec<u8>,
}

impl Small {
    /// A guest without callbacks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Request headers: `$ctx`, `$count`, `$end`; an action.
    #[must_use]
    pub fn headers(self, code: &str) -> Self {
        self.on("proxy_on_request_headers", "$ctx $count $end", true, code)
    }

    /// A request body: `$ctx`, `$size`, `$end`; an action.
    #[must_use]
    pub fn body(self, code: &str) -> Self {
        self.on("proxy_on_request_body", "$ctx $size $end", true, code)
    }

    /// Request trailers: `$ctx`, `$count`; an action.
    #[must_use]
    pub fn trailers(self, code: &str) -> Self {
        self.on("proxy_on_request_trailers", "$ctx $count", true, code)
    }

    /// Response headers: `$ctx`, `$count`, `$end`; an action.
    #[must_use]
    pub fn response(self, code: &str) -> Self {
        self.on("proxy_on_response_headers", "$ctx $count $end", true, code)
    }

    /// A callout's end: `$ctx`, `$token`, `$headers`, `$body`, `$trailers`.
    #[must_use]
    pub fn reply(self, code: &str) -> Self {
        self.on("proxy_on_http_call_response", "$ctx $token $headers $body $trailers", false, code)
    }

    /// A tick: `$root`.
    #[must_use]
    pub fn tick(self, code: &str) -> Self {
        self.on("proxy_on_tick", "$root", false, code)
    }

    /// A queue's wake-up: `$root`, `$queue`.
    #[must_use]
    pub fn queue(self, code: &str) -> Self {
        self.on("proxy_on_queue_ready", "$root $queue", false, code)
    }

    /// The start of a VM: `$root`, `$size`; 1 to go on.
    #[must_use]
    pub fn start(self, code: &str) -> Self {
        self.on("proxy_on_vm_start", "$root $size", true, code)
    }

    /// A configuration: `$root`, `$size`; 1 to accept it.
    #[must_use]
    pub fn configure(self, code: &str) -> Self {
        self.on("proxy_on_configure", "$root $size", true, code)
    }

    /// A context's end: `$ctx`; 1 when it is done.
    #[must_use]
    pub fn done(self, code: &str) -> Self {
        self.on("proxy_on_done", "$ctx", true, code)
    }

    /// A context's log: `$ctx`.
    #[must_use]
    pub fn log(self, code: &str) -> Self {
        self.on("proxy_on_log", "$ctx", false, code)
    }

    /// The headers of a response: `$ctx`, `$count`, `$end`; an action.
    #[must_use]
    pub fn response_headers(self, code: &str) -> Self {
        self.on("proxy_on_response_headers", "$ctx $count $end", true, code)
    }

    /// A function that callbacks can call by its name.
    #[must_use]
    pub fn function(mut self, code: &str) -> Self {
        let code = self.placed(code);
        self.functions += &format!("(func {code})");
        self
    }

    /// The guest.
    #[must_use]
    pub fn guest(&self) -> Guest {
        let data: String = self.data.iter().map(|byte| format!("\\{byte:02x}")).collect();
        Guest::wat(&format!(
            "(module {PRELUDE} (data (i32.const {DATA}) \"{data}\") {})",
            self.functions
        ))
    }

    fn on(mut self, name: &str, parameters: &str, returns: bool, code: &str) -> Self {
        let parameters: String =
            parameters.split(' ').map(|name| format!("(param {name} i32)")).collect();
        let result = if returns { "(result i32)" } else { "" };
        let code = self.placed(code);
        self.functions += &format!("(func (export \"{name}\") {parameters} {result} {code})");
        self
    }

    /// Replaces texts and header maps by their addresses and lengths.
    fn placed(&mut self, code: &str) -> String {
        let mut placed = String::new();
        let mut rest = code;
        while let Some((before, after)) = rest.split_once('@') {
            placed += before;
            let close = if after.starts_with('[') { ']' } else { '"' };
            let (literal, left) = after[1..].split_once(close).unwrap();
            let bytes = match close {
                ']' => abi::encode(&map(literal)),
                _ => literal.replace("\\0", "\0").into_bytes(),
            };
            placed +=
                &format!("(i32.const {}) (i32.const {})", DATA + self.data.len(), bytes.len());
            self.data.extend(bytes);
            rest = left;
        }
        placed + rest
    }
}

fn map(literal: &str) -> Vec<Pair> {
    let pairs = literal.split(", ").filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.into(), value.replace("\\1", "\x01").into_bytes())
    };
    pairs.map(pair).collect()
}

impl Host {
    /// The numbers that a small guest has said under a letter.
    #[must_use]
    pub fn said(&self, letter: &str) -> Vec<u32> {
        let logs = self.logs();
        logs.iter().filter(|log| log.text == letter).map(|log| log.level).collect()
    }
}

/// Where texts stand in a small guest's memory.
const DATA: usize = 1024;

/// Imports, memory, an allocator that never frees, and short forms of host calls: `$value` and
/// `$size` of the last call that returned bytes stand at 64 and 68, a token or an id at 72.
const PRELUDE: &str = r#"
(import "env" "proxy_log" (func $proxy_log (param i32 i32 i32) (result i32)))
(import "env" "proxy_done" (func $drained (result i32)))
(import "env" "proxy_set_effective_context" (func $act (param i32) (result i32)))
(import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
(import "env" "proxy_send_local_response"
  (func $local (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_current_time_nanoseconds" (func $time (param i32) (result i32)))
(import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
(import "env" "proxy_get_buffer_bytes"
  (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_header_map_value"
  (func $value (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
(import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
(import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
(import "env" "proxy_define_metric" (func $metric (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_increment_metric" (func $add (param i32 i64) (result i32)))
(import "env" "proxy_http_call"
  (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(memory (export "memory") 160)
(global $top (mut i32) (i32.const 65536))
(func (export "proxy_abi_version_0_2_1"))
(func (export "proxy_on_context_create") (param i32 i32))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (global.get $top)
  (global.set $top (i32.add (global.get $top) (local.get $size))))
(func $say (param $letter i32) (param $length i32) (param $number i32)
  (drop (call $proxy_log (local.get $number) (local.get $letter) (local.get $length))))
(func $size (result i32) (i32.load (i32.const 68)))
(func $id (result i32) (i32.load (i32.const 72)))
(func $read (param $kind i32) (param $start i32) (param $max i32) (result i32)
  (call $buffer (local.get $kind) (local.get $start) (local.get $max)
    (i32.const 64) (i32.const 68)))
(func $map (param $kind i32) (result i32)
  (call $pairs (local.get $kind) (i32.const 64) (i32.const 68)))
(func $header (param $kind i32) (param $name i32) (param $length i32) (result i32)
  (call $value (local.get $kind) (local.get $name) (local.get $length)
    (i32.const 64) (i32.const 68)))
(func $property (param $name i32) (param $length i32) (result i32)
  (call $get_property (local.get $name) (local.get $length) (i32.const 64) (i32.const 68)))
(func $show (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 64)) (call $size))))
(func $answer (param $status i32) (param $body i32) (param $length i32)
  (drop (call $local (local.get $status) (i32.const 0) (i32.const 0) (local.get $body)
    (local.get $length) (i32.const 0) (i32.const 0) (i32.const -1))))
(func $resume (drop (call $continue (i32.const 0))))
(func $call (param $to i32) (param $to_length i32) (param $map i32) (param $map_length i32)
  (param $body i32) (param $length i32) (param $timeout i32) (result i32)
  (call $http_call (local.get $to) (local.get $to_length) (local.get $map)
    (local.get $map_length) (local.get $body) (local.get $length)
    (i32.const 0) (i32.const 0) (local.get $timeout) (i32.const 72)))
"#;
