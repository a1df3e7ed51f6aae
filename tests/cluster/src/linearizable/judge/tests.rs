//! A round with everything a round must have, and what becomes of it when one thing is changed.

use super::*;
use crate::linearizable::recording::{Head, Led};

const CREATOR: UserIndex = 0;
const ANN: UserIndex = 1;
const BOB: UserIndex = 2;

fn stored(seq: u64) -> Stored {
    Stored {
        seq,
        user: Some(CREATOR),
        key: seq,
        body: seq * 7,
    }
}

fn asked(user: UserIndex, from_us: u64, to_us: u64, ask: Ask, answer: Answer) -> Asked {
    Asked {
        user,
        edge: 0,
        from_us,
        to_us: Some(to_us),
        ask,
        answer,
    }
}

fn send(user: UserIndex, from_us: u64, to_us: u64, key: u64, answer: Answer) -> Asked {
    let ask = Ask::Send {
        channel: 0,
        key,
        body: key * 7,
    };
    asked(user, from_us, to_us, ask, answer)
}

fn read(user: UserIndex, from_us: u64, to_us: u64, head: u64) -> Asked {
    let shown = (1..=head).map(stored).collect();
    asked(
        user,
        from_us,
        to_us,
        Ask::Read {
            channel: 0,
            behind: None,
        },
        Answer::Page { head, shown },
    )
}

/// When the kick of Ann is answered, and the last of her answers before.
const KICKED_US: u64 = 100_100;

/// Ann and Bob join; message after message is sent, and the log read behind each; a leader is killed
/// while one is sent, and Ann is kicked while she reads.
fn recording() -> Recording {
    let join = |user| {
        asked(
            user,
            10 * user as u64,
            10 * user as u64 + 5,
            Ask::Join,
            Answer::Done,
        )
    };
    let mut all = vec![join(ANN), join(BOB)];
    let messages = SENDS_MIN.max(READS_MIN) as u64;
    for seq in 1..=messages {
        all.push(send(
            CREATOR,
            seq * 1_000,
            seq * 1_000 + 400,
            seq,
            Answer::Sent { seq },
        ));
        all.push(read(ANN, seq * 1_000 + 500, seq * 1_000 + 900, seq));
    }
    let kicked = Answer::Kicked {
        pending: Vec::new(),
        more: 0,
    };
    all.push(read(ANN, 100_000, 100_050, messages));
    all.push(asked(
        CREATOR,
        100_010,
        KICKED_US,
        Ask::Kick { user: ANN },
        kicked,
    ));
    all.push(send(ANN, 101_000, 101_100, 1, Answer::NotMember));
    all.push(read(BOB, 102_000, 102_100, messages));
    Recording {
        head: Head {
            seed: 3,
            users: 3,
            channels: vec!["c".to_owned()],
            stopped: None,
        },
        asked: all,
        kills: vec![Kill {
            node: 2,
            at_us: 7_100,
            gone_us: 7_200,
            led: vec![Led {
                channel: 0,
                term: 3,
                term_after: 4,
            }],
        }],
        faults: Vec::new(),
        logs: vec![(1..=messages).map(stored).collect()],
    }
}

fn last(recording: &mut Recording) -> &mut Asked {
    recording.asked.last_mut().expect("the last read")
}

fn judged(change: impl FnOnce(&mut Recording)) -> Judgement {
    let mut recording = recording();
    change(&mut recording);
    judge(&recording)
}

fn is_violated(change: impl FnOnce(&mut Recording)) -> bool {
    matches!(judged(change), Judgement::Violated(_))
}

fn is_faultless(change: impl FnOnce(&mut Recording)) -> bool {
    matches!(judged(change), Judgement::Faultless(_))
}

#[test]
fn a_round_with_an_order_and_its_faults_is_linearizable() {
    assert_eq!(judged(|_| {}), Judgement::Linearizable);
    let expected = Faults {
        kills: 1,
        kills_in_flight: 1,
        operations_in_flight: 1,
        kicks: 1,
        kicks_in_flight: 1,
    };
    assert_eq!(faults(&recording()), expected);
}

#[test]
fn a_read_that_misses_an_acked_message_has_no_order() {
    assert!(is_violated(|recording| {
        let Answer::Page { head, shown } = &mut last(recording).answer else {
            panic!("a page")
        };
        *head -= 1;
        shown.pop();
    }));
}

#[test]
fn a_page_with_a_hole_is_a_violation() {
    assert!(is_violated(|recording| {
        let Answer::Page { shown, .. } = &mut last(recording).answer else {
            panic!("a page")
        };
        shown.remove(4);
    }));
}

#[test]
fn a_send_acked_behind_a_kick_has_no_order_unless_the_channel_did_not_know() {
    let acked = |recording: &mut Recording| {
        let log = &mut recording.logs[0];
        let seq = log.len() as u64 + 1;
        log.push(Stored {
            user: Some(ANN),
            ..stored(seq)
        });
        recording.asked.pop();
        *last(recording) = send(ANN, 101_000, 101_100, seq, Answer::Sent { seq });
    };
    assert!(is_violated(acked));
    let pending = |recording: &mut Recording| {
        let kick = recording
            .asked
            .iter_mut()
            .find(|asked| asked.ask.name() == "kick");
        kick.expect("a kick").answer = Answer::Kicked {
            pending: vec!["c".to_owned()],
            more: 0,
        };
        acked(recording);
    };
    assert_eq!(judged(pending), Judgement::Linearizable);
}

