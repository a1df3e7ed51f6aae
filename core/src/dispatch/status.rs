//! What this node hosts, for operators.

use throng_protocol::cluster::NodeStatus;

use crate::core::Core;

/// This node's replicas, ascending by shard.
pub(super) fn status(core: &Core) -> NodeStatus {
    core.status()
}
