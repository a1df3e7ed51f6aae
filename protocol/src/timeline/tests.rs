use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::ids::{ClientMessageId, Ts, UserId, UserNumber};

const EPOCH: Epoch = Epoch(1);

/// What is written into a log.
#[derive(Debug, Clone)]
enum Write {
    Message,
    Modify(usize),
    Recall(usize),
    Expand { target: usize, key: u8, set: bool },
}

/// A log as the cluster has it: the naive way, by doing everything from the first entry on.
#[derive(Debug, Default)]
struct Log(Vec<Write>);

fn blank(seq: u64, kind: EntryKind) -> Entry {
    Entry {
        seq: Seq(seq),
        ts: Ts(seq),
        kind: kind.number(),
        sender: UserId::new("ann").expect("valid"),
        sender_number: UserNumber(1),
        client_message_id: ClientMessageId(seq),
        body: Bytes::new(),
        target: Seq(0),
        version: Seq(0),
        hole: 0,
        expansion: Vec::new(),
        removed: Vec::new(),
        keys_elsewhere: false,
    }
}

impl Log {
    fn head(&self) -> u64 {
        self.0.len() as u64
    }

    fn messages(&self) -> Vec<u64> {
        let numbered = (1..).zip(&self.0);
        let messages = numbered.filter(|(_, write)| matches!(write, Write::Message));
        messages.map(|(seq, _)| seq).collect()
    }

    /// A change of a message of which something is left is written; any other write is a message.
    fn write(&mut self, write: &Write) {
        let mut messages = self.messages();
        messages.retain(|seq| self.message(*seq, self.head()).hole == 0);
        let place = |n: usize| messages.get(n % messages.len().max(1)).map(|seq| *seq as usize);
        let write = match *write {
            Write::Message => Write::Message,
            Write::Modify(n) => place(n).map_or(Write::Message, Write::Modify),
            Write::Recall(n) => place(n).map_or(Write::Message, Write::Recall),
            Write::Expand { target, key, set } => {
                place(target).map_or(Write::Message, |target| Write::Expand { target, key, set })
            }
        };
        self.0.push(write);
    }

    /// A message as it is when the log ends at `head`.
    fn message(&self, seq: u64, head: u64) -> Entry {
        let mut entry = blank(seq, EntryKind::Message);
        entry.body = Bytes::from(format!("first {seq}"));
        for (at, write) in (1..=head).zip(&self.0) {
            let version = match *write {
                Write::Modify(target) if target as u64 == seq && entry.hole == 0 => {
                    entry.body = Bytes::from(format!("body of {at}"));
                    at
                }
                Write::Recall(target) if target as u64 == seq => {
                    (entry.hole, entry.body) = (1, Bytes::new());
                    entry.expansion.clear();
                    at
                }
                Write::Expand { target, key, set } if target as u64 == seq && entry.hole == 0 => {
                    let name = format!("k{key}");
                    entry.expansion.retain(|(held, _)| *held != name);
                    if set {
                        entry.expansion.push((name, at.to_string()));
                        entry.expansion.sort();
                    }
                    at
                }
                _ => continue,
            };
            entry.version = Seq(version);
        }
        entry
    }

    /// An entry as it is read when the log ends at `head`.
    fn entry(&self, seq: u64, head: u64) -> Entry {
        let of = |target: usize, kind| {
            let mut entry = blank(seq, kind);
            entry.target = Seq(target as u64);
            let now = self.message(target as u64, head);
            entry.hole = now.hole;
            entry.version = self.message(target as u64, seq - 1).version;
            (entry, now)
        };
        match self.0[seq as usize - 1] {
            Write::Message => self.message(seq, head),
            Write::Modify(target) => {
                let (mut entry, now) = of(target, EntryKind::Modify);
                entry.body = now.body;
                entry
            }
            Write::Recall(target) => of(target, EntryKind::Recall).0,
            Write::Expand { target, key, .. } => {
                let (mut entry, now) = of(target, EntryKind::Expand);
                let name = format!("k{key}");
                match now.expansion.into_iter().find(|(held, _)| *held == name) {
                    Some(pair) => entry.expansion.push(pair),
                    None if now.hole == 0 => entry.removed.push(name),
                    None => {}
                }
                entry
            }
        }
    }

