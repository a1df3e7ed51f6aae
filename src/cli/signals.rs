//! Reasons to stop that come from outside: Ctrl-C, SIGTERM, and for supervised children the end of
//! stdin.

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// Listens from its making on; a signal that arrives while nobody waits is not lost.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts to listen. A supervised process also watches stdin, a pipe that only its supervisor
    /// holds: at its end the supervisor is gone, and the process ends at once, as if it had crashed.
    pub fn listen(supervised: bool) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(format!("signals cannot be heard: {error}"), "throng", "report it")
        };
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        if supervised {
            tokio::spawn(async {
                let mut byte = [0];
                while matches!(tokio::io::stdin().read(&mut byte).await, Ok(read) if read > 0) {}
                super::tell::note("the supervisor is gone; ending");
                std::process::exit(super::failure::Exit::CouldNotRun as i32);
            });
        }
        Ok(Self { interrupt, terminate })
    }

    /// Waits for the next request to stop.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
