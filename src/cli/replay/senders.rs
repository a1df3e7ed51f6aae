//! Plays the trace's messages, each by its own user.
//!
//! Messages start in the order of the trace, a window of them at once. A message waits for its
//! sender's last one in the same channel, and for the message it quotes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use throng_client::{Ack, Client, ClientMessageId, Code, SendError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::audit::Acked;
use super::members::Member;
use super::record::{Record, SendLine, now_us};
use super::stage::Stage;
use super::trace::Line;
use crate::cli::failure::Failure;

/// Messages under way at once: enough to keep every shard's group commit full, few enough that a
/// fault does not find thousands.
const WINDOW: usize = 512;

/// Sends everything; gives the times from first attempt to ack in microseconds.
pub async fn run(
    stage: Arc<Stage>,
    record: Option<Arc<Record>>,
    rate: Option<u32>,
    bar: ProgressBar,
) -> Result<Histogram<u64>, Failure> {
    let window = Arc::new(Semaphore::new(WINDOW));
    let mut pace = rate.map(|rate| tokio::time::interval(Duration::from_secs(1) / rate.max(1)));
    let mut tasks = JoinSet::new();
    let mut times = histogram();
    for place in 0..stage.trace.lines.len() {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        stage.gate.pass(place).await;
        stage.kick_gate.pass(place).await;
        let Ok(permit) = window.clone().acquire_owned().await else {
            break;
        };
        let (stage, record) = (stage.clone(), record.clone());
        let bar = bar.clone();
        tasks.spawn(async move {
            let mut outcome = send(&stage, place, record.as_deref()).await;
            if stage.changes.any()
                && outcome.is_ok()
                && let Err(failure) = stage.changes.behind(&stage, &stage.founder, place).await
            {
                outcome = Err(failure);
            }
            bar.inc(1);
            drop(permit);
            outcome
        });
        while let Some(done) = tasks.try_join_next() {
            take(done, &mut times)?;
        }
    }
    while let Some(done) = tasks.join_next().await {
        take(done, &mut times)?;
    }
    Ok(times)
}

/// A histogram of microseconds up to an hour.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("invariant: the bounds are constants that fit")
}

fn take(
    done: Result<Result<Option<u64>, Failure>, tokio::task::JoinError>,
    times: &mut Histogram<u64>,
) -> Result<(), Failure> {
    let lost = |error: tokio::task::JoinError| {
        Failure::new(format!("a sender died: {error}"), "replay", "report it")
    };
    if let Some(took) = done.map_err(lost)?? {
        times.saturating_record(took.max(1));
    }
    Ok(())
}

/// Sends one message; `None` if it was given up.
async fn send(stage: &Stage, place: usize, record: Option<&Record>) -> Result<Option<u64>, Failure> {
    for earlier in [stage.trace.previous[place], stage.trace.quoted[place]]
        .into_iter()
        .flatten()
    {
        stage.acked(earlier).await;
    }
    let line = &stage.trace.lines[place];
    let Some((client, member)) = stage.sender(place) else {
        return Ok(None);
    };
    stage.start(place);
    let ack = match send_as(stage, client, member, line).await {
        Ok(ack) => ack,
        Err(error) => {
            tracing::error!(n = line.n, user = %line.u, channel = %line.ch, %error, "a send was given up");
            stage.answer(place, None);
            return Ok(None);
        }
    };
    let took = stage.answer(
        place,
        Some(Acked {
            epoch: ack.epoch.0,
            seq: ack.seq.0,
            repeat: ack.repeat,
        }),
    );
    if let Some(record) = record {
        record.send(&SendLine {
            client_id: line.n,
            sender: &line.u,
            ch: line.ch.as_str(),
            seq: ack.seq.0,
            ts: ack.ts.0,
            id: &ack.id.to_string(),
            repeat: ack.repeat,
            t_us: now_us(),
        })?;
    }
    Ok(Some(took))
}

/// Sends a message; one that is refused because its sender was kicked goes again, under the same id,
/// once the sender is back.
async fn send_as(
    stage: &Stage,
    client: &Client,
    member: Option<&Arc<Member>>,
    line: &Line,
) -> Result<Ack, SendError> {
    loop {
        let (id, body) = (ClientMessageId(line.n), Bytes::from(line.body()));
        let trying = match member {
            Some(member) => Some(member.try_send().await),
            None => None,
        };
        let sent = client.send_with_id(&stage.group, &line.ch, id, body).await;
        drop(trying);
        match (sent, member) {
            (Err(error), Some(member)) if error.code == Some(Code::NotMember) => member.admission().await,
            (sent, _) => return sent,
        }
    }
}
