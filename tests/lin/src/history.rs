//! What is known of one channel: its final log, and who asked for what, when, with which answer.

use std::collections::BTreeMap;

/// A user, by any number that the caller's history gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User(pub u64);

/// An entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Who sent it.
    pub user: User,
    /// The sender's key.
    pub key: u64,
    /// The body, or its hash.
    pub body: u64,
}

/// How something that changes the channel or its members was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was carried out.
    Done(T),
    /// It was refused because the user is no member.
    NotMember,
    /// It was refused for another reason, and certainly not carried out.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl<T> Outcome<T> {
    /// Whether it may have been carried out.
    fn is_possible(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Unknown)
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// To store a message; done, it has a `seq`.
    Send {
        /// The message.
        entry: Entry,
        /// The answer.
        outcome: Outcome<u64>,
    },
    /// To show a part of the log.
    Read {
        /// Whoever asked; `None` for one who need not be a member.
        user: Option<User>,
        /// The answer: the last `seq` of the log, and the entries shown, by `seq`. Reads have no
        /// effect, so only [`Outcome::Done`] and [`Outcome::NotMember`] say anything.
        outcome: Outcome<(u64, BTreeMap<u64, Entry>)>,
    },
    /// To become a member of the channel's group.
    Join {
        /// Who.
        user: User,
        /// The answer.
        outcome: Outcome<()>,
    },
    /// To be a member no more.
    Leave {
        /// Who.
        user: User,
        /// The answer.
        outcome: Outcome<()>,
    },
    /// To remove a member. Done, it says whether this channel's shard had it by then.
    Kick {
        /// Whom.
        user: User,
        /// The answer.
        outcome: Outcome<bool>,
    },
}

/// An operation with its times. The unit is the caller's; one clock for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// When it was asked for.
    pub start: u64,
    /// When it was answered; ignored where the outcome is unknown.
    pub end: u64,
    /// What.
    pub operation: Operation,
}

/// More attempts of one operation than this are not reckoned with: there is time for few.
const ATTEMPTS_MORE: usize = 2;

impl Timed {
    /// What further attempts of an operation may do at any moment since the first, also behind its
    /// answer: change the membership once more each. For operations that took so long that they may
    /// have been tried more than once. A message that is sent again is found where it is, reads change
    /// nothing, and what was refused for certain was never carried out.
    #[must_use]
    pub fn again(&self) -> Vec<Self> {
        let may_have_happened = match &self.operation {
            Operation::Join { outcome, .. } | Operation::Leave { outcome, .. } => outcome.is_possible(),
            Operation::Kick { outcome, .. } => outcome.is_possible(),
            Operation::Send { .. } | Operation::Read { .. } => false,
        };
        if !may_have_happened {
            return Vec::new();
        }
        let mut again = self.clone();
        match &mut again.operation {
            Operation::Join { outcome, .. } | Operation::Leave { outcome, .. } => *outcome = Outcome::Unknown,
            Operation::Kick { outcome, .. } => *outcome = Outcome::Unknown,
            Operation::Send { .. } | Operation::Read { .. } => {}
        }
        vec![again; ATTEMPTS_MORE]
    }
}

/// Everything known of one channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelHistory {
    /// The log when all was over; entry 1 first.
    pub log: Vec<Entry>,
    /// Users known to be members, or not, before the first operation; nothing is assumed of others.
    pub members: BTreeMap<User, bool>,
    /// The operations, in any order.
    pub operations: Vec<Timed>,
}
