//! Disks that do not sync and disks that are full: an ack means synced on a quorum, and nothing else
//! does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use throng_client::{
    ChannelId, Client, ClientConfig, ClientMessageId, DeviceId, GroupId, RequestError, StaticToken, Trust,
};
use throng_cluster::disk::{self, Disk};
use throng_cluster::nodes::Nodes;

use crate::throng;

/// How long a disk is held: many times what a send takes, and longer than an election.
const HELD: Duration = Duration::from_secs(5);

/// How long sends may take once nothing is in their way.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends of one round; each in a channel of its own, so that all are in flight at once.
const SENDS: u64 = 20;

struct Stage {
    client: Client,
    group: GroupId,
    round: u64,
}

impl Stage {
    async fn set(cluster: &Path) -> Self {
        let file = std::fs::read(cluster.join("cluster.json")).expect("a cluster");
        let file: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
        let cluster = cluster.display().to_string();
        let token = throng()
            .run(["token", "--cluster", &cluster, "--user", "ann"])
            .expect("runs")
            .stdout;
        let token = String::from_utf8(token).expect("text").trim().to_owned();
        let edges = file["edges"].as_array().expect("edges").iter();
        let edges = edges
            .map(|edge| edge.as_str().expect("text").to_owned())
            .collect();
        let trust = Trust::ca_file(Path::new(file["ca_cert"].as_str().expect("text"))).expect("a CA");
        let device = DeviceId::new("test").expect("valid");
        let config = ClientConfig::new(edges, trust, Arc::new(StaticToken(token)), device);
        let client = Client::connect(config).await.expect("connected");
        let group = GroupId::new("disks").expect("valid");
        client.create_group(&group).await.expect("made");
        for n in 0..SENDS {
            client.create_channel(&group, &channel(n)).await.expect("made");
        }
        Self {
            client,
            group,
            round: 0,
        }
    }

    /// Starts a round of sends.
    fn sends(&mut self) -> FuturesUnordered<impl Future<Output = Result<u64, RequestError>>> {
        self.round += 1;
        let one = |n: u64| {
            let (client, group, id) = (
                self.client.clone(),
                self.group.clone(),
                ClientMessageId(self.round << 32 | n),
            );
            async move {
                client
                    .send_with_id(&group, &channel(n), id, "a message")
                    .await
                    .map(|ack| ack.seq.0)
            }
        };
        (0..SENDS).map(one).collect()
    }

    /// A round that must succeed as a whole.
    async fn all_acked(&mut self) {
        let mut sends = self.sends();
        let acked = tokio::time::timeout(PATIENCE, async {
            while let Some(ack) = sends.next().await {
                ack.expect("acked");
            }
        });
        acked.await.expect("acked in time");
    }
}

fn channel(n: u64) -> ChannelId {
    ChannelId::new(&format!("channel-{n}")).expect("valid")
}

fn three_disks(dir: &Path) -> Vec<Disk> {
    let library = disk::build(dir).expect("the interposer");
    (1..=3)
        .map(|n| Disk::new(&library, dir, &format!("disk-{n}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acked_while_two_of_three_disks_do_not_sync() {
    let dir = tempfile::tempdir().expect("a folder");
    let disks = three_disks(dir.path());
    let nodes = Nodes::start(&throng(), dir.path(), 1, &disks).expect("the nodes serve");
    let mut stage = Stage::set(&nodes.cluster()).await;
    stage.all_acked().await;

    for held in [[0, 1], [1, 2], [0, 2]] {
        for disk in held {
            disks[disk].hold().expect("held");
        }
        let mut sends = stage.sends();
        let acked = tokio::time::timeout(HELD, sends.next()).await;
        assert!(
            acked.is_err(),
            "disks {held:?} are held, and a send was answered: {acked:?}"
        );
        for disk in held {
            disks[disk].release().expect("released");
        }
        let acked = tokio::time::timeout(PATIENCE, async {
            while let Some(ack) = sends.next().await {
                ack.expect("acked");
            }
        });
        acked.await.expect("everything is acked after the release");
    }

    for disk in &disks {
        disk.hold().expect("held");
        stage.all_acked().await;
        disk.release().expect("released");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_full_says_so_and_the_others_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let disks = three_disks(dir.path());
    let mut nodes = Nodes::start(&throng(), dir.path(), 1, &disks).expect("the nodes serve");
    let mut stage = Stage::set(&nodes.cluster()).await;
    stage.all_acked().await;

    disks[0].fill().expect("filled");
    stage.all_acked().await;
    let deadline = Instant::now() + PATIENCE;
    while !says_full(&nodes.cluster()) {
        assert!(
            Instant::now() < deadline,
            "node 1 does not say that its disk is full"
        );
    }

    // With a second disk full no quorum is left: nothing is acked. With space again, everything is.
    disks[1].fill().expect("filled");
    let mut sends = stage.sends();
    let acked = tokio::time::timeout(HELD, sends.next()).await;
    assert!(
        acked.is_err(),
        "two disks are full, and a send was answered: {acked:?}"
    );
    for (place, disk) in disks.iter().take(2).enumerate() {
        nodes.cores[place].kill().expect("killed");
        disk.free().expect("freed");
        let mut node = nodes.spawn_core(place + 1, Some(disk)).expect("started");
        node.wait_for_line("ready", PATIENCE).expect("it serves");
        nodes.cores[place] = node;
    }
    let acked = tokio::time::timeout(PATIENCE, async {
        while let Some(ack) = sends.next().await {
            ack.expect("acked");
        }
    });
    acked.await.expect("everything is acked once there is space");
}

/// Whether every replica of node 1 says that the disk is full.
fn says_full(cluster: &Path) -> bool {
    let cluster = cluster.display().to_string();
    let status = throng()
        .run(["ctl", "status", "--cluster", &cluster, "--json"])
        .expect("runs");
    let json: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let mut shards = json["shards"]
        .as_array()
        .expect("shards")
        .iter()
        .filter(|shard| shard["node"] == 1);
    let full = |shard: &serde_json::Value| {
        shard["failed"]
            .as_str()
            .is_some_and(|why| why.contains("No space"))
    };
    status.status.code() == Some(1) && shards.all(full)
}
