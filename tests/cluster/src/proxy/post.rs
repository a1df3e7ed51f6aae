//! Packets under way: delivered when their time has come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Packets under way at most; a network that is fuller loses what comes.
const LETTERS_MAX: usize = 16_384;

/// A packet under way.
#[derive(Debug)]
pub struct Letter {
    at: Instant,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    packet: Vec<u8>,
}

impl Letter {
    /// A packet that is sent from a socket to an address after a while.
    pub fn new(after: Duration, socket: &Arc<UdpSocket>, to: SocketAddr, packet: &[u8]) -> Self {
        Self {
            at: Instant::now() + after,
            socket: Arc::clone(socket),
            to,
            packet: packet.to_vec(),
        }
    }
}

/// Takes packets to deliver them later.
#[derive(Debug)]
pub struct Post(mpsc::Sender<Letter>);

impl Post {
    /// A post, and its work.
    pub fn open() -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, letters) = mpsc::channel(LETTERS_MAX);
        (Self(sender), deliver(letters))
    }

    /// Takes a packet; it is lost if too many are under way.
    pub fn take(&self, letter: Letter) {
        drop(self.0.try_send(letter));
    }
}

async fn deliver(mut letters: mpsc::Receiver<Letter>) {
    // By time, then in the order they came.
    let mut waiting: BinaryHeap<Reverse<(Instant, u64, ByOrder)>> = BinaryHeap::new();
    let mut taken = 0;
    loop {
        let next = match waiting.peek() {
            Some(Reverse((at, ..))) => timeout_at(*at, letters.recv()).await.ok(),
            None => Some(letters.recv().await),
        };
        match next {
            Some(Some(letter)) if waiting.len() < LETTERS_MAX => {
                taken += 1;
                waiting.push(Reverse((letter.at, taken, ByOrder(letter))));
            }
            Some(Some(_)) => {}
            Some(None) => return,
            None => {}
        }
        while waiting
            .peek()
            .is_some_and(|Reverse((at, ..))| *at <= Instant::now())
        {
            if let Some(Reverse((.., ByOrder(letter)))) = waiting.pop() {
                // A full socket loses packets, as networks do.
                let _ = letter.socket.try_send_to(&letter.packet, letter.to);
            }
        }
    }
}

/// A letter that has no say in the order of letters.
#[derive(Debug)]
struct ByOrder(Letter);

impl PartialEq for ByOrder {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ByOrder {}

impl PartialOrd for ByOrder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByOrder {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}
