//! Beginning subscriptions: the right, the channel's feed, the place, then the answer.
//!
//! A right is judged by the fences the feed has told. One that is older than a fence is asked for
//! anew; one that knows of a fence the feed has not told waits for the feed, so that whoever was
//! readmitted begins behind the fence.

use std::sync::Arc;

use throng_fanout::{Ask, SubscribeError, Subscription};
use throng_protocol::cluster::{Anchor, ChannelInfo, Direction};
use throng_protocol::code::Code;
use throng_protocol::ids::{ChannelNumber, Position, Seq, Ts};
use throng_protocol::message::{Place, RequestId, Start, Subscribed};
use tokio::time::Duration;

use super::member::Reserved;
use super::requests::{Answer, Requests};
use crate::channels::{Channel, SubscribeFailure};
use crate::directory::Granted;
use crate::limits::ELECTION_WAIT;
use crate::refused::Refused;
use crate::upstream::{Deadline, PageAsk};

/// Where a time stamp lies in a log.
#[derive(Debug, Clone, Copy)]
struct Located {
    /// The last entry that is not later; seq 0 if there is none.
    position: Position,
    /// Its time stamp.
    ts: Ts,
    /// The end of the log, if it was read.
    log: Option<Position>,
    /// The stamp is later than all of the log.
    ahead: bool,
}

impl Requests {
    /// Begins the deliveries of a channel.
    pub async fn subscribe(&self, id: RequestId, place: Place) -> Result<Answer, Refused> {
        let mut reserved = None;
        let begun = self.begin(id, place, &mut reserved).await;
        if begun.is_err()
            && let Some(number) = reserved
        {
            self.member.unsubscribe(number);
        }
        begun
    }

    async fn begin(
        &self,
        id: RequestId,
        place: Place,
        reserved: &mut Option<ChannelNumber>,
    ) -> Result<Answer, Refused> {
        let by = Deadline::start();
        let (mut granted, info) = self.readable(&place.group, &place.channel, by).await?;
        let mut located = None;
        let mut log = None;
        loop {
            let channel = self.shared.channels.follow(&info);
            if !channel.opened(by).await {
                return Err(Refused::unavailable("the channel could not be followed in time"));
            }
            match self.member.reserve(&channel) {
                Reserved::Full => {
                    let text = "the session is subscribed to as many channels as allowed";
                    return Err(Refused::new(Code::TooManySubscriptions, text));
                }
                Reserved::New => *reserved = Some(info.number),
                Reserved::Held => {}
            }
            if place.ts != Ts(0) && located.is_none() {
                located = Some(self.locate(&channel, place.ts, &mut granted, by).await?);
            }
            let ask = Ask {
                seat: self.member.seat,
                request: id,
                rights: granted.rights,
                position: located.map_or(place.position, |located| located.position),
                located: located.is_some(),
                log: log.or(located.and_then(|located| located.log)),
            };
            match channel.subscribe(ask) {
                Ok(begun) => {
                    self.member.hold(&channel);
                    let message = subscribed(id, place, &info, begun, located).into();
                    let attach = Some(channel);
                    return Ok(Answer { message, attach });
                }
                Err(SubscribeFailure::Fanout(error)) => {
                    let known = log.is_some() || located.is_some();
                    self.prepare(error, &channel, &mut granted, by).await?;
                    (log, located) = (None, None);
                    match error {
                        SubscribeError::HeadNeeded if known => by.wait(ELECTION_WAIT).await,
                        SubscribeError::HeadNeeded => {
                            log = Some(self.head(&channel, &place, &mut granted, by).await?);
                        }
                        _ => {}
                    }
                }
                Err(SubscribeFailure::Gone) => {
                    if by.passed() {
                        return Err(Refused::unavailable("the channel was being given up"));
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }

    /// Makes ready for another attempt at a subscription.
    async fn prepare(
        &self,
        error: SubscribeError,
        channel: &Arc<Channel>,
        granted: &mut Granted,
        by: Deadline,
    ) -> Result<(), Refused> {
        if by.passed() {
            return Err(Refused::unavailable("the channel could not be followed in time"));
        }
        match error {
            SubscribeError::Stale => self.renew(granted, &channel.info().group, by).await,
            SubscribeError::NotTold => {
                channel.look();
                match channel.told(granted.rights.fenced, by.at()).await {
                    true => Ok(()),
                    false => Err(Refused::unavailable(
                        "the channel's feed is behind a change of rights",
                    )),
                }
            }
            // Either nothing was read yet, or the log that was is of another epoch than the feed,
            // which is about to follow.
            SubscribeError::HeadNeeded | SubscribeError::NotOpen => Ok(()),
        }
    }

    /// The end of the log.
    async fn head(
        &self,
        channel: &Channel,
        place: &Place,
        granted: &mut Granted,
        by: Deadline,
    ) -> Result<Position, Refused> {
        let ask = PageAsk::behind(place.position.seq, 1);
        let page = self.page(channel.info(), ask, granted, by).await?;
        Ok(Position {
            epoch: page.epoch,
            seq: page.head,
        })
    }

    /// Finds the last entry with this time stamp or an earlier one: in the ring, or in the log.
    async fn locate(
        &self,
        channel: &Channel,
        ts: Ts,
        granted: &mut Granted,
        by: Deadline,
    ) -> Result<Located, Refused> {
        if let Some((position, at)) = channel.locate(ts) {
            return Ok(Located {
                position,
                ts: at,
                log: None,
                ahead: false,
            });
        }
        let ask = PageAsk {
            anchor: Anchor::Ts(Ts(ts.0.saturating_add(1))),
            direction: Direction::Before,
            limit: 1,
            grant: None,
        };
        let page = self.page(channel.info(), ask, granted, by).await?;
        let (seq, at) = match page.entries.last() {
            Some(entry) => (entry.seq, entry.ts),
            None => (Seq(0), Ts(0)),
        };
        let epoch = page.epoch;
        Ok(Located {
            position: Position { epoch, seq },
            ts: at,
            log: Some(Position {
                epoch,
                seq: page.head,
            }),
            ahead: seq == page.head && at < ts,
        })
    }
}

fn subscribed(
    request: RequestId,
    place: Place,
    info: &ChannelInfo,
    begun: Subscription,
    located: Option<Located>,
) -> Subscribed {
    let located = located.filter(|located| located.position == begun.position);
    let ahead = located.is_some_and(|located| located.ahead) && begun.start == Start::Resumed;
    Subscribed {
        request,
        group: place.group,
        channel_name: place.channel,
        channel: info.number,
        position: begun.position,
        head: begun.head,
        start: if ahead { Start::FullAhead } else { begun.start },
        ts: located.map(|located| located.ts).or(begun.ts).unwrap_or_default(),
    }
}
