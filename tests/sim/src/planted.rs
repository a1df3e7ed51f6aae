//! The mistakes the simulation must find, each with the invariant it is planted for.
//!
//! A mistake may break more than one promise; it counts as found once the intended one is among
//! them. The sites are in the product (`throng_planted::planted!`), `docs/testing.md` says what each
//! does wrong.

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// A mistake that some seed must bring to light.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The name it is planted under.
    pub name: &'static str,
    /// The invariant that must be broken by it.
    pub found_by: &'static str,
}

const fn mistake(name: &'static str, found_by: &'static str) -> Mistake {
    Mistake { name, found_by }
}

/// All of them.
pub const MISTAKES: &[Mistake] = &[
    mistake("ack_before_sync", "acked_survives"),
    mistake("applied_twice", "replicas"),
    mistake("change_of_others", "change_rights"),
    mistake("change_without_version", "changes_shown"),
    mistake("client_keeps_duplicates", "no_duplicate"),
    mistake("client_takes_over_gap", "no_hole"),
    mistake("conflict_not_checked", "same_answer"),
    mistake("dedupe_expires_early", "once"),
    mistake("edge_keeps_grant", "fence_reads"),
    mistake("feed_without_fences", "fence_reads"),
    mistake("fence_not_judged_in_apply", "fence_sends"),
    mistake("gap_repair_skips", "no_hole"),
    mistake("kick_done_early", "fence_sends"),
    mistake("leader_restore", "acked_survives"),
    mistake("mute_lost_by_leaving", "mutes"),
    mistake("old_grant_is_final", "refusals"),
    mistake("outbox_acked_early", "fence_done"),
    mistake("outbox_lost_by_new_leader", "fence_done"),
    mistake("page_serves_behind_fence", "fence_reads"),
    mistake("page_with_anchor", "pages"),
    mistake("recall_keeps_body", "changes_shown"),
    mistake("resume_off_by_one", "no_hole"),
    mistake("retry_under_new_key", "nothing_invented"),
    mistake("return_reads_absence", "fence_reads"),
    mistake("rights_lost_unheard", "change_rights"),
    mistake("ring_serves_behind_fence", "fence_reads"),
    mistake("roles_outlive_membership", "change_rights"),
    mistake("snapshot_without_dedupe", "replicas"),
    mistake("snapshot_without_fences", "replicas"),
    mistake("stale_read", "fresh_reads"),
    mistake("ts_page_with_anchor", "ts_reads"),
    mistake("ts_without_max", "ascending"),
    mistake("vote_not_saved", "one_leader"),
];

/// The mistake of a name.
#[must_use]
pub fn named(name: &str) -> Option<Mistake> {
    MISTAKES.iter().copied().find(|mistake| mistake.name == name)
}

/// Turns a mistake on in this process, which must be one that holds them.
///
/// # Errors
/// In a build that holds no mistakes.
pub fn choose(name: &str) -> io::Result<()> {
    if throng_planted::choose!(name) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "this build holds no mistakes, `{name}` least of all"
    )))
}

/// Whether this build holds the mistakes.
#[must_use]
pub fn holds_mistakes() -> bool {
    throng_planted::BUILT == Some("all")
}

/// Builds this program with the mistakes in it, in a target folder of its own and the profile this
/// one was built with, and runs it with the same arguments.
///
/// # Errors
/// When cargo cannot be run or the build fails.
pub fn again_with_mistakes() -> io::Result<ExitCode> {
    let program = build()?;
    let status = Command::new(program).args(std::env::args_os().skip(1)).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

fn build() -> io::Result<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    let folder = root.join("target/planted");
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--locked",
            "-p",
            "throng-sim",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(&folder)
        .env("THRONG_PLANTED", "all")
        .current_dir(&root)
        .status()?;
    if !status.success() {
        return Err(io::Error::other("the build with mistakes failed"));
    }
    let place = if profile == "dev" { "debug" } else { profile };
    Ok(folder
        .join(place)
        .join(format!("throng-sim{}", std::env::consts::EXE_SUFFIX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants;

    #[test]
    fn every_mistake_is_found_by_an_invariant_there_is() {
        for mistake in MISTAKES {
            let known = invariants::ALL
                .iter()
                .any(|invariant| invariant.name == mistake.found_by);
            assert!(known, "{mistake:?}");
        }
        assert!(MISTAKES.len() >= 18);
        assert!(MISTAKES.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn a_normal_build_holds_no_mistake_and_says_so() {
        if !holds_mistakes() {
            assert!(choose("ack_before_sync").is_err());
        }
    }
}
