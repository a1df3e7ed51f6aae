//! Reading a shard's state: what a node answers requests from. These functions judge nothing that a
//! command depends on, and refuse to know whether the view is fresh: the caller confirms that with a
//! quorum where the answer must be linearizable.

mod management;
mod message;
mod meta;
mod outbox;

pub use management::{NumberStock, Standing, channel_by_name, number_stock, standing, user_number};
pub use message::{ChannelHead, channel, channel_head, page};
pub use meta::{app_keys, cluster_keys, cluster_map};
pub use outbox::{OutboxStatus, Pending, inbox_position, outbox_pending, outboxes};
