//! Flags over environment over file; unknown keys refused with their line and the nearest name.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml_edit::{Document, DocumentMut, Item, Value};

use crate::cli::failure::Failure;

/// What is laid over a file, by dotted key.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    values: BTreeMap<String, (String, String)>,
}

impl Overlay {
    /// Takes all `PREFIX_KEY` variables for keys of the example; `vars` is the environment.
    pub fn environment(prefix: &str, example: &str, vars: impl Iterator<Item = (String, String)>) -> Self {
        let vars: BTreeMap<String, String> = vars.collect();
        let mut values = BTreeMap::new();
        for key in scalar_keys(example).into_keys() {
            let name = format!("{prefix}_{}", key.replace('.', "_").to_uppercase());
            if let Some(value) = vars.get(&name) {
                values.insert(key, (value.clone(), format!("environment variable {name}")));
            }
        }
        Self { values }
    }

    /// Lays a flag over what is there.
    pub fn flag(&mut self, key: &str, value: &str) {
        self.values
            .insert(key.to_owned(), (value.to_owned(), format!("--set {key}")));
    }

    /// Lays `key=value` flags over what is there.
    pub fn flags(&mut self, flags: &[String]) -> Result<(), Failure> {
        for flag in flags {
            let Some((key, value)) = flag.split_once('=') else {
                return Err(Failure::usage(
                    "a setting has the form key=value",
                    format!("--set {flag}"),
                    "write --set key=value",
                ));
            };
            self.flag(key.trim(), value.trim());
        }
        Ok(())
    }
}

/// Reads a configuration file of the keys in `example`, with `overlay` on top.
pub fn load<T: DeserializeOwned>(path: &Path, example: &str, overlay: &Overlay) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::io("reading the configuration", path, &error))?;
    parse(&text, &path.display().to_string(), example, overlay)
}

fn parse<T: DeserializeOwned>(
    text: &str,
    name: &str,
    example: &str,
    overlay: &Overlay,
) -> Result<T, Failure> {
    let broken = |error: String| Failure::usage(error, name, "correct it; `throng config` prints an example");
    let document = Document::parse(text).map_err(|error| broken(error.to_string()))?;
    let known = known_keys(example);
    if let Some((key, at)) = unknown_key(document.as_table(), "", &known) {
        return Err(unknown(
            &key,
            format!("{name}, line {}", line_of(text, at)),
            &known,
        ));
    }
    let mut document: DocumentMut = document.into_mut();
    let kinds = scalar_keys(example);
    for (key, (value, source)) in &overlay.values {
        let Some(kind) = kinds.get(key) else {
            return Err(unknown(key, source.clone(), &known));
        };
        set(&mut document, key, typed(kind, value, key, source)?);
    }
    toml::from_str(&document.to_string()).map_err(|error| broken(error.to_string()))
}

fn unknown(key: &str, place: String, known: &[String]) -> Failure {
    let nearest = known
        .iter()
        .min_by_key(|name| strsim::damerau_levenshtein(name, key));
    let next = nearest.map_or_else(String::new, |name| format!("did you mean `{name}`?"));
    Failure::usage(format!("the key `{key}` is unknown"), place, next)
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at)
        .map_or(1, |before| before.matches('\n').count() + 1)
}

