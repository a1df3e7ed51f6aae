//! Every bound of a core node, with its reason.

use std::time::Duration;

/// Kibibytes of proposals that may wait for one shard's commit; also their number, as each counts
/// as one at least. 16 MiB are 128 largest bodies or a second of 256-byte messages at 16,000 a
/// second; the next proposal is refused with `overloaded`.
pub const PROPOSAL_KIB_IN_FLIGHT_MAX: u32 = 16 * 1024;

/// Requests of one lane that are worked on at once; the lane is read no further until one is done,
/// so the bound reaches the sender as backpressure. Above what one edge's clients pipeline.
pub const REQUESTS_IN_FLIGHT_PER_LANE: usize = 1_024;

/// Raft requests of one lane that are worked on at once: one per shard and some.
pub const RAFT_REQUESTS_IN_FLIGHT_PER_LANE: usize = 256;

/// Beats of one node that are answered at once: the one that is due, and some that were held up.
pub const BEATS_IN_FLIGHT_PER_LANE: usize = 4;

/// How long a proposal may wait for its commit. Past it the leader has lost its quorum or is about
/// to; its fate is unknown and the asker retries with the same key.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_millis(3_000);

/// How long a read waits for a quorum to confirm the leader.
pub const LINEARIZE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Pause before a leader without a lease asks its quorum again; a heartbeat round takes less.
pub const LEASE_RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Longest pause of that kind, for a leader that has lost its quorum: what waits must not keep the
/// group busy.
pub const LEASE_RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long an append may wait for a follower's disk. Longer than a heartbeat: a slow disk must not
/// have its entries sent again and again.
pub const APPEND_TIMEOUT: Duration = Duration::from_millis(5_000);

/// How long an answer to a heartbeat is waited for on the follower; longer than any leader waits for
/// it. Thirteen shards of two leaders fill a tenth of a lane within it.
pub const HEARTBEAT_ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a follower may take over one chunk of a snapshot.
pub const SNAPSHOT_CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a follower may take to check and install a whole snapshot.
pub const SNAPSHOT_INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Milliseconds a grant is good for. Short, since it bounds what a grant is worth to who has
/// stolen it from an edge; long enough that a session asks once per several hundred sends.
pub const GRANT_TTL_MS: u64 = 5 * 60 * 1_000;

/// Milliseconds by which a grant may come from the future of the node that checks it: clocks of
/// nodes differ, a leader's by at most half a second more than the majority's.
pub const GRANT_SKEW_MS: u64 = 10_000;

/// User numbers leased from the meta shard at a time: one lease per ten thousand new users.
pub const NUMBERS_PER_LEASE: u32 = 10_000;

/// How long a node looks for another shard's leader before it gives up on a call.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(2_000);

/// How long one attempt of a call to another node may take.
pub const CALL_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long a request of a back end looks for its leader: two elections, and then the back end asks again.
pub const BACK_END_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one attempt of it may take: a fence that is waited for, and some more.
pub const BACK_END_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// Pause between attempts to find a leader: a tenth of a short election.
pub const CALL_RETRY_PAUSE: Duration = Duration::from_millis(40);

/// How long the creation of a channel waits for its log to be opened. The channel exists then; the
/// asker is told to ask again.
pub const CHANNEL_OPEN_TIMEOUT: Duration = Duration::from_millis(2_000);

/// How long a kick or a mute waits for the message shards of its group. Past it the answer names
/// the channels whose shard has not taken the fence; the change is made all the same.
pub const FENCE_TIMEOUT: Duration = Duration::from_millis(2_000);

/// Outbox records read at a time.
pub const OUTBOX_BATCH: usize = 64;

/// Outboxes of one shard: one per message shard, far below this.
pub const OUTBOX_TARGETS_MAX: usize = 1_024;

/// Pause before an outbox record is sent again; the target has no leader or is overloaded.
pub const OUTBOX_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Channels one feed lane may follow; an edge with more opens another lane. Each costs about 100
/// bytes here.
pub const FOLLOWED_PER_LANE_MAX: usize = 100_000;

/// How long opening one feed may wait for a quorum: one heartbeat round. The follower asks again.
pub const FOLLOW_LINEARIZE_TIMEOUT: Duration = Duration::from_millis(100);

/// Feed lanes of a node: a few per edge.
pub const FEED_LANES_MAX: usize = 1_024;

/// Connections and lanes served at once: some per edge and node. Further connections are refused.
pub const CONNECTIONS_MAX: usize = 16 * 1_024;

/// Milliseconds by which a leader's clock may be ahead of the majority's before it steps down.
pub const CLOCK_AHEAD_MS_MAX: i64 = 500;

/// How often nodes compare clocks.
pub const CLOCK_INTERVAL: Duration = Duration::from_secs(2);

/// Rounds trips longer than this say too little about the other clock to be used.
pub const CLOCK_ROUND_TRIP_MAX: Duration = Duration::from_millis(250);

/// How long a drain waits for one voter to take a shard over; it takes a few milliseconds.
pub const HAND_OVER_TIMEOUT: Duration = Duration::from_millis(250);

/// How often a drain offers a shard to each other voter: one that is behind takes the next offer.
/// When the whole cluster drains, nobody takes any.
pub const HAND_OVER_ROUNDS: usize = 4;
