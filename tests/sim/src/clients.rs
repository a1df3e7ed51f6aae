//! Drivers of the workload's clients: real SDK clients that do what it says, and record what they see
//! at the boundary of the SDK.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use throng_client::{Client as Sdk, LocalStore, MemoryStore, RequestError, State};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::REQUEST_DEADLINE;
use crate::history::{Answer, Ask, BodyHash, Channel, Client, Host as Where, Sub, What};
use crate::host::Host;
use crate::net::{Network, Us};
use crate::recorder::Recorder;
use crate::workload::Step;
use crate::{setup, token};

mod asks;
mod back_end;
mod follow;

pub use back_end::BackEnd;

/// Before a client that could not connect tries again.
const AGAIN: Duration = Duration::from_millis(200);
/// How far ahead a driver sleeps when nothing is due.
const FAR: Us = 60_000_000;

/// A client of the workload: its host, and what its device keeps over restarts.
#[derive(Debug)]
pub struct Device {
    /// Which.
    pub client: Client,
    /// Its host.
    pub host: Host,
    store: Arc<MemoryStore>,
    starts: u64,
}

/// What a driver works with.
#[derive(Debug, Clone)]
struct Driver {
    client: Client,
    net: Network,
    host: crate::net::HostId,
    recorder: Recorder,
    store: Arc<MemoryStore>,
    seed: u64,
}

impl Device {
    /// A client's device, switched off.
    pub fn new(net: &Network, client: Client) -> Self {
        Self {
            client,
            host: Host::new(net),
            store: Arc::default(),
            starts: 0,
        }
    }

    /// Starts the application.
    pub fn start(&mut self, net: &Network, recorder: &Recorder, seed: u64, now: Us) -> std::io::Result<()> {
        self.host.boot(now)?;
        self.starts += 1;
        let driver = Driver {
            client: self.client,
            net: net.clone(),
            host: self.host.id,
            recorder: recorder.clone(),
            store: Arc::clone(&self.store),
            seed: seed.wrapping_mul(1_009) ^ (u64::from(self.client.0) << 32) ^ self.starts,
        };
        self.host.spawn(driver.run());
        Ok(())
    }

    /// The application and its device stop at once.
    pub fn crash(&mut self, recorder: &Recorder, now: Us) {
        self.host.crash();
        recorder.record(now, Where::Client(self.client), What::Crash);
        recorder.client_gone(now, self.client);
    }
}

impl Driver {
    fn record(&self, what: What) {
        self.recorder
            .record(self.net.now(), Where::Client(self.client), what);
    }

    async fn run(self) {
        let Some(sdk) = self.connect().await else {
            return self.recorder.restart(self.client);
        };
        self.restored(&sdk);
        tokio::spawn(self.clone().watch(sdk.clone()));
        let news = self.recorder.news(self.client);
        let mut follows = BTreeMap::new();
        loop {
            let now = self.net.now();
            match self.recorder.next(self.client, now) {
                Step::Wait(until) => {
                    let wait = Duration::from_micros(until.min(now + FAR) - now);
                    tokio::select! {
                        () = sleep_until(Instant::now() + wait) => {}
                        () = news.notified() => {}
                    }
                }
                step => self.step(&sdk, step, &mut follows),
            }
        }
    }

    /// What the back end of the app is asked, beside this client.
    async fn govern(&self, ask: Ask) -> Answer {
        match BackEnd::new(&self.net, self.host) {
            Ok(back_end) => back_end.govern(ask).await,
            Err(_) => Answer::Refused {
                code: 0,
                unknown: false,
            },
        }
    }

    /// Connects as often as it takes; `None` if the client cannot be made.
    async fn connect(&self) -> Option<Sdk> {
        let device = self.client.device().ok()?;
        let tokens = token::source(&self.net, self.client.user());
        let mut config = setup::client_config(&self.net, self.host, tokens, device, self.seed).ok()?;
        config.store = Arc::clone(&self.store) as Arc<dyn LocalStore>;
        config.request_deadline = REQUEST_DEADLINE;
        config.subscription_buffer = 4;
        loop {
            match Sdk::connect(config.clone()).await {
                Ok(sdk) => return Some(sdk),
                Err(error) => {
                    tracing::info!(client = %self.client, %error, "no session yet");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// Sends that the device kept over a restart are asked for again.
    fn restored(&self, sdk: &Sdk) {
        let bodies = self.store.load().unwrap_or_default().sends;
        for send in sdk.take_restored() {
            let body = bodies.iter().find(|stored| {
                stored.client_message_id == send.client_message_id && stored.channel == send.channel
            });
            let (Some(body), Some(channel)) = (body, Channel::named(&send.channel)) else {
                continue;
            };
            let (op, key) = (self.recorder.op(), send.client_message_id);
            let hash = BodyHash::of(&body.body);
            self.record(What::Asked(op, Ask::Send { channel, key, hash }));
            let driver = self.clone();
            tokio::spawn(async move {
                let answer = asks::sent(send.answer().await);
                driver.record(What::Answered(op, answer));
            });
        }
    }

    /// Records sessions. A client that is closed for good is started anew, as people do.
    async fn watch(self, sdk: Sdk) {
        let mut states = sdk.state();
        loop {
            match states.borrow_and_update().clone() {
                State::Open { edge, connection, .. } => {
                    let edge = edge_number(&edge);
                    self.record(What::Connected { edge, connection });
                }
                State::Connecting { .. } => {}
                State::Closed(reason) => {
                    tracing::warn!(client = %self.client, %reason, "closed for good");
                    return self.recorder.restart(self.client);
                }
            }
            if states.changed().await.is_err() {
                return self.recorder.restart(self.client);
            }
        }
    }

    fn step(&self, sdk: &Sdk, step: Step, follows: &mut BTreeMap<Sub, AbortHandle>) {
        let (driver, sdk) = (self.clone(), sdk.clone());
        match step {
            Step::Ask(op, ask @ Ask::Subscribe { sub, channel, from }) => {
                self.record(What::Asked(op, ask));
                let following = tokio::spawn(async move { driver.follow(sdk, op, sub, channel, from).await });
                follows.insert(sub, following.abort_handle());
            }
            Step::Ask(op, ask @ (Ask::Assign { .. } | Ask::Permit { .. })) => {
                self.record(What::Asked(op, ask));
                tokio::spawn(async move {
                    let answer = driver.govern(ask).await;
                    driver.record(What::Answered(op, answer));
                });
            }
            Step::Ask(op, ask) => {
                self.record(What::Asked(op, ask));
                tokio::spawn(async move {
                    let answer = asks::answer(&sdk, ask).await;
                    driver.record(What::Answered(op, answer));
                });
            }
            Step::Drop(sub) => {
                if let Some(following) = follows.remove(&sub) {
                    following.abort();
                }
                self.record(What::Dropped { sub });
            }
            Step::DropConnection => {
                self.record(What::DroppedConnection);
                tokio::spawn(async move { sdk.drop_connection().await });
            }
            Step::Freeze { ms } => {
                self.record(What::Frozen { ms });
                tokio::spawn(async move { sdk.pause_reading(Duration::from_millis(ms)).await });
            }
            Step::Restart => self.recorder.restart(self.client),
            Step::Wait(_) => {}
        }
    }
}

/// The number of an edge by the name it tells.
fn edge_number(name: &str) -> u8 {
    let number = name.strip_prefix("edge-").and_then(|number| number.parse().ok());
    number.unwrap_or_default()
}

/// How a request was refused.
fn refused(error: &RequestError) -> Answer {
    Answer::Refused {
        code: error.number,
        unknown: error.outcome_unknown,
    }
}
