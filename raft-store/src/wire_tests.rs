//! What goes through the wire comes out the same, and nothing else comes in.

use openraft::EntryPayload;

use super::*;
use crate::types::{CommandBytes, Entry};

fn requests() -> Vec<Request> {
    let mut transfer = VoteRequest::new(Vote::new(4, 2), Some(log_id(3, 9)));
    transfer.leadership_transfer = true;
    let entry = |index, payload| Entry {
        log_id: log_id(4, index),
        payload,
    };
    vec![
        Request::Vote(transfer),
        Request::PreVote(VoteRequest::new(Vote::new(4, 2), None)),
        Request::Append(AppendEntriesRequest {
            vote: Vote::new_committed(4, 2),
            prev_log_id: Some(log_id(4, 9)),
            entries: vec![
                entry(10, EntryPayload::Blank),
                entry(11, EntryPayload::Normal(CommandBytes(Bytes::from_static(b"one")))),
            ],
            leader_commit: Some(log_id(4, 8)),
        }),
        Request::TransferLeader(TransferLeaderRequest::new(
            Vote::new_committed(4, 2),
            3,
            Some(log_id(4, 9)),
        )),
        Request::Snapshot(Vote::new_committed(4, 2)),
    ]
}

fn responses() -> Vec<Response> {
    vec![
        Response::Vote(VoteResponse::new(Vote::new(4, 2), Some(log_id(4, 9)), true)),
        Response::Append(Ok(Some(log_id(4, 9)))),
        Response::Append(Err(StreamAppendError::Conflict(log_id(4, 9)))),
        Response::Append(Err(StreamAppendError::HigherVote(Vote::new(5, 1)))),
        Response::TransferLeader(Ok(())),
        Response::TransferLeader(Err(TransferLeaderError::VoteChanged {
            expected: Vote::new_committed(4, 2),
            actual: Vote::new(5, 3),
        })),
        Response::TransferLeader(Err(TransferLeaderError::LogNotFlushed {
            expected: Some(log_id(4, 9)),
            actual: None,
        })),
        Response::Snapshot(SnapshotResponse::new(Vote::new_committed(4, 2))),
        Response::Refused(Refusal::Stopped("disk full".to_owned())),
        Response::Refused(Refusal::UnknownShard),
    ]
}

#[test]
fn every_request_comes_out_as_it_went_in() {
    for request in requests() {
        let bytes = request.encode();
        let read = Request::decode(&bytes).unwrap();
        assert_eq!(format!("{read:?}"), format!("{request:?}"));
        assert_eq!(read.encode(), bytes);
    }
}

#[test]
fn every_response_comes_out_as_it_went_in() {
    for response in responses() {
        assert_eq!(Response::decode(&response.encode()), Ok(response));
    }
}

#[test]
fn a_command_shares_the_memory_of_the_message() {
    let bytes = requests()[2].encode();
    let Request::Append(append) = Request::decode(&bytes).unwrap() else {
        panic!("an append was encoded");
    };
    let EntryPayload::Normal(command) = &append.entries[1].payload else {
        panic!("a command was encoded");
    };
    assert_eq!(command.0, Bytes::from_static(b"one"));
    assert!(bytes.as_ptr_range().contains(&command.0.as_ptr()));
}

#[test]
fn cut_longer_and_foreign_bytes_are_refused() {
    for request in requests() {
        let bytes = request.encode();
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert!(Request::decode(&longer).is_err(), "{request:?}");
        for len in 0..bytes.len() {
            // A cut may hit the end of the last command; then the length in front of it does not fit.
            assert!(
                Request::decode(&bytes.slice(..len)).is_err(),
                "{request:?} cut to {len}"
            );
        }
        let mut newer = bytes.to_vec();
        newer[0] = WIRE_VERSION + 1;
        let refused = Request::decode(&Bytes::from(newer)).map(|_| ());
        assert_eq!(refused, Err(WireError::Version(WIRE_VERSION + 1)));
    }
    for response in responses() {
        let bytes = response.encode();
        assert!(
            Response::decode(&bytes[..bytes.len() - 1]).is_err(),
            "{response:?}"
        );
        assert!(Response::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
