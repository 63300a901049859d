//! Confluent's client for Python, with its deserializers, from PyPI.

use std::path::PathBuf;

use super::install::install;
use super::wheels;

/// `confluent-kafka[avro,json,protobuf]`, as pip resolves it: what is imported to deserialize.
const WHEELS: &str = "\
anyio==4.16.0
attrs==26.1.0
authlib==1.9.10
cachetools==8.0.2
certifi==2026.10.19.post1
cffi==2.1.1
confluent-kafka==2.16.1
cryptography==50.0.2
fastavro==1.13.1
googleapis-common-protos==1.76.0
h11==0.16.0
httpcore2==2.16.2
httpx2==2.16.2
idna==3.20
joserfc==1.8.0
jsonschema==4.26.0
jsonschema-specifications==2025.9.1
protobuf==7.36.2
referencing==0.37.0
rpds-py==2026.9.1
truststore==0.10.5
typing-extensions==4.16.0
";

/// The folder from which Python imports `confluent_kafka`.
///
/// # Errors
/// When Python or pip is missing, or the download fails.
pub fn confluent_kafka() -> anyhow::Result<PathBuf> {
    let what = "fetching confluent-kafka 2.16.1 from PyPI";
    install("confluent-kafka-2.16.1", what, |dir| wheels(WHEELS, dir))
}
