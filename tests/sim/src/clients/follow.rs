//! Subscriptions: entries are recorded as the application gets them.

use throng_client::{Client as Sdk, Delivery, Event, From as SdkFrom, Subscription};
use throng_protocol::message;

use super::{Driver, edge_number, refused};
use crate::changes;
use crate::history::{Answer, Channel, From, Op, Start, Sub, What};

impl Driver {
    /// Subscribes and takes what comes until the subscription ends or this is aborted.
    pub(super) async fn follow(self, sdk: Sdk, op: Op, sub: Sub, channel: Channel, from: From) {
        let begun = self.begin(&sdk, channel, from).await;
        match begun {
            Ok(subscription) => {
                self.recorder.follows(self.client, sub);
                let answer = Answer::Subscribed {
                    start: start(subscription.start_reason()),
                    at: subscription.start(),
                    head: subscription.head(),
                };
                self.record(What::Answered(op, answer));
                self.take(sub, subscription).await;
            }
            Err(answer) => self.record(What::Answered(op, answer)),
        }
    }

    async fn begin(&self, sdk: &Sdk, channel: Channel, from: From) -> Result<Subscription, Answer> {
        let unnamed = || Answer::Refused {
            code: throng_protocol::code::Code::Forbidden.number(),
            unknown: false,
        };
        let from = match from {
            From::Head => SdkFrom::Head,
            From::Start => SdkFrom::Start,
            From::Position(position) => SdkFrom::Position(position),
            From::Ts(ts) => SdkFrom::Ts(ts),
            From::Stored => SdkFrom::Stored,
        };
        let group = channel.group().id().map_err(|_| unnamed())?;
        let channel = channel.id().map_err(|_| unnamed())?;
        let begun = sdk.subscribe(&group, &channel, from).await;
        begun.map_err(|error| refused(&error))
    }

    async fn take(&self, sub: Sub, mut subscription: Subscription) {
        while let Some(event) = subscription.recv_event().await {
            match event {
                Event::Delivery(delivery) => self.delivered(sub, &delivery),
                Event::Reset { from, to } => self.record(What::Reset { sub, from, to }),
            }
        }
        match subscription.ended() {
            Some(error) => {
                let code = error.number;
                self.record(What::Ended { sub, code });
            }
            None => self.record(What::Dropped { sub }),
        }
    }

    fn delivered(&self, sub: Sub, delivery: &Delivery) {
        let Some((entry, shown)) = changes::seen(&delivery.entry()) else {
            return;
        };
        self.record(What::Delivered {
            sub,
            epoch: delivery.epoch,
            prev: delivery.prev,
            entry,
            shown,
            edge: edge_number(&delivery.edge),
            connection: delivery.connection,
        });
    }
}

fn start(start: message::Start) -> Start {
    match start {
        message::Start::Resumed => Start::Resumed,
        message::Start::Head => Start::Head,
        message::Start::FullEpoch => Start::FullEpoch,
        message::Start::FullAhead => Start::FullAhead,
        message::Start::FullFence => Start::FullFence,
    }
}
