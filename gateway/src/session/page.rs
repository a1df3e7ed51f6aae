//! Pages of the core as clients get them: within a frame, or cut into deliveries.

use bytes::Bytes;
use throng_fanout::client_entry;
use throng_protocol::cluster::{Direction, Entry, Page};
use throng_protocol::ids::ChannelNumber;
use throng_protocol::limits::PAGE_BYTES_TARGET;
use throng_protocol::message::{self, Deliver, Message, RequestId};

use crate::limits::{ENTRY_OVERHEAD, PAGE_FRAME_BYTES};

/// Bytes an entry takes in a frame, rounded up.
fn weight(entry: &Entry) -> usize {
    let pairs = entry.expansion.iter().map(|(key, value)| text(key) + text(value));
    let removed = entry.removed.iter().map(|key| text(key));
    let texts = pairs.sum::<usize>() + removed.sum::<usize>();
    entry.body.len() + entry.sender.as_str().len() + texts + ENTRY_OVERHEAD
}

/// Bytes of a text: its length, its terminator, its place in a vector, and padding.
fn text(text: &str) -> usize {
    text.len() + 16
}

/// The answer to a sync or history. Entries that do not fit into one frame are left out at the far
/// end, where the client goes on asking.
pub(super) fn answer(
    request: RequestId,
    channel: ChannelNumber,
    page: Page,
    direction: Direction,
) -> Message {
    let Page {
        epoch,
        mut prev,
        mut entries,
        head,
        ..
    } = page;
    let mut bytes = 0;
    let mut fits = |entry: &Entry| {
        bytes += weight(entry);
        bytes <= PAGE_FRAME_BYTES
    };
    match direction {
        Direction::After => {
            let kept = entries.iter().take_while(|entry| fits(entry)).count();
            entries.truncate(kept.max(1));
        }
        Direction::Before => {
            let kept = entries.iter().rev().take_while(|entry| fits(entry)).count();
            let left_out = entries.len() - kept.max(1).min(entries.len());
            if let Some(last) = entries.drain(..left_out).next_back() {
                prev = last.seq;
            }
        }
    }
    let entries = entries.iter().map(client_entry).collect();
    message::Page {
        request,
        channel,
        epoch,
        prev,
        head,
        entries,
    }
    .into()
}

/// A page as deliveries of several entries each.
pub(super) fn deliveries(channel: ChannelNumber, page: &Page) -> Vec<Bytes> {
    let (mut frames, mut prev) = (Vec::new(), page.prev);
    let mut rest = page.entries.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take_while(|entry| {
            bytes += weight(entry);
            bytes <= PAGE_BYTES_TARGET
        });
        let count = fit.count().max(1);
        let (now, later) = rest.split_at(count);
        let entries = now.iter().map(client_entry).collect();
        frames.push(
            Message::Deliver(Deliver {
                channel,
                epoch: page.epoch,
                prev,
                entries,
            })
            .encode(),
        );
        prev = now.last().map_or(prev, |entry| entry.seq);
        rest = later;
    }
    frames
}

#[cfg(test)]
mod tests {
    use throng_protocol::cluster::{EntryKind, Hole};
    use throng_protocol::frame;
    use throng_protocol::ids::{ClientMessageId, Epoch, Seq, Ts, UserId, UserNumber};
    use throng_protocol::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, PAGE_ENTRIES_MAX};

    use super::*;

    fn page(bodies: &[usize]) -> Page {
        let entry = |(place, len): (usize, &usize)| Entry {
            seq: Seq(place as u64 + 1),
            ts: Ts(1),
            kind: EntryKind::Message,
            sender_number: UserNumber(1),
            sender: UserId::new(&"u".repeat(64)).unwrap(),
            client_message_id: ClientMessageId(1),
            body: Bytes::from(vec![0; *len]),
            target: Seq(0),
            version: Seq(0),
            hole: Hole::None,
            expansion: Vec::new(),
            removed: Vec::new(),
            keys_elsewhere: false,
        };
        Page {
            epoch: Epoch(1),
            prev: Seq(0),
            head: Seq(bodies.len() as u64),
            fenced: 0,
            fences: Vec::new(),
            entries: bodies.iter().enumerate().map(entry).collect(),
        }
    }

    fn decoded(bytes: &Bytes) -> Message {
        let frame = frame::decode(&mut bytes::BytesMut::from(&bytes[..]))
            .unwrap()
            .unwrap();
        assert!(frame.payload.len() <= FRAME_BYTES_MAX);
        Message::decode(&frame).unwrap().unwrap()
    }

    fn answered(page: Page, direction: Direction) -> message::Page {
        match decoded(&answer(1, ChannelNumber(1), page, direction).encode()) {
            Message::Page(page) => page,
            other => panic!("not a page: {other:?}"),
        }
    }

    #[test]
    fn a_page_never_outgrows_a_frame_and_keeps_the_near_end() {
        let large = page(&[BODY_BYTES_MAX; 3]);
        let after = answered(large.clone(), Direction::After);
        assert_eq!(
            (after.prev, after.entries[0].seq, after.entries.len()),
            (Seq(0), Seq(1), 1)
        );
        let before = answered(large, Direction::Before);
        assert_eq!(
            (before.prev, before.entries[0].seq, before.entries.len()),
            (Seq(2), Seq(3), 1)
        );
        let small = page(&[1; PAGE_ENTRIES_MAX as usize]);
        assert_eq!(answered(small.clone(), Direction::After).entries.len(), 300);
        assert_eq!(answered(small, Direction::Before).entries.len(), 300);
        let mut mixed = vec![1; PAGE_ENTRIES_MAX as usize];
        mixed[299] = BODY_BYTES_MAX;
        assert!(answered(page(&mixed), Direction::After).entries.len() >= 299);
        assert!(answered(page(&mixed), Direction::Before).entries.len() > 100);
        for direction in [Direction::After, Direction::Before] {
            assert_eq!(answered(page(&[]), direction).entries.len(), 0);
        }
    }

    #[test]
    fn a_page_becomes_connected_deliveries_with_every_entry_once() {
        let mut bodies = vec![100; 200];
        bodies[77] = BODY_BYTES_MAX;
        let frames = deliveries(ChannelNumber(1), &page(&bodies));
        let mut held = Seq(0);
        for frame in &frames {
            let Message::Deliver(deliver) = decoded(frame) else {
                panic!("not a delivery")
            };
            assert_eq!(deliver.prev, held);
            for entry in deliver.entries {
                assert_eq!(entry.seq, held.next());
                held = entry.seq;
            }
        }
        assert_eq!(held, Seq(200));
        assert!((2..10).contains(&frames.len()), "{} frames", frames.len());
    }
}
