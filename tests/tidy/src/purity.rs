//! Pure packages perform no IO and read no clock, randomness or global: `now` and seeds come in,
//! effects go out. Every replica and every simulation depends on it.
use crate::manifest::{Kind, Manifest};
use crate::rust::{code, lines_with, without_tests};
use crate::{Finding, Tree};

/// The pure packages and their folders of source.
const PURE: &[(&str, &str)] = &[
    ("throng-protocol", "protocol/src/"),
    ("throng-state", "core/state/src/"),
    ("throng-fanout", "gateway/fanout/src/"),
];

/// What their source must not name, and what to do instead.
const BANNED: &[(&str, &str)] = &[
    (
        "std::net",
        "addresses are strings or bytes here; sockets belong to throng-transport",
    ),
    ("std::fs", "files belong to throng-raft-store and the binary"),
    ("std::thread", "threads belong to the shells"),
    ("std::env", "settings are arguments"),
    ("std::process", "processes belong to the binary"),
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime", "take `now` as an argument"),
    ("tokio", "return effects; the shell awaits"),
    ("rand::", "take a seed or the random bytes as an argument"),
    ("HashMap", "its order differs between replicas; use BTreeMap"),
    ("HashSet", "its order differs between replicas; use BTreeSet"),
    ("Mutex", "state is owned, not shared; take `&mut self`"),
    ("RwLock", "state is owned, not shared; take `&mut self`"),
    ("println!", "return an effect or an error"),
    ("eprintln!", "return an effect or an error"),
];

/// The vendor crates a pure package may use: none performs IO.
const VENDORS: &[&str] = &[
    "bytes",
    "crc32fast",
    "flatbuffers",
    "postcard",
    "serde",
    "sha2",
    "smallvec",
    "thiserror",
];

/// Impure names in the sources of pure packages, tests and generated code aside.
#[must_use]
pub fn in_sources(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let pure = PURE.iter().any(|(_, folder)| file.path.starts_with(folder));
        if !pure || file.is_test() {
            continue;
        }
        let code = code(without_tests(&file.text));
        for (name, instead) in BANNED {
            for line in lines_with(&code, name) {
                found.push(format!(
                    "{}:{line}: `{name}` in a pure package; {instead}",
                    file.path
                ));
            }
        }
    }
    found
}

/// Dependencies of pure packages that are not known to be pure.
#[must_use]
pub fn in_manifests(packages: &[Manifest]) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in packages
        .iter()
        .filter(|package| PURE.iter().any(|(name, _)| *name == package.name))
    {
        for dependency in &package.dependencies {
            let name = dependency.package.as_str();
            let ours = name == "throng-protocol" || crate::arrows::ALLOWED_FOR_ALL.contains(&name);
            if dependency.kind == Kind::Dev || ours || VENDORS.contains(&name) {
                continue;
            }
            found.push(format!(
                "{}: `{name}` is not on the list of crates for pure packages; take its result as an argument, \
                 or show that it performs no IO and add it to tests/tidy/src/purity.rs",
                package.path
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::one;

    #[test]
    fn every_banned_name_is_found_in_a_pure_package_and_nowhere_else() {
        for (name, _) in BANNED {
            let text = format!("//! Doc.\nuse {name};\n");
            let pure = Tree::of(&[("core/state/src/message.rs", &text)]);
            assert!(
                in_sources(&pure).iter().any(|found| found.contains(name)),
                "{name}"
            );
            assert!(
                in_sources(&Tree::of(&[("core/src/node.rs", &text)])).is_empty(),
                "{name}"
            );
        }
    }

    #[test]
    fn tests_of_a_pure_package_may_read_files() {
        let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert!(in_sources(&Tree::of(&[("protocol/src/frame.rs", text)])).is_empty());
    }

    #[test]
    fn a_runtime_among_the_dependencies_is_found_and_among_the_dev_dependencies_is_not() {
        assert_eq!(
            in_manifests(&[one("throng-state", "[dependencies]\ntokio.workspace = true")]).len(),
            1
        );
        assert!(in_manifests(&[one("throng-state", "[dev-dependencies]\nrand.workspace = true")]).is_empty());
    }
}
