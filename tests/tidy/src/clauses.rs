//! protocol/SPEC.md numbers its normative sentences; protocol/clauses.toml names, for each MUST, a
//! test of what it demands and a test of what happens when it is broken.
//!
//! An id is `AREA-SECTION-Xn`: two to four capitals, a section number, M, S or Y and a number. A
//! clause begins with its id in brackets; elsewhere an id is a mention.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde::Deserialize;

use crate::rust::{code, is_word, lines_with};
use crate::{File, Finding, Tree};

const SPEC: &str = "protocol/SPEC.md";
const TABLE: &str = "protocol/clauses.toml";

/// Files whose mentions of clauses must be known; this package's made-up ids aside.
const READ: &[&str] = &["rs", "py", "md", "json", "fbs", "toml"];
const OWN_FOLDER: &str = "tests/tidy/";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tests {
    positive: Vec<String>,
    negative: Vec<String>,
}

/// All findings about clauses.
///
/// # Errors
/// When the specification or the table is missing, or the table is not what it should be.
pub fn findings(tree: &Tree) -> anyhow::Result<Vec<Finding>> {
    let spec = tree
        .text(SPEC)
        .with_context(|| format!("{SPEC} does not exist; it is the normative text"))?;
    let table = tree
        .text(TABLE)
        .with_context(|| format!("{TABLE} does not exist; it names the tests of each MUST"))?;
    let table: BTreeMap<String, Tests> = toml::from_str(table).with_context(|| format!("reading {TABLE}"))?;
    let (defined, mut found) = defined(spec);
    anyhow::ensure!(
        !defined.is_empty(),
        "{SPEC} defines no clause; a clause begins with its id in brackets"
    );
    for id in defined.iter().filter(|id| is_must(id)) {
        match table.get(*id) {
            None => found.push(format!(
                "{TABLE}: {id} is a MUST of {SPEC} without an entry; name its tests"
            )),
            Some(tests) => {
                for (list, names) in [("positive", &tests.positive), ("negative", &tests.negative)] {
                    if names.is_empty() {
                        found.push(format!("{TABLE}: {id} names no {list} test"));
                    }
                }
            }
        }
    }
    for (id, tests) in &table {
        if !defined.contains(id.as_str()) {
            found.push(format!("{TABLE}: {id} is no clause of {SPEC}"));
        }
        for name in tests.positive.iter().chain(&tests.negative) {
            found.extend(missing_test(tree, name).map(|why| format!("{TABLE}: {id} names `{name}`, {why}")));
        }
    }
    for file in tree
        .files
        .iter()
        .filter(|file| READ.iter().any(|extension| file.is(extension)))
    {
        if file.path.starts_with(OWN_FOLDER) || file.is_generated() {
            continue;
        }
        for id in mentions(&file.text)
            .into_iter()
            .filter(|id| !defined.contains(id))
        {
            found.push(format!(
                "{}: mentions {id}, which is no clause of {SPEC}",
                file.path
            ));
        }
    }
    found.extend(unnumbered(spec));
    Ok(found)
}

/// MUSTs whose positive and negative test are one function. Such a test may hold both sides; two
/// say more about what broke.
///
/// # Errors
/// As [`findings`].
pub fn doubled(tree: &Tree) -> anyhow::Result<Vec<Finding>> {
    let table = tree
        .text(TABLE)
        .with_context(|| format!("{TABLE} does not exist"))?;
    let table: BTreeMap<String, Tests> = toml::from_str(table).with_context(|| format!("reading {TABLE}"))?;
    let both = |tests: &Tests| tests.positive.iter().all(|name| tests.negative.contains(name));
    let doubled = table
        .iter()
        .filter(|(_, tests)| !tests.positive.is_empty() && both(tests));
    Ok(doubled
        .map(|(id, _)| format!("{TABLE}: {id} names one test as positive and as negative"))
        .collect())
}

/// The ids that begin a clause, and findings about ids that do so twice.
fn defined(spec: &str) -> (BTreeSet<&str>, Vec<Finding>) {
    let mut ids = BTreeSet::new();
    let mut found = Vec::new();
    for id in spec.lines().filter_map(opening_id) {
        if !ids.insert(id) {
            found.push(format!("{SPEC}: {id} begins two clauses; ids are never reused"));
        }
    }
    (ids, found)
}

