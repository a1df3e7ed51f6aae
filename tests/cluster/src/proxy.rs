//! The network between the processes under test: UDP in user space, one seed for all losses.
//!
//! Every core node advertises the address of a *front* instead of its own. A front takes the packets
//! for its node, tells by the address they come from who sent them (core nodes send from where they
//! listen; an edge is known by the front of its own that it uses first), and hands them on from a
//! socket that it holds for that sender alone, over which the node's answers come back. So each
//! direction between two parties has a weather of its own, and needs no privileges of the machine.
//!
//! The proxy refuses to look into packets, and to fault those of parties it does not know.

mod link;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use self::link::{Fate, Link, Weather};

mod post;

use self::post::{Letter, Post};

/// The largest datagram.
const PACKET_BYTES_MAX: usize = 65_536;

/// Senders a front serves at once. Processes are few, but every restarted edge has a new address.
const SENDERS_MAX: usize = 512;

/// Packets taken from a socket before others get their turn.
const BURST: usize = 64;

/// Bytes the kernel holds for a socket of the proxy: as much as the nodes' own ask for, so that it
/// is not here that bursts are lost.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A core node, by number from 1.
    Core(usize),
    /// An edge, by number from 1.
    Edge(usize),
}

/// The network. Its sockets close when it is dropped.
#[derive(Debug)]
pub struct Net {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    links: Mutex<BTreeMap<(Party, Party), Link>>,
    parties: Mutex<HashMap<SocketAddr, Party>>,
    post: Post,
    passed: AtomicU64,
    lost: AtomicU64,
}

/// Where a front hands its packets to.
#[derive(Debug, Clone, Copy)]
struct Behind {
    party: Party,
    address: SocketAddr,
}

impl Net {
    /// A calm network. Must be called inside a tokio runtime.
    pub fn new(seed: u64) -> Self {
        let mut tasks = JoinSet::new();
        let (post, delivering) = Post::open();
        tasks.spawn(delivering);
        Self {
            shared: Arc::new(Shared {
                seed,
                links: Mutex::default(),
                parties: Mutex::default(),
                post,
                passed: AtomicU64::new(0),
                lost: AtomicU64::new(0),
            }),
            tasks,
        }
    }

    /// Says whose an address is.
    pub fn know(&self, address: SocketAddr, party: Party) {
        self.shared.parties.lock().insert(address, party);
    }

    /// Opens a front of a party. Whoever uses a front `of` somebody is known as that from then on.
    pub async fn front(
        &mut self,
        listen: SocketAddr,
        party: Party,
        address: SocketAddr,
        of: Option<Party>,
    ) -> Result<()> {
        let socket = Arc::new(bind(listen).await?);
        let behind = Behind { party, address };
        self.tasks
            .spawn(serve(Arc::clone(&self.shared), socket, behind, of));
        Ok(())
    }

    /// Sets the weather of one direction.
    pub fn set(&self, from: Party, to: Party, weather: Weather) {
        self.shared.link(from, to, |link| link.weather = weather);
    }

    /// Calm weather everywhere.
    pub fn calm(&self) {
        for link in self.shared.links.lock().values_mut() {
            link.weather = Weather::default();
        }
    }

