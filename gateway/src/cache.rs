//! Bounded memory of what the core said, and one question for all who ask the same at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::Shared;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A map that forgets what was not asked for lately: two halves, the older of which is dropped when
/// the younger is full.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    half: usize,
    halves: Mutex<Halves<K, V>>,
}

#[derive(Debug)]
struct Halves<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    pub fn new(entries_max: usize) -> Self {
        let halves = Halves {
            young: HashMap::new(),
            old: HashMap::new(),
        };
        Self {
            half: (entries_max / 2).max(1),
            halves: Mutex::new(halves),
        }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        let mut halves = self.halves.lock();
        if let Some(value) = halves.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = halves.old.remove_entry(key)?;
        self.put(&mut halves, key, value.clone());
        Some(value)
    }

    pub fn insert(&self, key: K, value: V) {
        let mut halves = self.halves.lock();
        halves.old.remove(&key);
        self.put(&mut halves, key, value);
    }

    pub fn remove(&self, key: &K) {
        let mut halves = self.halves.lock();
        halves.young.remove(key);
        halves.old.remove(key);
    }

    fn put(&self, halves: &mut Halves<K, V>, key: K, value: V) {
        if halves.young.len() >= self.half && !halves.young.contains_key(&key) {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(key, value);
    }
}

type Flight<V> = Shared<oneshot::Receiver<V>>;

/// Lets all who ask the same at once wait for one answer.
#[derive(Debug)]
pub(crate) struct Coalesce<K, V> {
    flights: Arc<Mutex<HashMap<K, Flight<V>>>>,
}

impl<K, V> Default for Coalesce<K, V> {
    fn default() -> Self {
        Self {
            flights: Arc::default(),
        }
    }
}

impl<K, V> Coalesce<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The answer to a question, asked in a task of its own so that nobody's leaving ends it for
    /// the others. `None` if the task died.
    pub async fn ask<F>(&self, key: K, question: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let flight = {
            let mut flights = self.flights.lock();
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let (answer, answered) = oneshot::channel();
                    let flight = answered.shared();
                    flights.insert(key.clone(), flight.clone());
                    let landing = Landing {
                        flights: Arc::clone(&self.flights),
                        key,
                    };
                    let asking = question();
                    tokio::spawn(async move {
                        let value = asking.await;
                        drop(landing);
                        // Nobody waits any more if it fails.
                        let _ = answer.send(value);
                    });
                    flight
                }
            }
        };
        flight.await.ok()
    }
}

/// Ends a question even if its task panics.
struct Landing<K: Hash + Eq, V> {
    flights: Arc<Mutex<HashMap<K, Flight<V>>>>,
    key: K,
}

impl<K: Hash + Eq, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let cache = Cache::new(4);
        for n in 0..100 {
            cache.insert(n, n);
            assert_eq!(cache.get(&0), Some(0), "at {n}");
        }
        let held = (0..100).filter(|n| cache.get(n).is_some()).count();
        assert!(held <= 4, "{held} are held");
        cache.remove(&0);
        assert_eq!(cache.get(&0), None);
    }

    #[tokio::test]
    async fn those_who_ask_the_same_at_once_share_one_question() {
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(Notify::new());
        let coalesce = Coalesce::<u8, usize>::default();
        let question = || {
            let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
            async move {
                let count = asked.fetch_add(1, Ordering::SeqCst) + 1;
                answer.notified().await;
                count
            }
        };
        let both = async { tokio::join!(coalesce.ask(1, question), coalesce.ask(1, question)) };
        answer.notify_one();
        assert_eq!(both.await, (Some(1), Some(1)));
        answer.notify_one();
        assert_eq!(coalesce.ask(1, question).await, Some(2), "an answer is not kept");
    }
}
