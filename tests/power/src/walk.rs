//! All crash points of a record, in its order.

use anyhow::Result;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::disk::{Disk, Fate, Image};
use crate::expect::Owing;
use crate::record::Step;

/// Which points are visited.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Decides the fates.
    pub seed: u64,
    /// How many points there are at least.
    pub points: u64,
    /// Whether syncs count. A disk that lies must be noticed by the checks.
    pub honest: bool,
    /// The first point visited.
    pub from: u64,
    /// This part of all points is visited…
    pub part: u64,
    /// …of so many parts.
    pub parts: u64,
}

/// A crash point.
#[derive(Debug)]
pub struct Point<'a> {
    /// Its number; with the seed and the record it says everything.
    pub number: u64,
    /// The step during which the power is cut.
    pub step: usize,
    /// The fate of what was not synced.
    pub fate: Fate,
    /// What is left.
    pub image: Image,
    /// What is owed.
    pub owing: &'a Owing,
}

/// Steps at which a power cut can be told from one at the step before: those that change the disk.
fn is_change(step: &Step) -> bool {
    !matches!(step, Step::Mark(_))
}

/// Visits the points of a part until `visit` says that it is enough.
pub fn walk(
    steps: &[Step],
    root: u64,
    plan: Plan,
    mut visit: impl FnMut(Point<'_>) -> Result<bool>,
) -> Result<()> {
    let changes = steps.iter().filter(|step| is_change(step)).count() as u64;
    let variants = plan.points.div_ceil(changes.max(1));
    let mut disk = Disk::new(root, plan.honest);
    let mut owing = Owing::default();
    let mut number = 0;
    for (place, step) in steps.iter().enumerate() {
        if let Step::Mark(mark) = step {
            owing.take(mark);
            continue;
        }
        disk.begin(step)?;
        for variant in 0..variants {
            let mine = number % plan.parts == plan.part && number >= plan.from;
            number += 1;
            if !mine {
                continue;
            }
            let mut random = StdRng::seed_from_u64(plan.seed ^ number.rotate_left(32));
            let fate = Fate::of(variant, &mut random);
            let point = Point {
                number: number - 1,
                step: place,
                fate,
                image: disk.image(fate, &mut random),
                owing: &owing,
            };
            if !visit(point)? {
                return Ok(());
            }
        }
        disk.finish(step)?;
    }
    Ok(())
}
