//! What every manifest says the same way.
use crate::Finding;
use crate::manifest::Manifest;

/// Packages that could be published, skip the workspace's lints, carry a version of their own, or
/// have a name that shadows Rust's.
#[must_use]
pub fn findings(packages: &[Manifest]) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in packages {
        let path = &package.path;
        let say = |table: &str, key: &str| {
            package
                .document
                .get(table)
                .and_then(|table| table.get(key))
                .cloned()
        };
        let inherits = |key: &str| {
            say("package", key)
                .is_some_and(|value| value.get("workspace").and_then(toml::Value::as_bool) == Some(true))
        };
        if package.name == "core" {
            found.push(format!(
                "{path}: a package named `core` shadows Rust's own; call it throng-core"
            ));
        }
        if say("package", "publish").and_then(|value| value.as_bool()) != Some(false) {
            found.push(format!("{path}: write `publish = false`"));
        }
        if say("lints", "workspace").and_then(|value| value.as_bool()) != Some(true) {
            found.push(format!("{path}: write `[lints]` with `workspace = true`"));
        }
        for key in ["version", "edition", "rust-version", "license"] {
            if !inherits(key) {
                found.push(format!("{path}: write `{key}.workspace = true`"));
            }
        }
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| !dependency.from_workspace)
        {
            found.push(format!(
                "{path}: `{}` carries its own version or path; put it into [workspace.dependencies] and write `{}.workspace = true`",
                dependency.package, dependency.package
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::one;

    const GOOD: &str = "publish = false\nversion.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nlicense.workspace = true\n[lints]\nworkspace = true\n\
        [dependencies]\nbytes.workspace = true\n";

    #[test]
    fn a_manifest_that_says_it_all_passes() {
        assert_eq!(findings(&[one("throng-core", GOOD)]), Vec::<String>::new());
    }

    #[test]
    fn each_omission_is_found() {
        for (from, to, told) in [
            ("publish = false", "publish = true", "publish = false"),
            ("[lints]\nworkspace = true", "", "[lints]"),
            (
                "bytes.workspace = true",
                "bytes = \"1\"",
                "`bytes` carries its own version",
            ),
            (
                "license.workspace = true",
                "license = \"MIT\"",
                "license.workspace",
            ),
            ("edition.workspace = true", "", "edition.workspace"),
        ] {
            let found = findings(&[one("throng-core", &GOOD.replace(from, to))]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(told), "{found:?}");
        }
    }

    #[test]
    fn a_package_named_core_is_found() {
        assert!(findings(&[one("core", GOOD)])[0].contains("shadows"));
    }
}