#[test]
fn a_lost_message_and_one_of_nobody_have_no_order() {
    assert!(is_violated(|recording| recording.logs[0].truncate(39)));
    assert!(is_violated(|recording| recording.logs[0][4].user = None));
    assert!(is_violated(|recording| recording.logs[0][4].body += 1));
    assert!(is_violated(|recording| recording.logs[0][4].seq += 1));
}

#[test]
fn a_member_who_is_refused_has_no_order() {
    assert!(is_violated(|recording| last(recording).answer = Answer::NotMember));
}

#[test]
fn a_member_who_could_not_be_kicked_has_no_order() {
    let kick = |recording: &mut Recording, user| {
        *last(recording) = asked(CREATOR, 102_000, 102_100, Ask::Kick { user }, Answer::NotMember);
    };
    assert!(is_violated(|recording| kick(recording, BOB)));
    assert_eq!(judged(|recording| kick(recording, ANN)), Judgement::Linearizable);
}

#[test]
fn a_final_refusal_that_nothing_asks_for_is_a_violation() {
    assert!(is_violated(|recording| {
        last(recording).answer = Answer::Refused { code: 301 };
    }));
}

#[test]
fn a_page_begins_behind_its_anchor_and_the_newest_one_ends_with_the_log() {
    let of = |behind, from: u64, to: u64| {
        judged(move |recording| {
            let read = last(recording);
            read.ask = Ask::Read { channel: 0, behind };
            let Answer::Page { shown, .. } = &mut read.answer else {
                panic!("a page")
            };
            *shown = (from..=to).map(stored).collect();
        })
    };
    let end = SENDS_MIN.max(READS_MIN) as u64;
    for (behind, from, to) in [
        (None, 30, end),
        (Some(20), 21, 30),
        (Some(end), 1, 0),
        (Some(0), 1, end),
    ] {
        assert_eq!(of(behind, from, to), Judgement::Linearizable, "{behind:?} {from}");
    }
    for (behind, from, to) in [
        (None, 30, end - 1),
        (None, 1, 0),
        (Some(20), 22, 30),
        (Some(20), 1, 0),
    ] {
        assert!(
            matches!(of(behind, from, to), Judgement::Violated(_)),
            "{behind:?} {from}"
        );
    }
}

#[test]
fn what_took_long_may_be_carried_out_once_more() {
    // Ann's join took so long that another attempt may come behind the kick.
    let rejoined = |took_us: u64| {
        move |recording: &mut Recording| {
            for asked in &mut recording.asked {
                let is_join = asked.user == ANN && asked.ask == Ask::Join;
                (asked.from_us, asked.to_us) = if is_join {
                    (0, Some(took_us))
                } else {
                    (asked.from_us + took_us, asked.to_us.map(|to_us| to_us + took_us))
                };
            }
            for kill in &mut recording.kills {
                (kill.at_us, kill.gone_us) = (kill.at_us + took_us, kill.gone_us + took_us);
            }
            let messages = recording.logs[0].len() as u64;
            let from_us = last(recording).from_us;
            recording.asked.push(read(ANN, from_us, from_us + 100, messages));
        }
    };
    assert!(is_violated(rejoined(RETRIED_US - 1)));
    assert_eq!(judged(rejoined(RETRIED_US)), Judgement::Linearizable);
}

#[test]
fn a_round_without_its_faults_has_failed() {
    assert!(is_faultless(|recording| recording.kills.clear()));
    assert!(is_faultless(|recording| recording.kills[0].led.clear()));
    // No other node has taken over.
    assert!(is_faultless(|recording| recording.kills[0].led[0].term_after = 3));
    // Between two operations, and while one is answered.
    assert!(is_faultless(|recording| {
        (recording.kills[0].at_us, recording.kills[0].gone_us) = (7_420, 7_480);
    }));
    assert!(is_faultless(|recording| recording.kills[0].gone_us = 7_450));
    assert!(is_faultless(|recording| recording.kills[0].led[0].channel = 1));
    assert!(is_faultless(|recording| {
        recording
            .asked
            .retain(|asked| !overlaps(asked, 100_000, KICKED_US) || asked.ask.name() == "kick");
    }));
    assert!(is_faultless(|recording| {
        recording.head.stopped = Some("a node does not start".to_owned());
    }));
}

#[test]
fn a_round_with_too_few_operations_has_failed() {
    assert!(is_faultless(|recording| {
        recording
            .asked
            .retain(|asked| asked.ask.name() != "read" || asked.from_us > 90_000);
        recording.asked.push(read(ANN, 99_000, 100_020, SENDS_MIN as u64));
    }));
    assert!(is_faultless(|recording| {
        recording.asked[0].answer = Answer::Unknown {
            text: "it".to_owned(),
        };
    }));
}

#[test]
fn a_search_without_an_end_is_no_pass() {
    let judged = judge_within(&recording(), 5);
    assert!(matches!(judged, Judgement::Unknown(_)), "{judged:?}");
}

#[test]
fn a_file_is_judged_as_the_round_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("history.jsonl");
    recording().write(&file).expect("written");
    assert_eq!(Recording::read(&file).expect("read"), recording());
    let report = crate::linearizable::judge(&file).expect("judged");
    assert!(report.holds(1), "{report:?}");
    let mut broken = recording();
    last(&mut broken).answer = Answer::NotMember;
    broken.write(&file).expect("written");
    let report = crate::linearizable::judge(&file).expect("judged");
    assert!(!report.holds(1) && report.violated == 1, "{report:?}");
    std::fs::write(&file, b"{}\n").expect("written");
    assert!(crate::linearizable::judge(&file).is_err());
}
