//! Takes down operations as they are asked and answered, by one clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::recording::{Answer, Ask, Asked, UserIndex};

/// Operations as they come.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    asked: Mutex<Vec<Asked>>,
    /// How many sends and reads of each channel have no answer yet.
    open: watch::Sender<BTreeMap<usize, usize>>,
}

impl Recorder {
    /// An empty one; its clock begins now.
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            asked: Mutex::default(),
            open: watch::Sender::default(),
        }
    }

    /// Microseconds since the beginning.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Asks, and takes down both: what is asked before it goes out, the answer when it has come. What
    /// is never answered stays with an unknown outcome.
    pub async fn ask(
        &self,
        user: UserIndex,
        edge: usize,
        ask: Ask,
        answer: impl Future<Output = Answer>,
    ) -> Answer {
        let channel = ask.channel();
        let place = {
            let mut all = self.asked.lock();
            all.push(Asked {
                user,
                edge,
                from_us: self.now_us(),
                to_us: None,
                ask,
                answer: Answer::Unknown {
                    text: "never answered".to_owned(),
                },
            });
            all.len() - 1
        };
        self.count(channel, |open| *open += 1);
        let answer = answer.await;
        let to_us = self.now_us();
        let mut all = self.asked.lock();
        (all[place].to_us, all[place].answer) = (Some(to_us), answer.clone());
        drop(all);
        self.count(channel, |open| *open = open.saturating_sub(1));
        answer
    }

    fn count(&self, channel: Option<usize>, change: impl FnOnce(&mut usize)) {
        if let Some(channel) = channel {
            self.open
                .send_modify(|open| change(open.entry(channel).or_default()));
        }
    }

    /// Waits for a moment at which so many operations of a channel have no answer, the last of them
    /// just asked.
    pub async fn busy(&self, channel: usize, count: usize, patience: Duration) -> Result<()> {
        let mut open = self.open.subscribe();
        let mut before = usize::MAX;
        let busy = open.wait_for(|open| {
            let now = open.get(&channel).copied().unwrap_or_default();
            let more = now > before;
            before = now;
            more && now >= count
        });
        let found = tokio::time::timeout(patience, busy).await;
        let found = found.with_context(|| format!("never were {count} operations in flight"))?;
        found.map(drop).context("nobody asks any more")
    }

    /// Everything so far.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_are_taken_down_before_they_go_out_and_answers_when_they_have_come() {
        let recorder = Recorder::new();
        let during = async {
            let open = recorder.asked.lock().clone();
            assert_eq!(open.len(), 1);
            assert_eq!((open[0].to_us, open[0].answer.name()), (None, "unknown"));
            Answer::Done
        };
        recorder.ask(1, 0, Ask::Join, during).await;
        let asked = recorder.take();
        assert_eq!((asked[0].user, &asked[0].answer), (1, &Answer::Done));
        assert!(asked[0].to_us.expect("answered") >= asked[0].from_us);
        assert!(recorder.take().is_empty());
    }

    #[tokio::test]
    async fn a_moment_with_operations_in_flight_is_awaited() {
        let recorder = Recorder::new();
        let ask = || {
            recorder.ask(
                1,
                0,
                Ask::Read {
                    channel: 1,
                    behind: None,
                },
                std::future::pending(),
            )
        };
        let none = recorder.busy(1, 1, Duration::from_millis(1)).await;
        assert!(none.is_err());
        let other = recorder.ask(
            1,
            0,
            Ask::Read {
                channel: 0,
                behind: None,
            },
            std::future::pending(),
        );
        tokio::select! {
            biased;
            busy = recorder.busy(1, 2, Duration::from_secs(60)) => busy.expect("two are in flight"),
            _ = async { tokio::join!(other, ask(), async { tokio::task::yield_now().await; ask().await }) } => {}
        }
        let open = recorder.open.borrow().clone();
        assert_eq!(open, BTreeMap::from([(0, 1), (1, 2)]));
    }

    #[tokio::test]
    async fn what_was_given_up_stays_unknown() {
        let recorder = Recorder::new();
        let given_up = recorder.ask(1, 0, Ask::Leave, std::future::pending());
        drop(tokio::time::timeout(Duration::ZERO, given_up).await);
        let asked = recorder.take();
        assert_eq!((asked[0].to_us, asked[0].answer.name()), (None, "unknown"));
    }
}
