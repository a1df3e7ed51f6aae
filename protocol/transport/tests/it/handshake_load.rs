//! Floods of handshakes, and honest clients that are served all the same.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use throng_protocol::rate::Rate;
use throng_transport::{ClientEndpoint, ConnectError, Limits, LinkClosed, NetworkLimits};
use tokio::time::timeout;

use crate::hostile::{FIRST_PACKET_BYTES, Raw, Relay, first_packets, is_retry};
use crate::support::{PATIENCE, Server};

/// No attempt of an attacker ends by itself while a test runs.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// What passes to a client whose handshake never ends: Retries and refusals, and no part of a
/// handshake, which a server pads.
fn stalls(packet: &[u8]) -> bool {
    packet.len() < FIRST_PACKET_BYTES / 2
}

#[tokio::test]
async fn a_flood_from_many_networks_leaves_little_open_and_honest_clients_get_through() {
    let limits = Limits {
        retry_above: 8,
        ..Limits::default()
    };
    let server = Server::start(limits, HANDSHAKE);
    let packets = first_packets(&server.trust, 100).await;
    let mut attackers = Vec::new();
    for (network, packets) in packets.chunks(5).enumerate() {
        let mut attacker = Raw::at([127, 0, 100 + network as u8, 1], server.addr).await;
        for packet in packets {
            attacker.send(packet).await;
        }
        attackers.push(attacker);
    }
    for _ in 0..5 {
        server.serves_an_honest_client().await;
    }
    let counts = server.endpoint.handshakes();
    assert_eq!((counts.open, counts.refused), (8, 0), "{counts:?}");
    assert!(counts.retried >= 92, "{counts:?}");
    // The five honest ones may not be quite gone yet.
    assert!(server.endpoint.open_connections() <= 8 + 5);
}

#[tokio::test]
async fn forged_addresses_of_a_network_do_not_lock_its_clients_out() {
    let limits = Limits {
        network: NetworkLimits {
            retry_above: 4,
            handshakes_max: 6,
            rate: Rate {
                per_second: 1,
                burst: 50,
            },
        },
        ..Limits::default()
    };
    let server = Server::start(limits, HANDSHAKE);
    // In the network of the honest clients: 127.0.0.0/24.
    let mut attacker = Raw::at([127, 0, 0, 66], server.addr).await;
    for packet in first_packets(&server.trust, 100).await {
        attacker.send(&packet).await;
    }
    for _ in 0..5 {
        server.serves_an_honest_client().await;
    }
    let counts = server.endpoint.handshakes();
    assert_eq!(
        (counts.open, counts.refused_network, counts.ignored_network),
        (4, 0, 0)
    );
}

#[tokio::test]
async fn a_network_that_proves_its_addresses_holds_a_bounded_number_of_handshakes() {
    let limits = Limits {
        network: NetworkLimits {
            retry_above: 1,
            handshakes_max: 4,
            ..NetworkLimits::default()
        },
        ..Limits::default()
    };
    let server = Server::start(limits, HANDSHAKE);
    let (mut relays, clients) = (
        tokio::task::JoinSet::new(),
        ClientEndpoint::new(&server.trust).unwrap(),
    );
    let mut attempts = FuturesUnordered::new();
    for host in 1..=10 {
        let relay = Relay::at([127, 0, 66, host], server.addr).await;
        attempts.push(clients.connect(relay.addr, "localhost"));
        relays.spawn(relay.run(stalls));
    }
    for _ in 0..6 {
        let refused = timeout(PATIENCE, attempts.next()).await.unwrap().unwrap();
        let Err(ConnectError::Closed { reason, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(reason, LinkClosed::Refused);
    }
    server.serves_an_honest_client().await;
    let counts = server.endpoint.handshakes();
    assert_eq!((counts.open, counts.refused_network), (4, 6), "{counts:?}");
}

#[tokio::test]
async fn a_network_that_connects_and_leaves_for_ever_is_refused_above_its_rate() {
    let rate = Rate {
        per_second: 2,
        burst: 5,
    };
    let limits = Limits {
        network: NetworkLimits {
            rate,
            ..NetworkLimits::default()
        },
        ..Limits::default()
    };
    let server = Server::start(limits, HANDSHAKE);
    let client = ClientEndpoint::new(&server.trust).unwrap();
    let (begun, mut taken, mut refused) = (Instant::now(), 0u64, 0);
    let mut relays = tokio::task::JoinSet::new();
    while refused < 3 {
        let relay = Relay::at([127, 0, 66, 1], server.addr).await;
        let addr = relay.addr;
        relays.spawn(relay.run(|_| true));
        match client.connect(addr, "localhost").await {
            Ok(link) => {
                taken += 1;
                link.close(0, "");
            }
            Err(ConnectError::Closed { reason, .. }) => {
                assert_eq!(reason, LinkClosed::Refused);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    // Counted apart with a proof of the address and without.
    let at_most = 2 * (u64::from(rate.burst) + begun.elapsed().as_secs() * u64::from(rate.per_second) + 1);
    assert!(taken <= at_most, "{taken} taken, {at_most} allowed");
    server.serves_an_honest_client().await;
}

#[tokio::test]
async fn a_retry_keeps_nothing_and_its_answer_is_not_asked_again() {
    let limits = Limits {
        retry_above: 0,
        ..Limits::default()
    };
    let server = Server::start(limits, HANDSHAKE);
    let mut attacker = Raw::at([127, 0, 66, 1], server.addr).await;
    for packet in first_packets(&server.trust, 20).await {
        attacker.send(&packet).await;
        assert!(is_retry(&attacker.receive().await));
    }
    let counts = server.endpoint.handshakes();
    assert_eq!(
        (counts.open, counts.begun, counts.retried, counts.networks),
        (0, 0, 20, 0)
    );
    assert_eq!(server.endpoint.open_connections(), 0);
    server.serves_an_honest_client().await;
    let counts = server.endpoint.handshakes();
    assert_eq!((counts.begun, counts.retried), (1, 21));
}

#[tokio::test]
async fn a_retry_is_good_after_the_certificate_was_renewed() {
    let limits = Limits {
        retry_above: 0,
        ..Limits::default()
    };
    let server = Server::start(limits, HANDSHAKE);
    let relay = Relay::at([127, 0, 66, 1], server.addr).await;
    let addr = relay.addr;
    let (endpoint, tls) = (server.endpoint.clone(), server.tls.clone());
    let relaying = tokio::spawn(relay.run(move |packet| {
        if is_retry(packet) {
            endpoint.renew(&tls);
        }
        true
    }));
    let client = ClientEndpoint::new(&server.trust).unwrap();
    client.connect(addr, "localhost").await.unwrap();
    assert_eq!(server.endpoint.handshakes().retried, 1);
    relaying.abort();
}

#[tokio::test]
async fn a_handshake_that_stalls_is_given_up_in_time() {
    let server = Server::start(Limits::default(), Duration::from_secs(1));
    let relay = Relay::at([127, 0, 66, 1], server.addr).await;
    let client = ClientEndpoint::new(&server.trust).unwrap();
    let addr = relay.addr;
    let relaying = tokio::spawn(relay.run(stalls));
    let stalled = tokio::spawn(async move { client.connect(addr, "localhost").await });
    let error = server.failed().await;
    assert!(
        matches!(error, throng_transport::HandshakeError::Timeout(_)),
        "{error}"
    );
    server.serves_an_honest_client().await;
    assert_eq!(server.endpoint.handshakes().open, 0);
    stalled.abort();
    relaying.abort();
}
