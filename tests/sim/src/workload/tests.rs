use std::collections::BTreeMap;

use throng_protocol::ids::{Epoch, Position, Seq, Ts};

use super::*;
use crate::changes::Shown;
use crate::history::{Channel, History, Seen, Start};

/// Runs a workload against a log that answers everything at once.
struct Perfect {
    workload: Workload,
    history: History,
    logs: BTreeMap<Channel, Vec<Seen>>,
    open: BTreeMap<Sub, (Client, Channel, Seq)>,
}

impl Perfect {
    fn new(seed: u64) -> Self {
        Self {
            workload: Workload::new(seed),
            history: History::default(),
            logs: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }

    fn event(&mut self, at_us: u64, host: Host, what: What) {
        self.history.push(at_us, host, what);
        let event = self.history.events().last().cloned().expect("just pushed");
        self.workload.observe(&event);
    }

    fn answer(&mut self, at_us: u64, client: Client, ask: Ask) -> Answer {
        match ask {
            Ask::Change { channel, key, change } => {
                let hash = change.identity();
                self.answer(at_us, client, Ask::Send { channel, key, hash })
            }
            Ask::Send { channel, key, hash } => {
                let sender = client.user();
                let log = self.logs.entry(channel).or_default();
                if let Some(known) = log.iter().find(|seen| (seen.sender, seen.key) == (sender, key)) {
                    let (epoch, seq, ts) = (Epoch(1), known.seq, known.ts);
                    return if known.hash == hash {
                        Answer::Acked {
                            epoch,
                            seq,
                            ts,
                            repeat: true,
                        }
                    } else {
                        Answer::Refused {
                            code: 401,
                            unknown: false,
                        }
                    };
                }
                let (seq, ts) = (Seq(log.len() as u64 + 1), Ts::from_millis(at_us));
                log.push(Seen {
                    seq,
                    ts,
                    sender,
                    key,
                    hash,
                });
                Answer::Acked {
                    epoch: Epoch(1),
                    seq,
                    ts,
                    repeat: false,
                }
            }
            Ask::Kick { .. } | Ask::Mute { .. } | Ask::Assign { .. } | Ask::Permit { .. } => Answer::Fenced {
                version: 1,
                pending: Vec::new(),
                more: 0,
            },
            Ask::Join { .. } | Ask::Leave { .. } => Answer::Done,
            Ask::Subscribe { sub, channel, .. } => {
                let (epoch, seq) = (Epoch(1), Seq(0));
                self.open.insert(sub, (client, channel, seq));
                Answer::Subscribed {
                    start: Start::Resumed,
                    at: Position { epoch, seq },
                    head: seq,
                }
            }
            Ask::Page { .. } => Answer::Refused {
                code: 500,
                unknown: false,
            },
        }
    }

    fn step(&mut self, at_us: u64, client: Client) {
        loop {
            match self.workload.next(client, at_us) {
                Step::Wait(until_us) => {
                    assert!(until_us > at_us, "a wait that is over would never end");
                    return;
                }
                Step::Ask(op, ask) => {
                    self.event(at_us, Host::Client(client), What::Asked(op, ask));
                    let answer = self.answer(at_us, client, ask);
                    self.event(at_us, Host::Client(client), What::Answered(op, answer));
                }
                Step::Drop(sub) => self.end(at_us, client, sub),
                Step::Restart => {
                    let subs: Vec<Sub> = self.open.keys().copied().collect();
                    for sub in subs
                        .into_iter()
                        .filter(|sub| self.open[sub].0 == client)
                        .collect::<Vec<_>>()
                    {
                        self.end(at_us, client, sub);
                    }
                }
                Step::DropConnection | Step::Freeze { .. } => {}
            }
        }
    }

    fn end(&mut self, at_us: u64, client: Client, sub: Sub) {
        self.open.remove(&sub);
        self.event(at_us, Host::Client(client), What::Dropped { sub });
    }

    fn deliver(&mut self, at_us: u64) {
        for (sub, (client, channel, at)) in self.open.clone() {
            let log = self.logs.get(&channel).cloned().unwrap_or_default();
            for entry in log.into_iter().skip(usize::try_from(at.0).expect("short")) {
                let (epoch, prev) = (Epoch(1), Seq(entry.seq.0 - 1));
                let what = What::Delivered {
                    sub,
                    epoch,
                    prev,
                    entry,
                    shown: Shown {
                        kind: 1,
                        ..Shown::default()
                    },
                    edge: 1,
                    connection: 1,
                };
                self.event(at_us, Host::Client(client), what);
                self.open.insert(sub, (client, channel, entry.seq));
            }
        }
    }

    fn run(&mut self, from_ms: u64, to_ms: u64) {
        for ms in from_ms..to_ms {
            for client in world::clients() {
                self.step(ms * 1_000, client);
            }
            self.deliver(ms * 1_000);
        }
    }
}

fn asks(history: &History, wanted: fn(&Ask) -> bool) -> usize {
    let asks = history
        .events()
        .iter()
        .filter(|event| matches!(&event.what, What::Asked(_, ask) if wanted(ask)));
    asks.count()
}

#[test]
fn a_seed_is_one_run_and_another_seed_another() {
    let trace = |seed| {
        let mut run = Perfect::new(seed);
        run.run(0, 2_000);
        run.history.trace_hash()
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn a_run_of_twelve_seconds_has_enough_of_everything() {
    let (mut sends, mut kicks, mut mutes, mut pages, mut subscribes) = (0, 0, 0, 0, 0);
    for seed in 0..8 {
        let mut run = Perfect::new(seed);
        run.run(0, 12_000);
        sends += asks(&run.history, |ask| matches!(ask, Ask::Send { .. }));
        kicks += asks(&run.history, |ask| matches!(ask, Ask::Kick { .. }));
        mutes += asks(&run.history, |ask| matches!(ask, Ask::Mute { .. }));
        pages += asks(&run.history, |ask| matches!(ask, Ask::Page { .. }));
        subscribes += asks(&run.history, |ask| matches!(ask, Ask::Subscribe { .. }));
    }
    assert!(sends > 8 * 250 && sends < 8 * 700, "{sends} sends");
    assert!(kicks >= 8 * 2 && mutes >= 8, "{kicks} kicks, {mutes} mutes");
    assert!(
        pages > 8 * 20 && subscribes > 8 * 20,
        "{pages} pages, {subscribes} subscribes"
    );
}

#[test]
fn everyone_settles_once_the_faults_are_over() {
    for seed in 0..4 {
        let mut run = Perfect::new(seed);
        run.run(0, 3_000);
        assert!(run.workload.settled().is_err());
        run.event(3_000_000, Host::World, What::Phase(Phase::Liveness));
        run.run(3_000, 6_000);
        assert_eq!(run.workload.settled(), Ok(()));
    }
}

#[test]
fn a_send_that_timed_out_is_tried_again_under_its_key() {
    let mut workload = Workload::new(3);
    let client = Client(0);
    let mut history = History::default();
    let mut show = |workload: &mut Workload, at_us, what| {
        history.push(at_us, Host::Client(client), what);
        workload.observe(history.events().last().expect("just pushed"));
    };
    let mut now_us = 0;
    let (op, ask) = loop {
        match workload.next(client, now_us) {
            Step::Ask(op, ask @ Ask::Send { .. }) => break (op, ask),
            Step::Ask(op, ask) => {
                show(&mut workload, now_us, What::Asked(op, ask));
                let answer = Answer::Refused {
                    code: 300,
                    unknown: false,
                };
                show(&mut workload, now_us, What::Answered(op, answer));
            }
            _ => now_us += 1_000,
        }
    };
    show(&mut workload, now_us, What::Asked(op, ask));
    let answer = Answer::Refused {
        code: 0,
        unknown: true,
    };
    show(&mut workload, now_us, What::Answered(op, answer));
    let again = (0..1_000).any(|_| {
        now_us += 1_000;
        matches!(workload.next(client, now_us), Step::Ask(other, same) if same == ask && other != op)
    });
    assert!(again);
}

#[test]
fn a_body_is_found_by_its_hash() {
    let key = ClientMessageId(16);
    for variant in [0, 1] {
        let said = body(key, variant);
        assert_eq!(body_of(key, BodyHash::of(&said)), Some(said));
    }
    assert_eq!(body_of(key, BodyHash(1)), None);
}
