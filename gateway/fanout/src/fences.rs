//! The fences of a channel's group as its feed has told them, and what they say of a grant.
//!
//! A fence has a place in the channel: behind one entry and before the next. Feeds tell a fence
//! before any entry behind its place, so for every entry that came by a feed, each fence before it
//! is known here. What comes by pages is only used when the page's own count of fences is.

use std::collections::BTreeMap;

use throng_planted::planted;
use throng_protocol::cluster::{Fence, FenceTable, Fenced, GrantClaims};
use throng_protocol::ids::{Seq, UserNumber};

/// Users whose last fence is held, per channel: as many as a shard keeps of a group. Beyond it the
/// oldest are folded together, and every grant from before them is renewed.
pub const FENCES_MAX: usize = 10_000;

/// What a grant says that fences are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// The member.
    pub number: UserNumber,
    /// The version of the group the grant was made from.
    pub version: u64,
    /// The version of the last fence that touched the member; 0 for none.
    pub fenced: u64,
}

impl From<&GrantClaims> for Rights {
    fn from(claims: &GrantClaims) -> Self {
        Self {
            number: claims.number,
            version: claims.version,
            fenced: claims.fenced,
        }
    }
}

/// What the fences say of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It holds. Deliveries begin at or behind this place: the user was out before it.
    Holds(Seq),
    /// A fence has passed that it does not know: ask for a fresh one.
    Stale,
    /// It knows of a fence that has not been told here.
    NotTold,
}

/// The fences of a channel's group.
#[derive(Debug)]
pub(crate) struct Fences {
    floor: u64,
    /// At least as far as the places of the fences below the floor reach, of those folded here.
    floor_after: Seq,
    last: u64,
    users: BTreeMap<UserNumber, Fenced>,
    by_version: BTreeMap<u64, UserNumber>,
    max: usize,
}

impl Default for Fences {
    fn default() -> Self {
        Self::with_max(FENCES_MAX)
    }
}

impl Fences {
    pub fn with_max(max: usize) -> Self {
        Self {
            floor: 0,
            floor_after: Seq(0),
            last: 0,
            users: BTreeMap::new(),
            by_version: BTreeMap::new(),
            max,
        }
    }

    /// The version up to which fences are known.
    pub fn told(&self) -> u64 {
        self.last.max(self.floor)
    }

    /// The log was rebuilt: places of the old one mean nothing in the new one.
    pub fn forget_places(&mut self) {
        self.users.clear();
        self.by_version.clear();
        self.floor_after = Seq(0);
    }

    /// Takes a table in. Returns the fences that were not known.
    pub fn take(&mut self, table: &FenceTable) -> Vec<Fenced> {
        self.floor = self.floor.max(table.floor);
        let fresh = table
            .fenced
            .iter()
            .filter(|fenced| self.put(**fenced))
            .copied()
            .collect();
        self.last = self.last.max(table.last);
        fresh
    }

    /// A fence at its place. Returns what it ends: nothing for one that was known, or of a mute.
    pub fn pass(&mut self, after: Seq, fence: Fence) -> Option<Fenced> {
        self.last = self.last.max(fence.version);
        let fenced = Fenced {
            number: fence.number,
            version: fence.version,
            after,
        };
        (fence.kind.ends_reading() && self.put(fenced)).then_some(fenced)
    }

    fn put(&mut self, fenced: Fenced) -> bool {
        let known = self.users.get(&fenced.number);
        if known.is_some_and(|known| known.version >= fenced.version) {
            return false;
        }
        if let Some(before) = self.users.insert(fenced.number, fenced) {
            self.by_version.remove(&before.version);
        }
        self.by_version.insert(fenced.version, fenced.number);
        while self.users.len() > self.max
            && let Some((version, number)) = self.by_version.pop_first()
        {
            self.floor = self.floor.max(version);
            if let Some(folded) = self.users.remove(&number) {
                self.floor_after = self.floor_after.max(folded.after);
            }
        }
        true
    }

    /// What the fences say of a grant.
    pub fn judge(&self, rights: Rights) -> Judged {
        let fenced = self.users.get(&rights.number);
        let fenced_since = fenced.is_some_and(|fenced| fenced.version > rights.version);
        if (rights.version < self.floor || fenced_since) && !planted!("edge_keeps_grant") {
            return Judged::Stale;
        }
        if rights.fenced > self.told() {
            return Judged::NotTold;
        }
        let folded = (1..=self.floor).contains(&rights.fenced);
        let unknown = if folded { self.floor_after } else { Seq(0) };
        if planted!("return_reads_absence") {
            return Judged::Holds(Seq(0));
        }
        Judged::Holds(fenced.map_or(unknown, |fenced| fenced.after))
    }
}

