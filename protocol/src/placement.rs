//! Where things live: slots, shards and nodes.
//!
//! Keys hash to one of [`SLOTS`] slots per plane; the [`ClusterMap`], kept in the meta shard, maps a
//! slot to a shard and a shard to its nodes. Nodes are chosen by rendezvous hashing, so that adding
//! a node moves only what it takes over. Pure: the map is data, deciding to change it is not.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{AppId, ChannelId, GroupId, NodeId, ShardId, UserId};

/// Slots of each plane. 4,096 slots let a cluster grow to hundreds of shards without re-hashing.
pub const SLOTS: u16 = 4_096;

/// The one shard of the meta plane.
pub const META_SHARD: ShardId = ShardId(0);

/// The kinds of shard; each plane is separately available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Plane {
    /// Apps, nodes, placement, ranges of user numbers. One shard.
    Meta,
    /// Groups, channels, members, the user directory. Keyed by (app, group) or (app, user).
    Management,
    /// Channel logs. Keyed by (app, group, channel).
    Message,
    /// Conversations and read positions. Keyed by (app, user). No shard of it exists yet.
    Session,
}

/// A slot of a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u16);

/// The key of something placed on a shard.
#[derive(Debug, Clone, Copy)]
pub enum PlacementKey<'a> {
    /// A group's management.
    Group(&'a AppId, &'a GroupId),
    /// A user's directory entry, on the management plane.
    Directory(&'a AppId, &'a UserId),
    /// A channel's log.
    Channel(&'a AppId, &'a GroupId, &'a ChannelId),
    /// A user's session state.
    Session(&'a AppId, &'a UserId),
}

impl PlacementKey<'_> {
    /// The plane this key is placed on.
    pub fn plane(&self) -> Plane {
        match self {
            Self::Group(..) | Self::Directory(..) => Plane::Management,
            Self::Channel(..) => Plane::Message,
            Self::Session(..) => Plane::Session,
        }
    }

    /// The slot this key hashes to. Stable for ever: placement of stored data depends on it.
    pub fn slot(&self) -> Slot {
        let mut hash = Sha256::new();
        let mut part = |kind: &[u8], text: &str| {
            hash.update(kind);
            hash.update([text.len() as u8]);
            hash.update(text.as_bytes());
        };
        match self {
            Self::Group(app, group) => {
                part(b"a", app.as_str());
                part(b"g", group.as_str());
            }
            Self::Directory(app, user) | Self::Session(app, user) => {
                part(b"a", app.as_str());
                part(b"u", user.as_str());
            }
            Self::Channel(app, group, channel) => {
                part(b"a", app.as_str());
                part(b"g", group.as_str());
                part(b"c", channel.as_str());
            }
        }
        let digest = hash.finalize();
        Slot(u16::from_be_bytes([digest[0], digest[1]]) % SLOTS)
    }
}

/// A core node as the map knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node's id; its certificate carries the same.
    pub id: NodeId,
    /// Where it listens for the cluster wire, `host:port`.
    pub address: String,
}

/// A shard as the map knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// The shard's id.
    pub id: ShardId,
    /// Its plane.
    pub plane: Plane,
    /// The nodes that hold a voting replica, in rendezvous order.
    pub voters: Vec<NodeId>,
}

/// Slot → shard → nodes. Kept in the meta shard, handed to every node and edge.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Grows with every change.
    pub version: u64,
    /// All core nodes.
    pub nodes: Vec<NodeInfo>,
    /// All shards, ascending by id.
    pub shards: Vec<ShardInfo>,
}

impl ClusterMap {
    /// The map of a new cluster: `management` and `message` shards spread over `nodes`, each on
    /// `replicas` of them.
    pub fn initial(nodes: Vec<NodeInfo>, management: u32, message: u32, replicas: usize) -> Self {
        let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let shard = |plane, id| ShardInfo {
            id,
            plane,
            voters: rendezvous(id, &ids, replicas),
        };
        let mut shards = vec![shard(Plane::Meta, META_SHARD)];
        shards.extend((1..=management).map(|n| shard(Plane::Management, ShardId(n))));
        shards.extend((1..=message).map(|n| shard(Plane::Message, ShardId(100 + n))));
        Self {
            version: 1,
            nodes,
            shards,
        }
    }

