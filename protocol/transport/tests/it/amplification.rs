//! What a server sends to an address nobody has proved: below three times what came from it.

use std::time::{Duration, Instant};

use throng_transport::settings::RESET_INTERVAL;
use throng_transport::{AMPLIFICATION_MAX, Limits, NetworkLimits};

use crate::hostile::{
    FIRST_PACKET_BYTES, Raw, first_packets, is_retry, is_version_negotiation, unknown_version,
};
use crate::support::Server;

/// Long enough that what was lost is sent again, twice.
const HANDSHAKE: Duration = Duration::from_secs(4);

/// A short header with a connection id that no connection has.
fn stray(bytes: usize, id: u8) -> Vec<u8> {
    let mut packet = vec![id; bytes];
    if let Some(first) = packet.first_mut() {
        *first = 0x40;
    }
    packet
}

#[tokio::test]
async fn a_client_that_never_answers_is_sent_less_than_three_times_what_it_sent() {
    let server = Server::start(Limits::default(), HANDSHAKE);
    let packets = first_packets(&server.trust, 6).await;
    let [plain, twice, coalesced, junk, short, tiny] = &packets[..] else {
        unreachable!()
    };
    let sends: Vec<Vec<Vec<u8>>> = vec![
        vec![plain.clone()],
        vec![twice.clone(), twice.clone(), twice.clone()],
        // Two first packets in one datagram, and one with bytes behind it that are no packet.
        vec![[&coalesced[..], &coalesced[..]].concat()],
        vec![[&junk[..], &[0xff; 300]].concat()],
        vec![short[..FIRST_PACKET_BYTES - 1].to_vec()],
        vec![tiny[..40].to_vec(), plain[..21].to_vec(), vec![0xc0]],
    ];
    let mut attackers = Vec::new();
    for packets in &sends {
        let mut attacker = Raw::at([127, 0, 66, 1], server.addr).await;
        for packet in packets {
            attacker.send(packet).await;
        }
        attackers.push(attacker);
    }
    server.serves_an_honest_client().await;
    // All attempts are given up: nothing more comes.
    server.idle().await;
    for attacker in &mut attackers {
        attacker.drain();
    }
    let measured: Vec<f64> = attackers.iter().map(Raw::amplification).collect();
    println!("bytes sent for each byte received: {measured:.2?}");
    assert!(
        measured.iter().all(|ratio| *ratio < AMPLIFICATION_MAX as f64),
        "{measured:?}"
    );
    assert!(
        measured[..4].iter().all(|ratio| *ratio > 0.5),
        "not answered at all: {measured:?}"
    );
    assert_eq!(measured[4..], [0.0; 2], "short first packets are not answered");
}

#[tokio::test]
async fn answers_that_keep_nothing_are_smaller_than_what_they_answer() {
    let prove = Limits {
        retry_above: 0,
        ..Limits::default()
    };
    let refuse = Limits {
        handshakes_max: 0,
        ..Limits::default()
    };
    for (limits, is_a_retry) in [(prove, true), (refuse, false)] {
        let server = Server::start(limits, HANDSHAKE);
        let mut attacker = Raw::at([127, 0, 66, 1], server.addr).await;
        for packet in first_packets(&server.trust, 3).await {
            attacker.send(&packet).await;
            let answer = attacker.receive().await;
            assert_eq!(is_retry(&answer), is_a_retry);
            assert!(
                answer.len() * 4 < packet.len(),
                "{} for {}",
                answer.len(),
                packet.len()
            );
        }
        println!(
            "answer without a connection: {:?} bytes for {FIRST_PACKET_BYTES}",
            attacker.answers
        );
        assert_eq!(server.endpoint.open_connections(), 0);
    }
}

#[tokio::test]
async fn versions_are_told_to_whole_packets_alone_and_in_fewer_bytes() {
    let server = Server::start(Limits::default(), HANDSHAKE);
    let mut attacker = Raw::at([127, 0, 66, 1], server.addr).await;
    for bytes in [7, 40, FIRST_PACKET_BYTES - 1] {
        attacker.send(&unknown_version(bytes)).await;
    }
    assert!(attacker.settle().await.is_empty(), "a short packet was answered");
    attacker.send(&unknown_version(FIRST_PACKET_BYTES)).await;
    let answer = attacker.receive().await;
    assert!(is_version_negotiation(&answer));
    assert!(answer.len() < 100, "{} bytes", answer.len());
    server.serves_an_honest_client().await;
}

#[tokio::test]
async fn a_reset_is_smaller_than_the_packet_it_answers() {
    let server = Server::start(Limits::default(), HANDSHAKE);
    let mut attacker = Raw::at([127, 0, 66, 1], server.addr).await;
    let mut answered = 0;
    for bytes in (1..FIRST_PACKET_BYTES).step_by(37) {
        attacker.send(&stray(bytes, bytes as u8)).await;
        for reset in attacker.settle().await {
            assert!(reset.len() < bytes, "{} bytes for {bytes}", reset.len());
            answered += 1;
        }
        // Above the interval between two resets, or most would not be answered.
        let next = tokio::time::Instant::now() + RESET_INTERVAL;
        tokio::time::timeout_at(next, std::future::pending::<()>())
            .await
            .unwrap_err();
    }
    assert!(
        answered > 20,
        "clients of an earlier process are not told: {answered}"
    );
    server.serves_an_honest_client().await;
}

#[tokio::test]
async fn resets_are_limited_in_rate() {
    let server = Server::start(Limits::default(), HANDSHAKE);
    let mut attacker = Raw::at([127, 0, 66, 1], server.addr).await;
    let begun = Instant::now();
    let mut resets = 0;
    for round in 0..30 {
        for id in 0..100 {
            attacker.send(&stray(60, id ^ round)).await;
        }
        resets += attacker.settle().await.len();
    }
    let at_most = begun.elapsed().as_nanos() / RESET_INTERVAL.as_nanos() + 1;
    println!("{resets} resets for 3000 packets in {:?}", begun.elapsed());
    assert!(resets as u128 <= at_most, "{resets} resets, {at_most} allowed");
    assert!(resets > 0);
    server.serves_an_honest_client().await;
}

#[tokio::test]
async fn a_flood_from_one_network_reflects_next_to_nothing() {
    let limits = Limits {
        network: NetworkLimits {
            retry_above: 4,
            ..NetworkLimits::default()
        },
        ..Limits::default()
    };
    let server = Server::start(limits, HANDSHAKE);
    let mut attacker = Raw::at([127, 0, 66, 1], server.addr).await;
    for packet in first_packets(&server.trust, 60).await {
        attacker.send(&packet).await;
    }
    server.serves_an_honest_client().await;
    server.idle().await;
    attacker.drain();
    let counts = server.endpoint.handshakes();
    println!(
        "amplification of a flood: {:.2}, {counts:?}",
        attacker.amplification()
    );
    assert!(attacker.amplification() < 1.0, "{}", attacker.amplification());
    assert!(counts.retried >= 50, "{counts:?}");
}
