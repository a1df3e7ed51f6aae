//! Who gets what, in which order, and what is dropped: the pure fan-out of an edge.
//!
//! A [`ChannelFanout`] takes the batches of one followed channel, encodes each entry once into a
//! shared frame, and holds the last frames in a [`Ring`] bounded in bytes and number. A subscription
//! is a cursor into the ring: no message is ever queued per session. Whoever falls behind the ring
//! is told so and is served from pages of the log instead. Subscriptions belong to workers: a message
//! is told to each worker once, which then goes through its own sessions in a round. A fence ends the subscriptions whose grant
//! is older at its place: they still get what lies before it, then their end, and nothing behind it.
//!
//! It refuses to know connections, streams, tasks and clocks: the time comes in, and what has to be
//! done goes out as [`Effect`]s.

mod channel;
mod copies;
mod crew;
mod effect;
mod fences;
mod ring;
mod subscriber;
mod subscription;

pub use channel::{ChannelFanout, client_entry};
pub use copies::Copies;
pub use crew::{Seat, WorkerNumber};
pub use effect::Effect;
pub use fences::{FENCES_MAX, Rights};
pub use ring::{RING_BYTES_MAX, RING_FRAMES_MAX, Ring, RingLimits};
pub use subscriber::Lag;
pub use subscription::{Advance, Ask, Chunk, Frames, SubscribeError, Subscription, Take};

/// Milliseconds a channel without subscribers is still followed: a client that reconnects, or a
/// reader who flips between two channels, finds the ring warm.
pub const LINGER_MS: u64 = 30_000;
