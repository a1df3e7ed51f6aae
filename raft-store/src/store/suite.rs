//! What every [`Store`] must do, as functions that panic when it does not. The tests of this crate
//! run them on LMDB; whoever writes another store runs them on that.
//!
//! Each function is given an empty store. Crashes are not in here: only the store's own tests know
//! how to crash it.

use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;

use crate::store::{Batch, Limit, Records, Store, StoreFailure, Table};

const ALL: Limit = Limit {
    records: usize::MAX,
    bytes: usize::MAX,
};

/// Runs everything, each part on a store made by `fresh`.
pub fn run_all<S: Store>(mut fresh: impl FnMut() -> S) {
    what_is_durable_can_be_read(&fresh());
    a_batch_is_applied_in_its_order(&fresh());
    tables_are_apart(&fresh());
    scans_are_ordered_bounded_and_half_open(&fresh());
    a_range_is_deleted_without_its_end(&fresh());
    callbacks_run_in_the_order_of_submission(&fresh());
    a_view_stands_still(Arc::new(fresh()));
    large_values_and_long_keys_fit(&fresh());
}

/// Submits and waits on this thread.
fn write(store: &impl Store, batch: Batch) {
    let (done, durable) = mpsc::sync_channel(1);
    store.submit(
        batch,
        Box::new(move |result| {
            let _ = done.send(result);
        }),
    );
    let result = durable.recv().expect("the callback runs");
    assert_eq!(result, Ok(()));
}

fn put(store: &impl Store, table: Table, records: &[(&str, &str)]) {
    let mut batch = Batch::new();
    for (key, value) in records {
        batch.put(table, bytes(key), bytes(value));
    }
    write(store, batch);
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn pairs(records: Result<Records, StoreFailure>) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let records = records.expect("the store can be read");
    records
        .iter()
        .map(|(key, value)| format!("{}={}", text(key), text(value)))
        .collect()
}

fn what_is_durable_can_be_read(store: &impl Store) {
    put(store, Table::State, &[("a", "1"), ("b", "2")]);
    assert_eq!(store.get(Table::State, b"a"), Ok(Some(bytes("1"))));
    assert_eq!(store.get(Table::State, b"c"), Ok(None));
    put(store, Table::State, &[("a", "3")]);
    assert_eq!(store.get(Table::State, b"a"), Ok(Some(bytes("3"))));
    assert_eq!(*store.failure().borrow(), None);
}

fn a_batch_is_applied_in_its_order(store: &impl Store) {
    let mut batch = Batch::new();
    batch.put(Table::Meta, bytes("a"), bytes("1"));
    batch.put(Table::Meta, bytes("a"), bytes("2"));
    batch.put(Table::Meta, bytes("b"), bytes("1"));
    batch.delete(Table::Meta, bytes("b"));
    batch.delete(Table::Meta, bytes("absent"));
    batch.put(Table::Meta, bytes("c"), bytes("1"));
    batch.delete_range(Table::Meta, bytes("c"), bytes("d"));
    batch.put(Table::Meta, bytes("c"), bytes("2"));
    write(store, batch);
    assert_eq!(pairs(store.scan(Table::Meta, b"a", b"z", ALL)), ["a=2", "c=2"]);
    write(store, Batch::new());
}

fn tables_are_apart(store: &impl Store) {
    put(store, Table::Log, &[("k", "log")]);
    put(store, Table::Meta, &[("k", "meta")]);
    assert_eq!(store.get(Table::State, b"k"), Ok(None));
    assert_eq!(store.get(Table::Log, b"k"), Ok(Some(bytes("log"))));
    assert_eq!(store.get(Table::Meta, b"k"), Ok(Some(bytes("meta"))));
}

