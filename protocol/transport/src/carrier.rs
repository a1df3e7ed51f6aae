//! The wall under endpoints: what brings links about, whatever they are made of.
//!
//! quinn is the first carrier; the simulation of whole clusters brings its own. A carrier knows
//! addresses, who is at the other end by the names in its certificate, and how links begin; it
//! refuses to know hellos, lanes, sessions and whom to let in, which are the endpoints' above it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::link::{Link, LinkClosed};
use crate::socket::BindError;

/// A place in a network from which links are connected and on which they are taken.
pub trait Carrier: Send + Sync + fmt::Debug + 'static {
    /// Connects to an address where somebody has a certificate for `name`. Without a time limit
    /// beyond the carrier's own: wrap it in a timeout. Dropping the future gives the attempt up.
    fn connect<'a>(
        &'a self,
        addr: SocketAddr,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Established, ConnectFailure>>;

    /// The next peer that knocks; `None` when the carrier is closed. Cancel-safe.
    fn accept(&self) -> BoxFuture<'_, Option<Box<dyn Incoming>>>;

    /// Links, those included whose handshake still runs.
    fn open_links(&self) -> usize;

    /// Where links come from and arrive.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Moves all links to another address of this machine; returns it. On an error the old one stays.
    fn rebind(&self) -> Result<SocketAddr, BindError>;

    /// Closes all links and ends [`Self::accept`].
    fn close(&self, code: u32, reason: &str);

    /// Waits until all links are gone, so that peers have heard of the close.
    fn wait_idle(&self) -> BoxFuture<'_, ()>;
}

/// A peer that knocks. Dropping it refuses it.
pub trait Incoming: Send + fmt::Debug + 'static {
    /// Where the peer says it is.
    fn remote_address(&self) -> SocketAddr;

    /// Whether the peer has shown that it is there.
    fn is_validated(&self) -> bool;

    /// Lets it in; `None` if what it sent was no handshake, of which there is nobody to tell.
    fn accept(self: Box<Self>) -> Option<BoxFuture<'static, Result<Established, LinkClosed>>>;

    /// Tells it to come another time.
    fn refuse(self: Box<Self>);

    /// Says nothing to it. A carrier on which silence is no cheaper refuses it.
    fn ignore(self: Box<Self>) {
        self.refuse();
    }

    /// Asks it to knock again and to show that it is where it says; one that has, is refused.
    fn retry(self: Box<Self>);
}

/// A link whose handshake is over, and what was learned in it.
#[derive(Debug)]
pub struct Established {
    /// The link.
    pub link: Arc<dyn Link>,
    /// The DNS names in the peer's certificate; none if it showed no readable one.
    pub names: Vec<String>,
    /// The protocol that both sides speak.
    pub protocol: Option<Vec<u8>>,
}

/// Why no link came about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// The address or the name cannot be used, or the carrier is closed.
    #[error("{0}")]
    Start(String),
    /// The handshake failed.
    #[error(transparent)]
    Closed(#[from] LinkClosed),
}
