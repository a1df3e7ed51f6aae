//! Payloads of the client wire: what decodes is written and read again as the same message, what
//! does not has a code of the protocol, and neither takes long.
//!
//! The input is `[frame type][payload]`.

use bytes::{Bytes, BytesMut};
use rustix::time::{ClockId, clock_gettime};
use throng_protocol::frame::{self, Frame};
use throng_protocol::limits::FRAME_BYTES_MAX;
use throng_protocol::message::Message;

/// Most CPU time one frame may take: a thousand times what a large one does, for builds with
/// sanitizers. A payload that makes the verifier walk the same bytes again and again is far above.
const CPU_NANOS_MAX: i64 = 50_000_000;

/// Runs the target.
pub fn run(data: &[u8]) {
    let Some((&kind, payload)) = data.split_first() else {
        return;
    };
    if payload.len() > FRAME_BYTES_MAX {
        return;
    }
    let frame = Frame {
        kind,
        payload: Bytes::copy_from_slice(payload),
    };
    let before = cpu_nanos();
    let decoded = Message::decode(&frame);
    let took = cpu_nanos() - before;
    assert!(took < CPU_NANOS_MAX, "decoding took {took} ns");
    match decoded {
        Ok(Some(message)) => again(&message),
        Ok(None) => assert!(
            kind < 128 && Message::kind_name(kind).is_none(),
            "a known or critical type is not skipped"
        ),
        Err(error) => {
            // Both must hold for any error: its text is made, and its number is of the table.
            assert!(!error.to_string().is_empty());
            let number = error.code().number();
            assert_eq!(
                throng_protocol::code::Code::from_number(number),
                Some(error.code())
            );
        }
    }
}

fn again(message: &Message) {
    let bytes = message.encode();
    let frame = frame::decode(&mut BytesMut::from(&bytes[..]))
        .expect("what is written is framed")
        .expect("and whole");
    let read = Message::decode(&frame).expect("and decodes");
    assert_eq!(read.as_ref(), Some(message), "as the same message");
}

fn cpu_nanos() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
