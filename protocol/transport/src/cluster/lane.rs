//! Lanes: streams between nodes, cut into frames of `u32 length (big endian) · payload`.
//!
//! A lane's first byte is its kind. Frames may be far larger than on the client wire, so the
//! framing is another one, with its own limit.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;

use crate::link::{LinkClosed, ReadError, RecvHalf, SendHalf, WriteError};
use crate::settings::CLUSTER_FRAME_BYTES_MAX;

/// The kind of the lane that carries the hellos; all other kinds are the users'.
pub const CONTROL_LANE: u8 = 0;

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;
/// Payloads up to this size are copied behind their lengths: cheaper than a chunk of their own.
const COPY_BYTES_MAX: usize = 2 * 1024;
/// Most bytes taken from the carrier at once.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Why a frame could not be written to a lane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneWriteError {
    /// The frame is over [`CLUSTER_FRAME_BYTES_MAX`]; nothing was written.
    #[error("a frame of {0} bytes is over the limit of {CLUSTER_FRAME_BYTES_MAX} between nodes")]
    TooLarge(usize),
    /// The lane or the connection ended.
    #[error(transparent)]
    Stream(#[from] WriteError),
}

/// Why a frame could not be read from a lane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneReadError {
    /// The peer announced a frame over [`CLUSTER_FRAME_BYTES_MAX`].
    #[error("a frame is over the limit of {CLUSTER_FRAME_BYTES_MAX} bytes between nodes")]
    TooLarge,
    /// The peer finished the lane inside a frame.
    #[error("the lane ended inside a frame")]
    Truncated,
    /// The lane or the connection ended.
    #[error(transparent)]
    Stream(#[from] ReadError),
}

/// The half of a lane that is written to. Dropping it finishes the lane.
#[derive(Debug)]
pub struct LaneWriter {
    half: Box<dyn SendHalf>,
}

impl LaneWriter {
    /// Starts a lane of a kind; the peer notices it at once.
    pub(crate) async fn start(half: Box<dyn SendHalf>, kind: u8) -> Result<Self, WriteError> {
        let mut writer = Self::answer(half);
        writer
            .half
            .write_all_chunks(&mut [Bytes::copy_from_slice(&[kind])])
            .await?;
        Ok(writer)
    }

    /// The half back to the peer that started the lane.
    pub(crate) fn answer(half: Box<dyn SendHalf>) -> Self {
        Self { half }
    }

    /// Writes frames in one call, large ones without copying them. Not cancel-safe: when cancelled,
    /// drop or reset the lane.
    pub async fn write(&mut self, frames: &[Bytes]) -> Result<(), LaneWriteError> {
        let mut chunks = Chunks::default();
        for frame in frames {
            chunks.push(&[], frame)?;
        }
        self.write_chunks(chunks).await
    }

    /// Writes one frame. Not cancel-safe.
    pub async fn write_one(&mut self, frame: Bytes) -> Result<(), LaneWriteError> {
        self.write(&[frame]).await
    }

    pub(crate) async fn write_chunks(&mut self, chunks: Chunks) -> Result<(), LaneWriteError> {
        let mut chunks = chunks.into_vec();
        Ok(self.half.write_all_chunks(&mut chunks).await?)
    }

    /// Says that no more frames come.
    pub fn finish(&mut self) {
        self.half.finish();
    }

    /// Gives up the lane.
    pub fn reset(&mut self, code: u32) {
        self.half.reset(code);
    }

    /// Lanes of a higher number are sent first: heartbeats before snapshots.
    pub fn set_priority(&mut self, priority: i32) {
        self.half.set_priority(priority);
    }

    /// Waits until the peer stopped the lane (`Some(code)`) or has all of a finished one (`None`).
    pub fn stopped(&self) -> BoxFuture<'static, Result<Option<u32>, LinkClosed>> {
        self.half.stopped()
    }
}

