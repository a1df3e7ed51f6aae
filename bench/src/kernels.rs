//! The hot kernels, alone: what every message or every delivery runs through, some rounds of it and
//! nothing else. For whoever counts instructions: `tests/guards.rs` does, and says which rise.

use std::ops::ControlFlow;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use throng_fanout::{Ask, ChannelFanout, Copies, Effect, Rights, RingLimits, Seat, Take, WorkerNumber};
use throng_protocol::cluster::{Entry, EntryKind, FenceTable, Hole};
use throng_protocol::frame;
use throng_protocol::ids::{
    ChannelId, ChannelNumber, ClientMessageId, Epoch, GroupId, Position, Seq, SessionId, Ts, UserId,
    UserNumber,
};
use throng_protocol::message::{self, Deliver, Message, Ping, Send, Welcome};
use throng_protocol::session::server::{ServerEvent, ServerSession};

/// Bytes of a body, as in the usual scenario.
const BODY: &[u8] = &[b'x'; 256];
/// Sessions of the channel that is fanned out.
const SESSIONS: u64 = 100;
/// Sessions a step of a round serves.
const STEP: usize = 32;
/// Bytes a session takes at once: more than a frame.
const TURN_BYTES: usize = 64 * 1024;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// A delivery of one entry is encoded: once a message.
    Encode,
    /// A send is cut out of a stream and decoded: once a message.
    Decode,
    /// An entry comes from the feed and each of a hundred sessions takes it.
    Fanout,
    /// A ping is read and answered by a session.
    Ping,
}

/// The arguments of a run.
#[derive(Debug, clap::Args)]
pub struct KernelArgs {
    kernel: Kernel,
    rounds: u64,
}

/// Runs it.
pub fn run(args: &KernelArgs) -> Result<()> {
    match args.kernel {
        Kernel::Encode => encode(args.rounds),
        Kernel::Decode => decode(args.rounds),
        Kernel::Fanout => fanout(args.rounds),
        Kernel::Ping => ping(args.rounds),
    }
}

fn encode(rounds: u64) -> Result<()> {
    let sender = UserId::new("somebody")?;
    for round in 1..=rounds {
        let entry = message::Entry {
            seq: Seq(round),
            ts: Ts(round),
            kind: 1,
            sender: sender.clone(),
            sender_number: UserNumber(1),
            client_message_id: ClientMessageId(round),
            body: Bytes::from_static(BODY),
            target: Seq(0),
            version: Seq(0),
            hole: 0,
            expansion: Vec::new(),
            removed: Vec::new(),
            keys_elsewhere: false,
        };
        let deliver = Deliver {
            channel: ChannelNumber(1),
            epoch: Epoch(1),
            prev: Seq(round - 1),
            entries: vec![entry],
        };
        std::hint::black_box(Message::from(deliver).encode());
    }
    Ok(())
}

fn decode(rounds: u64) -> Result<()> {
    let send = Send {
        request: 1,
        group: GroupId::new("group")?,
        channel: ChannelId::new("general")?,
        client_message_id: ClientMessageId(1),
        first_attempt_ms: 1,
        body: Bytes::from_static(BODY),
    };
    let frame = Message::from(send).encode();
    for _ in 0..rounds {
        let mut stream = BytesMut::from(&frame[..]);
        if let Some(frame) = frame::decode(&mut stream)? {
            std::hint::black_box(Message::decode(&frame)?);
        }
    }
    Ok(())
}

fn fanout(rounds: u64) -> Result<()> {
    let (epoch, mut effects) = (Epoch(1), Vec::new());
    let mut channel = ChannelFanout::new(0, ChannelNumber(1), RingLimits::default(), &mut effects);
    channel.on_opened(epoch, Seq(0), Seq(0), &FenceTable::default(), &mut effects);
    for session in 1..=SESSIONS {
        let seat = Seat {
            worker: WorkerNumber(0),
            session: SessionId(session),
        };
        let ask = Ask {
            seat,
            request: 1,
            rights: Rights {
                number: UserNumber(session),
                version: 1,
                fenced: 0,
            },
            position: Position::default(),
            located: false,
            log: None,
        };
        channel
            .subscribe(ask)
            .map_err(|error| anyhow::anyhow!("{error:?}"))?;
        channel.attach(seat, &mut effects);
    }
    let (sender, mut delivered) = (UserId::new("somebody")?, 0);
    let (mut due, mut copies) = (Vec::new(), Copies::own());
    for round in 1..=rounds {
        let entry = Entry {
            seq: Seq(round),
            ts: Ts(round),
            kind: EntryKind::Message,
            sender_number: UserNumber(1),
            sender: sender.clone(),
            client_message_id: ClientMessageId(round),
            body: Bytes::from_static(BODY),
            target: Seq(0),
            version: Seq(0),
            hole: Hole::None,
            expansion: Vec::new(),
            removed: Vec::new(),
            keys_elsewhere: false,
        };
        effects.clear();
        channel.on_batch(epoch, Seq(round - 1), &[entry], &mut effects);
        let Some(Effect::News { worker }) = effects.first().copied() else {
            anyhow::bail!("the worker is told: {effects:?}");
        };
        let mut goes_on = true;
        while goes_on {
            due.clear();
            goes_on = channel.step(worker, |session| {
                due.push(session);
                match due.len() < STEP {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            });
            for session in due.iter().copied() {
                let take = channel.take(Seat { worker, session }, TURN_BYTES, &mut copies);
                if let Take::Chunk(chunk) = take {
                    delivered += chunk.frames.len() as u64;
                }
            }
        }
    }
    anyhow::ensure!(delivered == rounds * SESSIONS, "{delivered} deliveries");
    Ok(())
}

fn ping(rounds: u64) -> Result<()> {
    let mut session = ServerSession::new(0, "edge");
    let hello = message::Hello {
        versions: vec![1],
        client: "kernel".to_owned(),
    };
    let authenticate = message::Authenticate {
        token: "token".to_owned(),
        device: throng_protocol::ids::DeviceId::new("device")?,
    };
    hear(&mut session, &Message::from(hello).encode())?;
    hear(&mut session, &Message::from(authenticate).encode())?;
    session.authenticated(
        0,
        Welcome {
            session: SessionId(1),
            user: UserId::new("somebody")?,
            user_number: UserNumber(1),
            server_time_ms: 0,
            token_expires_ms: u64::MAX,
            idempotency_window_ms: 0,
            ping_interval_ms: 0,
            body_bytes_max: 0,
            requests_in_flight_max: 0,
            subscriptions_max: 0,
        },
    );
    while session.poll_transmit().is_some() {}
    for round in 0..rounds {
        hear(&mut session, &Message::from(Ping { nonce: round }).encode())?;
        anyhow::ensure!(session.poll_transmit().is_some(), "a ping is answered");
    }
    Ok(())
}

fn hear(session: &mut ServerSession, frame: &Bytes) -> Result<()> {
    let mut stream = BytesMut::from(&frame[..]);
    if let Some(frame) = frame::decode(&mut stream)? {
        session.handle_frame(0, &frame);
    }
    while let Some(event) = session.poll_event() {
        anyhow::ensure!(!matches!(event, ServerEvent::Close { .. }), "{event:?}");
    }
    Ok(())
}
