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

    /// Swaps the connections out into an empty list. With none, the driver is woken by the next; but when
    /// it was called meanwhile, which this tells, it has to look at everything first.
    #[must_use]
    pub fn take(&self, list: &mut Vec<Arc<Connection>>, context: &Context<'_>) -> bool {
        let mut state = self.0.lock();
        std::mem::swap(&mut state.connections, list);
        let called = std::mem::take(&mut state.called);
        if list.is_empty() && !called {
            state.driver = Some(context.waker().clone());
        }
        called
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_call_while_the_driver_is_at_work_is_told_and_a_later_one_wakes_it() {
        let (ready, woken) = (Ready::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let (context, mut list) = (Context::from_waker(&waker), Vec::new());
        ready.call();
        assert!(ready.take(&mut list, &context), "it must look again");
        assert!(!ready.take(&mut list, &context));
        ready.call();
        ready.call();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(ready.take(&mut list, &context) && !ready.take(&mut list, &context));
    }
}