    /// The shard that holds a key; `None` while its plane has no shards.
    pub fn shard_of(&self, key: PlacementKey<'_>) -> Option<&ShardInfo> {
        let of_plane: Vec<&ShardInfo> = self
            .shards
            .iter()
            .filter(|shard| shard.plane == key.plane())
            .collect();
        if of_plane.is_empty() {
            return None;
        }
        // Contiguous ranges of slots: shard i of n holds slots [i * SLOTS / n, (i + 1) * SLOTS / n).
        let place = usize::from(key.slot().0) * of_plane.len() / usize::from(SLOTS);
        of_plane.get(place).copied()
    }

    /// A shard by its id.
    pub fn shard(&self, id: ShardId) -> Option<&ShardInfo> {
        self.shards.iter().find(|shard| shard.id == id)
    }

    /// A node by its id.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// The `count` nodes with the highest weight for a shard, highest first.
pub fn rendezvous(shard: ShardId, nodes: &[NodeId], count: usize) -> Vec<NodeId> {
    let mut weighted: Vec<(u64, NodeId)> = nodes.iter().map(|node| (weight(shard, *node), *node)).collect();
    weighted.sort_unstable_by(|a, b| b.cmp(a));
    weighted.into_iter().take(count).map(|(_, node)| node).collect()
}

fn weight(shard: ShardId, node: NodeId) -> u64 {
    let digest = Sha256::new()
        .chain_update(shard.0.to_be_bytes())
        .chain_update(node.0.to_be_bytes())
        .finalize();
    digest
        .iter()
        .take(8)
        .fold(0, |weight, byte| weight << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId).collect()
    }

    #[test]
    fn a_new_node_only_takes_shards_and_never_shuffles_the_rest() {
        for shard in (0..200).map(ShardId) {
            let before = rendezvous(shard, &nodes(5), 3);
            let after = rendezvous(shard, &nodes(6), 3);
            let kept: Vec<_> = after.iter().filter(|node| node.0 != 6).copied().collect();
            assert_eq!(kept, before[..kept.len()], "shard {shard}");
        }
    }

    #[test]
    fn every_key_finds_a_shard_of_its_plane_and_apps_do_not_share_slots_by_name() {
        let infos = nodes(3)
            .into_iter()
            .map(|id| NodeInfo {
                id,
                address: String::new(),
            })
            .collect();
        let map = ClusterMap::initial(infos, 4, 8, 3);
        let (app, other) = (AppId::new("a").expect("valid"), AppId::new("b").expect("valid"));
        let mut differ = 0;
        for n in 0..100 {
            let group = GroupId::new(&format!("g{n}")).expect("valid");
            let key = PlacementKey::Group(&app, &group);
            assert_eq!(
                map.shard_of(key).map(|shard| shard.plane),
                Some(Plane::Management)
            );
            differ += u32::from(key.slot() != PlacementKey::Group(&other, &group).slot());
        }
        assert!(differ > 90);
        let user = UserId::new("u").expect("valid");
        assert_eq!(map.shard_of(PlacementKey::Session(&app, &user)), None);
    }

    #[test]
    fn slots_of_stored_data_never_change() {
        let app = AppId::new("app").expect("valid");
        let group = GroupId::new("community").expect("valid");
        let channel = ChannelId::new("lean4").expect("valid");
        let slots = [
            PlacementKey::Group(&app, &group).slot(),
            PlacementKey::Channel(&app, &group, &channel).slot(),
        ];
        assert_eq!(slots, PINNED);
    }

    const PINNED: [Slot; 2] = [Slot(4083), Slot(1623)];
}
