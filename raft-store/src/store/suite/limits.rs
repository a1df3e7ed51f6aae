//! Keys, values, batches and queues at their bounds and beyond.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{ALL, Stage, all, batch_of, bytes, write};
use crate::store::{Batch, FailureKind, KEY_BYTES_MAX, Table, submit_and_wait};
use crate::writer::{QUEUE_BYTES_MAX, TXN_BYTES_MAX};

/// A value that is larger than a page by far, and more than one of them fit into a transaction.
const LARGE: usize = 3 * TXN_BYTES_MAX / 4;

pub fn large_values_and_long_keys_fit(stage: &mut impl Stage) {
    let store = stage.fresh();
    let key = Bytes::from(vec![7; KEY_BYTES_MAX]);
    let value = Bytes::from(vec![9; 3 * TXN_BYTES_MAX / 2]);
    let mut batch = Batch::new();
    batch.put(Table::State, key.clone(), value.clone());
    batch.put(Table::State, bytes("empty"), Bytes::new());
    // Shorter keys that begin alike come first.
    batch.put(Table::State, key.slice(1..), bytes("shorter"));
    write(stage, &store, batch);
    assert_eq!(store.get(Table::State, &key), Ok(Some(value.clone())));
    assert_eq!(store.get(Table::State, b"empty"), Ok(Some(Bytes::new())));
    let mut ends = Batch::new();
    ends.delete_range(Table::State, key.slice(1..), key.clone());
    write(stage, &store, ends);
    let left = store.scan(Table::State, &[0], b"z", ALL);
    let left: Vec<Bytes> = left
        .expect("it can be read")
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(left, [key.clone(), bytes("empty")]);
    drop(store);
    let store = stage.reopen();
    assert_eq!(store.get(Table::State, &key), Ok(Some(value)));
}

pub fn an_empty_batch_is_durable_behind_the_ones_before_it(stage: &mut impl Stage) {
    let store = stage.fresh();
    write(stage, &store, Batch::new());
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..4 {
        let batch = match number {
            1 | 3 => Batch::new(),
            _ => batch_of(Table::State, &[("k", "v")]),
        };
        let order = Arc::clone(&order);
        store.submit(batch, Box::new(move |result| order.lock().push((number, result))));
    }
    write(stage, &store, Batch::new());
    assert_eq!(
        *order.lock(),
        [(0, Ok(())), (1, Ok(())), (2, Ok(())), (3, Ok(()))]
    );
}

pub fn more_than_a_transaction_and_more_than_the_queue_pass_in_order(stage: &mut impl Stage) {
    let store = stage.fresh();
    let order = Arc::new(Mutex::new(Vec::new()));
    let value = Bytes::from(vec![5; LARGE]);
    let batches = u32::try_from(QUEUE_BYTES_MAX / LARGE + 3).unwrap_or(u32::MAX);
    for number in 0..batches {
        let mut batch = Batch::new();
        batch.put(Table::Log, Bytes::from_static(b"large"), value.clone());
        batch.put(
            Table::Log,
            Bytes::from_static(b"last"),
            Bytes::from(number.to_string()),
        );
        let order = Arc::clone(&order);
        store.submit(
            batch,
            Box::new(move |result| {
                assert_eq!(result, Ok(()));
                order.lock().push(number);
            }),
        );
    }
    stage.run(store.room());
    write(stage, &store, Batch::new());
    assert_eq!(*order.lock(), (0..batches).collect::<Vec<_>>());
    let last = Bytes::from((batches - 1).to_string());
    assert_eq!(store.get(Table::Log, b"last"), Ok(Some(last)));
    assert_eq!(store.get(Table::Log, b"large"), Ok(Some(value)));
}

pub fn a_key_that_does_not_fit_fails_the_store_for_good(stage: &mut impl Stage) {
    for key in [Bytes::new(), Bytes::from(vec![1; KEY_BYTES_MAX + 1])] {
        let store = stage.fresh();
        write(stage, &store, batch_of(Table::State, &[("before", "1")]));
        let mut batch = batch_of(Table::State, &[("beside", "1")]);
        batch.put(Table::State, key, bytes("value"));
        let failure = stage
            .run(submit_and_wait(&*store, batch))
            .expect_err("such a key is refused");
        assert_eq!(failure.kind, FailureKind::Io);
        assert_eq!(
            *store.failure().borrow(),
            Some(failure.clone()),
            "the store has failed"
        );
        for batch in [batch_of(Table::State, &[("behind", "1")]), Batch::new()] {
            let refused = stage.run(submit_and_wait(&*store, batch));
            assert_eq!(refused, Err(failure.clone()), "for good, with the first reason");
        }
        stage.run(store.room());
        assert_eq!(
            all(&store, Table::State),
            ["before=1"],
            "what was durable can be read"
        );
        drop(store);
        let store = stage.reopen();
        assert_eq!(*store.failure().borrow(), None);
        assert_eq!(all(&store, Table::State), ["before=1"]);
        write(stage, &store, batch_of(Table::State, &[("behind", "1")]));
    }
}

pub fn a_key_out_of_bounds_cannot_be_read(stage: &mut impl Stage) {
    let store = stage.fresh();
    write(stage, &store, batch_of(Table::State, &[("a", "1")]));
    let long = vec![1; KEY_BYTES_MAX + 1];
    assert_eq!(store.get(Table::State, &long), Ok(None));
    assert!(store.get(Table::State, b"").is_err(), "an empty key is none");
    assert!(store.scan(Table::State, b"", b"z", ALL).is_err());
    assert_eq!(*store.failure().borrow(), None, "the store goes on");
    // A bound is no key: it may be of any length.
    assert_eq!(
        store
            .scan(Table::State, &long, b"z", ALL)
            .map(|found| found.len()),
        Ok(1)
    );
    let mut batch = Batch::new();
    batch.delete(Table::State, Bytes::from(long));
    batch.delete_range(
        Table::State,
        bytes("b"),
        Bytes::from(vec![b'c'; KEY_BYTES_MAX + 1]),
    );
    write(stage, &store, batch);
    assert_eq!(all(&store, Table::State), ["a=1"]);
}
