//! Nothing in the tree depends on one machine or on where its packages are downloaded from.
use crate::{Finding, Tree};

/// Texts that no file holds. Written in halves, so that this file does not hold them either.
const BANNED: &[(&str, &str)] = &[
    (
        concat!("/wo", "rk/"),
        "a path of one machine; write it relative to the checkout",
    ),
    (
        concat!("/tmp/", "throng"),
        "a path of one machine; use a temporary folder of the process",
    ),
    (
        concat!("/ho", "me/"),
        "a path of one machine; write it relative to the checkout",
    ),
    (
        concat!("--index", "-url"),
        "which registry is used is the machine's business",
    ),
    (
        concat!("--extra-index", "-url"),
        "which registry is used is the machine's business",
    ),
    (
        concat!("replace", "-with"),
        "which registry is used is the machine's business",
    ),
    (
        concat!("npm_config", "_registry"),
        "which registry is used is the machine's business",
    ),
    (
        concat!("GOPROXY", "="),
        "which registry is used is the machine's business",
    ),
];

/// Lines that name a machine's paths or registries.
#[must_use]
pub fn findings(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| !file.is_generated()) {
        for (number, line) in file.text.lines().enumerate() {
            for (text, why) in BANNED {
                if line.contains(text) {
                    found.push(format!("{}:{}: `{text}` is {why}", file.path, number + 1));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_found_with_its_line() {
        for (text, _) in BANNED {
            let found = findings(&Tree::of(&[("docs/a.md", &format!("first\nsee {text}x\n"))]));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("docs/a.md:2:"), "{found:?}");
        }
    }

    #[test]
    fn a_path_of_the_checkout_passes() {
        assert!(findings(&Tree::of(&[("docs/a.md", "see docs/testing.md and ./data\n")])).is_empty());
    }
}
