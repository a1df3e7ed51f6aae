//! Every bound and time of an edge, with its reason.

use std::time::Duration;

use throng_protocol::rate::Rate;

/// How long a client's request may take at an edge, redirects and elections included; afterwards it
/// is refused with `unavailable` and the client retries. Half an election more would only hide it.
pub(crate) const REQUEST_BUDGET: Duration = Duration::from_millis(1_500);

/// How long one attempt at one node may take before another node is asked: a node that was killed
/// answers nothing, and a leader that is alive recognises a repeat.
pub(crate) const ATTEMPT: Duration = Duration::from_millis(900);

/// How long a kick or mute may take at an edge: the core waits for all shards of the group before it
/// answers, and says after two seconds which are missing.
pub(crate) const FENCE_BUDGET: Duration = Duration::from_secs(4);

/// How long one attempt at a kick or mute may take: the core's two seconds and the way there and back.
pub(crate) const FENCE_ATTEMPT: Duration = Duration::from_millis(2_500);

/// Wait before a node is asked again while an election runs.
pub(crate) const ELECTION_WAIT: Duration = Duration::from_millis(50);

/// How long a node that did not answer is left out, except for a try now and then: as long as a process
/// takes to come back, and longer than followers name a leader that is gone.
pub(crate) const SILENT_LAST: Duration = Duration::from_secs(2);

/// Between two tries of a node that did not answer.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// How long such a try may take: several times what a commit does, and little of a request's time.
pub(crate) const PROBE: Duration = Duration::from_millis(100);

/// How often the cluster's map is read again.
pub(crate) const MAP_INTERVAL: Duration = Duration::from_secs(5);

/// Shortest time between two readings of the map when there is reason to doubt it.
pub(crate) const MAP_INTERVAL_MIN: Duration = Duration::from_millis(250);

/// How long a grant is used; the core takes it for 5 minutes.
pub(crate) const GRANT_TTL: Duration = Duration::from_secs(240);

/// How long an app's keys are used: a key that was taken away stops working within this time.
pub(crate) const APP_KEYS_TTL: Duration = Duration::from_secs(60);

/// Shortest time between two readings of an app's keys because of an unknown key id, or because the
/// app was not known.
pub(crate) const APP_KEYS_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Longest life of a token, from `iat` to `exp`, in seconds: 24 hours.
pub(crate) const TOKEN_LIFETIME_MAX_S: u64 = 24 * 3_600;

/// How far an app's clock may be ahead when a token's `iat` is judged, in seconds.
pub(crate) const TOKEN_LEEWAY_S: u64 = 5;

/// Apps whose keys are held.
pub(crate) const APPS_MAX: usize = 1_024;

/// User numbers held: about 10 MB.
pub(crate) const USERS_MAX: usize = 100_000;

/// Grants held: about 40 MB.
pub(crate) const GRANTS_MAX: usize = 100_000;

/// Channels held by name.
pub(crate) const CHANNEL_NAMES_MAX: usize = 50_000;

/// Bytes one turn of a session's writer takes from a channel; the next channel's turn comes after.
pub(crate) const TURN_BYTES: usize = 64 * 1024;

/// Pages read at once for subscribers that are behind, all sessions together: catch-up must not
/// crowd sends out.
pub(crate) const CATCH_UP_READS_MAX: usize = 64;

/// Places of a session's resumes that are worked on at once.
pub(crate) const RESUME_CONCURRENCY: usize = 32;

/// Bytes of the bodies of a session's sends that wait for a send before them in the same channel;
/// in-flight requests alone would let one session hold 8 MB.
pub(crate) const SENDS_WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Frames of a session: four times what acks of a thousand busy channels take. Above it the session
/// is read more slowly, so that no client has more than a tenth of a core.
pub(crate) const FRAMES_RATE: Rate = Rate {
    per_second: 20_000,
    burst: 20_000,
};

/// Pings, pongs, errors and unknown frames of a session: an honest client sends one in 25 s. The
/// burst leaves room for people who try things out.
pub(crate) const SIGNALS_RATE: Rate = Rate {
    per_second: 20,
    burst: 200,
};

/// Places that a session subscribes and unsubscribes: each may cost a read at the core. The burst is
/// twice what a client brings that returns with all subscriptions it may have, and leaves again.
pub(crate) const PLACES_RATE: Rate = Rate {
    per_second: 200,
    burst: 4_000,
};

/// How often the signals of all connections below the frames are looked at.
pub(crate) const FLOOD_INTERVAL: Duration = Duration::from_secs(5);

/// Signals of a connection within [`FLOOD_INTERVAL`] above which it is closed: fifty a second, where
/// a client that roams and loses packets sends a few a minute.
pub(crate) const FLOOD_SIGNALS_MAX: u64 = 250;

/// Wait before a failed read of a page is tried again.
pub(crate) const PAGE_RETRY: Duration = Duration::from_millis(200);

/// How long a node may take to open a feed before another one is asked.
pub(crate) const FOLLOW_TIMEOUT: Duration = Duration::from_secs(2);

/// First wait before a channel is followed elsewhere; doubled up to [`FOLLOW_BACKOFF_MAX`].
pub(crate) const FOLLOW_BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest wait before a channel is followed elsewhere.
pub(crate) const FOLLOW_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How often a channel's head is asked for while its feed does not come from the leader: a replica may
/// fall behind without saying so, and this bounds how late its deliveries are.
pub(crate) const HEAD_INTERVAL: Duration = Duration::from_secs(2);

/// How old a leader's last answer may be before one of its channels asks for its head: one that was
/// deposed behind a partition says nothing. One answer serves all channels of the shard.
pub(crate) const HEAD_INTERVAL_LED: Duration = Duration::from_secs(10);

/// Heads asked for at once, all channels together: after an election everybody wants to know, and
/// the first answer tells who leads.
pub(crate) const HEAD_READS_MAX: usize = 16;

/// Feed requests that wait for a lane's writer.
pub(crate) const FEED_QUEUE_MAX: usize = 1_024;

/// How long the last frames of a connection may take to arrive before it is closed all the same.
pub(crate) const FAREWELL: Duration = Duration::from_millis(500);

/// Priority of the bulk stream; live lanes have 0 and the control stream 1.
pub(crate) const BULK_PRIORITY: i32 = -1;

/// Priority of the control stream: acks and pongs before deliveries.
pub(crate) const CONTROL_PRIORITY: i32 = 1;

/// Bytes a page's entries may take in a frame, with room for the page's own fields.
pub(crate) const PAGE_FRAME_BYTES: usize = throng_protocol::limits::FRAME_BYTES_MAX - 4 * 1024;

/// Bytes an entry takes in a frame besides its body, its sender's name and its expansion: table, offsets, lengths
/// and padding, rounded up.
pub(crate) const ENTRY_OVERHEAD: usize = 160;
