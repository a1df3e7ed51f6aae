//! The bounds of the replicated state, with their reasons. Changing one changes what replicas
//! decide: it needs the same care as a new command version.

use throng_protocol::limits::IDEMPOTENCY_WINDOW_MS;

/// Most channels of a group: far above the 500 of Discord; keeps a group's channel list one scan.
pub const CHANNELS_PER_GROUP_MAX: u32 = 10_000;

/// Most records that wait in the outbox towards one shard. Past it the cause is refused as
/// unavailable: the target has been away for long, and its backlog must not grow without end.
pub const OUTBOX_PENDING_MAX: u64 = 10_000;

/// Most outbox records one acknowledgement deletes; bounds the work of one command.
pub const OUTBOX_ACKED_MAX: u64 = 1_000;

/// Most user numbers in one lease; a mistaken lease wastes at most this many.
pub const LEASE_NUMBERS_MAX: u32 = 1_000_000;

/// Most leased ranges a management shard keeps in stock.
pub const NUMBER_RANGES_MAX: usize = 16;

/// Most token keys of an app: the current, the next, and slack for rotation.
pub const APP_KEYS_MAX: usize = 16;

/// Most keys of the Server API of an app: one for each of its back ends, each twice while it is rotated.
pub const API_KEYS_MAX: usize = 64;

/// Shortest secret of an HS256 key in bytes: as long as its hash (RFC 7518 §3.2).
pub const HS256_SECRET_BYTES_MIN: usize = 32;

/// Longest key material in bytes.
pub const KEY_BYTES_MAX: usize = 1_024;

/// Milliseconds by which a sender's idea of the server's clock may be ahead of the log's time. A
/// first attempt further ahead is refused, and idempotency records outlive the window by as much,
/// so that a retry that is not too old always finds its record.
pub const CLOCK_SLACK_MS: u64 = 10 * 60 * 1_000;

/// Milliseconds an idempotency record is valid for, by the time stamps of the log.
pub const SENT_VALID_MS: u64 = IDEMPOTENCY_WINDOW_MS + CLOCK_SLACK_MS;

/// Most expired idempotency records one append removes. Two a message shrink any backlog, and the
/// work of one command stays bounded.
pub const EXPIRED_PER_APPEND_MAX: u32 = 2;

/// Most fences of a group that a message shard keeps: past it the oldest fold into a floor, below
/// which grants must be renewed. Feeds begin with the table of fences, so it bounds their first
/// event to 300 KiB and what an edge holds per channel to about as much.
pub const FENCES_PER_GROUP_MAX: u64 = 10_000;

/// Most fences that one new fence folds into the floor: a table that is over its bound shrinks, and
/// the work of one command stays bounded.
pub const FENCES_FOLDED_MAX: usize = 2;

/// Bounds that tests make small, to come to them. Everything else applies with the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// [`FENCES_PER_GROUP_MAX`].
    pub fences_per_group: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            fences_per_group: FENCES_PER_GROUP_MAX,
        }
    }
}

/// Bits of a channel number below the shard that issued it.
pub const CHANNEL_COUNTER_BITS: u32 = 40;

/// Entries a page reads from the store at a time, so that a page of large bodies does not load
/// many times its size.
pub const PAGE_SCAN_ENTRIES: usize = 16;
