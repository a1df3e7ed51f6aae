//! Deliberate mistakes: each that is planted is listed with what notices it, and each that is listed
//! is planted.
use std::collections::BTreeMap;

use crate::{Finding, Tree};

const TABLE: &str = "docs/testing.md";
const SITE: &str = "planted!(\"";
/// Where the macro is defined and tested, and this file: neither plants anything.
const NOT_READ: &[&str] = &["tests/planted/", "tests/tidy/"];

/// Mistakes without a line in the table, lines without a mistake, and sites in tests.
#[must_use]
pub fn findings(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut planted: BTreeMap<&str, &str> = BTreeMap::new();
    for file in tree.rust() {
        if NOT_READ.iter().any(|folder| file.path.starts_with(folder)) {
            continue;
        }
        for name in names(&file.text) {
            if file.is_test() {
                found.push(format!(
                    "{}: plants `{name}` in a test; plant it in the product",
                    file.path
                ));
            }
            planted.insert(name, &file.path);
        }
    }
    let listed: Vec<&str> = tree.text(TABLE).map(rows).unwrap_or_default();
    for (name, path) in &planted {
        if !listed.contains(name) {
            found.push(format!(
                "{path}: plants `{name}`, which the table of planted mistakes in {TABLE} does not list"
            ));
        }
    }
    for name in listed {
        if !planted.contains_key(name) {
            found.push(format!(
                "{TABLE}: lists the mistake `{name}`, which is planted nowhere"
            ));
        }
    }
    found
}

/// The names planted in a source.
fn names(text: &str) -> Vec<&str> {
    let sites = text.match_indices(SITE).map(|(at, _)| &text[at + SITE.len()..]);
    sites
        .filter_map(|rest| rest.split_once('"').map(|(name, _)| name))
        .collect()
}

/// The first cells of the table under the heading about planted mistakes.
fn rows(text: &str) -> Vec<&str> {
    let Some((_, section)) = text.split_once("## Planted mistakes") else {
        return Vec::new();
    };
    let section = section.split("\n## ").next().unwrap_or(section);
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `"));
    cells
        .filter_map(|rest| rest.split_once("` |").map(|(name, _)| name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str =
        "## Planted mistakes\n\n| name | mistake |\n|---|---|\n| `forgets` | it forgets |\n\n## Other\n";

    fn judged(source: &str, docs: &str) -> Vec<Finding> {
        findings(&Tree::of(&[("core/src/a.rs", source), (TABLE, docs)]))
    }

    #[test]
    fn a_mistake_that_is_listed_passes() {
        assert_eq!(
            judged("if planted!(\"forgets\") {}\n", DOCS),
            Vec::<Finding>::new()
        );
    }

    #[test]
    fn a_mistake_that_is_not_listed_and_one_that_is_not_planted_are_found() {
        assert!(
            judged("if planted!(\"lies\") {}\n", DOCS)
                .iter()
                .any(|found| found.contains("does not list"))
        );
        assert!(judged("fn f() {}\n", DOCS)[0].contains("planted nowhere"));
    }

    #[test]
    fn a_mistake_in_a_test_is_found() {
        let tree = Tree::of(&[
            ("core/tests/a.rs", "if planted!(\"forgets\") {}\n"),
            (TABLE, DOCS),
        ]);
        assert!(findings(&tree)[0].contains("in a test"));
    }
}
