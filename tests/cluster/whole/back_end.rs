//! The back end of an app as its developers write it at first: curl and what `up` left in the folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::python::present;

/// A back end of the app of a running system.
pub struct BackEnd {
    api: String,
    key: String,
    ca_cert: PathBuf,
}

impl BackEnd {
    /// Of the system in a folder; `None` where there is no curl.
    pub fn of(folder: &Path) -> Option<Self> {
        present("curl", Command::new("curl").arg("--version").output())?;
        let file = std::fs::read(folder.join("cluster.json")).expect("cluster.json");
        let file: Value = serde_json::from_slice(&file).expect("JSON");
        let text = |name: &str| file[name].as_str().expect("a text").to_owned();
        Some(Self {
            api: text("server_api"),
            key: text("api_key"),
            ca_cert: folder.join(text("ca_cert")),
        })
    }

    /// Asks, with a path behind that of the groups; the answer, also that of a refusal.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let output = Command::new("curl")
            .args(["-sS", "--cacert"])
            .arg(&self.ca_cert)
            .args(["-H", &format!("Authorization: Bearer {}", self.key)])
            .args(["-X", method, "-d", &body.to_string()])
            .arg(format!("{}/v1/groups/{path}", self.api))
            .output()
            .expect("curl runs");
        let said = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said} {output:?}"))
    }
}
