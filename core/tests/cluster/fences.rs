//! Kicks, mutes and leaving: what they end, when, and on which replicas.

use std::time::Duration;

use throng_protocol::cluster::{
    Anchor, ChannelInfo, Direction, FeedEvent, Fence, FenceKind, FenceTable, Fenced, Grant, Page, PeerId,
    Refusal, Reply, Request,
};
use throng_protocol::code::Code;
use throng_protocol::ids::{Seq, UserNumber};
use tokio::time::Instant;

use crate::support::{
    PATIENCE, TestCluster, TestFeed, TestPeer, app, append, channel, counted, group, management_of,
    message_of, metric, now_ms, until, user,
};

fn kick(name: &str, number: UserNumber, by: Option<UserNumber>) -> Request {
    Request::Kick {
        app: app(),
        group: group("town"),
        user: user(name),
        number,
        by,
        since: None,
    }
}

fn mute(name: &str, number: UserNumber, until_ms: u64, by: Option<UserNumber>) -> Request {
    Request::Mute {
        app: app(),
        group: group("town"),
        user: user(name),
        number,
        until_ms,
        by,
    }
}

/// Asks for a change that must be made everywhere at once; returns its version.
async fn done(edge: &TestPeer, request: &Request) -> u64 {
    match edge.ask(request).await {
        Ok(Reply::Fenced {
            version,
            pending,
            more: 0,
        }) if pending.is_empty() => version,
        other => panic!("{other:?}"),
    }
}

async fn join(edge: &TestPeer, name: &str) -> UserNumber {
    let number = edge.user(name).await;
    let request = Request::Join {
        app: app(),
        group: group("town"),
        user: user(name),
        number,
    };
    assert_eq!(edge.ask(&request).await, Ok(Reply::Done));
    number
}

fn page(info: &ChannelInfo, anchor: Anchor, direction: Direction, grant: Option<&Grant>) -> Request {
    Request::Page {
        shard: info.shard,
        channel: info.number,
        anchor,
        direction,
        limit: 100,
        grant: grant.cloned(),
        fences: grant.is_none(),
    }
}

/// The whole log with its fences.
async fn whole(edge: &TestPeer, info: &ChannelInfo) -> Page {
    match edge
        .ask(&page(info, Anchor::Seq(Seq(0)), Direction::After, None))
        .await
    {
        Ok(Reply::Page(page)) => page,
        other => panic!("{other:?}"),
    }
}

/// Whether the grant of a request is stale to the leader.
async fn is_stale(edge: &TestPeer, request: &Request) -> bool {
    match edge.ask_leader(request).await {
        Err(Refusal::GrantStale) => true,
        Ok(_) => false,
        other => panic!("{other:?}"),
    }
}

