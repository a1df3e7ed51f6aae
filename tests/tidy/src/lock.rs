//! What may stand in Cargo.lock: packages from the default registry, and none of the banned ones.
//! The same words stand in deny.toml for `cargo deny`; this rule needs no tool.
use anyhow::Context as _;

use crate::Finding;

const DEFAULT_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Packages that are locked against a rule of deny.toml.
///
/// # Errors
/// When either file is not the TOML it should be.
pub fn findings(lock: &str, deny: &str) -> anyhow::Result<Vec<Finding>> {
    let lock: toml::Table = lock.parse().context("parsing Cargo.lock")?;
    let deny: toml::Table = deny.parse().context("parsing deny.toml")?;
    let banned: Vec<&str> = deny
        .get("bans")
        .and_then(|bans| bans.get("deny"))
        .and_then(toml::Value::as_array)
        .context("deny.toml has no list bans.deny")?
        .iter()
        .filter_map(|entry| entry.get("crate").and_then(toml::Value::as_str))
        .collect();
    let packages = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .context("Cargo.lock has no packages")?;
    let mut found = Vec::new();
    for package in packages {
        let name = package
            .get("name")
            .and_then(toml::Value::as_str)
            .unwrap_or_default();
        if banned.contains(&name) {
            found.push(format!(
                "Cargo.lock: `{name}` is banned by deny.toml; `cargo tree -i {name}` says who asks for it"
            ));
        }
        let source = package.get("source").and_then(toml::Value::as_str);
        if source.is_some_and(|source| source != DEFAULT_REGISTRY) {
            found.push(format!(
                "Cargo.lock: `{name}` does not come from the default registry"
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "[bans]\ndeny = [{ crate = \"openssl\" }]\n";

    fn locked(name: &str, source: &str) -> Vec<Finding> {
        findings(
            &format!("[[package]]\nname = \"{name}\"\nsource = \"{source}\"\n"),
            DENY,
        )
        .unwrap()
    }

    #[test]
    fn a_banned_package_is_found() {
        assert_eq!(locked("openssl", DEFAULT_REGISTRY).len(), 1);
        assert!(locked("rustls", DEFAULT_REGISTRY).is_empty());
    }

    #[test]
    fn a_package_from_elsewhere_is_found() {
        assert_eq!(locked("rustls", "git+https://example.org/rustls").len(), 1);
    }
}
