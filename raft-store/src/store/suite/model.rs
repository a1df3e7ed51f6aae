//! Random batches and scans, compared with what a map in memory says.

use bytes::Bytes;

use super::{ALL, Stage, write};
use crate::random::Random;
use crate::sim_disk::Image;
use crate::store::{Batch, Limit, Reads, Table};

const SEEDS: u64 = 8;
const ROUNDS: usize = 40;
const TABLES: [Table; 3] = [Table::Log, Table::Meta, Table::State];

pub fn random_batches_and_scans_are_as_in_a_map(stage: &mut impl Stage) {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let mut store = stage.fresh();
        let mut model = Image::default();
        for round in 0..ROUNDS {
            let batch = batch(&mut random);
            model.apply(&batch);
            write(stage, &store, batch);
            if round == ROUNDS / 2 {
                drop(store);
                store = stage.reopen();
            }
            let result = store.read(&mut |reads| {
                compare(&mut random.clone(), reads, &model, seed);
                Ok(())
            });
            assert_eq!(result, Ok(()));
            random.next();
        }
    }
}

fn batch(random: &mut Random) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..random.below(12) {
        let table = table(random);
        match random.below(8) {
            0 => batch.delete(table, key(random)),
            1 => batch.delete_range(table, key(random), key(random)),
            _ => {
                let value = Bytes::from(random.below(1_000_000).to_string());
                batch.put(table, key(random), value);
            }
        }
    }
    batch
}

fn compare(random: &mut Random, store: &dyn Reads, model: &Image, seed: u64) {
    for table in TABLES {
        let whole = store.scan(table, &[0], &[u8::MAX; 9], ALL);
        assert_eq!(whole, model.scan(table, &[0], &[u8::MAX; 9], ALL), "seed {seed}");
    }
    for _ in 0..10 {
        let (table, from, to) = (table(random), key(random), key(random));
        let limit = Limit {
            records: usize::try_from(random.below(8)).unwrap_or(0),
            bytes: usize::try_from(random.below(60)).unwrap_or(0),
        };
        let at = format!("seed {seed}: {from:?} to {to:?}, {limit:?}");
        assert_eq!(store.get(table, &from), model.get(table, &from), "{at}");
        assert_eq!(
            store.scan(table, &from, &to, limit),
            model.scan(table, &from, &to, limit),
            "{at}"
        );
        assert_eq!(
            store.scan_back(table, &from, &to, limit),
            model.scan_back(table, &from, &to, limit),
            "back, {at}"
        );
    }
}

fn table(random: &mut Random) -> Table {
    TABLES[usize::try_from(random.below(3)).unwrap_or(0)]
}

/// Few and short keys, so that they meet: 1 to 3 bytes from the ends of the range and its middle.
fn key(random: &mut Random) -> Bytes {
    let len = random.between((1, 3));
    (0..len)
        .map(|_| [0, 1, 0x7f, 0x80, 0xfe, 0xff][usize::try_from(random.below(6)).unwrap_or(0)])
        .collect()
}