/// Channels of `town` on two different shards.
async fn two_channels(edge: &TestPeer, creator: UserNumber) -> [ChannelInfo; 2] {
    let map = edge.map().await;
    let names = (0..).map(|n| format!("hall-{n}"));
    let first = edge.create_channel("town", "hall", creator).await;
    for name in names {
        if message_of(&map, "town", &name) != first.shard {
            let second = edge.create_channel("town", &name, creator).await;
            return [first, second];
        }
    }
    unreachable!("an endless iterator")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kick_is_done_when_no_shard_takes_or_shows_anything_to_the_user() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let channels = two_channels(&edge, ann).await;
    let bob = join(&edge, "bob").await;
    let (anns, bobs) = (
        edge.grant("town", "ann", ann).await.unwrap(),
        edge.grant("town", "bob", bob).await.unwrap(),
    );
    for info in &channels {
        edge.append(info, &bobs, 1, "before").await.unwrap();
        assert!(
            !is_stale(
                &edge,
                &page(info, Anchor::Seq(Seq(0)), Direction::After, Some(&bobs))
            )
            .await
        );
    }
    let version = done(&edge, &kick("bob", bob, Some(ann))).await;
    for info in &channels {
        assert!(is_stale(&edge, &append(info, &bobs, 2, "behind")).await);
        assert!(
            is_stale(
                &edge,
                &page(info, Anchor::Seq(Seq(0)), Direction::After, Some(&bobs))
            )
            .await
        );
        // What was acked before is answered the same, and whoever was not kicked goes on.
        let repeat = edge.append(info, &bobs, 1, "before").await.unwrap();
        assert_eq!((repeat.seq, repeat.repeat), (Seq(1), true));
        assert_eq!(edge.append(info, &anns, 3, "ann").await.unwrap().seq, Seq(2));
        let found = whole(&edge, info).await;
        let fence = &found.fences[0];
        assert_eq!((found.fences.len(), found.fenced), (1, version));
        assert_eq!(
            (fence.after, fence.version, fence.kind),
            (Seq(1), version, FenceKind::Kick)
        );
        assert_eq!((fence.number, &fence.user), (bob, &user("bob")));
    }
    assert_eq!(edge.grant("town", "bob", bob).await, Err(Code::NotMember));
    assert_eq!(done(&edge, &kick("bob", bob, Some(ann))).await, version);
    let observed = cluster
        .node(cluster.leader_of(channels[0].shard).await)
        .observe_address()
        .unwrap();
    counted(observed, "throng_core_fences_applied_total").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rights_are_taken_by_the_creator_and_by_operators_only() {
    let cluster = TestCluster::start().await;
    let (edge, admin) = (cluster.edge(), cluster.peer(PeerId::Admin));
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let (bob, eve) = (join(&edge, "bob").await, join(&edge, "eve").await);
    for request in [kick("bob", bob, Some(eve)), mute("bob", bob, now_ms(), Some(bob))] {
        assert_eq!(edge.ask(&request).await, Err(Code::Forbidden));
    }
    // An edge has no right of its own.
    assert_eq!(edge.ask(&kick("bob", bob, None)).await, Err(Code::Forbidden));
    assert_eq!(admin.ask(&kick("ann", ann, None)).await, Err(Code::Forbidden));
    assert_eq!(edge.ask(&kick("eve", bob, Some(ann))).await, Err(Code::NotMember));
    done(&admin, &kick("bob", bob, None)).await;
    done(&edge, &kick("eve", eve, Some(ann))).await;
    assert_eq!(
        edge.ask(&mute("eve", eve, 1, Some(ann))).await,
        Err(Code::NotMember)
    );
    // Who else was removed is told to no reader.
    let grant = edge.grant("town", "ann", ann).await.unwrap();
    let mut curious = page(&hall, Anchor::Seq(Seq(0)), Direction::After, Some(&grant));
    if let Request::Page { fences, .. } = &mut curious {
        *fences = true;
    }
    assert_eq!(edge.ask(&curious).await, Err(Code::InvalidField));
}

/// A cluster whose message shard of `hall` has lost its leader, and elects no other for seconds,
/// while the management shard of `town` has one. Returns the place of the node that was lost.
struct Leaderless {
    cluster: TestCluster,
    hall: ChannelInfo,
    ann: UserNumber,
    bob: UserNumber,
    bobs: Grant,
    lost: usize,
}

async fn leaderless() -> Leaderless {
    let mut cluster = TestCluster::start_with(|config| {
        // Long enough that no election ends before the kick is answered.
        config.timings.election_min_ms = 8_000;
        config.timings.election_max_ms = 10_000;
    })
    .await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let bob = join(&edge, "bob").await;
    let bobs = edge.grant("town", "bob", bob).await.unwrap();
    edge.append(&hall, &bobs, 1, "before").await.unwrap();
    let management = management_of(&edge.map().await, "town");
    let lost = 1;
    cluster.lead(0, management).await;
    cluster.lead(lost, hall.shard).await;
    cluster.settled(management).await;
    cluster.settled(hall.shard).await;
    cluster.kill(lost).await;
    Leaderless {
        cluster,
        hall,
        ann,
        bob,
        bobs,
        lost,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kick_that_a_shard_cannot_take_names_its_channels_and_holds_once_it_can() {
    let Leaderless {
        mut cluster,
        hall,
        ann,
        bob,
        bobs,
        lost,
    } = leaderless().await;
    let edge = cluster.edge();
    let asked = Instant::now();
    let answer = edge.ask_node(0, &kick("bob", bob, Some(ann))).await;
    let (version, waited) = match answer {
        Some(Ok(Reply::Fenced {
            version,
            pending,
            more: 0,
        })) => {
            assert_eq!(pending, [channel("hall")]);
            (version, asked.elapsed())
        }
        other => panic!("{other:?}"),
    };
    assert!(
        waited >= Duration::from_millis(1_900),
        "answered after {waited:?}"
    );
    let observed = cluster.node(0).observe_address().unwrap();
    assert_eq!(metric(observed, "throng_core_fences_pending_total").await, 1);
    // No new grant in the meantime, and asked again the answer is the same while it is so.
    assert_eq!(edge.grant("town", "bob", bob).await, Err(Code::NotMember));
    cluster.start_node(lost).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match edge.ask(&kick("bob", bob, Some(ann))).await {
            Ok(Reply::Fenced {
                version: again,
                pending,
                ..
            }) => {
                assert_eq!(again, version);
                if pending.is_empty() {
                    break;
                }
                assert_eq!(pending, [channel("hall")]);
            }
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < deadline, "the fence is never taken");
    }
    assert!(is_stale(&edge, &append(&hall, &bobs, 2, "behind")).await);
    assert_eq!(whole(&edge, &hall).await.fences[0].after, Seq(1));
}

/// Another node leads before a kick that was stored is answered: the answer must not be the one that
/// says nothing was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kick_whose_leader_hands_over_before_the_answer_is_not_told_as_not_done() {
    let Leaderless {
        cluster, ann, bob, ..
    } = leaderless().await;
    let edge = cluster.edge();
    let management = management_of(&edge.map().await, "town");
    let (leader, third) = (0, 2);
    let committed = cluster.applied(third, management);
    let asking = tokio::spawn({
        let edge = edge.clone();
        async move { edge.ask_node(leader, &kick("bob", bob, Some(ann))).await }
    });
    until("the kick is committed", || {
        cluster.applied(third, management) > committed
    })
    .await;
    cluster.lead(third, management).await;
    let answer = asking.await.unwrap();
    assert!(
        matches!(
            answer,
            Some(Err(Refusal::Code {
                code: Code::Unavailable,
                ..
            }))
        ),
        "{answer:?}"
    );
}

/// The kick is committed while its message shard has no leader, and the leader of the management
/// shard is lost before there is one: whoever leads next tells the fence, and a kick that is asked
/// for again is the same one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kick_whose_leader_is_lost_before_the_answer_is_made_once_and_told() {
    let Leaderless {
        mut cluster,
        hall,
        ann,
        bob,
        bobs,
        lost,
    } = leaderless().await;
    let edge = cluster.edge();
    let management = management_of(&edge.map().await, "town");
    let (leader, third) = (0, 2);
    let committed = cluster.applied(third, management);
    let asking = tokio::spawn({
        let edge = edge.clone();
        async move { edge.ask_node(leader, &kick("bob", bob, Some(ann))).await }
    });
    until("the kick is committed", || {
        cluster.applied(third, management) > committed
    })
    .await;
    cluster.kill(leader).await;
    assert!(
        !matches!(asking.await.unwrap(), Some(Ok(Reply::Fenced { pending, .. })) if pending.is_empty()),
        "the kick was said to be done"
    );
    cluster.start_node(lost).await;
    assert_eq!(edge.grant("town", "bob", bob).await, Err(Code::NotMember));
    let deadline = Instant::now() + PATIENCE;
    let version = loop {
        match edge.ask(&kick("bob", bob, Some(ann))).await {
            Ok(Reply::Fenced { version, pending, .. }) if pending.is_empty() => break version,
            Ok(Reply::Fenced { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < deadline, "the fence is never taken");
    };
    assert!(is_stale(&edge, &append(&hall, &bobs, 2, "behind")).await);
    let found = whole(&edge, &hall).await;
    let places: Vec<_> = found
        .fences
        .iter()
        .map(|fence| (fence.version, fence.after))
        .collect();
    assert_eq!(places, [(version, Seq(1))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_is_back_before_the_fence_has_arrived_sends_behind_it() {
    let Leaderless {
        mut cluster,
        hall,
        ann,
        bob,
        bobs,
        lost,
    } = leaderless().await;
    let edge = cluster.edge();
    let answer = edge.ask_node(0, &kick("bob", bob, Some(ann))).await;
    let Some(Ok(Reply::Fenced { version, pending, .. })) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(pending.len(), 1);
    join(&edge, "bob").await;
    let fresh = edge.grant("town", "bob", bob).await.unwrap();
    cluster.start_node(lost).await;
    let appended = edge.append(&hall, &fresh, 2, "back").await.unwrap();
    assert_eq!(appended.seq, Seq(2));
    let found = whole(&edge, &hall).await;
    let places: Vec<_> = found
        .fences
        .iter()
        .map(|fence| (fence.version, fence.after))
        .collect();
    assert_eq!(places, [(version, Seq(1))]);
    // The grant from before the fence is worth nothing, though its user is a member again.
    assert!(is_stale(&edge, &append(&hall, &bobs, 3, "old")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fence_holds_on_a_new_leader_after_a_restart_and_after_a_snapshot() {
    let mut cluster = TestCluster::start_with(|config| {
        config.storage.snapshot_every = 40;
        config.storage.log_keep = 5;
    })
    .await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let bob = join(&edge, "bob").await;
    let bobs = edge.grant("town", "bob", bob).await.unwrap();
    let anns = edge.grant("town", "ann", ann).await.unwrap();
    edge.append(&hall, &bobs, 1, "before").await.unwrap();
    let leader = cluster.leader_of(hall.shard).await;
    let (away, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(away).await;
    done(&edge, &kick("bob", bob, Some(ann))).await;
    let stale = append(&hall, &bobs, 2, "behind");
    assert!(is_stale(&edge, &stale).await);
    cluster.lead(third, hall.shard).await;
    assert!(is_stale(&edge, &stale).await);

    // The node that was away gets the fence in a snapshot, and leads then.
    let observed = cluster.node(third).observe_address().unwrap();
    let purged = format!("throng_core_purged_index{{shard=\"{}\"}}", hall.shard);
    let mut count = 10;
    while metric(observed, &purged).await == 0 {
        for n in count + 1..=count + 50 {
            edge.append(&hall, &anns, n, "more").await.unwrap();
        }
        count += 50;
    }
    cluster.start_node(away).await;
    cluster.ready().await;
    let installed = cluster.node(away).observe_address().unwrap();
    counted(installed, "throng_core_snapshots_installed_total").await;
    cluster.lead(away, hall.shard).await;
    assert!(is_stale(&edge, &stale).await);
    let places = |page: Page| page.fences.iter().map(|fence| fence.after).collect::<Vec<_>>();
    assert_eq!(places(whole(&edge, &hall).await), [Seq(1)]);

    for place in 0..3 {
        cluster.kill(place).await;
    }
    for place in 0..3 {
        cluster.start_node(place).await;
    }
    cluster.ready().await;
    let edge = cluster.edge();
    assert!(is_stale(&edge, &stale).await);
    assert_eq!(places(whole(&edge, &hall).await), [Seq(1)]);
}

/// Reads events until a fence comes; returns the last entry before it.
async fn until_fence(feed: &mut TestFeed, mut seq: Seq) -> (Seq, Seq, Fence) {
    loop {
        match feed.next().await {
            Some(FeedEvent::Batch { prev, entries, .. }) => {
                assert_eq!(prev, seq);
                seq = entries.last().unwrap().seq;
            }
            Some(FeedEvent::Fence { after, fence, .. }) => return (seq, after, fence),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn feeds_of_leader_and_followers_tell_a_fence_at_its_place_and_in_the_table_later() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let bob = join(&edge, "bob").await;
    let anns = edge.grant("town", "ann", ann).await.unwrap();
    let send = async |n: u64| edge.append(&hall, &anns, n, "x").await.unwrap();
    let mut live = Vec::new();
    for place in 0..3 {
        let mut feed = edge.feed(place).await;
        assert_eq!(feed.follow(&hall, 0).await, FenceTable::default());
        live.push(feed);
    }
    for n in 1..=5 {
        send(n).await;
    }
    let kicked = done(&edge, &kick("bob", bob, Some(ann))).await;
    // A fence wakes feeds though nothing is said in the channel.
    for feed in &mut live {
        let fence = Fence {
            version: kicked,
            number: bob,
            kind: FenceKind::Kick,
        };
        assert_eq!(until_fence(feed, Seq(0)).await, (Seq(5), Seq(5), fence));
    }
    join(&edge, "bob").await;
    let until = now_ms() + 3_600_000;
    let muted = done(&edge, &mute("bob", bob, until, Some(ann))).await;
    for n in 6..=9 {
        send(n).await;
    }
    for feed in &mut live {
        let (before, after, fence) = until_fence(feed, Seq(5)).await;
        assert_eq!((before, after), (Seq(5), Seq(5)));
        assert_eq!((fence.version, fence.kind), (muted, FenceKind::Mute));
    }
    for place in 0..3 {
        // Behind the place: in the table. The mute is none that ends reading.
        let bobs = Fenced {
            number: bob,
            version: kicked,
            after: Seq(5),
        };
        for from in [5, 9] {
            let mut feed = edge.feed(place).await;
            let table = feed.follow(&hall, from).await;
            assert_eq!((table.floor, table.last), (0, muted));
            assert_eq!(table.fenced, [bobs]);
        }
        // Before the place: at it.
        let mut feed = edge.feed(place).await;
        assert_eq!(feed.follow(&hall, 3).await, FenceTable::default());
        let (before, after, fence) = until_fence(&mut feed, Seq(3)).await;
        assert_eq!((before, after, fence.version), (Seq(5), Seq(5), kicked));
        assert_eq!(until_fence(&mut feed, Seq(5)).await.2.version, muted);
        assert!(matches!(
            feed.next().await,
            Some(FeedEvent::Batch { prev: Seq(5), .. })
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_mute_ends_by_the_time_of_the_message_and_leaving_does_not_shorten_it() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let bob = join(&edge, "bob").await;
    let old = edge.grant("town", "bob", bob).await.unwrap();
    let until = now_ms() + 1_500;
    done(&edge, &mute("bob", bob, until, Some(ann))).await;
    assert!(is_stale(&edge, &append(&hall, &old, 1, "muted")).await);
    // Reading goes on, under the old grant too.
    assert!(
        !is_stale(
            &edge,
            &page(&hall, Anchor::Seq(Seq(0)), Direction::After, Some(&old))
        )
        .await
    );
    let leave = Request::Leave {
        app: app(),
        group: group("town"),
        number: bob,
    };
    assert_eq!(edge.ask(&leave).await, Ok(Reply::Done));
    join(&edge, "bob").await;
    let fresh = edge.grant("town", "bob", bob).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut refusals = 0;
    let appended = loop {
        match edge.append(&hall, &fresh, 1, "muted").await {
            Ok(appended) => break appended,
            Err(code) => assert_eq!(code, Code::Muted),
        }
        refusals += 1;
        assert!(Instant::now() < deadline, "the mute does not end");
    };
    assert_eq!(appended.seq, Seq(1));
    assert!(refusals > 0, "the mute had ended before it was tried");
    let found = whole(&edge, &hall).await;
    assert!(
        found.entries[0].ts.millis() >= until,
        "{:?} is before {until}",
        found.entries[0].ts
    );
    let kinds: Vec<FenceKind> = found.fences.iter().map(|fence| fence.kind).collect();
    assert_eq!(kinds, [FenceKind::Mute, FenceKind::Left]);
    // An end of a mute needs no shard, and a grant from before it is refused by nobody but itself.
    done(&edge, &mute("bob", bob, now_ms() + 3_600_000, Some(ann))).await;
    let muted = edge.grant("town", "bob", bob).await.unwrap();
    done(&edge, &mute("bob", bob, 0, Some(ann))).await;
    assert_eq!(edge.append(&hall, &muted, 2, "two").await, Err(Code::Muted));
    let free = edge.grant("town", "bob", bob).await.unwrap();
    assert_eq!(edge.append(&hall, &free, 2, "two").await.unwrap().seq, Seq(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_by_time_stamp_are_those_by_position() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let hall = edge.create_channel("town", "hall", ann).await;
    let anns = edge.grant("town", "ann", ann).await.unwrap();
    for n in 1..=9 {
        edge.append(&hall, &anns, n, "x").await.unwrap();
    }
    let log = whole(&edge, &hall).await.entries;
    for entry in &log {
        for direction in [Direction::After, Direction::Before] {
            let by = async |anchor| {
                edge.ask(&page(&hall, anchor, direction, Some(&anns)))
                    .await
                    .unwrap()
            };
            assert_eq!(by(Anchor::Ts(entry.ts)).await, by(Anchor::Seq(entry.seq)).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shard_that_gets_the_groups_first_channel_later_takes_no_older_grant() {
    let cluster = TestCluster::start().await;
    let edge = cluster.edge();
    let ann = edge.create_group("town", "ann").await;
    let bob = join(&edge, "bob").await;
    let bobs = edge.grant("town", "bob", bob).await.unwrap();
    done(&edge, &kick("bob", bob, Some(ann))).await;
    let hall = edge.create_channel("town", "hall", ann).await;
    assert!(is_stale(&edge, &append(&hall, &bobs, 1, "old")).await);
    let anns = edge.grant("town", "ann", ann).await.unwrap();
    assert_eq!(edge.append(&hall, &anns, 1, "new").await.unwrap().seq, Seq(1));
    assert_eq!(whole(&edge, &hall).await.fences, []);
}
