//! The network by itself: two hosts, a link, and what must hold of it whatever happens to packets.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use throng_transport::{Carrier, Link, LinkClosed, RecvHalf};
use tokio::time::Instant;

use super::*;
use crate::carrier::{Role, SimCarrier};
use crate::host::Host;

const WINDOW: Us = 5_000;
const PORT: u16 = 7;
const NAME: &str = "server";

/// Two hosts on a network.
struct Pair {
    net: Network,
    hosts: [Host; 2],
    /// Where links come from and arrive; they live as long as their carriers.
    carriers: Vec<Arc<SimCarrier>>,
    now: Us,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let net = Network::new(seed, WINDOW);
        let mut hosts = [Host::new(&net), Host::new(&net)];
        for host in &mut hosts {
            host.boot(0).unwrap();
        }
        Self {
            net,
            hosts,
            carriers: Vec::new(),
            now: 0,
        }
    }

    /// Spawns a task on a host; what it returns is found in the cell.
    fn spawn<T: Send + 'static>(
        &self,
        host: usize,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Arc<Mutex<Option<T>>> {
        let cell = Arc::new(Mutex::new(None));
        let told = Arc::clone(&cell);
        self.hosts[host].spawn(async move {
            let done = task.await;
            *told.lock() = Some(done);
        });
        cell
    }

    fn run(&mut self, us: Us) {
        let until = self.now + us;
        while self.now < until {
            for host in &mut self.hosts {
                host.run(self.now, WINDOW);
            }
            self.now += WINDOW;
            self.net.step(self.now);
        }
    }

    fn listen(&self, role: Role) -> Arc<SimCarrier> {
        let names = vec![NAME.to_owned()];
        Arc::new(SimCarrier::bind(&self.net, self.hosts[1].id, Some(PORT), role, names).unwrap())
    }

    fn dial(&self, role: Role) -> Arc<SimCarrier> {
        Arc::new(SimCarrier::bind(&self.net, self.hosts[0].id, None, role, Vec::new()).unwrap())
    }

    /// Both ends of a link.
    fn link(&mut self, role: (Role, Role)) -> (Arc<dyn Link>, Arc<dyn Link>) {
        let (dialler, listener) = (self.dial(role.0), self.listen(role.1));
        let to = Network::address(self.hosts[1].id, PORT);
        let connected = self.spawn(0, async move {
            let link = dialler.connect(to, NAME).await.unwrap().link;
            (link, dialler)
        });
        let accepted = self.spawn(1, async move {
            let incoming = listener.accept().await.unwrap();
            (incoming.accept().unwrap().await.unwrap().link, listener)
        });
        self.run(2_000_000);
        let (near, dialler) = connected.lock().take().unwrap();
        let (far, listener) = accepted.lock().take().unwrap();
        self.carriers.extend([dialler, listener]);
        (near, far)
    }
}

async fn read_all(mut half: Box<dyn RecvHalf>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(Some(bytes)) = half.read_chunk(1_000).await {
        all.extend_from_slice(&bytes);
    }
    all
}

#[test]
fn a_stream_arrives_whole_and_in_order_over_the_worst_network() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed);
        let (near, far) = pair.link((Role::Cluster, Role::Cluster));
        pair.net.set(|net| {
            (net.lost_ppm, net.doubled_ppm, net.held_up_ppm) = (300_000, 300_000, 500_000);
            (net.jitter, net.held_up_max) = (30_000, 200_000);
        });
        let sent: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        let chunks: Vec<Bytes> = sent.chunks(999).map(Bytes::copy_from_slice).collect();
        pair.spawn(0, async move {
            let (mut send, _recv) = near.open_bi().await.unwrap();
            for chunk in chunks {
                send.write_all_chunks(&mut [chunk]).await.unwrap();
            }
            send.finish();
            send.stopped().await.unwrap();
        });
        let received = pair.spawn(1, async move {
            let (_send, recv) = far.accept_bi().await.unwrap();
            read_all(recv).await
        });
        pair.run(20_000_000);
        assert!(received.lock().as_ref() == Some(&sent), "seed {seed}");
        assert!(pair.net.traffic().lost > 0);
    }
}

