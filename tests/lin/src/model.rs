//! The sequential model: what a channel does when it is asked for one thing at a time.
//!
//! The final log is known, so the log at any moment is how much of it there was: a number. Members are
//! sets of the states a user may be in, since what nobody got an answer to may have happened or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use todc_utils::specifications::Specification;

use crate::history::User;
use crate::search;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Standing {
    Member,
    /// Removed, but the channel may not know yet.
    Leaving,
    Out,
}

/// A user as they may be: where they stand, kicks begun that have to end, and what was asked without
/// an answer and may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Member {
    pub standing: Standing,
    pub open_kicks: u32,
    joins: u32,
    leaves: u32,
    kicks: u32,
}

impl Member {
    pub fn new(standing: Standing) -> Self {
        Self {
            standing,
            open_kicks: 0,
            joins: 0,
            leaves: 0,
            kicks: 0,
        }
    }

    fn admitted(self) -> bool {
        self.standing != Standing::Out
    }

    fn refused(self) -> bool {
        self.standing != Standing::Member
    }

    /// After something happened to the user; `None` if it could not have.
    fn after(self, change: Change) -> Option<Self> {
        let standing = match (change, self.standing) {
            (Change::Join, _) => Standing::Member,
            (Change::Leave | Change::KickBegins, Standing::Member) => Standing::Leaving,
            (Change::KickEnds, Standing::Leaving) => Standing::Out,
            (_, same) => same,
        };
        let open_kicks = match change {
            Change::KickBegins => self.open_kicks + 1,
            Change::KickEnds => self.open_kicks.checked_sub(1)?,
            Change::Join | Change::Leave => self.open_kicks,
        };
        Some(Self {
            standing,
            open_kicks,
            ..self
        })
    }

    /// How often a change may still happen that nobody got an answer to.
    fn left(&mut self, change: Change) -> &mut u32 {
        match change {
            Change::Join => &mut self.joins,
            Change::Leave => &mut self.leaves,
            Change::KickBegins | Change::KickEnds => &mut self.kicks,
        }
    }

    /// The same user with one more change that may happen from now on.
    fn with_possible(mut self, change: Change) -> Self {
        *self.left(change) += 1;
        self
    }

    /// What becomes of the user if a change happens that may.
    fn possibly(mut self, change: Change) -> Option<Self> {
        let left = self.left(change);
        *left = left.checked_sub(1)?;
        self.after(change)
    }

    /// Whether everything that can become of the other can become of this one.
    fn covers(self, other: Self) -> bool {
        self.standing == other.standing
            && self.open_kicks >= other.open_kicks
            && self.joins >= other.joins
            && self.leaves >= other.leaves
            && self.kicks >= other.kicks
    }
}

/// Everything that may have become of a user by now, without what others cover.
fn closure(members: &BTreeSet<Member>) -> BTreeSet<Member> {
    let mut all = members.clone();
    let mut new: Vec<Member> = members.iter().copied().collect();
    while let Some(member) = new.pop() {
        for change in [Change::Join, Change::Leave, Change::KickBegins] {
            if let Some(next) = member.possibly(change)
                && !all.iter().any(|known| known.covers(next))
            {
                all.retain(|known| !next.covers(*known));
                all.insert(next);
                new.push(next);
            }
        }
    }
    all
}

/// Something that happens to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Join,
    Leave,
    KickBegins,
    KickEnds,
}

/// One step of the model, with the answer it must explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The message that is entry `seq` was sent, for the first time or again.
    Sent { user: User, seq: u64 },
    /// The log ended at `head`.
    Read { user: Option<User>, head: u64 },
    /// Something was refused because the user was no member.
    Refused { user: User },
    /// Something happened to a user.
    Changed { user: User, change: Change },
    /// Something may happen to a user from now on: nobody got an answer.
    Possible { user: User, change: Change },
    /// An answer that no state explains.
    Impossible,
}

type Members = BTreeMap<User, BTreeSet<Member>>;

/// The channel at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Channel {
    pub head: u64,
    /// Shared: most steps change none.
    pub members: Arc<Members>,
}

/// Where a user of whom nothing is known may stand.
fn anywhere() -> BTreeSet<Member> {
    [Standing::Member, Standing::Out].map(Member::new).into()
}

impl Channel {
    fn of(&self, user: User) -> BTreeSet<Member> {
        self.members.get(&user).map_or_else(anywhere, closure)
    }

    fn with(&self, user: User, members: BTreeSet<Member>) -> Option<Self> {
        if members.is_empty() {
            return None;
        }
        let mut all = Members::clone(&self.members);
        all.insert(user, members);
        Some(Self {
            head: self.head,
            members: Arc::new(all),
        })
    }

    /// Only the states of a user that explain an answer stay.
    fn where_user(&self, user: User, explains: impl Fn(Member) -> bool) -> Option<Self> {
        let mut members = self.of(user);
        members.retain(|member| explains(*member));
        self.with(user, members)
    }

    /// The channel after a step, if the step's answer is what the channel would have given.
    pub fn after(&self, step: &Step) -> Option<Self> {
        match step {
            // Sent again it is answered as the first time, whoever is a member by then.
            Step::Sent { seq, .. } if *seq <= self.head => Some(self.clone()),
            Step::Sent { user, seq } if *seq == self.head + 1 => {
                let mut channel = self.where_user(*user, Member::admitted)?;
                channel.head = *seq;
                Some(channel)
            }
            Step::Sent { .. } | Step::Impossible => None,
            Step::Read { head, .. } if *head != self.head => None,
            Step::Read { user: None, .. } => Some(self.clone()),
            Step::Read { user: Some(user), .. } => self.where_user(*user, Member::admitted),
            Step::Refused { user } => self.where_user(*user, Member::refused),
            Step::Changed { user, change } => {
                let before = self.of(*user).into_iter();
                self.with(*user, before.filter_map(|member| member.after(*change)).collect())
            }
            Step::Possible { user, change } => {
                let before = self.of(*user).into_iter();
                self.with(
                    *user,
                    before.map(|member| member.with_possible(*change)).collect(),
                )
            }
        }
    }
}

/// A step together with the channel's beginning, which the checker's interface has no other way to
/// learn.
#[derive(Debug)]
pub(crate) struct Model;

impl Specification for Model {
    type State = Option<Channel>;
    type Operation = (Arc<Channel>, Step);

    fn init() -> Self::State {
        None
    }

    fn apply((beginning, step): &Self::Operation, state: &Self::State) -> (bool, Self::State) {
        search::count_step();
        match state.as_ref().unwrap_or(beginning).after(step) {
            Some(channel) => {
                search::note_head(channel.head);
                (true, Some(channel))
            }
            None => (false, state.clone()),
        }
    }
}
