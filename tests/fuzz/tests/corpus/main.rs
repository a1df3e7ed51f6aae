//! The committed corpora through the targets, with the toolchain everything else is built with.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use throng_fuzz::{TARGETS, token};

/// Bytes of all corpora together: they are in every clone.
const CORPORA_BYTES_MAX: u64 = 1024 * 1024;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = fuzz().join("corpus").join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn every_input_of_the_corpora_keeps_the_promises() {
    for target in TARGETS {
        for path in inputs(target.name) {
            let input = fs::read(&path).unwrap();
            // Names the input if it panics, which ends the test.
            println!("{}", path.display());
            (target.run)(&input);
        }
    }
}

#[test]
fn every_seed_keeps_the_promises_and_is_in_the_corpus() {
    let write = std::env::var_os("THRONG_WRITE_CORPUS").is_some();
    for target in TARGETS {
        let seeds = seeds::of(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (name, input) in seeds {
            (target.run)(&input);
            let path = fuzz().join("corpus").join(target.name).join(&name);
            if write {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &input).unwrap();
            }
            let there = fs::read(&path).is_ok_and(|there| there == input);
            assert!(
                there,
                "{} is out of date; set THRONG_WRITE_CORPUS=1 and run again",
                path.display()
            );
        }
    }
}

#[test]
fn targets_programs_and_corpora_have_the_same_names() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let names = |folder: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        let path = entries.map(|entry| entry.unwrap().path());
        path.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(fuzz().join("corpus")), targets);
    assert_eq!(names(fuzz().join("fuzz_targets")), targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &targets {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is no program"
        );
    }
}

#[test]
fn the_corpora_are_small() {
    let files = TARGETS.iter().flat_map(|target| inputs(target.name));
    let bytes: u64 = files.map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(bytes <= CORPORA_BYTES_MAX, "{bytes} bytes");
}

#[test]
fn a_token_that_is_signed_for_now_is_accepted_and_the_same_one_with_another_key_is_not() {
    let good = seeds::token(1, "app", token::NOW_S, token::NOW_S + 60);
    assert!(token::is_accepted(&good));
    for mode in [2, 3] {
        let mut other = good.clone();
        other[0] = mode;
        assert!(!token::is_accepted(&other));
    }
    for (app, issued, expires) in [
        ("other", token::NOW_S, token::NOW_S + 60),
        ("app", token::NOW_S + 6, token::NOW_S + 60),
        ("app", token::NOW_S - 60, token::NOW_S),
        ("app", token::NOW_S, token::NOW_S + 24 * 3_600 + 1),
    ] {
        assert!(!token::is_accepted(&seeds::token(1, app, issued, expires)));
    }
}

#[test]
fn honest_sessions_of_the_seeds_take_entries() {
    let taken: u64 = seeds::of("session")
        .iter()
        .map(|(_, input)| throng_fuzz::session::entries_taken(input))
        .sum();
    assert!(taken > 50, "only {taken} entries were taken");
}
