//! Every rule of this package against the checkout.
use std::process::Command;

use throng_tidy::{
    Finding, Tree, arrows, clauses, homes, length, licences, lock, manifest, manifests, map, metrics, places,
    planted, purity, source, tree, waits,
};

#[test]
fn dependencies_point_one_way() {
    none(arrows::findings(&packages()));
}

#[test]
fn vendor_crates_stay_in_their_homes() {
    none(homes::in_manifests(&packages()));
    none(homes::in_sources(&files()));
}

#[test]
fn manifests_inherit_from_the_workspace() {
    none(manifests::findings(&packages()));
}

#[test]
fn pure_packages_are_pure() {
    none(purity::in_manifests(&packages()));
    none(purity::in_sources(&files()));
}

#[test]
fn files_are_short_enough() {
    let files = files();
    for long in length::too_long(&files, length::LINES_AIM) {
        println!("note: {long}");
    }
    none(length::too_long(&files, length::LINES_MAX));
}

#[test]
fn sources_keep_the_small_rules() {
    let files = files();
    none(source::findings(&files));
    none(source::stale(&files));
}

#[test]
fn tests_do_not_sleep() {
    none(waits::findings(&files()));
}

#[test]
fn no_file_names_a_machine() {
    none(places::findings(&files()));
}

#[test]
fn planted_mistakes_are_listed_with_what_notices_them() {
    none(planted::findings(&files()));
}

#[test]
fn the_architecture_names_every_package() {
    none(map::findings(&files(), &packages()));
}

#[test]
fn documented_metrics_exist() {
    none(metrics::findings(&files()));
}

#[test]
fn every_must_has_a_positive_and_a_negative_test() {
    let files = files();
    for one in clauses::doubled(&files).unwrap() {
        println!("note: {one}");
    }
    none(clauses::findings(&files).unwrap());
}

#[test]
fn locked_packages_come_from_the_default_registry_and_none_is_banned() {
    let files = files();
    let deny = files.text("deny.toml").expect("deny.toml exists");
    none(lock::findings(files.text("Cargo.lock").expect("Cargo.lock is committed"), deny).unwrap());
}

#[test]
fn licences_of_dependencies_are_on_the_list() {
    let host = command(Command::new(env!("CARGO")).arg("-vV").current_dir(tree::root()));
    let host = host
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("cargo names its host");
    let metadata = command(
        Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--filter-platform",
                host,
            ])
            .current_dir(tree::root()),
    );
    let files = files();
    none(licences::findings(&metadata, files.text("deny.toml").expect("deny.toml exists")).unwrap());
}

fn files() -> Tree {
    Tree::read().expect("the checkout is readable")
}

fn packages() -> Vec<manifest::Manifest> {
    manifest::packages(&files()).expect("manifests are TOML")
}

fn command(command: &mut Command) -> String {
    let output = command.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

fn none(found: Vec<Finding>) {
    assert!(
        found.is_empty(),
        "{} findings:\n{}",
        found.len(),
        found.join("\n")
    );
}
