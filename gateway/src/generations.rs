//! Which questions under way were asked before what they ask about changed.
//!
//! Kept for what is asked right now and for nothing else, so that a change of one user's rights leaves
//! the questions about all others as they are.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

/// What is being asked about.
#[derive(Debug)]
pub(crate) struct Generations<K: Hash + Eq> {
    under_way: Mutex<UnderWay<K>>,
}

#[derive(Debug)]
struct UnderWay<K> {
    /// The last generation given out. None is given twice: a question nobody waits for any more may
    /// still be answered.
    last: u64,
    asked: HashMap<K, Asked>,
}

/// How many ask about a key, and since which change.
#[derive(Debug)]
struct Asked {
    asking: usize,
    generation: u64,
}

/// A question about a key, until it is dropped.
#[derive(Debug)]
pub(crate) struct Question<'a, K: Hash + Eq> {
    of: &'a Generations<K>,
    key: K,
    /// Equal for questions between which nothing changed.
    pub generation: u64,
}

impl<K: Hash + Eq> Default for Generations<K> {
    fn default() -> Self {
        Self {
            under_way: Mutex::new(UnderWay {
                last: 0,
                asked: HashMap::new(),
            }),
        }
    }
}

impl<K: Hash + Eq + Clone> Generations<K> {
    /// Begins a question.
    pub fn ask(&self, key: K) -> Question<'_, K> {
        let mut under_way = self.under_way.lock();
        let UnderWay { last, asked } = &mut *under_way;
        let asked = asked.entry(key.clone()).or_insert_with(|| {
            *last += 1;
            Asked {
                asking: 0,
                generation: *last,
            }
        });
        asked.asking += 1;
        let generation = asked.generation;
        Question {
            of: self,
            key,
            generation,
        }
    }

    /// What is asked about has changed: answers to questions from before say nothing about it now.
    pub fn changed(&self, key: &K) {
        let mut under_way = self.under_way.lock();
        let UnderWay { last, asked } = &mut *under_way;
        if let Some(asked) = asked.get_mut(key) {
            *last += 1;
            asked.generation = *last;
        }
    }
}

impl<K: Hash + Eq> Question<'_, K> {
    /// Whether nothing has changed since it was asked.
    pub fn holds(&self) -> bool {
        let under_way = self.of.under_way.lock();
        let asked = under_way.asked.get(&self.key);
        asked.is_some_and(|asked| asked.generation == self.generation)
    }
}

impl<K: Hash + Eq> Drop for Question<'_, K> {
    fn drop(&mut self) {
        let mut under_way = self.of.under_way.lock();
        if let Some(asked) = under_way.asked.get_mut(&self.key) {
            asked.asking -= 1;
            if asked.asking == 0 {
                under_way.asked.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_concerns_the_questions_about_its_key_and_no_others() {
        let generations = Generations::default();
        let (ann, again, bob) = (
            generations.ask("ann"),
            generations.ask("ann"),
            generations.ask("bob"),
        );
        assert_eq!(ann.generation, again.generation);
        generations.changed(&"ann");
        generations.changed(&"eve");
        assert_eq!((ann.holds(), again.holds(), bob.holds()), (false, false, true));
        let later = generations.ask("ann");
        assert!(later.holds() && later.generation != ann.generation);
    }

    #[test]
    fn a_question_nobody_waits_for_shares_its_generation_with_no_later_one_and_leaves_nothing() {
        let generations = Generations::default();
        let first = generations.ask("ann").generation;
        generations.changed(&"ann");
        assert_ne!(generations.ask("ann").generation, first);
        assert!(generations.under_way.lock().asked.is_empty());
    }
}
