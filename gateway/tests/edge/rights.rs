//! The stand-in's management of one group: its version, its fences, and the grants it makes.

use std::collections::HashMap;

use throng_protocol::cluster::{Fence, FenceKind, FenceTable, Fenced, GrantClaims, Permissions};
use throng_protocol::ids::{AppId, ChannelNumber, GroupId, Seq, UserId, UserNumber};

/// A fence and its places.
#[derive(Debug)]
pub struct Placed {
    pub fence: Fence,
    places: HashMap<ChannelNumber, Seq>,
}

impl Placed {
    /// Behind which entry of a channel it lies; one without entries begins behind it.
    pub fn place(&self, channel: ChannelNumber) -> Seq {
        self.places.get(&channel).copied().unwrap_or_default()
    }
}

/// The group.
#[derive(Debug, Default)]
pub struct Group {
    version: u64,
    /// Ascending by version.
    pub fences: Vec<Placed>,
    pub muted: HashMap<UserNumber, u64>,
}

impl Group {
    pub fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub fn fence(&mut self, number: UserNumber, kind: FenceKind, places: HashMap<ChannelNumber, Seq>) -> u64 {
        let version = self.next_version();
        let fence = Fence {
            version,
            number,
            kind,
        };
        self.fences.push(Placed { fence, places });
        version
    }

    pub fn last_fence(&self) -> u64 {
        self.fences.last().map_or(0, |placed| placed.fence.version)
    }

    pub fn claims(&self, app: &AppId, group: &GroupId, user: &UserId, number: UserNumber) -> GrantClaims {
        let mut fences = self.fences.iter();
        let last = fences.rfind(|placed| placed.fence.number == number);
        let fenced = last.map_or(0, |placed| placed.fence.version);
        GrantClaims {
            app: app.clone(),
            group: group.clone(),
            user: user.clone(),
            number,
            version: self.version,
            since: self.version,
            issued_ms: 0,
            muted_until: self.muted.get(&number).copied().unwrap_or_default(),
            fenced,
            permissions: Permissions::EVERYONE,
        }
    }

    /// The fences before a position, and how many they are.
    pub fn table(&self, channel: ChannelNumber, from: Seq) -> (FenceTable, usize) {
        let before = self
            .fences
            .iter()
            .take_while(|placed| placed.place(channel) <= from);
        let before: Vec<&Placed> = before.collect();
        let mut fenced: HashMap<UserNumber, Fenced> = HashMap::new();
        for placed in before.iter().filter(|placed| placed.fence.kind.ends_reading()) {
            let Fence { number, version, .. } = placed.fence;
            let after = placed.place(channel);
            fenced.insert(
                number,
                Fenced {
                    number,
                    version,
                    after,
                },
            );
        }
        let mut fenced: Vec<Fenced> = fenced.into_values().collect();
        fenced.sort_by_key(|fenced| fenced.version);
        let table = FenceTable {
            floor: 0,
            last: before.last().map_or(0, |placed| placed.fence.version),
            fenced,
        };
        (table, before.len())
    }
}
