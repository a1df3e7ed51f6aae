//! Members who are kicked and let in again: two devices each, on edges of their own, that send and
//! watch at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};
use throng_client::{ChannelId, Client, Code, Delivery, From, RequestError, Subscription};
use tokio::sync::watch;
use tokio::time::Instant;

use super::audit::Watched;
use super::fences::Stay;
use super::observers::{delivered, write_delivery};
use super::record::{JoinLine, Record};
use super::stage::Stage;
use crate::cli::failure::Failure;
use crate::cli::sdk;

/// Devices of a member who is kicked.
pub const DEVICES: usize = 2;

/// What a member may do, as far as this replay knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Everything.
    In,
    /// Nothing; sends are tried all the same, and refused.
    Out,
    /// Nothing, and nothing is tried: what is stored from here on is stored behind the return.
    Returning,
}

/// A member's standing, and how many sends are being tried.
#[derive(Debug, Clone, Copy)]
struct Sending {
    standing: Standing,
    tries: usize,
}

/// A member who is kicked now and then.
#[derive(Debug)]
pub struct Member {
    /// The user.
    pub user: String,
    /// The sessions, each at an edge of its own while there is more than one edge.
    pub devices: [Client; DEVICES],
    sending: watch::Sender<Sending>,
    /// How often the user has been let in: the number of the stay that devices are in, or begin.
    stay: watch::Sender<usize>,
    /// Per device: stays begun and stays ended.
    progress: [watch::Sender<(usize, usize)>; DEVICES],
}

impl Member {
    /// A member who was just let in.
    pub fn new(user: String, devices: [Client; DEVICES]) -> Self {
        Self {
            user,
            devices,
            sending: watch::Sender::new(Sending {
                standing: Standing::In,
                tries: 0,
            }),
            stay: watch::Sender::new(1),
            progress: std::array::from_fn(|_| watch::Sender::new((0, 0))),
        }
    }

    /// The device that sends a message of the trace: they take turns.
    pub fn device(&self, n: u64) -> &Client {
        &self.devices[usize::from(n % 2 == 1)]
    }

    /// Whether nobody kicks this member at the moment.
    pub fn is_admitted(&self) -> bool {
        self.sending.borrow().standing == Standing::In
    }

    /// From here on refused sends wait for [`Self::back`].
    pub fn kicked(&self) {
        self.sending
            .send_modify(|sending| sending.standing = Standing::Out);
    }

    /// Holds further sends back and waits until the last one is answered.
    pub async fn quiet(&self) {
        self.sending
            .send_modify(|sending| sending.standing = Standing::Returning);
        // The sender is ours: it does not end while we wait.
        let _ = self
            .sending
            .subscribe()
            .wait_for(|sending| sending.tries == 0)
            .await;
    }

    /// The devices may subscribe again.
    pub fn let_in(&self) {
        self.stay.send_modify(|stay| *stay += 1);
    }

    /// The devices have come back: sends go on.
    pub fn back(&self) {
        self.sending
            .send_modify(|sending| sending.standing = Standing::In);
    }

    /// Waits until the user may send.
    pub async fn admission(&self) {
        let is_in = |sending: &Sending| sending.standing == Standing::In;
        let _ = self.sending.subscribe().wait_for(is_in).await;
    }

    /// Begins to try a send; waits while the user is just coming back.
    pub async fn try_send(&self) -> Try<'_> {
        loop {
            let begun = self.sending.send_if_modified(|sending| {
                let may = sending.standing != Standing::Returning;
                sending.tries += usize::from(may);
                may
            });
            if begun {
                return Try(self);
            }
            self.admission().await;
        }
    }

    /// Waits until all devices have subscribed for the current stay.
    pub async fn standing(&self) {
        let stay = *self.stay.borrow();
        for progress in &self.progress {
            let _ = progress.subscribe().wait_for(|(begun, _)| *begun >= stay).await;
        }
    }

    /// Waits until all devices know that the current stay is over.
    pub async fn told(&self) {
        let stay = *self.stay.borrow();
        for progress in &self.progress {
            let _ = progress.subscribe().wait_for(|(_, ended)| *ended >= stay).await;
        }
    }
}

/// A send that is being tried.
#[derive(Debug)]
pub struct Try<'a>(&'a Member);

impl Drop for Try<'_> {
    fn drop(&mut self) {
        self.0.sending.send_modify(|sending| sending.tries -= 1);
    }
}

/// What one device was given.
#[derive(Debug, Default)]
pub struct Given {
    /// Stay by stay.
    pub stays: Vec<Stay>,
    /// Channels that were still behind when patience ended.
    pub behind: u64,
}

/// What a subscription yields: its entries, and how it ended.
enum Event {
    Entry(Box<Delivery>),
    Ended(ChannelId, Option<RequestError>),
}

/// One device at work.
struct Device {
    stage: Arc<Stage>,
    member: Arc<Member>,
    device: usize,
    name: String,
    record: Option<(Arc<Record>, BufWriter<File>)>,
    place_of: Arc<BTreeMap<u64, usize>>,
    given: Given,
}

/// Watches all channels through every stay, until everything has come or patience ends.
pub async fn watch(
    stage: Arc<Stage>,
    member: Arc<Member>,
    device: usize,
    record: Option<Arc<Record>>,
    place_of: Arc<BTreeMap<u64, usize>>,
) -> Result<Given, Failure> {
    let name = format!("{}.{}", member.user, device + 1);
    let record = match record {
        Some(record) => Some((record.clone(), record.client(&name)?)),
        None => None,
    };
    let mut device = Device {
        stage,
        member,
        device,
        name,
        record,
        place_of,
        given: Given::default(),
    };
    while let Some(events) = device.come().await? {
        if !device.stay(events).await? {
            break;
        }
    }
    if let Some((record, out)) = &mut device.record {
        record.written(out.flush())?;
    }
    Ok(device.given)
}

