//! Files stay small enough to be held in mind: 500 lines is the aim, 800 the limit.
//! Test modules and test files do not count.
use crate::rust::without_tests;
use crate::{Finding, Tree};

/// The length to aim at; `too_long(tree, LINES_AIM)` lists what is over it.
pub const LINES_AIM: usize = 500;
/// The length no file passes.
pub const LINES_MAX: usize = 800;

/// Source files with more than `limit` lines before their tests.
#[must_use]
pub fn too_long(tree: &Tree, limit: usize) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust().filter(|file| !file.is_test()) {
        let lines = without_tests(&file.text).lines().count();
        if lines > limit {
            found.push(format!(
                "{}: {lines} lines, more than {limit}; split it by idea into `name.rs` and `name/`",
                file.path
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found_and_a_long_test_is_not() {
        let long = "fn f() {}\n".repeat(LINES_MAX + 1);
        let tested = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let tree = Tree::of(&[
            ("core/src/node.rs", &long),
            ("core/src/feed.rs", &tested),
            ("core/tests/node.rs", &long),
            ("protocol/src/wire/client_generated.rs", &long),
        ]);
        let found = too_long(&tree, LINES_MAX);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("core/src/node.rs: 801 lines"));
    }
}
