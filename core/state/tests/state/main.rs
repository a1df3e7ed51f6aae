//! What each command does to each plane, as lists of effects, and the promises over sequences of
//! commands, against naive models.

mod archive;
mod change_model;
mod changes;
mod decoding;
mod fence_model;
mod fences;
mod management;
mod management_model;
mod message;
mod message_model;
mod meta;
mod outbox;
mod page;
mod replay;
mod rights;
mod roles;
mod support;
