//! Commits that need no message of their own.
//!
//! After every entry openraft tells each follower that it is committed, a whole call for one number.
//! The next entry tells it as well, and so does the next heartbeat; nobody reads from a follower, and
//! one that becomes the leader finds out by itself. So such a call waits for something to ride on.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use throng_raft_store::TypeConfig;
use tokio::time::{Instant, timeout_at};

type Append = AppendEntriesRequest<TypeConfig>;

/// How long a commit waits for an entry to ride on. Below the time between two heartbeats of a leader,
/// so that a follower's state is never further behind for it than for a lost heartbeat.
const LINGER: Duration = Duration::from_millis(100);

/// The requests of a stream, without those that only tell of a commit which a later one tells as well.
pub(super) fn riding<S>(requests: S) -> impl Stream<Item = Append> + Send + 'static
where
    S: Stream<Item = Append> + Send + Unpin + 'static,
{
    futures_util::stream::unfold(requests.fuse(), |mut requests| async move {
        let mut request = requests.next().await?;
        let until = Instant::now() + LINGER;
        while request.entries.is_empty() {
            match timeout_at(until, requests.next()).await {
                Ok(Some(later)) => request = later,
                // At the end of a stream there is nothing to ride on.
                Ok(None) | Err(_) => break,
            }
        }
        Some((request, requests))
    })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use openraft::alias::{EntryOf, LogIdOf};
    use openraft::entry::RaftEntry;
    use openraft::vote::{RaftLeaderId, RaftLeaderIdExt, RaftVote};
    use openraft::{EntryPayload, alias};
    use throng_raft_store::CommandBytes;
    use tokio::sync::mpsc;

    use super::*;

    fn log_id(index: u64) -> LogIdOf<TypeConfig> {
        LogIdOf::<TypeConfig> {
            leader_id: alias::LeaderIdOf::<TypeConfig>::new_committed(1, 0),
            index,
        }
    }

    /// A request with the entry `index`, or with none.
    fn request(index: Option<u64>, commit: u64) -> Append {
        Append {
            vote: alias::VoteOf::<TypeConfig>::from_leader_id(
                alias::LeaderIdOf::<TypeConfig>::new(1, 1),
                true,
            ),
            prev_log_id: None,
            leader_commit: Some(log_id(commit)),
            entries: index
                .map(|index| {
                    let command = EntryPayload::Normal(CommandBytes(bytes::Bytes::new()));
                    EntryOf::<TypeConfig>::new(log_id(index), command)
                })
                .into_iter()
                .collect(),
        }
    }

    fn told(request: &Append) -> (usize, Option<u64>) {
        (
            request.entries.len(),
            request.leader_commit.map(|commit| commit.index),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_rides_on_the_next_entry() {
        let requests = stream::iter([request(Some(1), 0), request(None, 1), request(Some(2), 1)]);
        let sent: Vec<_> = riding(requests).collect().await;
        let sent: Vec<_> = sent.iter().map(told).collect();
        assert_eq!(sent, [(1, Some(0)), (1, Some(1))]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_commit_is_told_when_nothing_follows() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let receiver = Box::pin(stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        }));
        let mut riding = Box::pin(riding(receiver));
        sender.send(request(None, 1)).unwrap();
        sender.send(request(None, 2)).unwrap();
        let began = Instant::now();
        let sent = riding.next().await.unwrap();
        assert_eq!((told(&sent), began.elapsed()), ((0, Some(2)), LINGER));
        sender.send(request(Some(3), 2)).unwrap();
        assert_eq!(told(&riding.next().await.unwrap()), (1, Some(2)));
        assert_eq!(began.elapsed(), LINGER, "an entry waits for nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_stream_consists_of_is_sent_at_once() {
        let began = Instant::now();
        let sent: Vec<_> = riding(stream::iter([request(None, 1)])).collect().await;
        assert_eq!((sent.len(), began.elapsed()), (1, Duration::ZERO));
    }
}
