//! The Proxy-Wasm module: registers the root context; every decision is made in
//! `kafka-upstream-core`.

#![expect(missing_docs, reason = "the SDK's macro exports a function without documentation")]

mod budget;
mod headers;
mod host;
mod metrics;
mod per_request;
mod request;
mod root;
mod route;
mod routes;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
