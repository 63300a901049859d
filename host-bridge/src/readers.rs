//! Readers and webhooks have threads of their own, readers also listeners and connections: whatever they do,
//! writers keep theirs.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::config::Config;
use crate::connection::Server;
use crate::listen::Listeners;
use crate::shutdown::Shutdown;
use crate::tls::ServerTls;

/// The bound addresses of the feeds.
pub(crate) struct ReaderListeners {
    listeners: Listeners,
    runtime: ReaderRuntime,
}

/// Its threads are not waited for.
struct ReaderRuntime(Option<Runtime>);

impl Drop for ReaderRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl ReaderRuntime {
    fn start() -> io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        runtime.enable_all().thread_name("readers").on_thread_start(yield_to_writers);
        runtime.build().map(|runtime| Self(Some(runtime)))
    }

    /// Runs a task to its end on these threads.
    async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(runtime) = &self.0 else { return Err(io::ErrorKind::Other.into()) };
        runtime.spawn(task).await.map_err(io::Error::other)
    }
}

/// Where processors are scarce this thread waits for those of writers: a producer's client times out, a
/// reader reads later. On Linux niceness is a thread's own.
fn yield_to_writers() {
    if let Err(error) = rustix::process::nice(READERS_NICE) {
        tracing::warn!(%error, "readers_not_nice");
    }
}

const READERS_NICE: i32 = 5;

impl ReaderListeners {
    /// Binds the addresses of the feeds; without them, and without webhooks, there is nothing to serve.
    ///
    /// # Errors
    /// As [`Listeners::bind`].
    pub(crate) async fn bind(config: &Config) -> io::Result<Option<Self>> {
        if config.feeds.listen.is_empty() && config.webhooks.is_empty() {
            return Ok(None);
        }
        let (addresses, unix) = (config.feeds.listen.clone(), config.unix_socket);
        let runtime = ReaderRuntime::start()?;
        let listeners =
            runtime.run(async move { Listeners::bind(&addresses, unix).await }).await??;
        Ok(Some(Self { listeners, runtime }))
    }

    /// How many addresses are bound.
    pub(crate) fn len(&self) -> usize {
        self.listeners.len()
    }

    /// As [`Listeners::serve`], beside a task on the same threads.
    pub(crate) async fn serve(
        self,
        server: Server,
        tls: Option<ServerTls>,
        places: usize,
        shutdown: Shutdown,
        drain_timeout: Duration,
        beside: impl Future<Output = ()> + Send + 'static,
    ) {
        let Self { listeners, runtime } = self;
        let serving = async move {
            let readers = async {
                if listeners.len() > 0 {
                    listeners.serve(server, tls, places, &shutdown, drain_timeout).await;
                }
            };
            tokio::join!(readers, beside);
        };
        if let Err(error) = runtime.run(serving).await {
            tracing::error!(%error, "readers_failed");
        }
    }
}
