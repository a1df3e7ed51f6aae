//! Framing: `varint length · u8 type · payload`.
//!
//! The length is that of the payload alone, as an unsigned LEB128 varint of at most three bytes
//! (2^21 > [`FRAME_BYTES_MAX`]) in its shortest form. The codec is incremental: [`decode`] says how
//! much it needs, and looks at no payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::code::Code;
use crate::limits::FRAME_BYTES_MAX;

/// Most bytes of a frame's header: three of length and the type.
pub const HEADER_BYTES_MAX: usize = 4;

/// One frame, its payload not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The frame type.
    pub kind: u8,
    /// The payload.
    pub payload: Bytes,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is not a shortest-form varint of at most three bytes.
    #[error("the frame's length prefix is malformed")]
    Length,
    /// The payload is over [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge(usize),
}

impl FrameError {
    /// The code the other side is told.
    pub fn code(self) -> Code {
        match self {
            Self::Length => Code::MalformedFrame,
            Self::TooLarge(_) => Code::FrameTooLarge,
        }
    }
}

/// Takes the first frame off `buffer`, or `None` while more bytes are needed. Nothing is taken
/// unless a whole frame is there; an oversized frame is refused by its header alone.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some((length, length_bytes)) = decode_length(buffer)? else {
        return Ok(None);
    };
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(length));
    }
    let header = length_bytes + 1;
    if buffer.len() < header + length {
        // One reservation per frame, however small the reads; bounded by FRAME_BYTES_MAX.
        buffer.reserve(header + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(length_bytes);
    let kind = buffer.get_u8();
    Ok(Some(Frame {
        kind,
        payload: buffer.split_to(length).freeze(),
    }))
}

fn decode_length(buffer: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    let mut length = 0usize;
    for place in 0..3 {
        let Some(&byte) = buffer.get(place) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            // A last byte of zero behind others is a longer form of a shorter number.
            let shortest = place == 0 || byte != 0;
            return if shortest {
                Ok(Some((length, place + 1)))
            } else {
                Err(FrameError::Length)
            };
        }
    }
    Err(FrameError::Length)
}

/// Writes a frame: header and payload in one buffer, ready to be shared.
pub fn encode(kind: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES_MAX + payload.len());
    encode_header(kind, payload.len(), &mut out);
    out.put_slice(payload);
    out.freeze()
}

/// Writes a frame's header for a payload of `length` bytes.
pub fn encode_header(kind: u8, length: usize, out: &mut BytesMut) {
    debug_assert!(
        length <= FRAME_BYTES_MAX,
        "frames are bounded where they are built"
    );
    let mut rest = length;
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
    out.put_u8(kind);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_all(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        decode(&mut BytesMut::from(bytes))
    }

    proptest! {
        #[test]
        fn a_frame_comes_out_as_it_went_in_however_it_is_cut(kind: u8, payload in proptest::collection::vec(any::<u8>(), 0..40_000), cut in 0usize..40_000) {
            let whole = encode(kind, &payload);
            let mut buffer = BytesMut::new();
            let cut = cut.min(whole.len());
            buffer.put_slice(&whole[..cut]);
            if cut < whole.len() {
                prop_assert_eq!(decode(&mut buffer), Ok(None));
                buffer.put_slice(&whole[cut..]);
            }
            prop_assert_eq!(decode(&mut buffer), Ok(Some(Frame { kind, payload: Bytes::from(payload) })));
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_all(&bytes);
        }
    }

    #[test]
    fn a_length_in_longer_form_or_of_more_than_three_bytes_is_malformed() {
        assert_eq!(decode_all(&[0x80, 0x00, 1]), Err(FrameError::Length));
        assert_eq!(decode_all(&[0x81, 0x80, 0x00, 1]), Err(FrameError::Length));
        assert_eq!(decode_all(&[0xff, 0xff, 0xff, 0x01, 1]), Err(FrameError::Length));
    }

    #[test]
    fn an_oversized_frame_is_refused_before_its_payload_comes() {
        let mut header = BytesMut::new();
        let mut rest = FRAME_BYTES_MAX + 1;
        while rest >= 0x80 {
            header.put_u8((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        header.put_u8(rest as u8);
        assert_eq!(
            decode(&mut header),
            Err(FrameError::TooLarge(FRAME_BYTES_MAX + 1))
        );
        assert_eq!(FrameError::TooLarge(1).code(), Code::FrameTooLarge);
    }
}
