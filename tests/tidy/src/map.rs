//! ARCHITECTURE.md is the map of the packages, and a wrong map is worse than none.
use crate::manifest::Manifest;
use crate::{Finding, Tree};

/// Packages whose folder the map does not name.
#[must_use]
pub fn findings(tree: &Tree, packages: &[Manifest]) -> Vec<Finding> {
    let Some(text) = tree.text("ARCHITECTURE.md") else {
        return vec!["ARCHITECTURE.md does not exist; it is the map of the packages".to_owned()];
    };
    packages
        .iter()
        .filter(|package| !package.folder().is_empty() && !names(text, package.folder()))
        .map(|package| {
            format!(
                "ARCHITECTURE.md does not name `{}/`; say what lives there and what never will",
                package.folder()
            )
        })
        .collect()
}

/// Whether `folder` stands in `text` as a path of its own, not as the start or end of a longer one.
fn names(text: &str, folder: &str) -> bool {
    let glued = |byte: &u8| crate::rust::is_word(*byte) || *byte == b'-';
    text.match_indices(folder).any(|(at, _)| {
        let before = text.as_bytes()[..at].last();
        let after = text[at + folder.len()..]
            .trim_start_matches('/')
            .as_bytes()
            .first();
        !before.is_some_and(|byte| glued(byte) || *byte == b'/') && !after.is_some_and(glued)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::one;

    #[test]
    fn a_package_that_is_not_on_the_map_is_found() {
        let package = [one("throng-novelty", "")];
        let without = Tree::of(&[("ARCHITECTURE.md", "somewhere/else is on the map")]);
        assert_eq!(findings(&without, &package).len(), 1);
        let with = Tree::of(&[("ARCHITECTURE.md", "| `somewhere/` | pure |")]);
        assert!(findings(&with, &package).is_empty());
    }

    #[test]
    fn a_missing_map_is_found() {
        assert_eq!(findings(&Tree::of(&[]), &[]).len(), 1);
    }
}
