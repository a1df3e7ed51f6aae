//! The one direction of dependencies between our packages.
use std::collections::{BTreeMap, BTreeSet};

use crate::Finding;
use crate::manifest::{Kind, Manifest};

/// Every package and the packages of ours it may depend on, in any table of its manifest.
/// A new arrow is a design decision: it comes with its reason in ARCHITECTURE.md, in a commit of its own.
pub const ALLOWED: &[(&str, &[&str])] = &[
    ("throng-protocol", &[]),
    ("throng-transport", &["throng-protocol"]),
    ("throng-state", &["throng-protocol"]),
    ("throng-fanout", &["throng-protocol"]),
    ("throng-raft-store", &["throng-protocol", "throng-state"]),
    (
        "throng-core",
        &[
            "throng-protocol",
            "throng-transport",
            "throng-state",
            "throng-raft-store",
        ],
    ),
    (
        "throng-gateway",
        &["throng-protocol", "throng-transport", "throng-fanout"],
    ),
    // Requests go to whoever carries them out: the binary gives it a core node.
    ("throng-server-api", &["throng-protocol", "throng-transport"]),
    ("throng-client", &["throng-protocol", "throng-transport"]),
    (
        "throng",
        &[
            "throng-protocol",
            "throng-transport",
            "throng-core",
            "throng-server-api",
            "throng-gateway",
            "throng-client",
        ],
    ),
    (
        "throng-cluster",
        // It reads what nodes that are gone have left on disk; a running system it knows from outside.
        &[
            "throng-protocol",
            "throng-state",
            "throng-raft-store",
            "throng-client",
            // One tool for all that is done to a system from outside.
            "throng-power",
            // Whether one order explains what processes answered.
            "throng-lin",
        ],
    ),
    // The simulation puts a whole system together from its parts.
    (
        "throng-sim",
        &[
            "throng-protocol",
            "throng-transport",
            "throng-state",
            "throng-raft-store",
            "throng-core",
            "throng-gateway",
            "throng-client",
            "throng-lin",
        ],
    ),
    ("throng-lin", &[]),
    (
        "throng-power",
        &["throng-protocol", "throng-state", "throng-raft-store"],
    ),
    (
        "throng-fuzz",
        &[
            "throng-protocol",
            "throng-state",
            "throng-raft-store",
            "throng-gateway",
        ],
    ),
    ("throng-planted", &[]),
    ("throng-tidy", &[]),
    // Bare quinn is compared with under the settings that links have; the kernels of the fan-out are
    // counted alone.
    (
        "throng-bench",
        &[
            "throng-protocol",
            "throng-transport",
            "throng-client",
            "throng-fanout",
        ],
    ),
];

/// Packages every other may depend on. The macro of deliberate mistakes is the word `false` in every
/// normal build; where a mistake is made is where it is planted.
pub const ALLOWED_FOR_ALL: &[&str] = &["throng-planted"];

/// Arrows for tests alone: the whole-process tests live beside the binary they run, and the Server API is
/// tested over a real core node.
pub const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[
    ("throng", &["throng-cluster"]),
    ("throng-server-api", &["throng-core"]),
];

/// Packages of the outer side and what they must not reach, even through others.
const APART: &[&str] = &["throng-gateway", "throng-client"];
const INNER: &[&str] = &["throng-core", "throng-state", "throng-raft-store"];

/// Arrows that are not in the table, packages the table does not know, and ways from the edge or a
/// client into the core.
#[must_use]
pub fn findings(packages: &[Manifest]) -> Vec<Finding> {
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut found = Vec::new();
    for package in packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            found.push(format!(
                "{}: package `{}` is not in the table of arrows; add it to tests/tidy/src/arrows.rs and to ARCHITECTURE.md",
                package.path, package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let target = dependency.package.as_str();
            let in_tests = dependency.kind == Kind::Dev
                && ALLOWED_IN_TESTS
                    .iter()
                    .any(|(name, to)| *name == package.name && to.contains(&target));
            let for_all = ALLOWED_FOR_ALL.contains(&target);
            if ours.contains(target) && !allowed.contains(&target) && !in_tests && !for_all {
                found.push(format!(
                    "{}: `{}` must not depend on `{target}`; move what it needs to a package both may use \
                     (mostly throng-protocol), or argue for the arrow in ARCHITECTURE.md and add it to tests/tidy/src/arrows.rs",
                    package.path, package.name
                ));
            }
        }
    }
    found.extend(ways_inside(packages));
    found
}

/// Ways from an outer package to an inner one over any number of steps.
fn ways_inside(packages: &[Manifest]) -> Vec<Finding> {
    let targets: BTreeMap<&str, Vec<&str>> = packages
        .iter()
        .map(|package| {
            (
                package.name.as_str(),
                package
                    .dependencies
                    .iter()
                    .map(|to| to.package.as_str())
                    .collect(),
            )
        })
        .collect();
    let mut found = Vec::new();
    for start in APART {
        let mut seen = BTreeSet::new();
        let mut open = vec![*start];
        while let Some(at) = open.pop() {
            for next in targets.get(at).into_iter().flatten() {
                if seen.insert(*next) {
                    open.push(next);
                }
                if INNER.contains(next) && at != *start {
                    found.push(format!(
                        "`{start}` reaches `{next}` through `{at}`; gateway, clients and core meet only in throng-protocol"
                    ));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::one;

    fn pair(from: &str, to: &str) -> Vec<Manifest> {
        vec![
            one(from, &format!("[dev-dependencies]\n{to}.workspace = true")),
            one(to, ""),
        ]
    }

    #[test]
    fn an_arrow_of_the_table_passes() {
        assert_eq!(
            findings(&pair("throng-core", "throng-state")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_arrow_against_the_direction_is_found() {
        let found = findings(&pair("throng-gateway", "throng-state"));
        assert!(
            found[0].contains("`throng-gateway` must not depend on `throng-state`"),
            "{found:?}"
        );
    }

    #[test]
    fn an_arrow_for_tests_is_none_for_the_program() {
        assert!(findings(&pair("throng", "throng-cluster")).is_empty());
        let program = one("throng", "[dependencies]\nthrong-cluster.workspace = true");
        assert_eq!(findings(&[program, one("throng-cluster", "")]).len(), 1);
    }

    #[test]
    fn a_way_from_a_client_into_the_core_over_two_steps_is_found() {
        let mut packages = pair("throng-client", "throng-transport");
        packages.extend(pair("throng-transport", "throng-core"));
        assert!(
            findings(&packages)
                .iter()
                .any(|found| found.contains("reaches `throng-core` through"))
        );
    }

    #[test]
    fn an_unknown_package_is_found() {
        assert!(findings(&[one("throng-novelty", "")])[0].contains("not in the table"));
    }
}
