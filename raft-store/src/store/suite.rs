//! What every [`Store`] must do, as functions that panic when it does not. The tests of this crate
//! run them on LMDB and on the simulated disk; whoever writes another store runs them on that.
//!
//! A [`Stage`] makes empty stores, opens one anew, and runs futures: the suite starts no thread and
//! no runtime of its own, so that a store whose writer is a task passes it as well. Crashes are not
//! in here: only the store's own tests know how to crash it.

mod limits;
mod model;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::store::{Batch, Limit, Records, Store, StoreFailure, Table, submit_and_wait};

const ALL: Limit = Limit {
    records: usize::MAX,
    bytes: usize::MAX,
};

/// Where the suite is played.
pub trait Stage {
    /// An empty store.
    fn fresh(&mut self) -> Arc<dyn Store>;

    /// The store that was made last, opened anew after its last handle was dropped and it has come
    /// to its orderly end.
    fn reopen(&mut self) -> Arc<dyn Store>;

    /// Runs a future, and the writer of the store where it is a task, on this thread.
    fn run<T>(&self, future: impl Future<Output = T>) -> T;
}

/// Runs everything, each part on a store of its own.
pub fn run_all(stage: &mut impl Stage) {
    what_is_durable_can_be_read(stage);
    a_batch_is_applied_in_its_order(stage);
    tables_are_apart(stage);
    scans_are_ordered_bounded_and_half_open(stage);
    a_range_is_deleted_without_its_end(stage);
    callbacks_run_in_the_order_of_submission(stage);
    a_callback_may_submit_and_may_hold_the_last_handle(stage);
    a_view_stands_still(stage);
    reopening_shows_exactly_what_was_submitted(stage);
    limits::large_values_and_long_keys_fit(stage);
    limits::an_empty_batch_is_durable_behind_the_ones_before_it(stage);
    limits::more_than_a_transaction_and_more_than_the_queue_pass_in_order(stage);
    limits::a_key_that_does_not_fit_fails_the_store_for_good(stage);
    limits::a_key_out_of_bounds_cannot_be_read(stage);
    model::random_batches_and_scans_are_as_in_a_map(stage);
}

/// Submits and waits.
fn write(stage: &impl Stage, store: &Arc<dyn Store>, batch: Batch) {
    assert_eq!(stage.run(submit_and_wait(&**store, batch)), Ok(()));
}

