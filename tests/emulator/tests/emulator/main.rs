//! The rules of each host, and the tests of the filter on them, as one program: it links the engine
//! and reads the filter once.

mod apisix;
mod batches;
mod bodies;
mod crossings;
mod faults;
mod hosts;
mod imports;
mod leaks;
mod many;
mod memory;
mod no_stop;
mod rules_apisix;
mod rules_envoy;
mod rules_every;
mod rules_wasmx;
mod rules_wasmx_callouts;
mod scripts;
mod statuses;
mod wasmx;
