//! The functions that each host gives its guests, with their signatures.

use crate::hostcalls::{Call, body, control, data, dispatch, headers, metrics, property};
use crate::profile::Profile;

/// A function of the host.
#[derive(Clone, Copy)]
pub(crate) struct Import {
    pub(crate) name: &'static str,
    /// One letter a parameter: `i` of 32 bits, `l` of 64. All return an `i32`.
    pub(crate) parameters: &'static str,
    pub(crate) call: Call,
}

/// The names that a host links.
#[must_use]
pub fn names(profile: Profile) -> Vec<&'static str> {
    of(profile).map(|import| import.name).collect()
}

/// Everything of the ABI but what the host is known to lack.
pub(crate) fn of(profile: Profile) -> impl Iterator<Item = Import> {
    let lacks: &[&str] = match profile {
        Profile::Envoy | Profile::EnvoyNoStop => &[],
        Profile::Wasmx => &["proxy_get_log_level"],
        Profile::Apisix => &["proxy_get_log_level", "proxy_get_metric"],
    };
    ABI.into_iter().filter(move |import| !lacks.contains(&import.name))
}

const fn import(name: &'static str, parameters: &'static str, call: Call) -> Import {
    Import { name, parameters, call }
}

/// Proxy-Wasm ABI 0.2.1.
const ABI: [Import; 39] = [
    import("proxy_log", "iii", control::log),
    import("proxy_get_log_level", "i", control::log_level),
    import("proxy_get_status", "iii", control::unimplemented),
    import("proxy_done", "", control::done),
    import("proxy_set_effective_context", "i", control::set_effective_context),
    import("proxy_continue_stream", "i", control::continue_stream),
    import("proxy_close_stream", "i", control::unimplemented),
    import("proxy_send_local_response", "iiiiiiii", control::send_local_response),
    import("proxy_get_current_time_nanoseconds", "i", control::time),
    import("proxy_set_tick_period_milliseconds", "i", control::set_tick_period),
    import("proxy_call_foreign_function", "iiiiii", control::unimplemented),
    import("proxy_get_buffer_bytes", "iiiii", body::get),
    import("proxy_set_buffer_bytes", "iiiii", control::unimplemented),
    import("proxy_get_buffer_status", "iii", control::unimplemented),
    import("proxy_get_header_map_pairs", "iii", headers::pairs),
    import("proxy_set_header_map_pairs", "iii", control::unimplemented),
    import("proxy_get_header_map_size", "ii", headers::size),
    import("proxy_get_header_map_value", "iiiii", headers::value),
    import("proxy_add_header_map_value", "iiiii", headers::add),
    import("proxy_replace_header_map_value", "iiiii", headers::replace),
    import("proxy_remove_header_map_value", "iii", headers::remove),
    import("proxy_get_property", "iiii", property::get),
    import("proxy_set_property", "iiii", property::set),
    import("proxy_get_shared_data", "iiiii", data::get),
    import("proxy_set_shared_data", "iiiii", data::set),
    import("proxy_register_shared_queue", "iii", data::register_queue),
    import("proxy_resolve_shared_queue", "iiiii", data::resolve_queue),
    import("proxy_enqueue_shared_queue", "iii", data::enqueue),
    import("proxy_dequeue_shared_queue", "iii", data::dequeue),
    import("proxy_define_metric", "iiii", metrics::define),
    import("proxy_increment_metric", "il", metrics::increment),
    import("proxy_record_metric", "il", metrics::record),
    import("proxy_get_metric", "ii", metrics::get),
    import("proxy_http_call", "iiiiiiiiii", dispatch::http_call),
    import("proxy_grpc_call", "iiiiiiiiiiii", control::unimplemented),
    import("proxy_grpc_stream", "iiiiiiiii", control::unimplemented),
    import("proxy_grpc_send", "iiii", control::unimplemented),
    import("proxy_grpc_cancel", "i", control::unimplemented),
    import("proxy_grpc_close", "i", control::unimplemented),
];
