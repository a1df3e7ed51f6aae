//! What lies on disk and in the log: records, log entries, commands, Raft's messages. Damaged bytes are
//! refused and never panic; what decodes is written and read again as the same; a command that decodes
//! does the same to two replicas in the same state.
//!
//! The input is `[what][bytes]`.

use std::fmt::Debug;

use bytes::Bytes;
use throng_protocol::placement::Plane;
use throng_raft_store::{Table, entry, record, wire};
use throng_state::record as state;
use throng_state::record::Record;
use throng_state::testing::MapView;
use throng_state::{Command, Reply};

/// Runs the target.
pub fn run(data: &[u8]) {
    let Some((&what, bytes)) = data.split_first() else {
        return;
    };
    match what % 8 {
        0 => sealed(bytes),
        1 => logged(bytes),
        2 => asked(bytes),
        3 => answered(bytes),
        4 => command(bytes),
        5 => stored(bytes),
        6 => replicas(Plane::Management, bytes),
        _ => replicas(
            if what & 8 == 0 {
                Plane::Message
            } else {
                Plane::Meta
            },
            bytes,
        ),
    }
}

/// `[length of the key][key][record]`.
fn sealed(bytes: &[u8]) {
    let Some((&length, rest)) = bytes.split_first() else {
        return;
    };
    let (key, bytes) = rest.split_at(usize::from(length).min(rest.len()));
    if let Ok(payload) = record::open(Table::State, key, &Bytes::copy_from_slice(bytes)) {
        assert_eq!(record::seal(key, &payload), bytes, "a record has one form");
    }
    let whole = record::seal(key, bytes);
    assert_eq!(record::open(Table::Log, key, &whole).as_deref(), Ok(bytes));
}

fn logged(bytes: &[u8]) {
    if let Ok(read) = entry::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(entry::decode(entry::encode(&read)), Ok(read));
    }
}

fn asked(bytes: &[u8]) {
    if let Ok(read) = wire::Request::decode(&Bytes::copy_from_slice(bytes)) {
        let written = read.encode();
        let again = wire::Request::decode(&written).expect("what is written decodes");
        assert_eq!(again.encode(), written);
    }
}

fn answered(bytes: &[u8]) {
    if let Ok(read) = wire::Response::decode(bytes) {
        assert_eq!(wire::Response::decode(&read.encode()), Ok(read));
    }
}

fn command(bytes: &[u8]) {
    if let Ok(read) = Command::decode(bytes) {
        assert_eq!(Command::decode(&read.encode()), Ok(read));
    }
    if let Ok(read) = Reply::decode(bytes) {
        assert_eq!(Reply::decode(&read.encode()), Ok(read));
    }
}

/// `[which type][record]`.
fn stored(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 28 {
        0 => again::<state::MapRecord>(bytes),
        1 => again::<state::ClusterKeyRecord>(bytes),
        2 => again::<state::AppRecord>(bytes),
        3 => again::<state::LeaseHeadRecord>(bytes),
        4 => again::<state::LeaseRecord>(bytes),
        5 => again::<state::NumberStockRecord>(bytes),
        6 => again::<state::UserRecord>(bytes),
        7 => again::<state::GroupRecord>(bytes),
        8 => again::<state::MemberRecord>(bytes),
        9 => again::<state::ChannelRecord>(bytes),
        10 => again::<state::TailRecord>(bytes),
        11 => again::<state::EntryRecord>(bytes),
        12 => again::<state::SentRecord>(bytes),
        13 => again::<state::OutgoingRecord>(bytes),
        14 => again::<state::LogRecord>(bytes),
        15 => again::<state::ChannelCounterRecord>(bytes),
        16 => again::<state::LedgerRecord>(bytes),
        17 => again::<state::GroupShardRecord>(bytes),
        18 => again::<state::FencesRecord>(bytes),
        19 => again::<state::FenceRecord>(bytes),
        20 => again::<state::FencedUserRecord>(bytes),
        21 => again::<state::OutboxRecord>(bytes),
        22 => again::<state::ExpansionRecord>(bytes),
        23 => again::<state::Touched>(bytes),
        24 => again::<state::ChangedRecord>(bytes),
        25 => again::<state::RoleRecord>(bytes),
        26 => again::<state::MemberRolesRecord>(bytes),
        _ => again::<state::InboxRecord>(bytes),
    }
}

fn again<R: Record + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(read) = R::decode(b"key", bytes) {
        assert_eq!(
            R::decode(b"key", &read.encode()).expect("what is written decodes"),
            read
        );
    }
}

/// A log of commands, each `[length of two bytes][command]`, applied by two replicas.
fn replicas(plane: Plane, mut bytes: &[u8]) {
    let (mut one, mut two) = (MapView::new(plane), MapView::new(plane));
    while let [low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (command, left) = rest.split_at(length);
        bytes = left;
        match (one.apply(command), two.apply(command)) {
            (Ok(one), Ok(two)) => assert_eq!(one, two, "effects differ"),
            (Err(one), Err(two)) => {
                assert_eq!(one.to_string(), two.to_string());
                // The replica stops.
                break;
            }
            (one, two) => panic!("one replica stops: {one:?}, {two:?}"),
        }
    }
    assert_eq!(one, two, "states differ");
}
