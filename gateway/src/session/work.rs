//! The requests a session has in flight.
//!
//! They run side by side, but for two rules: sends and changes in one channel go one after the other, in the
//! order they came, and a resume's places are worked on some at a time.

use std::collections::{HashMap, VecDeque};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use throng_protocol::cluster::Change;
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelId, GroupId};
use throng_protocol::message::{Place, RequestId};
use throng_protocol::session::server::ServerRequest;

use super::requests::{Answer, Requests};
use crate::directory::Identity;
use crate::limits::{RESUME_CONCURRENCY, SENDS_WAITING_BYTES_MAX};
use crate::refused::Refused;

type SendKey = (GroupId, ChannelId);

/// What has come of something in flight.
pub(super) enum Outcome {
    /// A token was verified, with the end of its life, or refused.
    Authenticated(Result<Box<(u64, Identity)>, Refused>),
    /// A request, or one place of a resume, is done.
    Answered {
        request: RequestId,
        part: Part,
        result: Box<Result<Answer, Refused>>,
    },
}

/// What else waits for an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing.
    Whole,
    /// The next send into the channel.
    Send(SendKey),
    /// The rest of a resume.
    Place,
}

/// The requests a session has in flight.
#[derive(Default)]
pub(super) struct Work {
    running: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// Sends and changes that wait for the one before them in the same channel; an entry means one runs.
    sends: HashMap<SendKey, VecDeque<ServerRequest>>,
    /// Bytes of the bodies of those that wait.
    sends_bytes: usize,
    places: VecDeque<(RequestId, Place)>,
    places_running: usize,
    /// Places left of each resume.
    resumes: HashMap<RequestId, usize>,
}

impl Work {
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Runs something that is no request.
    pub fn run(&mut self, future: BoxFuture<'static, Outcome>) {
        self.running.push(future);
    }

    /// Starts a request, or lets it wait for its turn.
    pub fn start(&mut self, requests: &Requests, request: ServerRequest) {
        match request {
            request @ (ServerRequest::Send(_) | ServerRequest::Change(_)) => self.write(requests, request),
            ServerRequest::Resume(resume) => {
                self.resumes.insert(resume.request, resume.places.len());
                let places = resume.places.into_iter().map(|place| (resume.request, place));
                self.places.extend(places);
                self.start_places(requests);
            }
            request => self.whole(requests, request, Part::Whole),
        }
    }

    /// Starts what writes into a channel, or lets it wait for what came before it.
    fn write(&mut self, requests: &Requests, request: ServerRequest) {
        let Some((key, bytes)) = writes(&request) else {
            return;
        };
        match self.sends.get_mut(&key) {
            Some(_) if self.sends_bytes + bytes > SENDS_WAITING_BYTES_MAX => {
                self.running
                    .push(Box::pin(std::future::ready(overloaded(&request))));
            }
            Some(waiting) => {
                self.sends_bytes += bytes;
                waiting.push_back(request);
            }
            None => {
                self.sends.insert(key.clone(), VecDeque::new());
                self.whole(requests, request, Part::Send(key));
            }
        }
    }

    /// What has come of the next thing that is done; pending for ever while nothing runs. After an
    /// answer, [`Self::after`] must be called. Cancel-safe.
    pub async fn next(&mut self) -> Outcome {
        match self.running.next().await {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }

    /// Starts what has waited for an answer. Tells whether that was the last place of a resume.
    pub fn after(&mut self, requests: &Requests, request: RequestId, part: Part) -> bool {
        match part {
            Part::Whole => false,
            Part::Send(key) => {
                match self.sends.get_mut(&key).and_then(VecDeque::pop_front) {
                    Some(request) => {
                        self.sends_bytes -= writes(&request).map_or(0, |(_, bytes)| bytes);
                        self.whole(requests, request, Part::Send(key));
                    }
                    None => drop(self.sends.remove(&key)),
                }
                false
            }
            Part::Place => {
                self.places_running -= 1;
                self.start_places(requests);
                let left = self.resumes.get_mut(&request);
                let last = left.is_some_and(|left| {
                    *left -= 1;
                    *left == 0
                });
                if last {
                    self.resumes.remove(&request);
                }
                last
            }
        }
    }

    fn whole(&mut self, requests: &Requests, request: ServerRequest, part: Part) {
        let requests = requests.clone();
        self.running.push(Box::pin(async move {
            let id = request.request();
            let result = Box::new(requests.carry_out(request).await);
            Outcome::Answered {
                request: id,
                part,
                result,
            }
        }));
    }

    fn start_places(&mut self, requests: &Requests) {
        while self.places_running < RESUME_CONCURRENCY {
            let Some((request, place)) = self.places.pop_front() else {
                return;
            };
            self.places_running += 1;
            let requests = requests.clone();
            self.running.push(Box::pin(async move {
                let result = Box::new(requests.subscribe(request, place).await);
                Outcome::Answered {
                    request,
                    part: Part::Place,
                    result,
                }
            }));
        }
    }
}

/// The channel that a request writes into, and the bytes it brings.
fn writes(request: &ServerRequest) -> Option<(SendKey, usize)> {
    match request {
        ServerRequest::Send(m) => Some(((m.group.clone(), m.channel.clone()), m.body.len())),
        ServerRequest::Change(m) => {
            let bytes = match &m.change {
                Change::Modify { body } => body.len(),
                Change::Recall | Change::Delete => 0,
                Change::Expand { set, .. } => set.iter().map(|(key, value)| key.len() + value.len()).sum(),
            };
            Some(((m.group.clone(), m.channel.clone()), bytes))
        }
        _ => None,
    }
}

fn overloaded(request: &ServerRequest) -> Outcome {
    let text = format!("more than {SENDS_WAITING_BYTES_MAX} bytes of sends would wait for those before them");
    Outcome::Answered {
        request: request.request(),
        part: Part::Whole,
        result: Box::new(Err(Refused::new(Code::Overloaded, text))),
    }
}