    fn entries(&self, from: u64, to: u64, head: u64) -> Vec<Entry> {
        (from..=to).map(|seq| self.entry(seq, head)).collect()
    }

    /// The messages of a stretch that have changed behind `since`.
    fn changed(&self, stale: Stale) -> Vec<Entry> {
        let messages = self.messages().into_iter();
        let within = messages.filter(|seq| (stale.from.0..=stale.to.0).contains(seq));
        within
            .map(|seq| self.message(seq, self.head()))
            .filter(|entry| entry.version > stale.since)
            .collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(Write),
    /// The live stream brings some more.
    Live(u64),
    /// It is begun anew at the end of the log.
    Jump,
    /// A page is read; it arrives later.
    Read {
        from: u64,
        count: u64,
    },
    /// A page that was read arrives.
    Arrive(usize),
    /// What is stale first is asked for.
    Refresh,
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => Just(Write::Message),
        2 => any::<usize>().prop_map(Write::Modify),
        1 => any::<usize>().prop_map(Write::Recall),
        3 => (any::<usize>(), 0..3u8, any::<bool>())
            .prop_map(|(target, key, set)| Write::Expand { target, key, set }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => write().prop_map(Step::Write),
        3 => (1..6u64).prop_map(Step::Live),
        1 => Just(Step::Jump),
        3 => (1..40u64, 1..8u64).prop_map(|(from, count)| Step::Read { from, count }),
        3 => any::<usize>().prop_map(Step::Arrive),
        1 => Just(Step::Refresh),
    ]
}

/// A page on its way.
struct Page {
    prev: u64,
    head: u64,
    entries: Vec<Entry>,
}

#[derive(Default)]
struct World {
    log: Log,
    timeline: Timeline,
    /// The live stream has brought everything up to here.
    live: u64,
    pages: Vec<Page>,
    /// What must be held.
    held: std::collections::BTreeSet<u64>,
}

impl World {
    fn step(&mut self, step: &Step) {
        let head = self.log.head();
        match *step {
            Step::Write(ref write) => self.log.write(write),
            Step::Live(count) => {
                let to = (self.live + count).min(head);
                if to > self.live {
                    let entries = self.log.entries(self.live + 1, to, head);
                    self.timeline.deliver(EPOCH, Seq(self.live), &entries);
                    self.held.extend(self.live + 1..=to);
                    self.live = to;
                }
            }
            Step::Jump => self.live = head,
            Step::Read { from, count } if from <= head => {
                let to = (from + count - 1).min(head);
                self.pages.push(Page {
                    prev: from - 1,
                    head,
                    entries: self.log.entries(from, to, head),
                });
            }
            Step::Arrive(n) if !self.pages.is_empty() => {
                let page = self.pages.swap_remove(n % self.pages.len());
                self.timeline
                    .page(EPOCH, Seq(page.prev), Seq(page.head), &page.entries);
                self.held
                    .extend(page.prev + 1..=page.prev + page.entries.len() as u64);
            }
            Step::Refresh => {
                if let Some(stale) = self.timeline.stale(Seq(head)).first().copied() {
                    let entries = self.log.changed(stale);
                    self.timeline.changes(EPOCH, stale, Seq(head), &entries);
                }
            }
            Step::Read { .. } | Step::Arrive(_) => {}
        }
    }

