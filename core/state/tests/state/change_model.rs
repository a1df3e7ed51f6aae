//! Changes against a model that keeps every step and works out what a message is from the first one on.

use std::collections::BTreeMap;

use proptest::prelude::*;
use throng_protocol::cluster::{Change, EntryKind, Hole, Permissions};
use throng_protocol::code::Code;
use throng_protocol::limits::EXPANSION_KEYS_MAX;
use throng_state::Reply;
use throng_state::testing::MapView;

use crate::changes::{change, command, expand, modify, shown};
use crate::support::*;

#[derive(Debug, Clone)]
enum Step {
    Send {
        sender: u64,
    },
    Change {
        sender: u64,
        /// Reaches over the end of the log.
        target: u64,
        what: What,
        may: bool,
        /// An earlier change is tried once more instead.
        again: bool,
    },
}

#[derive(Debug, Clone)]
enum What {
    Modify(u8),
    Recall,
    Delete,
    Expand { set: Vec<(u8, u8)>, remove: Vec<u8> },
}

impl What {
    fn change(&self) -> Change {
        match self {
            Self::Modify(body) => modify(&format!("body {body}")),
            Self::Recall => Change::Recall,
            Self::Delete => Change::Delete,
            Self::Expand { set, remove } => {
                let name = |key: &u8| format!("k{key}");
                let set: Vec<_> = set
                    .iter()
                    .map(|(key, value)| (name(key), value.to_string()))
                    .collect();
                let set: Vec<(&str, &str)> = set.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                let remove: Vec<_> = remove.iter().map(name).collect();
                let remove: Vec<&str> = remove.iter().map(String::as_str).collect();
                expand(&set, &remove)
            }
        }
    }
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => any::<u8>().prop_map(What::Modify),
        1 => Just(What::Recall),
        1 => Just(What::Delete),
        6 => (proptest::collection::btree_map(0..6u8, any::<u8>(), 0..4), proptest::collection::btree_set(3..9u8, 0..3))
            .prop_map(|(set, remove)| What::Expand {
                remove: remove.into_iter().filter(|key| !set.contains_key(key)).collect(),
                set: set.into_iter().collect(),
            }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1..4u64).prop_map(|sender| Step::Send { sender }),
        3 => (1..4u64, 1..9u64, what(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(sender, target, what, may, again)| Step::Change { sender, target, what, may, again }),
    ]
}

/// A step that was taken, in the order of the log.
#[derive(Debug, Clone)]
enum Taken {
    Message {
        sender: u64,
    },
    Change {
        id: u64,
        sender: u64,
        target: u64,
        what: What,
    },
}

#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Message {
    body: String,
    hole: Hole,
    version: u64,
    keys: BTreeMap<String, String>,
}

#[derive(Default)]
struct Model {
    log: Vec<Taken>,
    ids: u64,
}

impl Model {
    /// A message from the first step on.
    fn message(&self, seq: u64) -> Option<(u64, Message)> {
        let Taken::Message { sender } = self.log.get(seq.checked_sub(1)? as usize)? else {
            return None;
        };
        let mut message = Message {
            body: format!("first {seq}"),
            ..Message::default()
        };
        for (at, taken) in (1..).zip(&self.log) {
            let Taken::Change { target, what, .. } = taken else {
                continue;
            };
            if *target != seq {
                continue;
            }
            message.version = at;
            match what {
                What::Modify(body) => message.body = format!("body {body}"),
                What::Recall => message.hole = Hole::Recalled,
                What::Delete => message.hole = Hole::Deleted,
                What::Expand { set, remove } => {
                    let set = set
                        .iter()
                        .map(|(key, value)| (format!("k{key}"), value.to_string()));
                    message.keys.extend(set);
                    remove
                        .iter()
                        .for_each(|key| drop(message.keys.remove(&format!("k{key}"))));
                }
            }
        }
        if message.hole != Hole::None {
            message.body.clear();
            message.keys.clear();
        }
        Some((*sender, message))
    }

    /// What a change must be refused with.
    fn refusal(&self, sender: u64, target: u64, what: &What, may: bool) -> Option<Code> {
        let names_keys = |set: &[(u8, u8)], remove: &[u8]| !set.is_empty() || !remove.is_empty();
        if let What::Expand { set, remove } = what
            && !names_keys(set, remove)
        {
            return Some(Code::InvalidField);
        }
        let Some((owner, message)) = self.message(target) else {
            return Some(Code::TargetUnknown);
        };
        let allowed = match what {
            What::Modify(_) | What::Recall => may || owner == sender,
            What::Delete => may,
            What::Expand { .. } => true,
        };
        if !allowed {
            return Some(Code::Forbidden);
        }
        match (message.hole, what) {
            (Hole::None, _) | (Hole::Recalled, What::Delete) => None,
            _ => Some(Code::TargetGone),
        }
    }
}

