//! TLS over TCP, for HTTP of app back ends: sockets and handshakes. It refuses to know HTTP.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::socket::BindError;
use crate::tls::{self, Identity, TlsError};

/// What HTTP/1.1 is called in a handshake (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// A server's certificate for TLS over TCP.
#[derive(Clone)]
pub struct TcpTls(TlsAcceptor);

impl std::fmt::Debug for TcpTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpTls").finish_non_exhaustive()
    }
}

impl TcpTls {
    /// Loads a certificate chain and its key from PEM files.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let config = tls::tcp_config(&Identity::load(cert, key)?, &[ALPN])?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// A TCP port.
#[derive(Debug)]
pub struct TcpPort {
    listener: TcpListener,
    tls: TcpTls,
}

impl TcpPort {
    /// Listens on an address; port 0 is any free port.
    pub async fn bind(addr: SocketAddr, tls: TcpTls) -> Result<Self, BindError> {
        let listener = TcpListener::bind(addr).await;
        let listener = listener.map_err(|source| BindError::new(addr, source))?;
        Ok(Self { listener, tls })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next client, whose handshake is to be finished apart. Cancel-safe.
    pub async fn accept(&self) -> io::Result<TcpHandshake> {
        let (stream, from) = self.listener.accept().await?;
        Ok(TcpHandshake {
            stream,
            from,
            tls: self.tls.clone(),
        })
    }
}

/// A client whose handshake has not begun.
#[derive(Debug)]
pub struct TcpHandshake {
    stream: TcpStream,
    from: SocketAddr,
    tls: TcpTls,
}

impl TcpHandshake {
    /// Where the client is.
    pub fn remote_address(&self) -> SocketAddr {
        self.from
    }

    /// Waits for the end of the handshake.
    pub async fn finish(self) -> io::Result<TcpLink> {
        // A request and its answer are one segment each: waiting for more would only delay them.
        self.stream.set_nodelay(true)?;
        let stream = self.tls.0.accept(self.stream).await?;
        Ok(TcpLink(Box::new(stream)))
    }
}

/// A stream of bytes each way.
#[derive(Debug)]
pub struct TcpLink(Box<TlsStream<TcpStream>>);

impl AsyncRead for TcpLink {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(context, buf)
    }
}

impl AsyncWrite for TcpLink {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }
}