/// Frames on their way to a lane: lengths and small payloads together, large payloads as they are.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    done: Vec<Bytes>,
    small: BytesMut,
}

impl Chunks {
    /// Adds a frame whose payload is `head` and `body`.
    pub(crate) fn push(&mut self, head: &[u8], body: &Bytes) -> Result<(), LaneWriteError> {
        let length = head.len() + body.len();
        let announced = u32::try_from(length)
            .ok()
            .filter(|_| length <= CLUSTER_FRAME_BYTES_MAX);
        let announced = announced.ok_or(LaneWriteError::TooLarge(length))?;
        self.small.put_u32(announced);
        self.small.put_slice(head);
        if body.len() <= COPY_BYTES_MAX {
            self.small.put_slice(body);
        } else {
            self.done.push(self.small.split().freeze());
            self.done.push(body.clone());
        }
        Ok(())
    }

    fn into_vec(mut self) -> Vec<Bytes> {
        if !self.small.is_empty() {
            self.done.push(self.small.freeze());
        }
        self.done
    }
}

/// The half of a lane that is read from. Dropping it tells the peer to stop.
#[derive(Debug)]
pub struct LaneReader {
    half: Box<dyn RecvHalf>,
    buffer: BytesMut,
}

impl LaneReader {
    pub(crate) fn new(half: Box<dyn RecvHalf>) -> Self {
        Self {
            half,
            buffer: BytesMut::new(),
        }
    }

    /// Reads the kind that stands before a lane's first frame.
    pub(crate) async fn kind(&mut self) -> Result<u8, LaneReadError> {
        match self.half.read_chunk(1).await? {
            Some(byte) if byte.len() == 1 => Ok(byte[0]),
            _ => Err(LaneReadError::Truncated),
        }
    }

    /// The next frame; `None` when the peer has finished between frames. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LaneReadError> {
        loop {
            if let Some(frame) = decode(&mut self.buffer)? {
                if self.buffer.is_empty() {
                    // The frame shares the allocation; an idle lane must not keep it alive.
                    self.buffer = BytesMut::new();
                }
                return Ok(Some(frame));
            }
            if !self.half.read(&mut self.buffer, READ_BYTES_MAX).await? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(LaneReadError::Truncated)
                };
            }
        }
    }

    /// Tells the peer to stop sending.
    pub fn stop(&mut self, code: u32) {
        self.half.stop(code);
    }
}

/// Takes the first frame off `buffer`, or `None` while more bytes are needed. (tokio-util's codec
/// takes the length off before the payload has come, and so cannot tell a lane that ended there.)
fn decode(buffer: &mut BytesMut) -> Result<Option<Bytes>, LaneReadError> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| LaneReadError::TooLarge)?;
    if length > CLUSTER_FRAME_BYTES_MAX {
        return Err(LaneReadError::TooLarge);
    }
    let whole = LENGTH_BYTES + length;
    if buffer.len() < whole {
        // One reservation per frame, however small the reads; bounded by CLUSTER_FRAME_BYTES_MAX.
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oversized_frame_is_refused_by_its_length_alone() {
        let announced = u32::try_from(CLUSTER_FRAME_BYTES_MAX + 1).unwrap();
        assert_eq!(
            decode(&mut BytesMut::from(&announced.to_be_bytes()[..])),
            Err(LaneReadError::TooLarge)
        );
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let payloads = [
            Bytes::new(),
            Bytes::from(vec![1; COPY_BYTES_MAX]),
            Bytes::from(vec![2; 70_000]),
        ];
        let mut chunks = Chunks::default();
        for payload in &payloads {
            chunks.push(b"head", payload).unwrap();
        }
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for piece in chunks.into_vec().concat().chunks(999) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decode(&mut buffer).unwrap() {
                frames.push(frame);
            }
        }
        let expected: Vec<_> = payloads
            .iter()
            .map(|body| [b"head", &body[..]].concat())
            .collect();
        assert_eq!(frames, expected);
        assert!(buffer.is_empty());
    }
}
