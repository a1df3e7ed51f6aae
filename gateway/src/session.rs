//! One client: its connection, its requests, and what is written to it.
//!
//! The control stream has one task, which owns the session machine and carries out requests without
//! ever waiting for one. Deliveries are handed to all sessions in rounds; a client that reads slowly
//! gets a task that waits for it, and holds up nothing but itself.

mod budget;
mod changes;
mod connection;
mod member;
mod outbox;
mod page;
mod queue;
mod requests;
mod rounds;
mod subscribing;
mod work;

pub(crate) use connection::run;
pub(crate) use rounds::Rounds;
