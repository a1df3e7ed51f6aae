//! A `Cargo.toml` as far as the rules need it. Cargo checks the rest.
use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::Tree;

/// Which table of the manifest a dependency stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `[dependencies]`, also for one target only.
    Normal,
    /// `[dev-dependencies]`.
    Dev,
    /// `[build-dependencies]`.
    Build,
}

/// One dependency line.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// The package depended on, whatever it is renamed to.
    pub package: String,
    /// The table it stands in.
    pub kind: Kind,
    /// Whether the line is `NAME.workspace = true`.
    pub from_workspace: bool,
}

/// One package of the workspace.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Where the manifest is, such as `core/Cargo.toml`.
    pub path: String,
    /// The package's name.
    pub name: String,
    /// The whole document.
    pub document: toml::Table,
    /// All dependencies.
    pub dependencies: Vec<Dependency>,
}

impl Manifest {
    /// The package's folder from the root, empty for the root package.
    #[must_use]
    pub fn folder(&self) -> &str {
        self.path.trim_end_matches("Cargo.toml").trim_end_matches('/')
    }
}

/// The packages of the workspace in `tree`: the root package and every member.
///
/// # Errors
/// When a manifest is missing or is no TOML.
pub fn packages(tree: &Tree) -> anyhow::Result<Vec<Manifest>> {
    let root = document(tree, "Cargo.toml")?;
    let workspace = root
        .get("workspace")
        .and_then(toml::Value::as_table)
        .context("Cargo.toml has no [workspace]")?;
    let names = renamed(workspace);
    let members = workspace
        .get("members")
        .and_then(toml::Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut packages = Vec::new();
    if root.contains_key("package") {
        packages.push(package("Cargo.toml".to_owned(), root.clone(), &names)?);
    }
    for member in &members {
        let member = member.as_str().context("a member is not a string")?;
        let path = format!("{member}/Cargo.toml");
        let table = document(tree, &path)?;
        packages.push(package(path, table, &names)?);
    }
    Ok(packages)
}

fn document(tree: &Tree, path: &str) -> anyhow::Result<toml::Table> {
    let text = tree
        .text(path)
        .with_context(|| format!("{path} is a member and does not exist"))?;
    text.parse().with_context(|| format!("parsing {path}"))
}

/// Dependency names of the workspace that stand for a package of another name.
fn renamed(workspace: &toml::Table) -> BTreeMap<String, String> {
    let dependencies = workspace.get("dependencies").and_then(toml::Value::as_table);
    dependencies
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.get("package")?.as_str()?.to_owned())))
        .collect()
}

fn package(
    path: String,
    document: toml::Table,
    names: &BTreeMap<String, String>,
) -> anyhow::Result<Manifest> {
    let name = document
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str)
        .with_context(|| format!("{path} names no package"))?
        .to_owned();
    let mut dependencies = Vec::new();
    collect(&document, names, &mut dependencies);
    for target in document
        .get("target")
        .and_then(toml::Value::as_table)
        .into_iter()
        .flat_map(toml::Table::values)
    {
        if let Some(table) = target.as_table() {
            collect(table, names, &mut dependencies);
        }
    }
    Ok(Manifest {
        path,
        name,
        document,
        dependencies,
    })
}

fn collect(table: &toml::Table, names: &BTreeMap<String, String>, into: &mut Vec<Dependency>) {
    let kinds = [
        ("dependencies", Kind::Normal),
        ("dev-dependencies", Kind::Dev),
        ("build-dependencies", Kind::Build),
    ];
    for (key, kind) in kinds {
        for (name, value) in table
            .get(key)
            .and_then(toml::Value::as_table)
            .into_iter()
            .flatten()
        {
            let own_name = value.get("package").and_then(toml::Value::as_str);
            into.push(Dependency {
                package: own_name
                    .or_else(|| names.get(name).map(String::as_str))
                    .unwrap_or(name)
                    .to_owned(),
                kind,
                from_workspace: value.get("workspace").and_then(toml::Value::as_bool) == Some(true),
            });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A workspace of one made-up package for the tests of the rules.
    pub(crate) fn one(name: &str, rest: &str) -> Manifest {
        let text = format!("[package]\nname = \"{name}\"\n{rest}");
        let tree = Tree::of(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"somewhere\"]"),
            ("somewhere/Cargo.toml", &text),
        ]);
        packages(&tree).unwrap().remove(0)
    }

    #[test]
    fn renamed_and_target_only_dependencies_are_seen_under_their_own_name() {
        let tree = Tree::of(&[
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\"a\"]\n[workspace.dependencies]\nq = { package = \"quinn\", version = \"1\" }",
            ),
            (
                "a/Cargo.toml",
                "[package]\nname = \"a\"\n[dependencies]\nq.workspace = true\n\
                 [target.'cfg(unix)'.dev-dependencies]\nr = { package = \"rustls\", version = \"1\" }",
            ),
        ]);
        let seen = &packages(&tree).unwrap()[0].dependencies;
        assert_eq!(seen[0].package, "quinn");
        assert!(seen[0].from_workspace);
        assert_eq!((seen[1].package.as_str(), seen[1].kind), ("rustls", Kind::Dev));
        assert!(!seen[1].from_workspace);
    }

    #[test]
    fn a_missing_member_is_an_error() {
        assert!(packages(&Tree::of(&[("Cargo.toml", "[workspace]\nmembers = [\"gone\"]")])).is_err());
    }
}
