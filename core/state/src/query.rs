//! Reading a shard's state: what a node answers requests from. These functions judge nothing that a
//! command depends on, and refuse to know whether the view is fresh: the caller confirms that with a
//! quorum where the answer must be linearizable.

mod feed;
mod management;
mod message;
mod meta;
mod outbox;

pub use crate::message::changes::ChangesWanted;
pub use crate::message::page::PageWanted;
pub use crate::message::rights::Right;
pub use feed::{FeedPosition, FeedStep, feed_step, fence_table};
pub use management::{
    NumberStock, Standing, channel_by_name, channels, channels_on, group_info, members, number_stock, roles,
    standing, user_number,
};
pub use message::{ChannelHead, Expansion, changes, channel, channel_head, expansion, page, right_to_read};
pub use meta::{api_keys, app_keys, cluster_keys, cluster_map};
pub use outbox::{
    OutboxStatus, Pending, fence_waits, inbox_position, outbox_acked, outbox_pending, outboxes,
};
