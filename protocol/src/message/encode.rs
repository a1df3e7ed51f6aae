//! Message → frame.

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, WIPOffset};

use super::{Entry, Message, Place, Start};
use crate::cluster::Direction;
use crate::code::Class;
use crate::frame;
use crate::wire::v1;

pub(super) type Builder<'a> = FlatBufferBuilder<'a>;
pub(super) type Strings<'a> = WIPOffset<Vector<'a, ForwardsUOffset<&'a str>>>;
type Entries<'a> = WIPOffset<Vector<'a, ForwardsUOffset<v1::Entry<'a>>>>;

impl Message {
    /// The whole frame. Callers keep bodies, pages and texts below their limits; a frame is then
    /// below `FRAME_BYTES_MAX`.
    pub fn encode(&self) -> Bytes {
        let mut builder = Builder::with_capacity(256);
        self.build(&mut builder);
        frame::encode(self.kind(), builder.finished_data())
    }

    fn build(&self, b: &mut Builder<'_>) {
        match self {
            Self::Hello(_) | Self::HelloOk(_) | Self::Authenticate(_) | Self::Welcome(_) => {
                self.build_opening(b)
            }
            Self::CreateGroup(_) | Self::CreateChannel(_) | Self::Join(_) | Self::Leave(_) => {
                self.build_group(b)
            }
            Self::Send(_) | Self::Ack(_) | Self::Deliver(_) | Self::ClientAck(_) => self.build_delivery(b),
            Self::Subscribe(_) | Self::Subscribed(_) | Self::Unsubscribe(_) | Self::Resume(_) => {
                self.build_subscription(b);
            }
            Self::Sync(_) | Self::History(_) | Self::Page(_) => self.build_page(b),
            Self::Done(_) | Self::Ping(_) | Self::Pong(_) | Self::Drain(_) | Self::Error(_) => {
                self.build_rest(b)
            }
            Self::Kick(_) | Self::Mute(_) | Self::Fenced(_) | Self::Ended(_) => self.build_rights(b),
            Self::Change(_) | Self::Changes(_) | Self::ReadExpansion(_) | Self::Expansion(_) => {
                self.build_change(b);
            }
        }
    }