#[test]
fn a_writer_waits_for_a_reader_that_does_not_read() {
    let mut pair = Pair::new(1);
    let (near, far) = pair.link((Role::Client, Role::Server));
    let written = Arc::new(Mutex::new(0_usize));
    let count = Arc::clone(&written);
    pair.spawn(0, async move {
        let (mut send, _recv) = near.open_bi().await.unwrap();
        loop {
            send.write_all_chunks(&mut [Bytes::from_static(&[7; 1_024])])
                .await
                .unwrap();
            *count.lock() += 1_024;
        }
    });
    let opened = pair.spawn(1, async move { (far.accept_bi().await.unwrap(), far) });
    pair.run(1_000_000);
    let window = throng_transport::settings::SERVER_STREAM_WINDOW as usize;
    assert_eq!(*written.lock(), window, "exactly what the window allows");
    let ((_send, recv), far) = opened.lock().take().unwrap();
    pair.spawn(1, async move {
        read_all(recv).await;
        drop(far);
    });
    pair.run(1_000_000);
    assert!(*written.lock() > 4 * window, "reading makes room");
}

#[test]
fn an_end_that_hears_nothing_gives_up_though_it_is_heard() {
    let mut pair = Pair::new(1);
    let (near, far) = pair.link((Role::Cluster, Role::Cluster));
    let [from, to] = [pair.hosts[0].id, pair.hosts[1].id];
    pair.net.set(|net| net.cut(to, from));
    let near = pair.spawn(0, async move { (near.closed().await, near) });
    let far = pair.spawn(1, async move { (far.closed().await, far) });
    pair.run(4_000_000);
    assert!(near.lock().is_none(), "not before the idle timeout");
    pair.run(2_000_000);
    assert_eq!(near.lock().as_ref().unwrap().0, LinkClosed::TimedOut);
    assert!(far.lock().is_none(), "the other end has heard probes until now");
    pair.run(6_000_000);
    assert_eq!(far.lock().as_ref().unwrap().0, LinkClosed::TimedOut);
}

#[test]
fn a_crash_says_nothing_and_a_restart_resets_what_it_does_not_know() {
    let mut pair = Pair::new(1);
    let (near, far) = pair.link((Role::Cluster, Role::Cluster));
    let closed = pair.spawn(0, async move { (near.closed().await, near) });
    pair.hosts[1].crash();
    drop(far);
    pair.run(2_000_000);
    assert!(closed.lock().is_none(), "a host that has crashed says no word");
    let now = pair.now;
    pair.hosts[1].boot(now).unwrap();
    let listener = pair.listen(Role::Cluster);
    pair.run(3_000_000);
    let (closed, _near) = closed.lock().take().unwrap();
    assert!(matches!(closed, LinkClosed::Lost(_)), "{closed:?}");
    drop(listener);
}

#[test]
fn a_close_is_told_with_its_code() {
    let mut pair = Pair::new(1);
    let (near, far) = pair.link((Role::Client, Role::Server));
    pair.spawn(0, async move { near.close(7, "bye") });
    let closed = pair.spawn(1, async move { (far.closed().await, far) });
    pair.run(200_000);
    let reason = "bye".to_owned();
    assert_eq!(
        closed.lock().as_ref().unwrap().0,
        LinkClosed::Peer { code: 7, reason }
    );
}

#[test]
fn nobody_is_connected_to_whose_certificate_is_for_another_name() {
    let mut pair = Pair::new(1);
    let (dialler, listener) = (pair.dial(Role::Cluster), pair.listen(Role::Cluster));
    let to = Network::address(pair.hosts[1].id, PORT);
    let refused = pair.spawn(
        0,
        async move { dialler.connect(to, "somebody else").await.map(drop) },
    );
    pair.spawn(1, async move {
        let incoming = listener.accept().await.unwrap();
        let _ = incoming.accept().unwrap().await;
    });
    pair.run(1_000_000);
    let refused = refused.lock().take().unwrap();
    assert!(format!("{refused:?}").contains("Untrusted"), "{refused:?}");
}

#[test]
fn packets_take_their_time_and_hosts_of_fast_clocks_see_more_of_it() {
    let mut pair = Pair::new(1);
    pair.hosts[1].fast_ppm = 100_000;
    let passed = [0, 1].map(|host| {
        pair.spawn(host, async {
            let began = Instant::now();
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            began.elapsed()
        })
    });
    pair.run(480_000);
    assert!(passed[0].lock().is_none());
    assert!(
        passed[1].lock().is_some(),
        "500 ms of a clock that is a tenth fast"
    );
}