/// The id with which a line opens, behind list and emphasis marks.
fn opening_id(line: &str) -> Option<&str> {
    let inside = line
        .trim_start_matches([' ', '-', '*', '|', '>', '`', '_'])
        .strip_prefix('[')?;
    let (id, _) = inside.split_once(']')?;
    (id_length(id.as_bytes()) == Some(id.len())).then_some(id)
}

/// Sentences with a capital MUST outside clauses: normative text without a number.
fn unnumbered(spec: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut in_clause = false;
    for (number, line) in spec.lines().enumerate() {
        let starts_block = line.trim().is_empty() || line.trim_start().starts_with(['-', '|', '#']);
        if opening_id(line).is_some() {
            in_clause = true;
        } else if starts_block {
            in_clause = false;
        }
        // The paragraph that explains the words cites their standard or writes them as code.
        let explains = line.contains("RFC 2119") || line.contains("is a MUST");
        if !in_clause && !explains && !lines_with(line, "MUST").is_empty() {
            found.push(format!(
                "{SPEC}:{}: a MUST outside a clause; begin it with an id",
                number + 1
            ));
        }
    }
    found
}

fn is_must(id: &str) -> bool {
    id.rsplit_once('-').is_some_and(|(_, last)| last.starts_with('M'))
}

/// All ids in `text`.
fn mentions(text: &str) -> BTreeSet<&str> {
    let bytes = text.as_bytes();
    let mut ids = BTreeSet::new();
    let mut at = 0;
    while at < bytes.len() {
        let starts = at == 0 || !(is_word(bytes[at - 1]) || bytes[at - 1] == b'-');
        match id_length(&bytes[at..]).filter(|_| starts && bytes[at].is_ascii_uppercase()) {
            Some(length) => {
                ids.insert(&text[at..at + length]);
                at += length;
            }
            None => at += 1,
        }
    }
    ids
}

/// The length of the id at the start of `bytes`.
fn id_length(bytes: &[u8]) -> Option<usize> {
    let run =
        |from: usize, accept: fn(&u8) -> bool| bytes[from..].iter().take_while(|byte| accept(byte)).count();
    let area = run(0, u8::is_ascii_uppercase);
    if !(2..=4).contains(&area) || bytes.get(area) != Some(&b'-') {
        return None;
    }
    let section_start = area + 1;
    let section = run(section_start, |byte| byte.is_ascii_digit() || *byte == b'.');
    let kind = section_start + section + 1;
    let bounded = section > 0 && bytes[section_start].is_ascii_digit() && bytes.get(kind - 1) == Some(&b'-');
    if !bounded || !matches!(bytes.get(kind), Some(b'M' | b'S' | b'Y')) {
        return None;
    }
    let digits = run(kind + 1, u8::is_ascii_digit);
    let end = kind + 1 + digits;
    (digits > 0 && !bytes.get(end).is_some_and(|byte| is_word(*byte))).then_some(end)
}

/// Why `name` (`path::function`) is no test, or nothing when it is one.
fn missing_test(tree: &Tree, name: &str) -> Option<String> {
    let Some((path, function)) = name.split_once("::") else {
        return Some("which is not `path::function`".to_owned());
    };
    let function = function.rsplit("::").next().unwrap_or(function);
    let Some(file) = tree.files.iter().find(|file| file.path == path) else {
        return Some("whose file does not exist".to_owned());
    };
    if file.is("py") {
        let defined = !lines_with(&file.text, &format!("def {function}(")).is_empty();
        return (!defined).then(|| "which the file does not define".to_owned());
    }
    missing_rust_test(file, function)
}

