//! Once the faults are over everything converges: replicas have the same entries, every client that
//! is a member has deliveries of every channel running, and they have reached the end of the log.

use std::collections::BTreeMap;

use super::fences::causes;
use super::{Invariant, Violation, log};
use crate::history::{Channel, Client, FenceKind};
use crate::run::{End, Run, Stretch};
use crate::world;

pub const INVARIANT: Invariant = Invariant {
    name: "converged",
    clause: "DL-6.2-M5",
    check,
};

fn check(run: &Run) -> Result<(), Violation> {
    if run.liveness_us == u64::MAX {
        return Err(Violation::in_logs("the faults never stopped"));
    }
    replicas(run)?;
    let mut last: BTreeMap<(Client, Channel), &Stretch> = BTreeMap::new();
    for stretch in &run.stretches {
        last.insert((stretch.client, stretch.channel), stretch);
    }
    for client in world::clients() {
        for channel in world::channels() {
            let log = log(run, channel)?;
            let Some(stretch) = last.get(&(client, channel)) else {
                return Err(Violation::in_logs(format!(
                    "{client} never had deliveries of {channel}"
                )));
            };
            if stretch.end != End::Open && out_since(run, client, channel) {
                continue;
            }
            if stretch.end != End::Open || stretch.reached().seq != log.head {
                let text = format!(
                    "{client} has {:?} of {channel}, {:?}; the log ends with {}",
                    stretch.reached(),
                    stretch.end,
                    log.head
                );
                return Err(Violation::at(stretch.event, text));
            }
        }
    }
    Ok(())
}

fn replicas(run: &Run) -> Result<(), Violation> {
    let mut known = BTreeMap::new();
    for replica in &run.logs.replicas {
        let first = *known
            .entry(replica.shard)
            .or_insert((replica.node, replica.applied));
        if first.1 != replica.applied {
            let text = format!(
                "node {} has applied shard {} up to {}, node {} up to {}",
                first.0, replica.shard, first.1, replica.node, replica.applied
            );
            return Err(Violation::in_logs(text));
        }
    }
    Ok(())
}

/// Whether a kick or a leave may have taken effect while the faults were over already.
fn out_since(run: &Run, client: Client, channel: Channel) -> bool {
    let ends =
        [FenceKind::Kick, FenceKind::Left].map(|kind| causes(run, channel.group(), client.user(), kind));
    ends.into_iter()
        .flatten()
        .any(|end| end.ends_us() >= run.liveness_us)
}

#[cfg(test)]
mod tests {
    use super::super::story::{D1, good, seen};
    use super::*;
    use crate::history::{Host, Sub, User, What};

    #[test]
    fn everybody_at_the_end_is_fine() {
        assert_eq!(good().judged(INVARIANT), Ok(()));
    }

    #[test]
    fn a_client_that_lags_or_has_no_deliveries_is_found() {
        let mut lags = good();
        lags.logged(&[seen(User(1), 4)]);
        assert!(lags.judged(INVARIANT).is_err());
        let mut gone = good();
        let sub = Sub(100 + 10 * u32::from(D1.0));
        gone.event(Host::Client(D1), What::Ended { sub, code: 302 });
        assert!(gone.judged(INVARIANT).is_err());
    }

    #[test]
    fn a_replica_that_lags_and_faults_that_never_stop_are_found() {
        let mut lags = good();
        lags.logs.replicas[1].applied -= 1;
        assert!(lags.judged(INVARIANT).is_err());
        assert!(super::super::story::Story::new().judged(INVARIANT).is_err());
    }
}
