//! One connection, from its control stream to its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use throng_protocol::code::{Class, Code};
use throng_protocol::frame::Frame;
use throng_protocol::session::client::DisconnectReason;
use throng_protocol::session::{STREAM_BULK, STREAM_LIVE};
use throng_transport::{FrameReadError, FrameReader, FrameWriter, Link, LinkClosed, RecvHalf};

use super::{Control, Driver, Leave};
use crate::config::TokenError;
use crate::error::CloseReason;

/// Frames taken from one stream before others have their turn.
const FRAMES_PER_TURN: usize = 64;
/// Bytes taken from one stream before others have their turn: what a slow subscription may have to
/// hold beyond its queue.
const BYTES_PER_TURN: usize = 128 * 1024;
/// Frames handed to the transport at once.
const FRAMES_PER_WRITE: usize = 64;
/// Delivery streams an edge may open: live lanes, bulk, and room.
const STREAMS_MAX: usize = 8;
/// How long a leaving client waits for its last frames to be taken.
const FAREWELL: Duration = Duration::from_millis(500);

/// A delivery stream with the frames that were there; none at its end.
type StreamTurn = (FrameReader, Result<Vec<Frame>, FrameReadError>);

struct Online {
    link: Arc<dyn Link>,
    writer: FrameWriter,
    control: FrameReader,
    streams: FuturesUnordered<BoxFuture<'static, StreamTurn>>,
    outgoing: Vec<Bytes>,
}

enum Input {
    Control(Option<Control>),
    Command(Option<super::Command>),
    Frame(Result<Option<Frame>, FrameReadError>),
    Stream(Option<StreamTurn>),
    Opened(Result<Box<dyn RecvHalf>, LinkClosed>),
    Written(bool),
    Token(Result<String, TokenError>),
    Wake,
    Room,
}

impl Driver {
    /// Drives the machine over a link until one of them ends it.
    pub(super) async fn online(&mut self, link: Arc<dyn Link>) -> Leave {
        self.welcomed = false;
        self.disconnect = None;
        let opened = {
            let link = link.clone();
            self.offline(async move { link.open_bi().await }).await
        };
        let (send, recv) = match opened {
            Ok(Ok(halves)) => halves,
            Ok(Err(closed)) => return Leave::Reconnect(closed.to_string()),
            Err(leave) => return leave,
        };
        let mut online = Online {
            link,
            writer: FrameWriter::new(send),
            control: FrameReader::new(recv),
            streams: FuturesUnordered::new(),
            outgoing: Vec::new(),
        };
        let now_ms = self.now_ms();
        self.machine.handle_connected(now_ms);
        let leave = self.drive(&mut online).await;
        self.token = None;
        let now_ms = self.now_ms();
        self.machine.handle_disconnected(now_ms);
        online.link.close(throng_protocol::code::CLOSE_NORMAL, "");
        leave
    }

    async fn drive(&mut self, online: &mut Online) -> Leave {
        loop {
            self.turn();
            while online.outgoing.len() < FRAMES_PER_WRITE
                && let Some(frame) = self.machine.poll_transmit()
            {
                online.outgoing.push(frame);
            }
            if let Some(reason) = self.disconnect.take() {
                return self.disconnected(online, reason).await;
            }
            let input = self.next_input(online).await;
            if let Some(leave) = self.handle_input(online, input).await {
                return leave;
            }
        }
    }

    async fn next_input(&mut self, online: &mut Online) -> Input {
        let wake_at = self.wake_at();
        let Online {
            link,
            writer,
            control,
            streams,
            outgoing,
        } = online;
        tokio::select! {
            control = self.controls.recv() => Input::Control(control),
            command = self.commands.recv(), if self.machine.has_room() => Input::Command(command),
            frame = control.next() => Input::Frame(frame),
            turn = streams.next(), if !self.stalled && !streams.is_empty() => Input::Stream(turn),
            opened = link.accept_uni(), if streams.len() < STREAMS_MAX => Input::Opened(opened),
            written = writer.write(outgoing), if !outgoing.is_empty() => Input::Written(written.is_ok()),
            token = async { self.token.as_mut().expect("invariant: guarded").await }, if self.token.is_some() => {
                Input::Token(token)
            }
            () = tokio::time::sleep_until(wake_at) => Input::Wake,
            () = self.room.freed.notified(), if self.stalled => Input::Room,
        }
    }

    async fn handle_input(&mut self, online: &mut Online, input: Input) -> Option<Leave> {
        match input {
            Input::Control(control) => return self.online_control(online, control).await,
            Input::Command(Some(command)) => self.handle_command(command),
            Input::Frame(Ok(Some(frame))) => {
                let now_ms = self.now_ms();
                self.machine.handle_frame(now_ms, &frame);
            }
            Input::Stream(Some((reader, Ok(frames)))) => {
                let now_ms = self.now_ms();
                for frame in &frames {
                    self.machine.handle_frame(now_ms, frame);
                }
                if !frames.is_empty() {
                    online.streams.push(read_stream(reader));
                }
            }
            Input::Opened(Ok(half)) => online.streams.push(begin_stream(half)),
            Input::Written(true) => online.outgoing.clear(),
            Input::Token(token) => return self.handle_token(token),
            Input::Wake => self.handle_wake(),
            Input::Room | Input::Command(None) | Input::Stream(None) => {}
            Input::Frame(Err(error)) | Input::Stream(Some((_, Err(error)))) => {
                return Some(self.stream_failed(online, &error).await);
            }
            Input::Frame(Ok(None)) | Input::Opened(Err(_)) | Input::Written(false) => {
                return Some(self.link_ended(online).await);
            }
        }
        None
    }