    /// Packets that passed and packets that were lost on purpose.
    pub fn counted(&self) -> (u64, u64) {
        let Shared { passed, lost, .. } = &*self.shared;
        (passed.load(Ordering::Relaxed), lost.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn link<T>(&self, from: Party, to: Party, with: impl FnOnce(&mut Link) -> T) -> T {
        let mut links = self.links.lock();
        let seed = self.seed;
        let link = links
            .entry((from, to))
            .or_insert_with(|| Link::new(seed ^ number(from) << 32 ^ number(to)));
        with(link)
    }

    /// Sends a packet as far as its link lets it; a party that is not known has no link.
    fn pass(
        &self,
        from: Option<Party>,
        to: Option<Party>,
        socket: &Arc<UdpSocket>,
        at: SocketAddr,
        packet: &[u8],
    ) {
        let fate = match (from, to) {
            (Some(from), Some(to)) => self.link(from, to, Link::judge),
            _ => Fate::Arrives(Duration::ZERO),
        };
        let counter = if fate == Fate::Lost {
            &self.lost
        } else {
            &self.passed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let later = |after| Letter::new(after, socket, at, packet);
        match fate {
            Fate::Lost => {}
            // A full socket loses packets, as networks do.
            Fate::Arrives(Duration::ZERO) => drop(socket.try_send_to(packet, at)),
            Fate::Arrives(after) => self.post.take(later(after)),
            Fate::Twice(one, two) => {
                self.post.take(later(one));
                self.post.take(later(two));
            }
        }
    }
}

fn number(party: Party) -> u64 {
    match party {
        Party::Core(id) => id as u64,
        Party::Edge(id) => 1 << 16 | id as u64,
    }
}

/// One sender at a front: the socket its packets are handed on from, and the end of the task that
/// takes the answers.
struct Sender {
    back: Arc<UdpSocket>,
    _answers: mpsc::Sender<()>,
}

async fn serve(shared: Arc<Shared>, front: Arc<UdpSocket>, behind: Behind, of: Option<Party>) {
    let mut senders: HashMap<SocketAddr, Sender> = HashMap::new();
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        if front.readable().await.is_err() {
            return;
        }
        for _ in 0..BURST {
            // An error is of one packet (nobody listens where one was sent to); the next may be whole.
            let Ok((bytes, from)) = front.try_recv_from(&mut buffer) else {
                break;
            };
            if let Some(party) = of {
                shared.parties.lock().insert(from, party);
            }
            if !senders.contains_key(&from) {
                if senders.len() >= SENDERS_MAX {
                    senders.clear();
                }
                let Ok(sender) = open(&shared, &front, behind, from).await else {
                    continue;
                };
                senders.insert(from, sender);
            }
            let party = shared.parties.lock().get(&from).copied();
            let back = &senders[&from].back;
            shared.pass(party, Some(behind.party), back, behind.address, &buffer[..bytes]);
        }
    }
}

/// Opens the way of a new sender; its answers are taken until the front forgets it.
async fn open(
    shared: &Arc<Shared>,
    front: &Arc<UdpSocket>,
    behind: Behind,
    from: SocketAddr,
) -> Result<Sender> {
    let back = Arc::new(bind(SocketAddr::new(front.local_addr()?.ip(), 0)).await?);
    let (answers, mut forgotten) = mpsc::channel::<()>(1);
    let (shared, front, answering) = (Arc::clone(shared), Arc::clone(front), Arc::clone(&back));
    tokio::spawn(async move {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            tokio::select! {
                readable = answering.readable() => if readable.is_err() { return },
                // Closed when the front forgets the sender, or ends.
                _ = forgotten.recv() => return,
            }
            for _ in 0..BURST {
                let Ok((bytes, _)) = answering.try_recv_from(&mut buffer) else {
                    break;
                };
                let party = shared.parties.lock().get(&from).copied();
                shared.pass(Some(behind.party), party, &front, from, &buffer[..bytes]);
            }
        }
    });
    Ok(Sender {
        back,
        _answers: answers,
    })
}

async fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address)
        .await
        .with_context(|| format!("binding UDP {address}"))?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER).context("sizing a buffer")?;
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER).context("sizing a buffer")?;
    // A socket counts as full until the runtime has heard of it once.
    socket.writable().await.context("waiting for a socket")?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a packet on loopback may take on a busy machine.
    const SOON: Duration = Duration::from_secs(10);

    struct Pair {
        net: Net,
        node: UdpSocket,
        peer: UdpSocket,
        front: SocketAddr,
    }

    /// Core node 1 behind a front, and core node 2 that talks to it.
    async fn pair() -> Pair {
        let any = "127.0.0.1:0".parse().expect("an address");
        let (node, peer) = (bind(any).await.expect("bound"), bind(any).await.expect("bound"));
        let front = crate::nodes::free_ports(1).expect("a port")[0];
        let mut net = Net::new(7);
        net.know(peer.local_addr().expect("bound"), Party::Core(2));
        let address = node.local_addr().expect("bound");
        net.front(front, Party::Core(1), address, None)
            .await
            .expect("open");
        Pair {
            net,
            node,
            peer,
            front,
        }
    }

    /// Waits until so many packets have been judged lost.
    async fn lost(net: &Net, packets: u64) {
        let counted = async {
            while net.counted().1 < packets {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, counted).await.expect("judged in time");
    }

    async fn next(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 64];
        let received = tokio::time::timeout(SOON, socket.recv_from(&mut buffer)).await;
        let (bytes, from) = received.expect("in time").expect("received");
        (buffer[..bytes].to_vec(), from)
    }

    #[tokio::test]
    async fn packets_and_answers_pass_and_a_cut_stops_one_direction_only() {
        let Pair {
            net,
            node,
            peer,
            front,
        } = pair().await;
        peer.send_to(b"one", front).await.expect("sent");
        let (packet, back) = next(&node).await;
        assert_eq!(packet, b"one");
        assert_ne!(
            back,
            peer.local_addr().expect("bound"),
            "the node sees the proxy alone"
        );

        net.set(Party::Core(2), Party::Core(1), Weather::CUT);
        peer.send_to(b"cut", front).await.expect("sent");
        node.send_to(b"answer", back).await.expect("sent");
        assert_eq!(next(&peer).await.0, b"answer", "the other direction is open");
        // Losses are counted when the packet has been judged, before any that is sent later.
        peer.send_to(b"cut again", front).await.expect("sent");
        lost(&net, 2).await;

        net.set(Party::Core(1), Party::Core(2), Weather::CUT);
        net.set(Party::Core(2), Party::Core(1), Weather::default());
        peer.send_to(b"open", front).await.expect("sent");
        assert_eq!(
            next(&node).await,
            (b"open".to_vec(), back),
            "what was cut does not come later"
        );
        node.send_to(b"never", back).await.expect("sent");
        lost(&net, 3).await;
        net.calm();
        node.send_to(b"calm", back).await.expect("sent");
        assert_eq!(next(&peer).await.0, b"calm");
    }

    #[tokio::test]
    async fn a_delayed_packet_comes_late_and_a_doubled_one_twice() {
        let Pair {
            net,
            node,
            peer,
            front,
        } = pair().await;
        let weather = Weather {
            twice: 1_000,
            delay: Duration::from_millis(100),
            ..Weather::default()
        };
        net.set(Party::Core(2), Party::Core(1), weather);
        let began = std::time::Instant::now();
        peer.send_to(b"late", front).await.expect("sent");
        assert_eq!(next(&node).await.0, b"late");
        assert!(began.elapsed() >= weather.delay, "{:?}", began.elapsed());
        assert_eq!(next(&node).await.0, b"late");
    }

    #[tokio::test]
    async fn a_stranger_is_not_faulted_and_a_front_of_an_edge_makes_it_known() {
        let Pair {
            mut net, node, front, ..
        } = pair().await;
        net.set(Party::Edge(1), Party::Core(1), Weather::CUT);
        let any = "127.0.0.1:0".parse().expect("an address");
        let edge = bind(any).await.expect("bound");
        edge.send_to(b"stranger", front).await.expect("sent");
        assert_eq!(next(&node).await.0, b"stranger");

        let own = crate::nodes::free_ports(1).expect("a port")[0];
        let address = node.local_addr().expect("bound");
        net.front(own, Party::Core(1), address, Some(Party::Edge(1)))
            .await
            .expect("open");
        edge.send_to(b"cut", own).await.expect("sent");
        lost(&net, 1).await;
        edge.send_to(b"cut", front).await.expect("sent");
        lost(&net, 2).await;
    }
}