fn run(shard: &mut MapView, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match step {
        Step::Send { sender } => {
            model.log.push(Taken::Message { sender: *sender });
            model.ids += 1;
            let body = format!("first {}", model.log.len());
            let reply = shard.reply(&append(&message(*sender, model.ids, &body)));
            let appended = matches!(reply, Reply::Appended { repeat: false, .. });
            prop_assert!(appended, "{:?}", reply);
        }
        Step::Change {
            sender,
            target,
            what,
            may,
            again,
        } => {
            let earlier = model
                .log
                .iter()
                .enumerate()
                .find_map(|(place, taken)| match taken {
                    Taken::Change {
                        id,
                        sender,
                        target,
                        what,
                    } => Some((place, *id, *sender, *target, what.clone())),
                    Taken::Message { .. } => None,
                });
            if let (true, Some((place, id, sender, target, what))) = (*again, earlier) {
                let reply = shard.reply(&command(&change(sender, id, target, what.change())));
                let same =
                    matches!(reply, Reply::Changed { seq, repeat: true, .. } if seq.0 == place as u64 + 1);
                prop_assert!(same, "{:?}", reply);
                return Ok(());
            }
            let expected = model.refusal(*sender, *target, what, *may);
            let before = model.message(*target).map_or(0, |(_, message)| message.version);
            model.ids += 1;
            let mut asked = change(*sender, model.ids, *target, what.change());
            asked.claims.permissions = if *may {
                Permissions::ALL
            } else {
                Permissions::EVERYONE
            };
            match (shard.reply(&command(&asked)), expected) {
                (Reply::Refused { code, .. }, Some(expected)) => prop_assert_eq!(code, expected),
                (
                    Reply::Changed {
                        seq,
                        before: told,
                        repeat: false,
                        ..
                    },
                    None,
                ) => {
                    let (id, sender) = (model.ids, *sender);
                    model.log.push(Taken::Change {
                        id,
                        sender,
                        target: *target,
                        what: what.clone(),
                    });
                    prop_assert_eq!((seq.0, told.0), (model.log.len() as u64, before));
                }
                (reply, expected) => prop_assert!(false, "{:?} instead of {:?}", reply, expected),
            }
        }
    }
    Ok(())
}

/// What readers are shown is what the model works out.
fn compare(shard: &MapView, model: &Model) -> Result<(), TestCaseError> {
    let entries = shown(shard);
    prop_assert_eq!(entries.len(), model.log.len());
    for (entry, taken) in entries.iter().zip(&model.log) {
        let keys: BTreeMap<String, String> = entry.expansion.iter().cloned().collect();
        prop_assert_eq!(keys.len(), entry.expansion.len());
        prop_assert!(keys.len() <= EXPANSION_KEYS_MAX);
        match taken {
            Taken::Message { .. } => {
                let (_, message) = model.message(entry.seq.0).expect("a message");
                let found = Message {
                    body: String::from_utf8_lossy(&entry.body).into_owned(),
                    hole: entry.hole,
                    version: entry.version.0,
                    keys,
                };
                prop_assert_eq!((entry.kind, found), (EntryKind::Message, message));
            }
            Taken::Change { target, what, .. } => {
                let (_, now) = model.message(*target).expect("a message");
                prop_assert_eq!((entry.target.0, entry.hole), (*target, now.hole));
                prop_assert!(entry.version.0 < entry.seq.0);
                let body = if matches!(what, What::Modify(_)) {
                    now.body
                } else {
                    String::new()
                };
                prop_assert_eq!(&entry.body[..], body.as_bytes());
                let touched: Vec<String> = match what {
                    What::Expand { set, remove } if now.hole == Hole::None => set
                        .iter()
                        .map(|(key, _)| key)
                        .chain(remove)
                        .map(|key| format!("k{key}"))
                        .collect(),
                    _ => Vec::new(),
                };
                for key in &touched {
                    prop_assert_eq!(keys.get(key), now.keys.get(key));
                    prop_assert_eq!(entry.removed.contains(key), !now.keys.contains_key(key));
                }
                prop_assert_eq!(keys.len() + entry.removed.len(), touched.len());
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_become_what_a_model_works_out_from_their_first_step_on(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut shard = message_shard(1);
        let mut model = Model::default();
        for step in &steps {
            run(&mut shard, &mut model, step)?;
            compare(&shard, &model)?;
        }
    }
}