#[cfg(test)]
mod tests {
    use throng_protocol::cluster::FenceKind;

    use super::*;

    fn fence(version: u64, number: u64, kind: FenceKind) -> Fence {
        Fence {
            version,
            number: UserNumber(number),
            kind,
        }
    }

    fn rights(number: u64, version: u64, fenced: u64) -> Rights {
        Rights {
            number: UserNumber(number),
            version,
            fenced,
        }
    }

    #[test]
    fn a_grant_from_before_a_fence_is_stale_and_one_from_after_begins_at_its_place() {
        let mut fences = Fences::default();
        assert!(fences.pass(Seq(40), fence(7, 1, FenceKind::Kick)).is_some());
        assert_eq!(fences.judge(rights(1, 6, 0)), Judged::Stale);
        assert_eq!(fences.judge(rights(1, 8, 7)), Judged::Holds(Seq(40)));
        assert_eq!(fences.judge(rights(2, 6, 0)), Judged::Holds(Seq(0)));
    }

    #[test]
    fn a_grant_that_knows_more_fences_than_were_told_waits() {
        let mut fences = Fences::default();
        assert_eq!(fences.judge(rights(1, 9, 7)), Judged::NotTold);
        fences.pass(Seq(40), fence(8, 2, FenceKind::Left));
        assert_eq!(fences.judge(rights(1, 9, 7)), Judged::Holds(Seq(0)));
    }

    #[test]
    fn a_mute_ends_nothing_and_is_told_all_the_same() {
        let mut fences = Fences::default();
        assert_eq!(fences.pass(Seq(40), fence(7, 1, FenceKind::Mute)), None);
        assert_eq!(
            (fences.told(), fences.judge(rights(1, 6, 0))),
            (7, Judged::Holds(Seq(0)))
        );
    }

    #[test]
    fn a_fence_that_comes_late_or_twice_changes_nothing() {
        let mut fences = Fences::default();
        fences.pass(Seq(40), fence(7, 1, FenceKind::Kick));
        assert_eq!(fences.pass(Seq(40), fence(7, 1, FenceKind::Kick)), None);
        assert_eq!(fences.pass(Seq(30), fence(5, 1, FenceKind::Left)), None);
        assert_eq!(fences.judge(rights(1, 8, 7)), Judged::Holds(Seq(40)));
        assert_eq!(fences.told(), 7);
    }

    #[test]
    fn beyond_the_bound_the_oldest_fences_become_the_floor() {
        let mut fences = Fences::with_max(2);
        for (version, number) in [(3, 1), (5, 2), (7, 3)] {
            fences.pass(Seq(version * 10), fence(version, number, FenceKind::Kick));
        }
        assert_eq!((fences.floor, fences.users.len()), (3, 2));
        assert_eq!(fences.judge(rights(9, 2, 0)), Judged::Stale, "whoever it is");
        assert_eq!(fences.judge(rights(9, 3, 0)), Judged::Holds(Seq(0)));
        assert_eq!(
            fences.judge(rights(1, 4, 3)),
            Judged::Holds(Seq(30)),
            "a folded fence's place is at most the floor's"
        );
    }

    #[test]
    fn a_table_raises_what_is_known_and_never_lowers_it() {
        let mut fences = Fences::default();
        fences.pass(Seq(40), fence(7, 1, FenceKind::Kick));
        let old = |version, after| Fenced {
            number: UserNumber(1),
            version,
            after: Seq(after),
        };
        let behind = FenceTable {
            floor: 0,
            last: 4,
            fenced: vec![old(4, 12)],
        };
        assert_eq!(fences.take(&behind), vec![]);
        assert_eq!((fences.told(), fences.judge(rights(1, 6, 0))), (7, Judged::Stale));
        let ahead = FenceTable {
            floor: 9,
            last: 12,
            fenced: vec![old(11, 55)],
        };
        assert_eq!(fences.take(&ahead), vec![old(11, 55)]);
        assert_eq!((fences.told(), fences.floor), (12, 9));
        assert_eq!(fences.judge(rights(2, 8, 0)), Judged::Stale);
    }
}