    fn handle_token(&mut self, token: Result<String, TokenError>) -> Option<Leave> {
        self.token = None;
        match token {
            Ok(token) => {
                self.machine.authenticate(token);
                None
            }
            Err(error) if self.ever_welcomed => Some(Leave::Reconnect(error.to_string())),
            Err(error) => Some(Leave::Close(error.into(), None)),
        }
    }

    async fn online_control(&mut self, online: &mut Online, control: Option<Control>) -> Option<Leave> {
        match control {
            None => {
                self.farewell(online).await;
                Some(Leave::Close(CloseReason::Local, None))
            }
            Some(Control::Close(told)) => {
                self.farewell(online).await;
                Some(Leave::Close(CloseReason::Local, Some(told)))
            }
            Some(Control::DropConnection(reply)) => {
                let _ = reply.send(Some(self.machine.requests_in_flight()));
                Some(Leave::Reconnect("dropped on purpose".to_owned()))
            }
            Some(Control::Rebind(reply)) => {
                self.rebind(reply);
                None
            }
            Some(Control::Freeze(duration, reply)) => self.freeze(duration, reply).await.err(),
        }
    }

    /// The machine has done with this connection.
    async fn disconnected(&mut self, online: &mut Online, reason: DisconnectReason) -> Leave {
        let code = match &reason {
            DisconnectReason::Protocol { code, .. } => u32::from(code.number()),
            _ => throng_protocol::code::CLOSE_NORMAL,
        };
        if !matches!(reason, DisconnectReason::Silent | DisconnectReason::Handshake) {
            self.farewell(online).await;
        }
        online.link.close(code, &reason.to_string());
        match reason {
            DisconnectReason::Refused(error) => Leave::Close(
                CloseReason::Refused {
                    code: error.known_code(),
                    number: error.code,
                    text: error.message,
                },
                None,
            ),
            DisconnectReason::Server(error) => {
                self.retry_after = Duration::from_millis(u64::from(error.retry_after_ms));
                Leave::Reconnect(error.message)
            }
            other => Leave::Reconnect(other.to_string()),
        }
    }

    async fn stream_failed(&mut self, online: &mut Online, error: &FrameReadError) -> Leave {
        if let Some(code) = error.code() {
            online.link.close(u32::from(code.number()), &error.to_string());
            return Leave::Reconnect(error.to_string());
        }
        self.link_ended(online).await
    }

    /// The link ended under its streams, or a stream under the link. A refusal may come as a close
    /// code alone: the frame that says the same can be overtaken by it.
    async fn link_ended(&mut self, online: &mut Online) -> Leave {
        let Ok(closed) = tokio::time::timeout(FAREWELL, online.link.closed()).await else {
            return Leave::Reconnect("the edge ended the control stream".to_owned());
        };
        let LinkClosed::Peer { code, reason } = &closed else {
            return Leave::Reconnect(closed.to_string());
        };
        let code = u16::try_from(*code).ok().and_then(Code::from_number);
        match code {
            Some(code) if !self.welcomed && code.class() == Class::Fatal => Leave::Close(
                CloseReason::Refused {
                    code: Some(code),
                    number: code.number(),
                    text: if reason.is_empty() {
                        code.name().to_owned()
                    } else {
                        reason.clone()
                    },
                },
                None,
            ),
            _ => Leave::Reconnect(closed.to_string()),
        }
    }

    /// Writes what is left, for a moment.
    async fn farewell(&mut self, online: &mut Online) {
        let rest = std::iter::from_fn(|| self.machine.poll_transmit());
        online.outgoing.extend(rest);
        let writer = &mut online.writer;
        let outgoing = &mut online.outgoing;
        let written = async {
            if writer.write(outgoing).await.is_ok() {
                writer.finish();
                let _ = writer.stopped().await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, written).await;
    }
}

/// Reads a stream's first byte, its kind, and then frames. A kind of a later version is stopped: an
/// edge writes nothing there that this client must have.
fn begin_stream(mut half: Box<dyn RecvHalf>) -> BoxFuture<'static, StreamTurn> {
    async move {
        match half.read_chunk(1).await {
            Ok(Some(kind)) if matches!(kind[..], [STREAM_LIVE | STREAM_BULK]) => {
                read_stream(FrameReader::new(half)).await
            }
            Ok(kind) => {
                if kind.is_some() {
                    half.stop(0);
                }
                (FrameReader::new(half), Ok(Vec::new()))
            }
            Err(error) => (FrameReader::new(half), Err(error.into())),
        }
    }
    .boxed()
}

/// Waits for a stream's next frame and takes what came with it.
fn read_stream(mut reader: FrameReader) -> BoxFuture<'static, StreamTurn> {
    async move {
        let mut frames = Vec::new();
        let first = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return (reader, Ok(frames)),
            Err(error) => return (reader, Err(error)),
        };
        let mut bytes = first.payload.len();
        frames.push(first);
        while frames.len() < FRAMES_PER_TURN
            && bytes < BYTES_PER_TURN
            && let Some(Ok(Some(frame))) = reader.next().now_or_never()
        {
            bytes += frame.payload.len();
            frames.push(frame);
        }
        (reader, Ok(frames))
    }
    .boxed()
}
