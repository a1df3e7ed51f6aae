//! One client: its connection, its requests, and what is written to it.
//!
//! The control stream has one task, which owns the session machine and carries out requests without
//! ever waiting for one. Deliveries have a task of their own, so that a client that reads slowly
//! holds up nothing but itself.

mod budget;
mod connection;
mod member;
mod page;
mod requests;
mod subscribing;
mod work;
mod writer;

pub(crate) use connection::run;
