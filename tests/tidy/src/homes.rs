//! Each vendor crate that shapes the design has one home.
use crate::manifest::Manifest;
use crate::rust::{code, lines_with};
use crate::{Finding, Tree};

/// Vendor crates and the packages that may depend on them.
const HOMES: &[(&str, &[&str])] = &[
    // throng-bench compares with bare quinn, and with peers over TLS.
    ("quinn", &["throng-transport", "throng-bench"]),
    ("quinn-proto", &["throng-transport"]),
    ("quinn-udp", &["throng-transport"]),
    ("nix", &["throng-transport"]),
    ("rustls", &["throng-transport", "throng-bench"]),
    ("rustls-pki-types", &["throng-transport"]),
    ("rcgen", &["throng-transport"]),
    ("x509-parser", &["throng-transport"]),
    ("flatbuffers", &["throng-protocol"]),
    // throng-power drives raft-store as openraft does, through openraft's own storage traits.
    ("openraft", &["throng-raft-store", "throng-core", "throng-power"]),
    ("openraft-macros", &["throng-raft-store", "throng-core"]),
    ("openraft-rt", &["throng-raft-store", "throng-core"]),
    ("openraft-rt-tokio", &["throng-raft-store", "throng-core"]),
    ("heed", &["throng-raft-store"]),
    ("foyer", &["throng-gateway"]),
    ("mimalloc", &["throng", "throng-bench"]),
];

/// Names that only some source files may write, as (name, files or folders, what to do elsewhere).
const NAMED_IN: &[(&str, &[&str], &str)] = &[
    (
        "openraft",
        &[
            "raft-store/",
            "core/src/raft.rs",
            "core/src/raft/",
            "tests/power/src/load.rs",
            "tests/power/src/check.rs",
        ],
        "go through the `raft` module of throng-core",
    ),
    (
        "tokio_util::codec",
        &["protocol/transport/"],
        "framing is throng-transport's; use its links",
    ),
    (
        "quinn",
        &["protocol/transport/", "bench/src/fanout/"],
        "use the links of throng-transport",
    ),
    (
        "rustls",
        &["protocol/transport/", "bench/src/fanout/"],
        "use the identities of throng-transport",
    ),
    (
        "heed",
        &["raft-store/"],
        "use the `Store` trait of throng-raft-store",
    ),
    (
        "flatbuffers",
        &["protocol/src/", "protocol/tests/"],
        "use the typed messages of throng-protocol",
    ),
];

/// Vendor crates in the manifest of a package that is not their home.
#[must_use]
pub fn in_manifests(packages: &[Manifest]) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in packages {
        for dependency in &package.dependencies {
            let home = HOMES.iter().find(|(vendor, _)| *vendor == dependency.package);
            if let Some((vendor, homes)) = home
                && !homes.contains(&package.name.as_str())
            {
                found.push(format!(
                    "{}: `{vendor}` lives in {} only; ask that package for what you need",
                    package.path,
                    homes.join(" and ")
                ));
            }
        }
    }
    found
}

/// Vendor names in source files outside their home.
#[must_use]
pub fn in_sources(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let code = code(&file.text);
        for (name, places, instead) in NAMED_IN {
            if places.iter().any(|place| file.path.starts_with(place)) {
                continue;
            }
            // Followed by `::` in a path, or alone in `use name;`.
            let path = format!("{name}::");
            let alone = format!("use {name}");
            for line in lines_with(&code, &path)
                .into_iter()
                .chain(lines_with(&code, &alone))
            {
                found.push(format!("{}:{line}: names `{name}`; {instead}", file.path));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::one;

    #[test]
    fn a_vendor_away_from_home_is_found() {
        let found = in_manifests(&[one("throng-gateway", "[dependencies]\nquinn.workspace = true")]);
        assert!(
            found[0].contains("`quinn` lives in throng-transport and throng-bench only"),
            "{found:?}"
        );
        assert!(
            in_manifests(&[one("throng-transport", "[dependencies]\nquinn.workspace = true")]).is_empty()
        );
    }

    #[test]
    fn openraft_outside_the_raft_module_of_core_is_found() {
        let text = "use openraft::Raft;\n";
        assert_eq!(in_sources(&Tree::of(&[("core/src/dispatch.rs", text)])).len(), 1);
        let home = Tree::of(&[("core/src/raft.rs", text), ("core/src/raft/network.rs", text)]);
        assert!(in_sources(&home).is_empty());
    }

    #[test]
    fn the_codec_of_tokio_util_outside_transport_is_found_and_its_rt_is_not() {
        let text = "use tokio_util::codec::Decoder;\nuse tokio_util::sync::CancellationToken;\n";
        let found = in_sources(&Tree::of(&[("gateway/src/session.rs", text)]));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_vendor_named_in_a_comment_is_no_finding() {
        assert!(
            in_sources(&Tree::of(&[(
                "core/src/lib.rs",
                "//! openraft::Raft runs below.\n"
            )]))
            .is_empty()
        );
    }
}
