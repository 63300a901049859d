//! A bridge with one feed, over a cluster in memory, for tests that are its clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Response};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::feeds::Feed;
use super::fixture::Fixture;
use super::reader::FeedReader;
use super::serve::{Readers, router};
use crate::auth::Proof;
use crate::config::{Listen, UnixSocketAccess};
use crate::connection::{Bounds, Server};
use crate::listen::Listeners;
use crate::shutdown::Shutdown;

/// It serves the feed `orders`.
pub(crate) struct Served {
    pub(crate) fixture: Fixture,
    pub(crate) reader: Arc<FeedReader>,
    pub(crate) path: PathBuf,
    pub(crate) shutdown: Shutdown,
    _dir: tempfile::TempDir,
}

impl Served {
    pub(crate) async fn start(change: impl FnOnce(&mut Feed)) -> Self {
        let fixture = Fixture::new(&[1, 2], MEMORY);
        let reader = fixture.reader(change);
        let readers = Readers::of_one("orders", Arc::clone(&reader));
        let readers = readers.writing("orders", fixture.writer());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let addresses = [Listen::Unix(path.clone())];
        let listeners = Listeners::bind(&addresses, UnixSocketAccess::default()).await.unwrap();
        let shutdown = Shutdown::default();
        let token = shutdown.token().clone();
        let server = Server::new(router(Arc::new(readers)), Proof::None, token, Bounds::READERS);
        let ending = shutdown.clone();
        tokio::spawn(async move {
            listeners.serve(server, None, 8, &ending, Duration::from_secs(20)).await;
        });
        Self { fixture, reader, path, shutdown, _dir: dir }
    }

    /// A client that offers these subprotocols, or what it is sent instead.
    pub(crate) async fn connect(
        &self,
        path: &str,
        protocols: &'static str,
    ) -> Result<(WebSocketStream<UnixStream>, Response<Option<Vec<u8>>>), Error> {
        let stream = UnixStream::connect(&self.path).await?;
        let mut request = format!("ws://bridge{path}").into_client_request()?;
        if !protocols.is_empty() {
            let protocols = HeaderValue::from_static(protocols);
            request.headers_mut().insert("sec-websocket-protocol", protocols);
        }
        client_async(request, stream).await
    }
}

const MEMORY: usize = 64 * 1024 * 1024;
