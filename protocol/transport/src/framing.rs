//! Frames of the client wire on the halves of a stream.
//!
//! Reading and cutting only: payloads are not looked at, and time limits are the caller's (wrap
//! [`FrameReader::next`] in a timeout, or time what [`FrameReader::step`] tells; neither loses anything
//! when cancelled).

use bytes::{Bytes, BytesMut};
use throng_protocol::code::Code;
use throng_protocol::frame::{self, Frame, FrameError};

use crate::link::{LinkClosed, ReadError, RecvHalf, SendHalf, WriteError};
use futures_util::future::BoxFuture;

/// Most bytes taken from the carrier at once; above it a frame comes in several reads.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Why no frame could be read. [`FrameReadError::code`] is what the peer is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameReadError {
    /// The bytes are not a frame, or the frame is too large.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer finished the stream inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The stream or the link ended.
    #[error(transparent)]
    Stream(#[from] ReadError),
}

impl FrameReadError {
    /// The code to close with; `None` if the peer ended the stream and need not be told.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Frame(error) => Some(error.code()),
            Self::Truncated => Some(Code::MalformedFrame),
            Self::Stream(_) => None,
        }
    }
}

/// Cuts a stream into frames.
#[derive(Debug)]
pub struct FrameReader {
    half: Box<dyn RecvHalf>,
    buffer: BytesMut,
    /// That a frame has begun was told.
    begun: bool,
}

/// What happens on a stream of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A frame has begun and is not whole yet; told once a frame.
    Begun,
    /// A frame.
    Frame(Frame),
    /// The peer has finished between frames.
    End,
}

impl FrameReader {
    /// Reads frames from a stream.
    pub fn new(half: Box<dyn RecvHalf>) -> Self {
        // Nothing is allocated until the first byte comes: most streams of an idle client are silent.
        Self {
            half,
            buffer: BytesMut::new(),
            begun: false,
        }
    }

    /// The next frame; `None` when the peer has finished between frames. Cancel-safe: bytes read so
    /// far are kept.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameReadError> {
        loop {
            match self.step().await? {
                Step::Begun => {}
                Step::Frame(frame) => return Ok(Some(frame)),
                Step::End => return Ok(None),
            }
        }
    }

    /// The next thing that happens on the stream, for callers that bound how long a frame may take.
    /// Cancel-safe.
    pub async fn step(&mut self) -> Result<Step, FrameReadError> {
        loop {
            if let Some(frame) = frame::decode(&mut self.buffer)? {
                if self.buffer.is_empty() {
                    // The payload shares the allocation; an idle reader must not keep it alive.
                    self.buffer = BytesMut::new();
                }
                self.begun = false;
                return Ok(Step::Frame(frame));
            }
            if !self.buffer.is_empty() && !self.begun {
                self.begun = true;
                return Ok(Step::Begun);
            }
            if !self.half.read(&mut self.buffer, READ_BYTES_MAX).await? {
                return if self.buffer.is_empty() {
                    Ok(Step::End)
                } else {
                    Err(FrameReadError::Truncated)
                };
            }
        }
    }

    /// Whether bytes of an incomplete frame are held: a stalled peer can be told from an idle one.
    pub fn is_inside_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Tells the peer to stop sending.
    pub fn stop(&mut self, code: u32) {
        self.half.stop(code);
    }
}

/// Writes frames that are encoded already.
#[derive(Debug)]
pub struct FrameWriter {
    half: Box<dyn SendHalf>,
}

impl FrameWriter {
    /// Writes frames to a stream.
    pub fn new(half: Box<dyn SendHalf>) -> Self {
        Self { half }
    }

    /// Writes encoded frames, in order, without copying them. Frames are emptied as they are taken;
    /// after a cancelled call write the same slice again before anything else.
    pub async fn write(&mut self, frames: &mut [Bytes]) -> Result<(), WriteError> {
        self.half.write_all_chunks(frames).await
    }

    /// Writes what fits without waiting; `true` when that was all. With `false`, write the same slice
    /// before anything else.
    pub fn try_write(&mut self, frames: &mut [Bytes]) -> Result<bool, WriteError> {
        self.half.try_write(frames)
    }

    /// Writes one encoded frame. Not cancel-safe: when cancelled, reset the stream.
    pub async fn write_one(&mut self, frame: Bytes) -> Result<(), WriteError> {
        self.half.write_all_chunks(&mut [frame]).await
    }

    /// Says that no more frames come.
    pub fn finish(&mut self) {
        self.half.finish();
    }

    /// Gives up the stream.
    pub fn reset(&mut self, code: u32) {
        self.half.reset(code);
    }

    /// Streams of a higher number are sent first.
    pub fn set_priority(&mut self, priority: i32) {
        self.half.set_priority(priority);
    }

    /// Waits until the peer stopped the stream (`Some(code)`) or has all of a finished one (`None`).
    pub fn stopped(&self) -> BoxFuture<'static, Result<Option<u32>, LinkClosed>> {
        self.half.stopped()
    }
}
