//! What a healthy cluster answers.

use std::time::Duration;

use throng_protocol::cluster::{Anchor, Direction, PeerId, Refusal, Reply, Request};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, EdgeId, NodeId, Seq, UserNumber};

use crate::support::{TestCluster, app, append, channel, group, management_of, metric, until, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_are_appended_paged_and_repeated() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    for n in 1..=10 {
        let appended = edge
            .append(&hall, &grant, n, &format!("message {n}"))
            .await
            .unwrap();
        assert_eq!((appended.seq, appended.repeat), (Seq(n), false));
    }
    let repeated = edge.append(&hall, &grant, 4, "message 4").await.unwrap();
    assert_eq!((repeated.seq, repeated.repeat), (Seq(4), true));
    assert_eq!(
        edge.append(&hall, &grant, 4, "other").await,
        Err(Code::IdempotencyConflict)
    );
    let expected: Vec<String> = (1..=10).map(|n| format!("message {n}")).collect();
    assert_eq!(edge.history(&hall).await, expected);
    let before = Request::Page {
        shard: hall.shard,
        channel: hall.number,
        anchor: Anchor::Seq(Seq(5)),
        direction: Direction::Before,
        limit: 2,
        grant: None,
        fences: false,
    };
    let Ok(Reply::Page(page)) = edge.ask(&before).await else {
        panic!("no page")
    };
    assert_eq!(
        page.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [Seq(3), Seq(4)]
    );
    assert_eq!((page.prev, page.head), (Seq(2), Seq(10)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn users_have_one_number_each_and_members_only_get_grants() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let bob = edge.user("bob").await;
    assert_ne!(ann, bob);
    assert_eq!(edge.user("ann").await, ann);
    assert_eq!(edge.grant("town", "bob", bob).await, Err(Code::NotMember));
    // Ann's number does not help Bob.
    assert_eq!(edge.grant("town", "bob", ann).await, Err(Code::NotMember));
    assert_eq!(edge.grant("nowhere", "ann", ann).await, Err(Code::GroupUnknown));
    let join = Request::Join {
        app: app(),
        group: group("town"),
        user: user("bob"),
        number: bob,
    };
    assert_eq!(edge.ask(&join).await, Ok(Reply::Done));
    assert!(edge.grant("town", "bob", bob).await.is_ok());
    let leave = Request::Leave {
        app: app(),
        group: group("town"),
        number: bob,
    };
    assert_eq!(edge.ask(&leave).await, Ok(Reply::Done));
    assert_eq!(edge.grant("town", "bob", bob).await, Err(Code::NotMember));
    let create = Request::CreateChannel {
        app: app(),
        group: group("town"),
        channel: channel("back door"),
        by: Some(bob),
    };
    assert_eq!(edge.ask(&create).await, Err(Code::NotMember));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_a_settled_cluster_nobody_looks_for_a_leader() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    edge.create_group("town", "ann").await;
    let beats = |cluster: &TestCluster| -> Vec<u64> {
        (0..3).map(|place| cluster.node(place).beats_heard()).collect()
    };
    let silences = |cluster: &TestCluster| -> u64 {
        let all = (0..3).flat_map(|place| cluster.node(place).progress());
        all.map(|progress| progress.silences).sum()
    };
    let followers = 2 * cluster.node(0).progress().len() as u64;
    let (first, before) = (beats(&cluster), silences(&cluster));
    // Four seconds of beats from two other nodes, in which a group that heard none would begin to tick about
    // ten times; a machine that stands still for a moment has it begin once or twice.
    until("the nodes hear each other", || {
        let now = beats(&cluster);
        now.iter().zip(&first).all(|(now, first)| now - first >= 60)
    })
    .await;
    let begun = silences(&cluster) - before;
    assert!(
        begun < 4 * followers,
        "{begun} times, of {followers} replicas that follow"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn unknown_channels_and_wrong_grants_are_refused() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();

    let find = |name| Request::Channel {
        app: app(),
        group: group("town"),
        channel: channel(name),
    };
    assert_eq!(edge.ask(&find("hall")).await, Ok(Reply::Channel(hall.clone())));
    assert_eq!(edge.ask(&find("cellar")).await, Err(Code::ChannelUnknown));
    let mut nowhere = hall.clone();
    nowhere.number = ChannelNumber(12_345);
    assert_eq!(
        edge.append(&nowhere, &grant, 1, "hello").await,
        Err(Code::ChannelUnknown)
    );

    let mut broken = grant.clone();
    broken.seal[0] ^= 1;
    assert_eq!(
        edge.append(&hall, &broken, 1, "hello").await,
        Err(Code::Forbidden)
    );
    let zoe = edge.create_group("zoo", "zoe").await;
    let other = edge.grant("zoo", "zoe", zoe).await.unwrap();
    assert_eq!(edge.append(&hall, &other, 1, "hello").await, Err(Code::Forbidden));
    let large = "x".repeat(128 * 1024 + 1);
    assert_eq!(
        edge.append(&hall, &grant, 1, &large).await,
        Err(Code::MessageTooLarge)
    );
    // None of them has left anything.
    let appended = edge.append(&hall, &grant, 1, "hello").await.unwrap();
    assert_eq!((appended.seq, appended.repeat), (Seq(1), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn peers_ask_only_what_is_theirs() {
    let cluster = TestCluster::start().await;
    let (edge, admin) = (cluster.edge(), cluster.peer(PeerId::Admin));
    assert_eq!(edge.ask(&Request::Status).await, Err(Code::Forbidden));
    let put = Request::PutApp {
        app: app(),
        keys: Vec::new(),
    };
    assert_eq!(edge.ask(&put).await, Err(Code::Forbidden));
    assert_eq!(admin.ask(&put).await, Ok(Reply::Done));
    let get = Request::App { app: app() };
    assert_eq!(edge.ask(&get).await, Ok(Reply::App(Some(Vec::new()))));
    assert_eq!(admin.ask(&Request::Clock).await, Err(Code::Forbidden));
    let Some(Ok(Reply::Status(status))) = admin.ask_node(1, &Request::Status).await else {
        panic!("no status")
    };
    assert_eq!((status.node, status.shards.len()), (NodeId(2), 5));
    assert!(
        status.shards.iter().all(|shard| shard.failed.is_none()),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_node_answers_back_ends_whoever_leads_and_whoever_is_gone() {
    let mut cluster = TestCluster::start().await;
    let edge = cluster.edge();
    edge.create_group("town", "ann").await;
    let look = Request::Group {
        app: app(),
        group: group("town"),
    };
    for place in 0..3 {
        let back_ends = cluster.node(place).back_ends();
        let create = Request::CreateChannel {
            app: app(),
            group: group("town"),
            channel: channel(&format!("hall {place}")),
            by: None,
        };
        assert!(matches!(back_ends.ask(&create).await, Ok(Reply::Channel(_))));
        let Ok(Reply::Group(info)) = back_ends.ask(&look).await else {
            panic!("no group")
        };
        assert_eq!((info.members, info.channels as usize), (1, place + 1));
        let not_for_apps = back_ends.ask(&Request::Status).await;
        assert!(matches!(
            not_for_apps,
            Err(Refusal::Code {
                code: Code::Forbidden,
                ..
            })
        ));
        let address = cluster.node(place).observe_address().unwrap();
        let counted = |code: &str| format!("throng_core_back_end_requests_total{{code=\"{code}\"}}");
        assert_eq!(metric(address, &counted("ok")).await, 2);
        assert_eq!(metric(address, &counted("forbidden")).await, 1);
    }
    let gone = cluster.leader_of(management_of(&edge.map().await, "town")).await;
    cluster.nodes[gone].take().unwrap().stop().await;
    for place in (0..3).filter(|place| *place != gone) {
        let answer = cluster.node(place).back_ends().ask(&look).await;
        assert!(matches!(answer, Ok(Reply::Group(_))), "{answer:?}");
    }
    let other = (0..3).find(|place| *place != gone).unwrap();
    let back_ends = cluster.node(other).back_ends();
    let node = cluster.nodes[other].take().unwrap();
    node.drain(Duration::from_secs(3)).await;
    let answer = back_ends.ask(&look).await;
    assert!(
        matches!(
            answer,
            Err(Refusal::Code {
                code: Code::Draining,
                ..
            })
        ),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_the_leader_takes_an_append_and_others_name_it() {
    let cluster = TestCluster::start().await;
    let edge = cluster.peer(PeerId::Edge(EdgeId(9)));
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    edge.append(&hall, &grant, 1, "one").await.unwrap();
    let leader = cluster.leader_of(hall.shard).await;
    let request = append(&hall, &grant, 2, "two");
    for place in (0..3).filter(|place| *place != leader) {
        let named = NodeId(leader as u64 + 1);
        let refusal = Refusal::NotLeader { leader: Some(named) };
        assert_eq!(edge.ask_node(place, &request).await, Some(Err(refusal)));
    }
    assert_ne!(ann, UserNumber::default());
}
