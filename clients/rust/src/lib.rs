//! The Rust SDK of throng.
//!
//! A [`Client`] is one user's session: it connects to any edge, moves to another when one is lost,
//! resumes every subscription where it stood, and repeats sends under their id until they are
//! answered. It is the one owner of retries between an application and the log. It refuses to know
//! what is in a body, to interpret history, and to keep anything on disk by itself: that is a
//! [`LocalStore`]'s business.
//!
//! ```text
//!  Client ── commands ──► driver task ── ClientMachine (throng-protocol, no IO)
//!    │                        │
//!  Subscription ◄─ entries ───┴── Link (throng-transport): control stream, live lanes, bulk
//! ```
//!
//! One task per client; a slow [`Subscription`] stops the reading of deliveries, never drops any.

mod client;
mod config;
mod driver;
mod error;
mod store;
mod subscription;

pub use client::{Ack, Changed, Client, Expansion, Fenced, Page, PendingSend, State};
pub use config::{ClientConfig, StaticToken, TokenError, TokenSource, token_fn};
pub use error::{CloseReason, ConnectError, RequestError, SendError};
pub use store::{LocalStore, MemoryStore, StoreError, Stored, StoredSend};
pub use subscription::{Delivery, Event, From, Subscription};

pub use throng_protocol::cluster::Change;
pub use throng_protocol::code::{Class, Code};
pub use throng_protocol::ids::{
    ChannelId, ChannelNumber, ClientMessageId, DeviceId, Epoch, GroupId, MessageId, NameError, Position, Seq,
    Ts, UserId, UserNumber,
};
pub use throng_protocol::message::{Anchor, Direction, Entry, EntryKind, Hole, Place, Start};
pub use throng_protocol::session::client::SyncFrom;
pub use throng_protocol::timeline::{Shown, Stale, Timeline};
pub use throng_transport::{ClientEndpoint, TlsError, Trust};
