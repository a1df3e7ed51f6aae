//! Licence expressions of our dependencies against the list in deny.toml. For `OR` one side must be
//! allowed, for `AND` both; an exception (`WITH`) is part of the licence's name.
use anyhow::Context as _;
use serde::Deserialize;

use crate::Finding;

/// The part of `cargo metadata` that is read.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
}

/// Packages in the output of `cargo metadata` whose licence is not on deny.toml's list.
///
/// # Errors
/// When either input is not what it should be.
pub fn findings(metadata: &str, deny: &str) -> anyhow::Result<Vec<Finding>> {
    let metadata: Metadata =
        serde_json::from_str(metadata).context("reading the output of cargo metadata")?;
    let deny: toml::Table = deny.parse().context("parsing deny.toml")?;
    let allowed: Vec<&str> = deny
        .get("licenses")
        .and_then(|licences| licences.get("allow"))
        .and_then(toml::Value::as_array)
        .context("deny.toml has no list licenses.allow")?
        .iter()
        .filter_map(toml::Value::as_str)
        .collect();
    let mut found = Vec::new();
    for package in metadata.packages {
        match package.license {
            Some(expression) if allows(&expression, &allowed) => {}
            Some(expression) => found.push(format!(
                "`{}` is licensed {expression}, which deny.toml does not allow; choose another crate, \
                 or add the licence after reading it",
                package.name
            )),
            None => found.push(format!(
                "`{}` names no licence; read its licence file before using it",
                package.name
            )),
        }
    }
    Ok(found)
}

fn allows(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let judged = either(&mut words, allowed);
    judged && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut judged = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        judged |= both(words, allowed);
    }
    judged
}

fn both(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut judged = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        judged &= one(words, allowed);
    }
    judged
}

fn one(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let Some(word) = words.next() else { return false };
    if word == "(" {
        let judged = either(words, allowed);
        return words.next() == Some(")") && judged;
    }
    if words.next_if_eq(&"WITH").is_some() {
        let exception = words.next().unwrap_or_default();
        return allowed.contains(&format!("{word} WITH {exception}").as_str());
    }
    allowed.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged_as_written() {
        let allowed = ["MIT", "ISC", "Unicode-3.0"];
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "GPL-3.0/MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "ISC AND MIT",
        ] {
            assert!(allows(good, &allowed), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "MIT WITH strange-exception",
            "(MIT",
            "MIT MIT",
            "",
        ] {
            assert!(!allows(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn a_package_without_an_allowed_licence_is_found() {
        let deny = "[licenses]\nallow = [\"MIT\"]\n";
        let metadata = r#"{"packages":[{"name":"a","license":"MIT"},{"name":"b","license":"GPL-3.0"},{"name":"c","license":null}]}"#;
        let found = findings(metadata, deny).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
