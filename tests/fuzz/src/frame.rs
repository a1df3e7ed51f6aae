//! Cutting a stream into frames: the same frames and the same error however the bytes arrive.
//!
//! The input is `[seed of the cuts][the stream]`.

use bytes::{BufMut, BytesMut};
use throng_protocol::frame::{self, Frame, FrameError, HEADER_BYTES_MAX};
use throng_protocol::limits::FRAME_BYTES_MAX;

/// Runs the target.
pub fn run(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else {
        return;
    };
    let whole = read(&[stream]);
    let chunks = cut(seed, stream);
    let pieces = read(&chunks);
    assert_eq!(whole, pieces, "a stream means the same in any number of pieces");
    written_again(stream, &whole.0);
}

/// The frames of a stream that arrives in chunks, and the error that ends it.
fn read(chunks: &[&[u8]]) -> (Vec<Frame>, Option<FrameError>) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for chunk in chunks {
        buffer.put_slice(chunk);
        loop {
            let before = buffer.len();
            match frame::decode(&mut buffer) {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= FRAME_BYTES_MAX);
                    assert!(buffer.len() < before, "a frame takes bytes");
                    frames.push(frame);
                }
                Ok(None) => {
                    assert_eq!(buffer.len(), before, "nothing is taken before a frame is whole");
                    assert!(buffer.len() < HEADER_BYTES_MAX + FRAME_BYTES_MAX);
                    // What came is held anyway; what is made room for must be bounded beside it.
                    assert!(buffer.capacity() <= 2 * (before + HEADER_BYTES_MAX + FRAME_BYTES_MAX));
                    break;
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Frames written again are the bytes they were read from: there is one form of each.
fn written_again(stream: &[u8], frames: &[Frame]) {
    let again: BytesMut = frames
        .iter()
        .flat_map(|frame| frame::encode(frame.kind, &frame.payload))
        .collect();
    assert!(stream.starts_with(&again), "a frame has one form");
}

/// Cuts that depend on the seed: single bytes, short pieces, long ones.
fn cut(seed: u8, stream: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut state, mut chunks) = (stream, u32::from(seed) + 1, Vec::new());
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let most = match seed % 3 {
            0 => 1,
            1 => 7,
            _ => 4_096,
        };
        let length = (1 + (state >> 16) as usize % most).min(rest.len());
        let (chunk, left) = rest.split_at(length);
        chunks.push(chunk);
        rest = left;
    }
    chunks
}