fn missing_rust_test(file: &File, function: &str) -> Option<String> {
    let code = code(&file.text);
    let Some(line) = lines_with(&code, &format!("fn {function}(")).first().copied() else {
        return Some("which the file does not define".to_owned());
    };
    // Attributes stand right above the function, after the end of the item before it.
    let above: Vec<&str> = code.lines().take(line - 1).collect();
    let attributes = above.iter().rev().map(|line| line.trim()).take_while(|line| {
        line.is_empty() || line.starts_with("#[") || line.ends_with(")]") || line.ends_with(',')
    });
    let marked = attributes
        .into_iter()
        .any(|line| line.contains("test]") || line.contains("test("));
    (!marked).then(|| "which is a function and no test".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD_SPEC: &str =
        "- **[ZZ-2.1-M1]** A sender MUST be brief,\n  see ZZ-2.1-S1.\n- **[ZZ-2.1-S1]** It SHOULD be kind.\n";
    const GOOD_TABLE: &str =
        "[\"ZZ-2.1-M1\"]\npositive = [\"a/b.rs::brief_is_taken\"]\nnegative = [\"a/c.py::check_long\"]\n";
    const RUST: &str = "//! [ZZ-2.1-M1]\n#[test]\nfn brief_is_taken() {}\nfn helper() {}\n";
    const PYTHON: &str = "def check_long(x):\n    pass\n";

    fn judged(spec: &str, table: &str) -> Vec<Finding> {
        let tree = Tree::of(&[(SPEC, spec), (TABLE, table), ("a/b.rs", RUST), ("a/c.py", PYTHON)]);
        findings(&tree).unwrap()
    }

    #[test]
    fn a_must_with_both_tests_passes() {
        assert_eq!(judged(GOOD_SPEC, GOOD_TABLE), Vec::<String>::new());
    }

    #[test]
    fn missing_specification_or_table_fails() {
        assert!(findings(&Tree::of(&[(TABLE, GOOD_TABLE)])).is_err());
        assert!(findings(&Tree::of(&[(SPEC, GOOD_SPEC)])).is_err());
        assert!(findings(&Tree::of(&[(SPEC, "no clause"), (TABLE, "")])).is_err());
    }

    #[test]
    fn each_fault_of_the_table_is_found() {
        for (from, to, told) in [
            (GOOD_TABLE, "", "without an entry"),
            ("[\"a/b.rs::brief_is_taken\"]", "[]", "names no positive test"),
            ("[\"a/c.py::check_long\"]", "[]", "names no negative test"),
            ("brief_is_taken", "brief_is", "does not define"),
            ("brief_is_taken", "helper", "no test"),
            ("check_long", "check", "does not define"),
            ("a/b.rs", "a/gone.rs", "does not exist"),
        ] {
            let found = judged(GOOD_SPEC, &GOOD_TABLE.replace(from, to));
            assert!(
                found.iter().any(|found| found.contains(told)),
                "{told}: {found:?}"
            );
        }
        let foreign = format!("{GOOD_TABLE}[\"ZZ-9.9-M1\"]\npositive = []\nnegative = []\n");
        assert!(
            judged(GOOD_SPEC, &foreign)
                .iter()
                .any(|found| found.contains("ZZ-9.9-M1 is no clause"))
        );
    }

    #[test]
    fn one_test_for_both_sides_is_told() {
        let table = GOOD_TABLE.replace("a/c.py::check_long", "a/b.rs::brief_is_taken");
        assert_eq!(doubled(&Tree::of(&[(TABLE, &table)])).unwrap().len(), 1);
        assert!(doubled(&Tree::of(&[(TABLE, GOOD_TABLE)])).unwrap().is_empty());
    }

    #[test]
    fn an_id_unknown_to_the_specification_is_found_in_any_source() {
        for path in [
            "core/src/a.rs",
            "tests/python/a.py",
            "docs/a.md",
            "protocol/vectors/a.json",
        ] {
            let tree = Tree::of(&[
                (SPEC, GOOD_SPEC),
                (TABLE, GOOD_TABLE),
                ("a/b.rs", RUST),
                ("a/c.py", PYTHON),
                (path, "as in ZZ-2.1-M7"),
            ]);
            assert_eq!(findings(&tree).unwrap().len(), 1, "{path}");
        }
    }

    #[test]
    fn a_clause_twice_and_a_must_without_a_number_are_found() {
        let twice = format!("{GOOD_SPEC}- [ZZ-2.1-M1] Again it MUST.\n");
        assert!(judged(&twice, GOOD_TABLE)[0].contains("begins two clauses"));
        let loose = format!("{GOOD_SPEC}\nAn edge MUST also sing.\n");
        assert!(judged(&loose, GOOD_TABLE)[0].contains("a MUST outside a clause"));
    }

    #[test]
    fn ids_are_told_from_what_looks_like_one() {
        let text = "[DL-3.2-M1] UTF-8 SHA-256-bit XFR-2.1-M1x A-1-M1 DL-3.2-M12, RFC-9000-S";
        assert_eq!(
            mentions(text).into_iter().collect::<Vec<_>>(),
            ["DL-3.2-M1", "DL-3.2-M12"]
        );
    }
}
