//! From no connection to a link: which edge, how long to wait, when to give up.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use throng_transport::{ClientEndpoint, Link, LinkClosed};
use tokio::sync::oneshot;

use super::{Control, DIAL_MIN, Driver, Leave, RECONNECT_MAX, RECONNECT_MIN};
use crate::client::State;
use crate::error::{CloseReason, RequestError};

enum Failure {
    Untrusted(String),
    Other(String),
}

impl Driver {
    /// Waits its turn, then connects to the next edge.
    pub(super) async fn connect(&mut self) -> Result<Arc<dyn Link>, Leave> {
        let attempts = self.attempts;
        self.state.send_replace(State::Connecting { attempts });
        if self.connection > 0 || attempts > 0 {
            let wait = self.reconnect_wait();
            self.offline(tokio::time::sleep(wait)).await?;
        }
        self.attempts = self.attempts.saturating_add(1);
        let address = self.next_address();
        self.address = Arc::from(address.as_str());
        let dialled = dial(
            self.endpoint.clone(),
            address.clone(),
            self.config.server_name.clone(),
        );
        let limit = DIAL_MIN.saturating_mul(1 << attempts.min(10));
        let attempt = async {
            let late = || Failure::Other(format!("{address} did not answer within {} s", limit.as_secs()));
            tokio::time::timeout(limit, dialled)
                .await
                .unwrap_or_else(|_| Err(late()))
        };
        match self.offline(attempt).await? {
            Ok(link) => Ok(link),
            Err(Failure::Other(text)) => {
                self.untrusted = 0;
                Err(Leave::Reconnect(text))
            }
            Err(Failure::Untrusted(text)) => {
                self.untrusted += 1;
                if !self.ever_welcomed && self.untrusted >= self.config.edges.len() {
                    return Err(Leave::Close(CloseReason::Untrusted(text), None));
                }
                Err(Leave::Reconnect(text))
            }
        }
    }

    /// The wait doubles with each failure; its upper half is random, so that clients that lost one
    /// edge together do not come back together.
    fn reconnect_wait(&mut self) -> Duration {
        let full = RECONNECT_MIN
            .saturating_mul(1 << self.attempts.min(10))
            .min(RECONNECT_MAX);
        let wait = full.mul_f64(self.random.random_range(0.5..=1.0));
        wait.max(std::mem::take(&mut self.retry_after))
    }

    fn next_address(&mut self) -> String {
        if let Some(address) = self.alternatives.pop_front() {
            return address;
        }
        let address = self.config.edges[self.next_edge % self.config.edges.len()].clone();
        self.next_edge = self.next_edge.wrapping_add(1);
        address
    }

    /// Waits for something without a connection, while commands and time go on.
    pub(super) async fn offline<T>(&mut self, waited: impl Future<Output = T>) -> Result<T, Leave> {
        let mut waited = pin!(waited);
        loop {
            self.turn();
            let wake_at = self.wake_at();
            tokio::select! {
                done = &mut waited => return Ok(done),
                control = self.controls.recv() => self.offline_control(control).await?,
                Some(command) = self.commands.recv(), if self.machine.has_room() => self.handle_command(command),
                () = tokio::time::sleep_until(wake_at) => self.handle_wake(),
                () = self.room.freed.notified(), if self.stalled => {}
            }
        }
    }

    async fn offline_control(&mut self, control: Option<Control>) -> Result<(), Leave> {
        match control {
            None => Err(Leave::Close(CloseReason::Local, None)),
            Some(Control::Close(told)) => Err(Leave::Close(CloseReason::Local, Some(told))),
            Some(Control::DropConnection(reply)) => {
                let _ = reply.send(None);
                Ok(())
            }
            Some(Control::Rebind(reply)) => {
                self.rebind(reply);
                Ok(())
            }
            Some(Control::Freeze(duration, reply)) => self.freeze(duration, reply).await,
        }
    }

    pub(super) fn rebind(&self, reply: oneshot::Sender<Result<(), RequestError>>) {
        let moved = self.endpoint.rebind().map(drop);
        let _ = reply.send(moved.map_err(|error| {
            RequestError::local(throng_protocol::code::Class::Retryable, error.to_string())
        }));
    }

    /// Does nothing at all for a while, but still closes when told to.
    pub(super) async fn freeze(
        &mut self,
        duration: Duration,
        reply: oneshot::Sender<()>,
    ) -> Result<(), Leave> {
        let until = tokio::time::Instant::now() + duration;
        let mut replies = vec![reply];
        let ended = loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => break Ok(()),
                control = self.controls.recv() => match control {
                    None => break Err(Leave::Close(CloseReason::Local, None)),
                    Some(Control::Close(told)) => break Err(Leave::Close(CloseReason::Local, Some(told))),
                    Some(Control::DropConnection(reply)) => drop(reply.send(None)),
                    Some(Control::Rebind(reply)) => self.rebind(reply),
                    Some(Control::Freeze(_, reply)) => replies.push(reply),
                },
            }
        };
        for reply in replies {
            let _ = reply.send(());
        }
        ended
    }
}

/// Tries the addresses a name resolves to, in order.
async fn dial(
    endpoint: Arc<ClientEndpoint>,
    address: String,
    name: String,
) -> Result<Arc<dyn Link>, Failure> {
    let found = tokio::net::lookup_host(&address)
        .await
        .map_err(|error| Failure::Other(format!("{address}: {error}")))?;
    let mut last = Failure::Other(format!("{address}: no such host"));
    for addr in found {
        match endpoint.connect(addr, &name).await {
            Ok(link) => return Ok(link),
            Err(error) => last = failure(&error),
        }
    }
    Err(last)
}

fn failure(error: &throng_transport::ConnectError) -> Failure {
    let text = error.to_string();
    match error {
        throng_transport::ConnectError::Closed {
            reason: LinkClosed::Untrusted { .. } | LinkClosed::Mismatch(_),
            ..
        } => Failure::Untrusted(text),
        _ => Failure::Other(text),
    }
}
