//! The meta plane.

use throng_protocol::code::Code;
use throng_protocol::ids::ShardId;
use throng_protocol::placement::Plane;
use throng_state::command::ClusterKey;
use throng_state::limits::{API_KEYS_MAX, APP_KEYS_MAX, LEASE_NUMBERS_MAX};
use throng_state::record::{
    AppRecord, ClusterKeyRecord, LeaseHeadRecord, LeaseRecord, MapRecord, NumberRange,
};
use throng_state::testing::MapView;
use throng_state::{Reply, keys, query};

use crate::support::*;

fn meta() -> MapView {
    MapView::new(Plane::Meta)
}

#[test]
fn the_first_bootstrap_wins_and_every_later_one_changes_nothing() {
    let mut shard = meta();
    assert_eq!(query::cluster_map(&shard).unwrap(), None);
    let key = ClusterKey {
        id: 5,
        secret: [5; 32],
    };
    assert_eq!(
        shard.run(&bootstrap(5)),
        (
            Reply::Bootstrapped { first: true },
            vec![
                put(keys::map(), &MapRecord { map: cluster_map(1) }),
                put(keys::cluster_key(5), &ClusterKeyRecord { key: key.clone() }),
            ]
        )
    );
    unchanged(&mut shard, &bootstrap(5), &Reply::Bootstrapped { first: false });
    unchanged(&mut shard, &bootstrap(6), &Reply::Bootstrapped { first: false });
    assert_eq!(query::cluster_map(&shard).unwrap(), Some(cluster_map(1)));
    assert_eq!(query::cluster_keys(&shard).unwrap(), [key]);
}

#[test]
fn a_cluster_key_never_prints_its_secret() {
    let printed = format!(
        "{:?}",
        ClusterKey {
            id: 9,
            secret: [171; 32]
        }
    );
    assert!(
        printed.contains('9') && !printed.contains("171") && !printed.to_lowercase().contains("ab"),
        "{printed}"
    );
}

#[test]
fn a_map_is_replaced_by_a_higher_version_only() {
    let mut shard = meta();
    refused(&mut shard, &put_map(2), Code::Unavailable);
    shard.reply(&bootstrap(1));
    assert_eq!(
        shard.run(&put_map(3)),
        (
            Reply::Done,
            vec![put(keys::map(), &MapRecord { map: cluster_map(3) })]
        )
    );
    unchanged(&mut shard, &put_map(3), &Reply::Done);
    refused(&mut shard, &put_map(2), Code::InvalidField);
    assert_eq!(
        query::cluster_map(&shard).unwrap().map(|map| map.version),
        Some(3)
    );
}

#[test]
fn keys_of_the_server_api_come_and_go_one_by_one() {
    let mut shard = meta();
    refused(&mut shard, &add_api_key("one", 1), Code::AppUnknown);
    unchanged(&mut shard, &remove_api_key("one"), &Reply::Done);
    shard.reply(&put_app(Vec::new()));
    let held = |shard: &MapView| -> Vec<String> {
        let keys = query::api_keys(shard, &app()).unwrap();
        keys.into_iter().map(|key| key.kid).collect()
    };
    assert!(held(&shard).is_empty());
    assert_eq!(shard.reply(&add_api_key("one", 1)), Reply::Done);
    assert_eq!(shard.reply(&add_api_key("two", 2)), Reply::Done);
    assert_eq!(held(&shard), ["one", "two"]);
    unchanged(&mut shard, &add_api_key("one", 1), &Reply::Done);
    refused(&mut shard, &add_api_key("one", 3), Code::AlreadyExists);
    assert_eq!(shard.reply(&remove_api_key("one")), Reply::Done);
    unchanged(&mut shard, &remove_api_key("one"), &Reply::Done);
    assert_eq!(shard.reply(&add_api_key("one", 3)), Reply::Done);
    assert_eq!(held(&shard), ["two", "one"]);
    // The keys of tokens are others.
    shard.reply(&put_app(vec![app_key("a", 32)]));
    assert_eq!(held(&shard).len(), 2);
    for kid in ["", "a.b", "ä", &"x".repeat(65)] {
        refused(&mut shard, &add_api_key(kid, 1), Code::InvalidField);
    }
    for place in 2..API_KEYS_MAX {
        shard.reply(&add_api_key(&format!("key-{place}"), 1));
    }
    refused(&mut shard, &add_api_key("one-too-many", 1), Code::InvalidField);
    shard.reply(&remove_api_key("two"));
    assert_eq!(shard.reply(&add_api_key("one-too-many", 1)), Reply::Done);
}