fn scans_are_ordered_bounded_and_half_open(store: &impl Store) {
    put(
        store,
        Table::State,
        &[("b", "2"), ("d", "4"), ("a", "1"), ("c", "3")],
    );
    let scan =
        |from: &str, to: &str, limit| pairs(store.scan(Table::State, from.as_bytes(), to.as_bytes(), limit));
    let back = |from: &str, to: &str, limit| {
        pairs(store.scan_back(Table::State, from.as_bytes(), to.as_bytes(), limit))
    };
    assert_eq!(scan("a", "d", ALL), ["a=1", "b=2", "c=3"]);
    assert_eq!(back("a", "d", ALL), ["c=3", "b=2", "a=1"]);
    assert_eq!(scan("aa", "zz", Limit::records(2)), ["b=2", "c=3"]);
    assert_eq!(back("aa", "zz", Limit::records(2)), ["d=4", "c=3"]);
    let small = Limit {
        records: usize::MAX,
        bytes: 3,
    };
    assert_eq!(
        scan("a", "z", small),
        ["a=1", "b=2"],
        "the record that reaches the bytes is in"
    );
    let none = Limit {
        records: usize::MAX,
        bytes: 0,
    };
    assert_eq!(
        scan("a", "z", none),
        ["a=1"],
        "a scan that finds something returns something"
    );
    assert_eq!(
        scan("d", "a", ALL),
        Vec::<String>::new(),
        "an inverted range is empty"
    );
    assert_eq!(back("d", "d", ALL), Vec::<String>::new());
    assert_eq!(scan("a", "z", Limit::records(0)), Vec::<String>::new());
}

fn a_range_is_deleted_without_its_end(store: &impl Store) {
    put(
        store,
        Table::Log,
        &[("a", "1"), ("b", "2"), ("bb", "3"), ("c", "4")],
    );
    let mut batch = Batch::new();
    batch.delete_range(Table::Log, bytes("b"), bytes("c"));
    batch.delete_range(Table::Log, bytes("x"), bytes("z"));
    write(store, batch);
    assert_eq!(pairs(store.scan(Table::Log, b"a", b"z", ALL)), ["a=1", "c=4"]);
}

fn callbacks_run_in_the_order_of_submission(store: &impl Store) {
    const BATCHES: u32 = 500;
    let (done, durable) = mpsc::channel();
    for number in 0..BATCHES {
        let mut batch = Batch::new();
        let key = Bytes::copy_from_slice(&number.to_be_bytes());
        batch.put(Table::State, key.clone(), key);
        let done = done.clone();
        store.submit(
            batch,
            Box::new(move |result| {
                let _ = done.send((number, result));
            }),
        );
    }
    drop(done);
    let order: Vec<u32> = durable
        .iter()
        .map(|(number, result)| {
            assert_eq!(result, Ok(()));
            let found = store.get(Table::State, &number.to_be_bytes());
            assert!(matches!(found, Ok(Some(_))), "visible when its callback has run");
            number
        })
        .collect();
    assert_eq!(order, (0..BATCHES).collect::<Vec<_>>());
}

fn a_view_stands_still<S: Store>(store: Arc<S>) {
    put(&*store, Table::State, &[("a", "old"), ("b", "old")]);
    let mut seen = Vec::new();
    let writer = Arc::clone(&store);
    let result = store.read(&mut |reads| {
        seen.push(reads.get(Table::State, b"a")?);
        let writer = Arc::clone(&writer);
        // Another thread: a reader may be bound to its own.
        let written = std::thread::spawn(move || {
            put(&*writer, Table::State, &[("a", "new"), ("b", "new")]);
        });
        written.join().expect("the write succeeds while a view is open");
        seen.push(reads.get(Table::State, b"b")?);
        Ok(())
    });
    assert_eq!(result, Ok(()));
    assert_eq!(seen, [Some(bytes("old")), Some(bytes("old"))]);
    assert_eq!(store.get(Table::State, b"b"), Ok(Some(bytes("new"))));
}

fn large_values_and_long_keys_fit(store: &impl Store) {
    let key = Bytes::from(vec![7; crate::store::KEY_BYTES_MAX]);
    let value = Bytes::from(vec![9; 6 * 1024 * 1024]);
    let mut batch = Batch::new();
    batch.put(Table::State, key.clone(), value.clone());
    batch.put(Table::State, bytes("empty"), Bytes::new());
    write(store, batch);
    assert_eq!(store.get(Table::State, &key), Ok(Some(value)));
    assert_eq!(store.get(Table::State, b"empty"), Ok(Some(Bytes::new())));
}