fn batch_of(table: Table, records: &[(&str, &str)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in records {
        batch.put(table, bytes(key), bytes(value));
    }
    batch
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

/// Everything in a table.
fn all(store: &Arc<dyn Store>, table: Table) -> Vec<String> {
    pairs(store.scan(table, &[0], &[u8::MAX; crate::store::KEY_BYTES_MAX], ALL))
}

fn what_is_durable_can_be_read(stage: &mut impl Stage) {
    let store = stage.fresh();
    write(stage, &store, batch_of(Table::State, &[("a", "1"), ("b", "2")]));
    assert_eq!(store.get(Table::State, b"a"), Ok(Some(bytes("1"))));
    assert_eq!(store.get(Table::State, b"c"), Ok(None));
    write(stage, &store, batch_of(Table::State, &[("a", "3")]));
    assert_eq!(store.get(Table::State, b"a"), Ok(Some(bytes("3"))));
    assert_eq!(*store.failure().borrow(), None);
}

fn a_batch_is_applied_in_its_order(stage: &mut impl Stage) {
    let store = stage.fresh();
    let mut batch = Batch::new();
    batch.put(Table::Meta, bytes("a"), bytes("1"));
    batch.put(Table::Meta, bytes("a"), bytes("2"));
    batch.put(Table::Meta, bytes("b"), bytes("1"));
    batch.delete(Table::Meta, bytes("b"));
    batch.delete(Table::Meta, bytes("absent"));
    batch.put(Table::Meta, bytes("c"), bytes("1"));
    batch.delete_range(Table::Meta, bytes("c"), bytes("d"));
    batch.put(Table::Meta, bytes("c"), bytes("2"));
    write(stage, &store, batch);
    assert_eq!(all(&store, Table::Meta), ["a=2", "c=2"]);
}

fn tables_are_apart(stage: &mut impl Stage) {
    let store = stage.fresh();
    write(stage, &store, batch_of(Table::Log, &[("k", "log")]));
    write(stage, &store, batch_of(Table::Meta, &[("k", "meta")]));
    assert_eq!(store.get(Table::State, b"k"), Ok(None));
    assert_eq!(store.get(Table::Log, b"k"), Ok(Some(bytes("log"))));
    assert_eq!(store.get(Table::Meta, b"k"), Ok(Some(bytes("meta"))));
}

fn scans_are_ordered_bounded_and_half_open(stage: &mut impl Stage) {
    let store = stage.fresh();
    let records = [("b", "2"), ("d", "4"), ("a", "1"), ("c", "3")];
    write(stage, &store, batch_of(Table::State, &records));
    let scan =
        |from: &str, to: &str, limit| pairs(store.scan(Table::State, from.as_bytes(), to.as_bytes(), limit));
    let back = |from: &str, to: &str, limit| {
        pairs(store.scan_back(Table::State, from.as_bytes(), to.as_bytes(), limit))
    };
    let of_bytes = |bytes| Limit {
        records: usize::MAX,
        bytes,
    };
    assert_eq!(scan("a", "d", ALL), ["a=1", "b=2", "c=3"]);
    assert_eq!(back("a", "d", ALL), ["c=3", "b=2", "a=1"]);
    assert_eq!(scan("aa", "zz", Limit::records(2)), ["b=2", "c=3"]);
    assert_eq!(back("aa", "zz", Limit::records(2)), ["d=4", "c=3"]);
    // The record that reaches the bytes is in.
    assert_eq!(scan("a", "z", of_bytes(3)), ["a=1", "b=2"]);
    assert_eq!(back("a", "z", of_bytes(3)), ["d=4", "c=3"]);
    // A scan that finds something returns something.
    assert_eq!(scan("a", "z", of_bytes(0)), ["a=1"]);
    assert_eq!(back("a", "z", of_bytes(0)), ["d=4"]);
    let nothing = Vec::<String>::new();
    assert_eq!(scan("d", "a", ALL), nothing, "an inverted range is empty");
    assert_eq!(back("d", "a", ALL), nothing);
    assert_eq!(scan("d", "d", ALL), nothing);
    assert_eq!(back("d", "d", ALL), nothing);
    assert_eq!(scan("a", "z", Limit::records(0)), nothing);
    assert_eq!(back("a", "z", Limit::records(0)), nothing);
}

fn a_range_is_deleted_without_its_end(stage: &mut impl Stage) {
    let store = stage.fresh();
    let records = [("a", "1"), ("b", "2"), ("bb", "3"), ("c", "4")];
    write(stage, &store, batch_of(Table::Log, &records));
    let mut batch = Batch::new();
    batch.delete_range(Table::Log, bytes("b"), bytes("c"));
    batch.delete_range(Table::Log, bytes("x"), bytes("z"));
    batch.delete_range(Table::Log, bytes("z"), bytes("a"));
    batch.delete_range(Table::Log, bytes("a"), bytes("a"));
    write(stage, &store, batch);
    assert_eq!(all(&store, Table::Log), ["a=1", "c=4"]);
}

fn callbacks_run_in_the_order_of_submission(stage: &mut impl Stage) {
    const BATCHES: u32 = 500;
    let store = stage.fresh();
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..BATCHES {
        let mut batch = Batch::new();
        let key = Bytes::copy_from_slice(&number.to_be_bytes());
        batch.put(Table::State, key.clone(), key.clone());
        let (order, seen) = (Arc::clone(&order), Arc::downgrade(&store));
        store.submit(
            batch,
            Box::new(move |result| {
                let store = seen.upgrade().expect("the test holds the store");
                let visible = store.get(Table::State, &key);
                assert!(matches!(visible, Ok(Some(_))), "visible when its callback runs");
                order.lock().push((number, result));
            }),
        );
    }
    write(stage, &store, Batch::new());
    let expected: Vec<_> = (0..BATCHES).map(|number| (number, Ok(()))).collect();
    assert_eq!(*order.lock(), expected);
}

fn a_callback_may_submit_and_may_hold_the_last_handle(stage: &mut impl Stage) {
    let store = stage.fresh();
    let (done, durable) = tokio::sync::oneshot::channel();
    let held = Arc::clone(&store);
    let again = Box::new(move |result: Result<(), StoreFailure>| {
        assert_eq!(result, Ok(()));
        held.submit(
            batch_of(Table::State, &[("second", "2")]),
            Box::new(move |result| {
                let _ = done.send(result);
            }),
        );
        // Here the last handle may go; what is queued is written all the same.
    });
    store.submit(batch_of(Table::State, &[("first", "1")]), again);
    drop(store);
    assert_eq!(stage.run(durable), Ok(Ok(())));
    let store = stage.reopen();
    assert_eq!(all(&store, Table::State), ["first=1", "second=2"]);
}

fn a_view_stands_still(stage: &mut impl Stage) {
    let store = stage.fresh();
    let records = |value| batch_of(Table::State, &[("a", value), ("b", value)]);
    write(stage, &store, records("old"));
    let mut seen = Vec::new();
    let result = store.read(&mut |reads| {
        seen.push(reads.get(Table::State, b"a")?);
        write(stage, &store, records("new"));
        seen.push(reads.get(Table::State, b"b")?);
        let scanned = reads.scan(Table::State, b"a", b"z", ALL)?;
        seen.extend(scanned.into_iter().map(|(_, value)| Some(value)));
        assert_eq!(
            store.get(Table::State, b"b"),
            Ok(Some(bytes("new"))),
            "another view"
        );
        Ok(())
    });
    assert_eq!(result, Ok(()));
    assert_eq!(seen, vec![Some(bytes("old")); 4]);
}

fn reopening_shows_exactly_what_was_submitted(stage: &mut impl Stage) {
    let store = stage.fresh();
    write(stage, &store, batch_of(Table::Log, &[("a", "1"), ("b", "2")]));
    write(stage, &store, batch_of(Table::Meta, &[("a", "1")]));
    let mut batch = batch_of(Table::State, &[("a", "1")]);
    batch.delete(Table::Log, bytes("a"));
    store.submit(batch, Box::new(|result| assert_eq!(result, Ok(()))));
    // Not awaited: an orderly end writes what is queued.
    store.submit(
        batch_of(Table::Meta, &[("b", "2")]),
        Box::new(|result| assert_eq!(result, Ok(()))),
    );
    drop(store);
    for _ in 0..2 {
        let store = stage.reopen();
        assert_eq!(all(&store, Table::Log), ["b=2"]);
        assert_eq!(all(&store, Table::Meta), ["a=1", "b=2"]);
        assert_eq!(all(&store, Table::State), ["a=1"]);
        assert_eq!(*store.failure().borrow(), None);
    }
}
