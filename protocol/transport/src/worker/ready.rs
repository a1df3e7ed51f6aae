//! Connections that have something to send or to say, for the one task that drives them.

use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;

use super::connection::Connection;

/// The connections that are to be driven, each once, and how their driver is woken.
#[derive(Debug, Default)]
pub(super) struct Ready(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connections: Vec<Arc<Connection>>,
    /// Something other than a connection is to be looked at.
    called: bool,
    driver: Option<Waker>,
}

impl Ready {
    /// Adds a connection that is not in the list.
    pub fn push(&self, connection: Arc<Connection>) {
        let mut state = self.0.lock();
        state.connections.push(connection);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Has the driver look at everything.
    pub fn call(&self) {
        let mut state = self.0.lock();
        state.called = true;
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Swaps the connections out into an empty list. With none, the driver is woken by the next.
    pub fn take(&self, list: &mut Vec<Arc<Connection>>, context: &Context<'_>) {
        let mut state = self.0.lock();
        std::mem::swap(&mut state.connections, list);
        let called = std::mem::take(&mut state.called);
        if list.is_empty() && !called {
            state.driver = Some(context.waker().clone());
        }
    }
}
