//! Who gets what, in which order, and what is dropped: the pure fan-out of an edge.
//!
//! A [`ChannelFanout`] takes the batches of one followed channel, encodes each entry once into a
//! shared frame, and holds the last frames in a [`Ring`] bounded in bytes and number. A subscription
//! is a cursor into the ring: no message is ever queued per session. Whoever falls behind the ring
//! is told so and is served from pages of the log instead.
//!
//! It refuses to know connections, streams, tasks and clocks: the time comes in, and what has to be
//! done goes out as [`Effect`]s.

mod channel;
mod effect;
mod ring;
mod subscriber;

pub use channel::{ChannelFanout, Chunk, SubscribeError, Subscription, Take, client_entry};
pub use effect::Effect;
pub use ring::{RING_BYTES_MAX, RING_FRAMES_MAX, Ring, RingLimits};
pub use subscriber::Lag;

/// Milliseconds a channel without subscribers is still followed: a client that reconnects, or a
/// reader who flips between two channels, finds the ring warm.
pub const LINGER_MS: u64 = 30_000;