    fn build_opening(&self, b: &mut Builder<'_>) {
        match self {
            Self::Hello(m) => {
                let versions = Some(b.create_vector(&m.versions));
                let client = Some(b.create_string(&m.client));
                let table = v1::Hello::create(b, &v1::HelloArgs { versions, client });
                b.finish_minimal(table);
            }
            Self::HelloOk(m) => {
                let edge = Some(b.create_string(&m.edge));
                let args = v1::HelloOkArgs {
                    version: m.version,
                    edge,
                    server_time_ms: m.server_time_ms,
                };
                let table = v1::HelloOk::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Authenticate(m) => {
                let token = Some(b.create_string(&m.token));
                let device = Some(b.create_string(m.device.as_str()));
                let table = v1::Authenticate::create(b, &v1::AuthenticateArgs { token, device });
                b.finish_minimal(table);
            }
            Self::Welcome(m) => {
                let user = Some(b.create_string(m.user.as_str()));
                let args = v1::WelcomeArgs {
                    session: m.session.0,
                    user,
                    user_number: m.user_number.0,
                    server_time_ms: m.server_time_ms,
                    token_expires_ms: m.token_expires_ms,
                    idempotency_window_ms: m.idempotency_window_ms,
                    ping_interval_ms: m.ping_interval_ms,
                    body_bytes_max: m.body_bytes_max,
                    requests_in_flight_max: m.requests_in_flight_max,
                    subscriptions_max: m.subscriptions_max,
                };
                let table = v1::Welcome::create(b, &args);
                b.finish_minimal(table);
            }
            _ => {}
        }
    }

    fn build_group(&self, b: &mut Builder<'_>) {
        match self {
            Self::CreateGroup(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let table = v1::CreateGroup::create(
                    b,
                    &v1::CreateGroupArgs {
                        request: m.request,
                        group,
                    },
                );
                b.finish_minimal(table);
            }
            Self::CreateChannel(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let channel = Some(b.create_string(m.channel.as_str()));
                let args = v1::CreateChannelArgs {
                    request: m.request,
                    group,
                    channel,
                };
                let table = v1::CreateChannel::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Join(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let table = v1::Join::create(
                    b,
                    &v1::JoinArgs {
                        request: m.request,
                        group,
                    },
                );
                b.finish_minimal(table);
            }
            Self::Leave(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let table = v1::Leave::create(
                    b,
                    &v1::LeaveArgs {
                        request: m.request,
                        group,
                    },
                );
                b.finish_minimal(table);
            }
            _ => {}
        }
    }

    fn build_delivery(&self, b: &mut Builder<'_>) {
        match self {
            Self::Send(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let channel = Some(b.create_string(m.channel.as_str()));
                let body = Some(b.create_vector(&m.body));
                let args = v1::SendArgs {
                    request: m.request,
                    group,
                    channel,
                    client_message_id: m.client_message_id.0,
                    first_attempt_ms: m.first_attempt_ms,
                    body,
                };
                let table = v1::Send::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Ack(m) => {
                let args = v1::AckArgs {
                    request: m.request,
                    channel: m.channel.0,
                    epoch: m.epoch.0,
                    seq: m.seq.0,
                    ts: m.ts.0,
                    repeat: m.repeat,
                    before: m.before.0,
                };
                let table = v1::Ack::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Deliver(m) => {
                let entries = Some(entries(b, &m.entries));
                let args = v1::DeliverArgs {
                    channel: m.channel.0,
                    epoch: m.epoch.0,
                    prev: m.prev.0,
                    entries,
                };
                let table = v1::Deliver::create(b, &args);
                b.finish_minimal(table);
            }
            Self::ClientAck(m) => {
                let args = v1::ClientAckArgs {
                    channel: m.channel.0,
                    epoch: m.position.epoch.0,
                    seq: m.position.seq.0,
                };
                let table = v1::ClientAck::create(b, &args);
                b.finish_minimal(table);
            }
            _ => {}
        }
    }

    fn build_subscription(&self, b: &mut Builder<'_>) {
        match self {
            Self::Subscribe(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let channel = Some(b.create_string(m.channel.as_str()));
                let (epoch, seq) = (m.position.epoch.0, m.position.seq.0);
                let args = v1::SubscribeArgs {
                    request: m.request,
                    group,
                    channel,
                    epoch,
                    seq,
                    ts: m.ts.0,
                };
                let table = v1::Subscribe::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Subscribed(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let channel_name = Some(b.create_string(m.channel_name.as_str()));
                let args = v1::SubscribedArgs {
                    request: m.request,
                    group,
                    channel_name,
                    channel: m.channel.0,
                    epoch: m.position.epoch.0,
                    seq: m.position.seq.0,
                    head: m.head.0,
                    start: start(m.start),
                    ts: m.ts.0,
                };
                let table = v1::Subscribed::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Unsubscribe(m) => {
                let args = v1::UnsubscribeArgs {
                    request: m.request,
                    channel: m.channel.0,
                };
                let table = v1::Unsubscribe::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Resume(m) => {
                let places: Vec<_> = m.places.iter().map(|each| place(b, each)).collect();
                let places = Some(b.create_vector(&places));
                let table = v1::Resume::create(
                    b,
                    &v1::ResumeArgs {
                        request: m.request,
                        places,
                    },
                );
                b.finish_minimal(table);
            }
            _ => {}
        }
    }

    fn build_page(&self, b: &mut Builder<'_>) {
        match self {
            Self::Sync(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let channel = Some(b.create_string(m.channel.as_str()));
                let (epoch, seq) = (m.position.epoch.0, m.position.seq.0);
                let args = v1::SyncArgs {
                    request: m.request,
                    group,
                    channel,
                    epoch,
                    seq,
                    limit: m.limit,
                    ts: m.ts.0,
                };
                let table = v1::Sync::create(b, &args);
                b.finish_minimal(table);
            }
            Self::History(m) => {
                let group = Some(b.create_string(m.group.as_str()));
                let channel = Some(b.create_string(m.channel.as_str()));
                let direction = match m.direction {
                    Direction::After => v1::Direction::After,
                    Direction::Before => v1::Direction::Before,
                };
                let args = v1::HistoryArgs {
                    request: m.request,
                    group,
                    channel,
                    anchor: m.anchor.0,
                    direction,
                    limit: m.limit,
                    ts: m.ts.0,
                };
                let table = v1::History::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Page(m) => {
                let entries = Some(entries(b, &m.entries));
                let args = v1::PageArgs {
                    request: m.request,
                    channel: m.channel.0,
                    epoch: m.epoch.0,
                    prev: m.prev.0,
                    head: m.head.0,
                    entries,
                };
                let table = v1::Page::create(b, &args);
                b.finish_minimal(table);
            }
            _ => {}
        }
    }

    fn build_rest(&self, b: &mut Builder<'_>) {
        match self {
            Self::Done(m) => {
                let table = v1::Done::create(b, &v1::DoneArgs { request: m.request });
                b.finish_minimal(table);
            }
            Self::Ping(m) => {
                let table = v1::Ping::create(b, &v1::PingArgs { nonce: m.nonce });
                b.finish_minimal(table);
            }
            Self::Pong(m) => {
                let table = v1::Pong::create(
                    b,
                    &v1::PongArgs {
                        nonce: m.nonce,
                        time_ms: m.time_ms,
                    },
                );
                b.finish_minimal(table);
            }
            Self::Drain(m) => {
                let reason = Some(b.create_string(&m.reason));
                let edges: Vec<_> = m.edges.iter().map(|edge| b.create_string(edge)).collect();
                let edges = Some(b.create_vector(&edges));
                let args = v1::DrainArgs {
                    deadline_ms: m.deadline_ms,
                    reason,
                    edges,
                };
                let table = v1::Drain::create(b, &args);
                b.finish_minimal(table);
            }
            Self::Error(m) => {
                let message = Some(b.create_string(&m.message));
                let args = v1::ErrorArgs {
                    request: m.request,
                    code: m.code,
                    class: class(m.class),
                    message,
                    retry_after_ms: m.retry_after_ms,
                };
                let table = v1::Error::create(b, &args);
                b.finish_minimal(table);
            }
            _ => {}
        }
    }
}

fn place<'a>(b: &mut Builder<'a>, place: &Place) -> WIPOffset<v1::Place<'a>> {
    let group = Some(b.create_string(place.group.as_str()));
    let channel = Some(b.create_string(place.channel.as_str()));
    let args = v1::PlaceArgs {
        group,
        channel,
        epoch: place.position.epoch.0,
        seq: place.position.seq.0,
        ts: place.ts.0,
    };
    v1::Place::create(b, &args)
}

fn entries<'a>(b: &mut Builder<'a>, entries: &[Entry]) -> Entries<'a> {
    let tables: Vec<_> = entries
        .iter()
        .map(|entry| {
            let sender = b.create_string(entry.sender.as_str());
            let body = b.create_vector(&entry.body);
            let of_change = is_of_change(entry);
            let ((keys, values), removed) = match of_change {
                true => (pairs(b, &entry.expansion), strings(b, &entry.removed)),
                false => ((None, None), None),
            };
            // Wide fields before narrow ones: there is no padding between them.
            let mut table = v1::EntryBuilder::new(b);
            if of_change {
                table.add_version(entry.version.0);
                table.add_target(entry.target.0);
            }
            table.add_client_message_id(entry.client_message_id.0);
            table.add_sender_number(entry.sender_number.0);
            table.add_ts(entry.ts.0);
            table.add_seq(entry.seq.0);
            if of_change {
                removed.into_iter().for_each(|removed| table.add_removed(removed));
                values.into_iter().for_each(|values| table.add_values(values));
                keys.into_iter().for_each(|keys| table.add_keys(keys));
            }
            table.add_body(body);
            table.add_sender(sender);
            if of_change {
                table.add_keys_elsewhere(entry.keys_elsewhere);
                table.add_hole(entry.hole);
            }
            table.add_kind(entry.kind);
            table.finish()
        })
        .collect();
    b.create_vector(&tables)
}

/// Whether an entry is a change, or a message that was changed: most are neither, and are spared its fields.
fn is_of_change(entry: &Entry) -> bool {
    entry.target.0 | entry.version.0 | u64::from(entry.hole) != 0
        || entry.keys_elsewhere
        || !(entry.expansion.is_empty() && entry.removed.is_empty())
}

/// Texts as a field; absent if there are none, since most entries have none.
pub(super) fn strings<'a>(b: &mut Builder<'a>, texts: &[String]) -> Option<Strings<'a>> {
    if texts.is_empty() {
        return None;
    }
    let texts: Vec<_> = texts.iter().map(|text| b.create_string(text)).collect();
    Some(b.create_vector(&texts))
}

/// Keys and values as two fields.
pub(super) fn pairs<'a>(
    b: &mut Builder<'a>,
    pairs: &[(String, String)],
) -> (Option<Strings<'a>>, Option<Strings<'a>>) {
    if pairs.is_empty() {
        return (None, None);
    }
    let keys: Vec<_> = pairs.iter().map(|(key, _)| b.create_string(key)).collect();
    let values: Vec<_> = pairs.iter().map(|(_, value)| b.create_string(value)).collect();
    (Some(b.create_vector(&keys)), Some(b.create_vector(&values)))
}

fn start(start: Start) -> v1::Start {
    match start {
        Start::Resumed => v1::Start::Resumed,
        Start::Head => v1::Start::Head,
        Start::FullEpoch => v1::Start::FullEpoch,
        Start::FullAhead => v1::Start::FullAhead,
        Start::FullFence => v1::Start::FullFence,
    }
}

fn class(class: Class) -> v1::ErrorClass {
    match class {
        Class::Retryable => v1::ErrorClass::Retryable,
        Class::Redirect => v1::ErrorClass::Redirect,
        Class::Fatal => v1::ErrorClass::Fatal,
    }
}
