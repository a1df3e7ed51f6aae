//! The session machines of both sides, driven against each other by a list of operations.
//!
//! Two modes, by the first operation byte. In the honest one nothing but what the machines write goes
//! over the wire, cut by lost connections and refusals at any point, and a model checks that no side
//! ever accuses the other, that every command is answered once, that one send per channel is in flight,
//! and that entries come in order without gaps. In the hostile one frames that nobody wrote come in
//! between: the machines may close, and must neither panic nor keep more than their bounds allow.

mod edge;
mod model;
mod world;

use arbitrary::{Arbitrary, Unstructured};

use world::World;

/// Operations of one input; a longer list finds nothing that a shorter one does not.
const OPERATIONS_MAX: usize = 400;

/// What is done next.
#[derive(Debug, Clone, Arbitrary)]
pub enum Operation {
    /// The application sends into a channel.
    Send {
        /// The channel.
        channel: u8,
        /// Bytes of the body.
        bytes: u8,
    },
    /// The application subscribes.
    Subscribe {
        /// The channel.
        channel: u8,
        /// Head, start, or a position.
        from: u8,
    },
    /// The application gives a subscription up.
    Unsubscribe(u8),
    /// The application joins its group, or leaves it.
    Member(bool),
    /// The application asks for a page.
    Page {
        /// The channel.
        channel: u8,
        /// Behind which seq, or before it.
        anchor: u8,
        /// Which of the two.
        before: bool,
    },
    /// The application takes no entries for a while.
    Pause(bool),
    /// A connection comes up.
    Connect,
    /// The connection is lost, and what was on its way with it.
    Disconnect,
    /// The edge reads frames of the client.
    ToEdge(u8),
    /// The client reads frames of the control stream.
    ToClient(u8),
    /// The client reads a frame of a stream of deliveries.
    Delivery(u8),
    /// The edge answers one of the requests that wait: which, and how.
    Answer {
        /// Which.
        which: u8,
        /// How.
        luck: u8,
    },
    /// The edge delivers entries to a subscription.
    Deliver {
        /// The channel.
        channel: u8,
        /// Entries.
        count: u8,
        /// What goes wrong.
        luck: u8,
    },
    /// Somebody else writes into a channel.
    Append(u8),
    /// The edge verifies the token: accepts or refuses it.
    Judge(bool),
    /// The edge drains.
    Drain(u16),
    /// A frame of the client has begun.
    Begun,
    /// Time passes.
    Tick(u16),
    /// Bytes that nobody wrote come to one side, as a frame.
    Forge {
        /// Whether to the client.
        to_client: bool,
        /// The frame type.
        kind: u8,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A frame that was sent comes again, changed in one place.
    Twist {
        /// Whether to the client.
        to_client: bool,
        /// Where.
        at: u16,
        /// With what.
        with: u8,
    },
}

/// Runs the target.
pub fn run(data: &[u8]) {
    entries_taken(data);
}

/// Runs the target; how many entries the application was given.
pub fn entries_taken(data: &[u8]) -> u64 {
    let Some((&mode, rest)) = data.split_first() else {
        return 0;
    };
    let mut input = Unstructured::new(rest);
    let mut world = World::new(mode % 2 == 1);
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut input) else {
            break;
        };
        world.run(operation);
    }
    world.settle();
    world.taken()
}
