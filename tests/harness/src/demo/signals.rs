//! Waits for Ctrl-C or SIGTERM.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Remembers that the process was asked to stop.
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Takes over both signals from here on.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            sender.send_replace(true);
            // Kept until the end, so that waiting does not end by itself.
            sender.closed().await;
        });
        Ok(Self(receiver))
    }

    /// Returns once a signal has come.
    pub(crate) async fn wait(&self) {
        // The sender lives as long as this does.
        let mut receiver = self.0.clone();
        let _always = receiver.wait_for(|stopped| *stopped).await;
    }
}
