//! Host calls on properties.

use crate::abi::{self, status};
use crate::hostcalls::{Cx, words};
use crate::profile::Profile;
use crate::rule::Rule;
use crate::vm::Stop;
use crate::world::World;

pub(crate) fn get(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [path, path_size, data, size] = words(arguments);
    let path = cx.read_text(path, path_size)?;
    let found = find(&mut cx.world(), &path)?;
    match found {
        Ok(value) => cx.give(&value, data, size),
        Err(refused) => Ok(refused),
    }
}

pub(crate) fn set(cx: &mut Cx<'_>, arguments: &[u64]) -> Result<u32, Stop> {
    let [path, path_size, value, value_size] = words(arguments);
    let path = cx.read_text(path, path_size)?;
    let value = cx.read(value, value_size)?;
    let mut world = cx.world();
    let stream = world.effective_stream();
    match (world.profile, stream) {
        (Profile::Apisix, Some(stream)) if path == "wasm_process_req_body" => {
            world.streams.get_mut(&stream).unwrap().wants_body = !value.is_empty();
            Ok(status::OK)
        }
        (Profile::Apisix, None) => Ok(status::BAD_ARGUMENT),
        (Profile::Apisix, _) if path.contains('\0') => Ok(status::NOT_FOUND),
        _ => Ok(status::OK),
    }
}

fn find(world: &mut World, path: &str) -> Result<Result<Vec<u8>, u32>, Stop> {
    let stream = world.effective_stream();
    let request = stream.map(|stream| world.streams[&stream].request.clone());
    Ok(match world.profile {
        Profile::Envoy | Profile::EnvoyNoStop => {
            let value = match (path.replace('\0', ".").as_str(), request) {
                ("plugin_name" | "plugin_root_id", _) => Some(b"kafka-upstream".to_vec()),
                ("source.address", Some(_)) => Some(b"127.0.0.1:40000".to_vec()),
                ("request.path", Some(request)) => Some(request.target.into_bytes()),
                ("request.protocol", Some(request)) => Some(protocol(request.version)),
                _ => None,
            };
            value.ok_or(status::NOT_FOUND)
        }
        Profile::Wasmx => match (path, request) {
            ("plugin_name", None) => {
                return Err(Stop::Broken(Rule(29), "plugin_name in a root".to_owned()));
            }
            ("plugin_name", Some(_)) => Ok(b"kafka_upstream".to_vec()),
            (scoped, None) if scoped.contains('\0') => Err(status::INTERNAL_FAILURE),
            ("ngx\0nginx_version", Some(_)) => Ok(b"1.27.4".to_vec()),
            ("ngx\0remote_addr" | "source\0address", Some(_)) => Ok(b"127.0.0.1".to_vec()),
            ("ngx\0remote_port", Some(_)) => Ok(b"40000".to_vec()),
            ("request\0protocol", Some(request)) => Ok(protocol(request.version)),
            ("ngx\0request_uri" | "request\0path", Some(request)) => Ok(request.target.into()),
            _ => Err(status::NOT_FOUND),
        },
        Profile::Apisix => match (path, request) {
            (_, None) => Err(status::BAD_ARGUMENT),
            ("nginx_version", _) => Ok(b"1.22.1".to_vec()),
            ("remote_addr", _) => Ok(b"127.0.0.1".to_vec()),
            ("remote_port", _) => Ok(b"40000".to_vec()),
            ("request_uri", Some(request)) => Ok(request.target.into_bytes()),
            ("scheme", _) => Ok(b"http".to_vec()),
            ("http_host", Some(request)) => {
                let host = abi::header(&request.headers, "host").map(<[u8]>::to_vec);
                host.ok_or(status::NOT_FOUND)
            }
            _ => Err(status::NOT_FOUND),
        },
    })
}

fn protocol(version: u32) -> Vec<u8> {
    match version {
        10 => b"HTTP/1.0".to_vec(),
        20 => b"HTTP/2".to_vec(),
        _ => b"HTTP/1.1".to_vec(),
    }
}