#[test]
fn an_apps_keys_are_replaced_as_a_whole() {
    let mut shard = meta();
    assert_eq!(query::app_keys(&shard, &app()).unwrap(), None);
    let first = vec![app_key("a", 32)];
    assert_eq!(
        shard.run(&put_app(first.clone())),
        (
            Reply::Done,
            vec![put(keys::app(&app()), &AppRecord { keys: first.clone() })]
        )
    );
    assert_eq!(query::app_keys(&shard, &app()).unwrap(), Some(first));
    assert_eq!(shard.reply(&put_app(vec![])), Reply::Done);
    assert_eq!(query::app_keys(&shard, &app()).unwrap(), Some(vec![]));
}

#[test]
fn keys_that_are_short_long_nameless_doubled_or_too_many_are_refused() {
    let mut shard = meta();
    let many = (0..=APP_KEYS_MAX).map(|n| app_key(&n.to_string(), 32)).collect();
    let faulty = [
        vec![app_key("a", 31)],
        vec![app_key("a", 1_025)],
        vec![app_key("", 32)],
        vec![app_key(&"k".repeat(65), 32)],
        vec![app_key("a", 32), app_key("a", 33)],
        many,
    ];
    for keys in faulty {
        refused(&mut shard, &put_app(keys), Code::InvalidField);
    }
}

#[test]
fn numbers_are_leased_densely_from_1_and_never_twice() {
    let mut shard = meta();
    assert_eq!(
        shard.run(&lease(1, 100, 1)),
        (
            Reply::Leased { start: 1, end: 101 },
            vec![
                put(keys::lease_head(), &LeaseHeadRecord { next: 101 }),
                put(
                    keys::lease(ShardId(1)),
                    &LeaseRecord {
                        request: 1,
                        range: NumberRange { start: 1, end: 101 }
                    }
                ),
            ]
        )
    );
    assert_eq!(
        shard.reply(&lease(2, 10, 1)),
        Reply::Leased { start: 101, end: 111 }
    );
    assert_eq!(
        shard.reply(&lease(1, 10, 2)),
        Reply::Leased { start: 111, end: 121 }
    );
}

#[test]
fn the_same_request_gets_the_same_lease_and_an_older_one_none() {
    let mut shard = meta();
    shard.reply(&lease(1, 100, 1));
    unchanged(
        &mut shard,
        &lease(1, 100, 1),
        &Reply::Leased { start: 1, end: 101 },
    );
    unchanged(&mut shard, &lease(1, 7, 1), &Reply::Leased { start: 1, end: 101 });
    shard.reply(&lease(1, 100, 2));
    refused(&mut shard, &lease(1, 100, 1), Code::Unavailable);
}

#[test]
fn a_lease_of_nothing_or_too_much_is_refused() {
    let mut shard = meta();
    refused(&mut shard, &lease(1, 0, 1), Code::InvalidField);
    refused(
        &mut shard,
        &lease(1, LEASE_NUMBERS_MAX + 1, 1),
        Code::InvalidField,
    );
    assert_eq!(
        shard.reply(&lease(1, LEASE_NUMBERS_MAX, 1)),
        Reply::Leased {
            start: 1,
            end: u64::from(LEASE_NUMBERS_MAX) + 1
        }
    );
}

#[test]
fn when_all_numbers_are_leased_nothing_wraps_around() {
    let mut shard = meta();
    let head = LeaseHeadRecord { next: u64::MAX - 5 };
    shard
        .records
        .insert(keys::lease_head(), throng_state::record::Record::encode(&head));
    refused(&mut shard, &lease(1, 6, 1), Code::Internal);
    assert_eq!(
        shard.reply(&lease(1, 5, 1)),
        Reply::Leased {
            start: u64::MAX - 5,
            end: u64::MAX
        }
    );
}
