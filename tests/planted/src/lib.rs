//! Deliberate mistakes, and the one way to plant them: `planted!("name")` where the mistake is made.
//!
//! `THRONG_PLANTED=NAME` at build time plants one. `THRONG_PLANTED=all` compiles every one in and
//! leaves the choice to [`choose`], once, at the start of the process, or to `THRONG_MISTAKE=NAME` in
//! its environment, so that one build serves every suite that looks for them. In every other build the macro is the word `false`: neither the
//! mistakes nor a way to choose one exist, and not even their names are in the binary.
//!
//! `docs/testing.md` lists the mistakes and what notices each; `tests/tidy` holds the two together.

/// Whether a mistake is planted here. `false`, as a literal, in every normal build.
#[cfg(not(planted))]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        false
    };
}

/// Whether a mistake is planted here.
#[cfg(planted)]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        $crate::is($name)
    };
}

/// Turns a mistake on, in a build that holds them all; `false` in any other.
#[cfg(not(planted = "all"))]
#[macro_export]
macro_rules! choose {
    ($name:expr) => {{
        let _: &str = $name;
        false
    }};
}

/// Turns a mistake on, in a build that holds them all; `false` in any other.
#[cfg(planted = "all")]
#[macro_export]
macro_rules! choose {
    ($name:expr) => {{
        $crate::choose($name);
        true
    }};
}

#[cfg(planted)]
mod chosen {
    use std::sync::OnceLock;

    static CHOSEN: OnceLock<String> = OnceLock::new();

    /// Whether the mistake of this name is on.
    pub fn is(name: &str) -> bool {
        if cfg!(planted = "all") {
            CHOSEN.get_or_init(|| std::env::var("THRONG_MISTAKE").unwrap_or_default()) == name
        } else {
            name == env!("THRONG_PLANTED_NAME")
        }
    }

    /// Turns one mistake on, for as long as the process lives, whatever its environment says. A second
    /// choice changes nothing.
    #[cfg(planted = "all")]
    pub fn choose(name: &str) {
        let _ = CHOSEN.set(name.to_owned());
    }
}

#[cfg(planted = "all")]
pub use chosen::choose;
#[cfg(planted)]
pub use chosen::is;

/// What `THRONG_PLANTED` was when this was built; nothing in a normal build.
pub const BUILT: Option<&str> = option_env!("THRONG_PLANTED_NAME");

#[cfg(test)]
mod tests {
    #[test]
    fn a_normal_build_plants_nothing() {
        if super::BUILT.is_none() {
            assert!(!std::hint::black_box(crate::planted!("no_sync")));
        }
    }

    #[cfg(planted = "all")]
    #[test]
    fn one_mistake_is_chosen_and_the_others_stay_out() {
        super::choose("no_sync");
        super::choose("another");
        assert!(crate::planted!("no_sync") && !crate::planted!("another"));
    }
}
