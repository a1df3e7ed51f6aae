//! Small rules about Rust files: no `mod.rs`, no skipped test, no unbounded queue, no unfinished
//! code, `unsafe` in one known place, and a module doc at the top of every file.
use crate::rust::{code, lines_with};
use crate::{File, Finding, Tree};

/// Files that may say `unsafe`, and why.
const UNSAFE_IN: &[(&str, &str)] = &[
    (
        "raft-store/src/heed_store.rs",
        "opening a memory map is unsafe in heed",
    ),
    (
        "tests/sim/src/entropy.rs",
        "a function of the C library is replaced, which takes a pointer and a name",
    ),
];

/// What no code says, and what to do instead.
const BANNED: &[(&str, &str)] = &[
    (
        "#[ignore",
        "a test that does not run holds nothing; make it fast or delete it",
    ),
    ("unbounded_channel", "every queue has a named bound and a policy"),
    ("todo!", "finish it, or do not start it"),
    ("unimplemented!", "finish it, or do not start it"),
];

/// All findings of these rules.
#[must_use]
pub fn findings(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        if file.path.ends_with("/mod.rs") {
            found.push(format!(
                "{}: write `name.rs` beside the folder `name/` instead",
                file.path
            ));
        }
        let code = code(&file.text);
        for (name, instead) in BANNED {
            for line in lines_with(&code, name) {
                found.push(format!("{}:{line}: `{name}`; {instead}", file.path));
            }
        }
        if !UNSAFE_IN.iter().any(|(path, _)| *path == file.path) {
            for line in lines_with(&code, "unsafe") {
                found.push(format!(
                    "{}:{line}: `unsafe` outside the listed files; use a safe way, or give the reason in tests/tidy/src/source.rs",
                    file.path
                ));
            }
        }
        if !has_module_doc(file) {
            found.push(format!(
                "{}: begins without `//!`; say what the module is and what it refuses to be",
                file.path
            ));
        }
    }
    found
}

/// Unit tests in a file of their own (`name/tests.rs`) are documented by the module they test.
fn has_module_doc(file: &File) -> bool {
    if file.path.ends_with("/tests.rs") {
        return true;
    }
    file.text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .is_some_and(|line| line.starts_with("//!"))
}

/// Files listed as places of `unsafe` that have none.
#[must_use]
pub fn stale(tree: &Tree) -> Vec<Finding> {
    UNSAFE_IN
        .iter()
        .filter(|(path, _)| {
            tree.text(path)
                .is_none_or(|text| lines_with(&code(text), "unsafe").is_empty())
        })
        .map(|(path, _)| {
            format!("{path}: listed in tests/tidy/src/source.rs and has no `unsafe`; take it off the list")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_banned_word_is_found_in_code_and_not_in_text() {
        for (name, _) in BANNED {
            let bad = format!("//! Doc.\n{name}\n");
            assert_eq!(findings(&Tree::of(&[("core/src/a.rs", &bad)])).len(), 1, "{name}");
            let good = format!("//! Doc.\nconst A: &str = \"{name}\"; // {name}\n");
            assert!(
                findings(&Tree::of(&[("core/src/a.rs", &good)])).is_empty(),
                "{name}"
            );
        }
    }

    #[test]
    fn mod_rs_is_found() {
        assert!(findings(&Tree::of(&[("core/src/a/mod.rs", "//! Doc.\n")]))[0].contains("beside the folder"));
    }

    #[test]
    fn unsafe_is_found_outside_its_place() {
        let text = "//! Doc.\nfn f() { unsafe { g() } }\n";
        assert_eq!(findings(&Tree::of(&[("core/src/a.rs", text)])).len(), 1);
        assert!(findings(&Tree::of(&[("raft-store/src/heed_store.rs", text)])).is_empty());
    }

    #[test]
    fn a_listed_place_without_unsafe_is_found() {
        let unsafe_text = "//! Doc.\nfn f() { unsafe { g() } }\n";
        let mut files: Vec<(&str, &str)> = UNSAFE_IN.iter().map(|(path, _)| (*path, unsafe_text)).collect();
        assert!(stale(&Tree::of(&files)).is_empty());
        files[0].1 = "//! Doc.\n";
        assert_eq!(stale(&Tree::of(&files)).len(), 1);
    }

    #[test]
    fn a_file_without_a_module_doc_is_found() {
        assert!(findings(&Tree::of(&[("core/src/a.rs", "use std::fmt;\n")]))[0].contains("without `//!`"));
        assert!(findings(&Tree::of(&[("core/src/a/tests.rs", "use super::*;\n")])).is_empty());
    }
}