impl Device {
    /// Waits to be let in and subscribes; `None` when the replay ends while the user is out.
    async fn come(&mut self) -> Result<Option<SelectAll<BoxStream<'static, Event>>>, Failure> {
        let next = self.given.stays.len() + 1;
        let mut stay = self.member.stay.subscribe();
        let mut finished = self.stage.finished();
        tokio::select! {
            biased;
            _ = stay.wait_for(|stay| *stay >= next) => {}
            _ = finished.wait_for(Option::is_some) => return Ok(None),
        }
        let client = self.member.devices[self.device].clone();
        let mut all = SelectAll::new();
        self.given.stays.push(Stay::new());
        for channel in self.stage.trace.channels() {
            let subscribed = client.subscribe(&self.stage.group, &channel, From::Head).await;
            let subscription = subscribed.map_err(|error| {
                sdk::refused(
                    &format!("{} cannot subscribe", self.name),
                    channel.as_str(),
                    &error,
                )
            })?;
            self.joined(&channel, subscription.start().seq.0)?;
            all.push(events(subscription));
        }
        self.member.progress[self.device].send_modify(|(begun, _)| *begun = next);
        Ok(Some(all))
    }

    fn joined(&mut self, channel: &ChannelId, from_seq: u64) -> Result<(), Failure> {
        if let Some(stay) = self.given.stays.last_mut() {
            let watched = Watched {
                from_seq,
                ..Watched::default()
            };
            stay.insert(channel.clone(), watched);
        }
        let Some((record, _)) = &self.record else {
            return Ok(());
        };
        record.join(&JoinLine {
            client: &self.name,
            ch: channel.as_str(),
            from_seq,
        })
    }

    /// Takes what comes; `true` when the membership has ended, `false` when the replay is over.
    async fn stay(&mut self, mut events: SelectAll<BoxStream<'static, Event>>) -> Result<bool, Failure> {
        let mut finished = self.stage.finished();
        let mut deadline: Option<Instant> = None;
        loop {
            let heads = finished.borrow().clone();
            if let Some(heads) = &heads {
                let behind = self.behind(heads);
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.stage.patience);
                if behind == 0 || Instant::now() >= deadline {
                    self.given.behind = behind;
                    return Ok(false);
                }
            }
            let patience = match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).boxed(),
                None => std::future::pending().boxed(),
            };
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(Event::Entry(delivery)) => self.take(&delivery)?,
                    Some(Event::Ended(channel, why)) => self.ended(&channel, why)?,
                    None => {
                        self.member.progress[self.device].send_modify(|(_, ended)| *ended += 1);
                        return Ok(true);
                    }
                },
                _ = finished.changed(), if heads.is_none() => {}
                () = patience => {}
            }
        }
    }

    fn take(&mut self, delivery: &Delivery) -> Result<(), Failure> {
        let place = self.place_of.get(&delivery.client_message_id.0).copied();
        let line = place.map(|place| &self.stage.trace.lines[place]);
        let delivered = delivered(delivery, line);
        let stay = self.given.stays.last_mut();
        if let Some(watched) = stay.and_then(|stay| stay.get_mut(&delivery.channel)) {
            watched.delivered.push(delivered);
        }
        let Some((record, out)) = &mut self.record else {
            return Ok(());
        };
        let device = format!("device-{}", self.device + 1);
        record.written(write_delivery(out, &self.name, &device, delivery))
    }

    /// The end of a subscription: the user is entitled to what came up to it. One that ended because
    /// the session did is a failure, not a kick.
    fn ended(&mut self, channel: &ChannelId, why: Option<RequestError>) -> Result<(), Failure> {
        match why {
            Some(error) if error.code == Some(Code::NotMember) => {}
            other => {
                let text = other.map_or_else(|| "its session ended".to_owned(), |error| error.text);
                return Err(Failure::new(
                    format!("{} lost a subscription: {text}", self.name),
                    channel.as_str().to_owned(),
                    "look into the edge's log",
                ));
            }
        }
        if let Some(watched) = self.given.stays.last_mut().and_then(|stay| stay.get_mut(channel)) {
            watched.until = Some(watched.last());
        }
        Ok(())
    }

    fn behind(&self, heads: &BTreeMap<ChannelId, u64>) -> u64 {
        let Some(stay) = self.given.stays.last() else {
            return 0;
        };
        let is_behind = |(channel, watched): &(&ChannelId, &Watched)| {
            heads.get(*channel).is_some_and(|head| watched.last() < *head)
        };
        stay.iter().filter(is_behind).count() as u64
    }
}

/// A subscription's entries, then its end.
fn events(subscription: Subscription) -> BoxStream<'static, Event> {
    let next = |subscription: Option<Subscription>| async move {
        let mut subscription = subscription?;
        Some(match subscription.recv().await {
            Some(delivery) => (Event::Entry(Box::new(delivery)), Some(subscription)),
            None => {
                let ended = subscription.ended().cloned();
                (Event::Ended(subscription.channel().clone(), ended), None)
            }
        })
    };
    stream::unfold(Some(subscription), next).boxed()
}