/// The example with every commented-out setting on.
fn uncommented(example: &str) -> String {
    let is_setting = |rest: &str| {
        rest.split_once(" = ")
            .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let lines = example.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_setting(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn known_keys(example: &str) -> Vec<String> {
    let mut keys = Vec::new();
    if let Ok(document) = uncommented(example).parse::<DocumentMut>() {
        walk(document.as_table(), "", &mut |key, _| keys.push(key.to_owned()));
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Keys outside lists, with a value of their type: those that can be laid over.
fn scalar_keys(example: &str) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    if let Ok(document) = uncommented(example).parse::<DocumentMut>() {
        for (key, item) in document.iter() {
            match item {
                Item::Value(value) => drop(keys.insert(key.to_owned(), value.clone())),
                Item::Table(table) => {
                    for (inner, item) in table.iter() {
                        if let Some(value) = item.as_value() {
                            keys.insert(format!("{key}.{inner}"), value.clone());
                        }
                    }
                }
                _ => {}
            }
        }
    }
    keys
}

fn walk(table: &dyn toml_edit::TableLike, prefix: &str, visit: &mut dyn FnMut(&str, Option<usize>)) {
    for (key, item) in table.iter() {
        let path = if prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{prefix}.{key}")
        };
        let at = table
            .get_key_value(key)
            .and_then(|(key, _)| key.span())
            .map(|span| span.start);
        visit(&path, at);
        match item {
            Item::ArrayOfTables(tables) => tables.iter().for_each(|inner| walk(inner, &path, visit)),
            other => {
                if let Some(inner) = other.as_table_like() {
                    walk(inner, &path, visit);
                }
            }
        }
    }
}

fn unknown_key(table: &dyn toml_edit::TableLike, prefix: &str, known: &[String]) -> Option<(String, usize)> {
    let mut found: Option<(String, usize)> = None;
    walk(table, prefix, &mut |key, at| {
        if found.is_none() && known.binary_search_by(|name| name.as_str().cmp(key)).is_err() {
            found = Some((key.to_owned(), at.unwrap_or(0)));
        }
    });
    found
}

fn typed(kind: &Value, value: &str, key: &str, source: &str) -> Result<Value, Failure> {
    let wrong = |want: &str| {
        Failure::usage(
            format!("the value of `{key}` is not {want}"),
            source.to_owned(),
            format!("give `{key}` {want}"),
        )
    };
    match kind {
        Value::Integer(_) => value
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| wrong("an integer")),
        Value::Boolean(_) => value
            .parse::<bool>()
            .map(Value::from)
            .map_err(|_| wrong("true or false")),
        _ => Ok(Value::from(value)),
    }
}

fn set(document: &mut DocumentMut, key: &str, value: Value) {
    match key.split_once('.') {
        None => document[key] = toml_edit::value(value),
        Some((table, inner)) => document[table][inner] = toml_edit::value(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::config::{CORE_EXAMPLE, CoreFile, GATEWAY_EXAMPLE, GatewayFile};

    fn core(text: &str, overlay: &Overlay) -> Result<CoreFile, Failure> {
        parse(text, "core.toml", CORE_EXAMPLE, overlay)
    }

    #[test]
    fn the_examples_are_valid_as_they_are_and_with_every_setting_on() {
        assert!(core(CORE_EXAMPLE, &Overlay::default()).is_ok());
        assert!(core(&uncommented(CORE_EXAMPLE), &Overlay::default()).is_ok());
        for text in [GATEWAY_EXAMPLE.to_owned(), uncommented(GATEWAY_EXAMPLE)] {
            let file: Result<GatewayFile, _> =
                parse(&text, "gateway.toml", GATEWAY_EXAMPLE, &Overlay::default());
            assert_eq!(file.map(|file| file.edges.len()), Ok(2));
        }
    }

    #[test]
    fn every_field_of_the_files_is_in_the_examples() {
        let full: CoreFile = core(&uncommented(CORE_EXAMPLE), &Overlay::default()).expect("valid");
        let text = toml::to_string(&full).expect("serialises");
        assert!(core(&text, &Overlay::default()).is_ok(), "{text}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() {
        let text = CORE_EXAMPLE.replace("replicas = 3", "replica = 3");
        let line = text
            .lines()
            .position(|line| line == "replica = 3")
            .expect("there")
            + 1;
        let failure = core(&text, &Overlay::default()).expect_err("refused");
        assert_eq!(failure.what, "the key `shards.replica` is unknown");
        assert_eq!(failure.place, format!("core.toml, line {line}"));
        assert_eq!(failure.next, "did you mean `shards.replicas`?");
        let inside_a_list =
            CORE_EXAMPLE.replace("observe = \"127.0.0.1:7203\"", "observ = \"127.0.0.1:7203\"");
        let failure = core(&inside_a_list, &Overlay::default()).expect_err("refused");
        assert_eq!(failure.next, "did you mean `nodes.observe`?");
    }

    #[test]
    fn flags_win_over_environment_and_environment_over_the_file() {
        let vars = [
            ("THRONG_CORE_ID", "2"),
            ("THRONG_CORE_TLS_DEVELOPMENT_CA", "elsewhere"),
            ("OTHER", "x"),
        ];
        let vars = vars
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut overlay = Overlay::environment("THRONG_CORE", CORE_EXAMPLE, vars);
        let file = core(CORE_EXAMPLE, &overlay).expect("valid");
        assert_eq!((file.id, file.tls.development_ca), (2, Some("elsewhere".into())));
        overlay.flags(&["id=3".to_owned()]).expect("valid");
        assert_eq!(core(CORE_EXAMPLE, &overlay).map(|file| file.id), Ok(3));
    }

    #[test]
    fn a_flag_of_the_wrong_type_or_of_no_key_is_refused() {
        let mut overlay = Overlay::default();
        overlay.flag("id", "two");
        assert_eq!(
            core(CORE_EXAMPLE, &overlay).expect_err("refused").what,
            "the value of `id` is not an integer"
        );
        let mut overlay = Overlay::default();
        overlay.flag("idd", "2");
        assert_eq!(
            core(CORE_EXAMPLE, &overlay).expect_err("refused").next,
            "did you mean `id`?"
        );
        assert!(Overlay::default().flags(&["id".to_owned()]).is_err());
    }
}