    fn check(&mut self) {
        let head = self.log.head();
        for seq in 1..=head {
            let held = self.held.contains(&seq);
            match self.timeline.get(Seq(seq)) {
                Shown::NotLoaded => assert!(!held, "{seq} is held"),
                Shown::Message(_) | Shown::Change => assert!(held, "{seq} is not held"),
            }
        }
        let missing: Vec<u64> = (1..=head).filter(|seq| !self.held.contains(seq)).collect();
        let gaps = self.timeline.gaps(Seq(1), Seq(head));
        let told: Vec<u64> = gaps.iter().flat_map(|(from, to)| from.0..=to.0).collect();
        assert_eq!(told, missing);
        // What is not said to be stale is as it is now.
        let stale = self.timeline.stale(Seq(head));
        for entry in self.timeline.messages() {
            if !stale
                .iter()
                .any(|stale| (stale.from..=stale.to).contains(&entry.seq))
            {
                assert_eq!(*entry, self.log.message(entry.seq.0, head));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_held_becomes_what_the_log_says_whatever_came_in_which_order(
        steps in proptest::collection::vec(step(), 1..120)
    ) {
        let mut world = World { timeline: Timeline::new(EPOCH), ..World::default() };
        for step in &steps {
            world.step(step);
            world.check();
        }
        let mut rounds = 0;
        while !world.timeline.stale(Seq(world.log.head())).is_empty() {
            world.step(&Step::Refresh);
            rounds += 1;
            prop_assert!(rounds < 200, "asking comes to an end");
        }
        world.check();
        for entry in world.timeline.messages() {
            prop_assert_eq!(entry, &world.log.message(entry.seq.0, world.log.head()));
        }
    }
}

#[test]
fn another_epoch_voids_what_is_held() {
    let mut timeline = Timeline::new(EPOCH);
    timeline.deliver(EPOCH, Seq(0), &[blank(1, EntryKind::Message)]);
    timeline.deliver(Epoch(2), Seq(4), &[blank(5, EntryKind::Message)]);
    assert_eq!(timeline.get(Seq(1)), Shown::NotLoaded);
    assert_eq!(
        (timeline.epoch(), timeline.gaps(Seq(1), Seq(5))),
        (Epoch(2), vec![(Seq(1), Seq(4))])
    );
    let stale = Stale {
        from: Seq(5),
        to: Seq(5),
        since: Seq(5),
    };
    timeline.changes(EPOCH, stale, Seq(9), &[]);
    assert_eq!(
        timeline.stale(Seq(6)).len(),
        1,
        "changes of another epoch say nothing"
    );
}

fn changed(seq: u64, target: u64, version: u64, body: &'static str) -> Entry {
    Entry {
        target: Seq(target),
        version: Seq(version),
        body: Bytes::from_static(body.as_bytes()),
        ..blank(seq, EntryKind::Modify)
    }
}

fn body(timeline: &Timeline, seq: u64) -> String {
    match timeline.get(Seq(seq)) {
        Shown::Message(entry) => String::from_utf8_lossy(&entry.body).into_owned(),
        other => panic!("{seq} is {other:?}"),
    }
}

#[test]
fn a_change_whose_predecessor_is_missing_waits_for_it() {
    let mut timeline = Timeline::new(EPOCH);
    timeline.deliver(EPOCH, Seq(0), &[blank(1, EntryKind::Message)]);
    timeline.deliver(EPOCH, Seq(8), &[changed(9, 1, 5, "second")]);
    assert_eq!(body(&timeline, 1), "", "change 5 is missing");
    timeline.deliver(EPOCH, Seq(4), &[changed(5, 1, 0, "first")]);
    assert_eq!(body(&timeline, 1), "second");
}

#[test]
fn a_page_that_was_read_earlier_takes_nothing_back() {
    let mut timeline = Timeline::new(EPOCH);
    let old = blank(1, EntryKind::Message);
    timeline.deliver(EPOCH, Seq(0), std::slice::from_ref(&old));
    timeline.deliver(EPOCH, Seq(1), &[changed(2, 1, 0, "better")]);
    timeline.page(EPOCH, Seq(0), Seq(1), &[old]);
    assert_eq!(body(&timeline, 1), "better");
    // The same change once more does nothing either.
    timeline.deliver(EPOCH, Seq(1), &[changed(2, 1, 0, "worse")]);
    assert_eq!(body(&timeline, 1), "better");
}

#[test]
fn what_is_gone_stays_gone_whatever_was_read_before() {
    let recall = Entry {
        hole: 1,
        ..changed(3, 1, 2, "")
    };
    let mut timeline = Timeline::new(EPOCH);
    timeline.deliver(EPOCH, Seq(0), &[blank(1, EntryKind::Message)]);
    // Read after the recall: a modification that shows the hole already.
    let late = Entry {
        hole: 1,
        ..changed(2, 1, 0, "")
    };
    timeline.deliver(EPOCH, Seq(1), &[late]);
    // Read before it, by an edge that is behind.
    let page = Entry {
        version: Seq(2),
        body: Bytes::from_static(b"a secret"),
        ..blank(1, EntryKind::Message)
    };
    timeline.page(EPOCH, Seq(0), Seq(2), &[page]);
    timeline.deliver(EPOCH, Seq(2), &[recall]);
    let Shown::Message(entry) = timeline.get(Seq(1)) else {
        panic!("it is held")
    };
    assert_eq!((entry.hole, entry.body.len(), entry.version), (1, 0, Seq(3)));
}

#[test]
fn an_expansion_that_was_elsewhere_becomes_whole_by_a_page_or_by_itself() {
    let large = Entry {
        keys_elsewhere: true,
        ..blank(1, EntryKind::Message)
    };
    let shrunk = Entry {
        removed: vec!["large".to_owned()],
        kind: EntryKind::Expand.number(),
        ..changed(2, 1, 0, "")
    };
    let whole = Entry {
        version: Seq(2),
        expansion: vec![("k".to_owned(), "v".to_owned())],
        ..blank(1, EntryKind::Message)
    };
    let keys = |timeline: &Timeline| match timeline.get(Seq(1)) {
        Shown::Message(entry) => (entry.expansion.len(), entry.keys_elsewhere),
        other => panic!("{other:?}"),
    };
    let mut timeline = Timeline::new(EPOCH);
    timeline.deliver(EPOCH, Seq(0), &[large, shrunk]);
    assert_eq!(keys(&timeline), (0, true));
    let mut by_page = timeline.clone();
    by_page.page(EPOCH, Seq(0), Seq(2), std::slice::from_ref(&whole));
    assert_eq!(keys(&by_page), (1, false));
    assert!(
        !timeline.expansion(Seq(1), Seq(1), whole.expansion.clone()),
        "of another version"
    );
    assert!(timeline.expansion(Seq(1), Seq(2), whole.expansion));
    assert_eq!(keys(&timeline), (1, false));
}

#[test]
fn what_was_let_go_is_not_kept_again() {
    let mut timeline = Timeline::new(EPOCH);
    let entries: Vec<Entry> = (1..=6).map(|seq| blank(seq, EntryKind::Message)).collect();
    timeline.deliver(EPOCH, Seq(0), &entries);
    timeline.forget_before(Seq(4));
    assert_eq!(timeline.gaps(Seq(1), Seq(6)), [(Seq(1), Seq(3))]);
    timeline.deliver(EPOCH, Seq(6), &[changed(7, 2, 0, "x"), changed(8, 5, 0, "y")]);
    timeline.page(EPOCH, Seq(0), Seq(8), &entries[..5]);
    assert_eq!(
        timeline.messages().map(|entry| entry.seq.0).collect::<Vec<_>>(),
        [4, 5, 6]
    );
    assert_eq!(
        (timeline.pending.len(), timeline.get(Seq(2))),
        (0, Shown::NotLoaded)
    );
    assert_eq!(body(&timeline, 5), "y");
}
