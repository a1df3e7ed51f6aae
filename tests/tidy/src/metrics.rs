//! A metric named in the documentation is one that the source registers.
use std::collections::BTreeSet;

use crate::rust::is_word;
use crate::{Finding, Tree};

/// Endings that Prometheus's text format adds to a registered name.
const ADDED: &[&str] = &["_total", "_bucket", "_sum", "_count"];

/// Names in Markdown that look like metrics and stand in no string of the source.
#[must_use]
pub fn findings(tree: &Tree) -> Vec<Finding> {
    let crates: BTreeSet<String> = crate::arrows::ALLOWED
        .iter()
        .map(|(name, _)| name.replace('-', "_"))
        .collect();
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.is("md")) {
        for name in names(&file.text) {
            if !crates.contains(name) && !is_registered(tree, name) {
                found.push(format!(
                    "{}: names the metric `{name}`, which no source registers",
                    file.path
                ));
            }
        }
    }
    found
}

fn names(text: &str) -> BTreeSet<&str> {
    let starts = text.match_indices("throng_").map(|(at, _)| at);
    starts
        .filter(|at| !text[..*at].bytes().next_back().is_some_and(is_word))
        .map(|at| {
            let end = text[at..]
                .bytes()
                .position(|byte| !is_word(byte))
                .unwrap_or(text.len() - at);
            &text[at..at + end]
        })
        // `throng_*` and the like are patterns.
        .filter(|name| !name.ends_with('_'))
        .collect()
}

fn is_registered(tree: &Tree, name: &str) -> bool {
    let bare = ADDED
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    let candidates = [
        name,
        bare,
        name.trim_start_matches("throng_"),
        bare.trim_start_matches("throng_"),
    ];
    tree.rust().any(|file| {
        candidates
            .iter()
            .any(|candidate| file.text.contains(&format!("\"{candidate}\"")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: (&str, &str) = (
        "core/src/metrics.rs",
        "registry.register(\"commits\", \"help\", commits);",
    );

    #[test]
    fn a_metric_that_nothing_registers_is_found() {
        let tree = Tree::of(&[SOURCE, ("docs/a.md", "watch `throng_dreams_total`")]);
        assert_eq!(findings(&tree).len(), 1);
    }

    #[test]
    fn a_registered_metric_and_a_crate_pass() {
        let tree = Tree::of(&[
            SOURCE,
            (
                "docs/a.md",
                "`throng_commits_total`, `throng_core` and `throng_*`",
            ),
        ]);
        assert_eq!(findings(&tree), Vec::<String>::new());
    }
}
