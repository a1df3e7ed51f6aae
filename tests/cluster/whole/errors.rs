//! What an operator reads when something is in the way.

use std::net::UdpSocket;

use crate::{throng, up};

fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = throng().run(args).expect("it runs");
    (
        output.status.code(),
        String::from_utf8(output.stderr).expect("text"),
    )
}

#[test]
fn a_second_up_on_one_folder_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let _first = up(dir.path(), 1);
    let dir = dir.path().canonicalize().expect("there").display().to_string();
    let (code, text) = refused(&["up", "--dir", &dir]);
    let golden = format!(
        "error: another throng process is running on this folder\n   at: {dir}\n next: stop it first (Ctrl-C or SIGTERM \
         drains it), or give this one a folder of its own with --dir\n"
    );
    assert_eq!((code, text), (Some(3), golden));
    let (code, text) = refused(&["ctl", "status", "--cluster", &dir]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_folder_without_a_cluster_says_how_to_start_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path().display().to_string();
    for args in [
        vec!["token", "--cluster", &dir, "--user", "ann"],
        vec![
            "chat",
            "--cluster",
            &dir,
            "--user",
            "ann",
            "--group",
            "g",
            "--channel",
            "c",
        ],
        vec!["export", "--cluster", &dir, "--group", "g", "--channel", "c"],
    ] {
        let (code, text) = refused(&args);
        let golden = format!(
            "error: there is no cluster at this folder\n   at: {dir}/cluster.json\n next: start one with `throng up --dir \
             DIR`, or name the folder of one that runs\n"
        );
        assert_eq!((code, text), (Some(3), golden));
    }
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let holder = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = holder.local_addr().expect("bound").to_string();
    let example = String::from_utf8(throng().run(["config", "core"]).expect("runs").stdout).expect("text");
    let data = dir.path().join("data").display().to_string();
    let config = dir.path().join("core.toml");
    let text = example
        .replace("127.0.0.1:7101", &port)
        .replace("127.0.0.1:7401", "127.0.0.1:0")
        .replace("throng-data", &data);
    std::fs::write(&config, text).expect("written");
    let (code, text) = refused(&["core", "--config", &config.display().to_string()]);
    let golden = format!(
        "error: the address is in use by another process\n   at: {port} (nodes.addr)\n next: stop that process, or choose \
         another address with the same key\n"
    );
    assert_eq!((code, text), (Some(3), golden));
}

#[test]
fn a_folder_of_a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().canonicalize().expect("there");
    std::fs::write(path.join("layout.json"), r#"{"format":7}"#).expect("written");
    let dir = path.display().to_string();
    let (code, text) = refused(&["up", "--dir", &dir]);
    let golden = format!(
        "error: the folder is of format 7, this build knows formats up to 1\n   at: {dir}\n next: run the version that \
         wrote it or a later one; nothing was changed\n"
    );
    assert_eq!((code, text), (Some(3), golden));
    assert_eq!(
        std::fs::read_to_string(path.join("layout.json")).expect("there"),
        r#"{"format":7}"#
    );
}

#[test]
fn an_unreadable_certificate_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let example = String::from_utf8(throng().run(["config", "core"]).expect("runs").stdout).expect("text");
    let config = dir.path().join("core.toml");
    let broken = dir.path().join("node.pem");
    std::fs::write(&broken, "not a certificate").expect("written");
    let data = dir.path().join("data").display().to_string();
    let broken = broken.display().to_string();
    let text = example
        .replace(
            "development_ca = \"throng-data/tls\"",
            &["ca", "cert", "key", "client_cert", "client_key"]
                .map(|key| format!("{key} = \"{broken}\""))
                .join("\n"),
        )
        .replace("throng-data", &data);
    std::fs::write(&config, text).expect("written");
    let (code, text) = refused(&["core", "--config", &config.display().to_string()]);
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.starts_with("error: the certificate or key cannot be read: "),
        "{text}"
    );
    assert!(text.contains(&format!("\n   at: {broken}\n")), "{text}");
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("core.toml");
    let example = String::from_utf8(throng().run(["config", "core"]).expect("runs").stdout).expect("text");
    std::fs::write(&config, format!("idd = 4\n{example}")).expect("written");
    let config = config.display().to_string();
    let (code, text) = refused(&["core", "--config", &config]);
    let golden =
        format!("error: the key `idd` is unknown\n   at: {config}, line 1\n next: did you mean `id`?\n");
    assert_eq!((code, text), (Some(2), golden));
}

#[test]
fn an_expired_and_a_foreign_token_are_told_apart() {
    let dir = tempfile::tempdir().expect("a folder");
    let other = tempfile::tempdir().expect("a folder");
    let _system = up(dir.path(), 1);
    let cluster = dir.path().display().to_string();
    let chat = |token: &str| {
        refused(&[
            "chat",
            "--cluster",
            &cluster,
            "--user",
            "ann",
            "--group",
            "g",
            "--channel",
            "c",
            "--token",
            token,
        ])
    };
    let made = throng()
        .run(["token", "--cluster", &cluster, "--user", "ann", "--seconds", "0"])
        .expect("runs");
    let (code, text) = chat(String::from_utf8(made.stdout).expect("text").trim());
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.starts_with("error: the token has expired\n   at: edge 127.0.0.1:"),
        "{text}"
    );

    let mut file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("cluster.json")).expect("there"))
            .expect("JSON");
    file["app_secret"] = "0".repeat(64).into();
    std::fs::write(other.path().join("cluster.json"), file.to_string()).expect("written");
    let foreign = other.path().display().to_string();
    let made = throng()
        .run(["token", "--cluster", &foreign, "--user", "ann"])
        .expect("runs");
    let (code, text) = chat(String::from_utf8(made.stdout).expect("text").trim());
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.starts_with("error: the token was refused\n   at: edge 127.0.0.1:"),
        "{text}"
    );
}
