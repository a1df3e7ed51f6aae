//! Bare quinn as a fan-out server: a stream in from each publisher, one out to each subscriber, the
//! bytes of a message shared by all. The least that any server on quinn must do, on the runtime that an
//! edge has.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use throng_transport::ServerTls;
use throng_transport::bare::{self, Acks};
use tokio::sync::Mutex;

use super::load::quic::{PUBLISHER, SUBSCRIBER, framed, next};

/// The arguments of the server process.
#[derive(Debug, clap::Args)]
pub struct BareArgs {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    cert: PathBuf,
    #[arg(long)]
    key: PathBuf,
    /// Ask clients to acknowledge as rarely as an edge does
    #[arg(long)]
    few_acks: bool,
}

#[derive(Default)]
struct Room {
    subscribers: Mutex<Vec<quinn::SendStream>>,
}

impl Room {
    /// Hands a message to everybody; whoever cannot take it is out.
    async fn publish(&self, frame: Bytes) {
        let mut subscribers = self.subscribers.lock().await;
        let mut gone = Vec::new();
        for (place, stream) in subscribers.iter_mut().enumerate() {
            if stream.write_chunk(frame.clone()).await.is_err() {
                gone.push(place);
            }
        }
        for place in gone.into_iter().rev() {
            subscribers.swap_remove(place);
        }
    }
}

/// Serves until the process is ended.
pub fn run(args: &BareArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let tls = ServerTls::load(&args.cert, &args.key)?;
        let acks = if args.few_acks {
            Acks::OfThrong
        } else {
            Acks::OfQuinn
        };
        let endpoint = bare::server(args.listen, &tls, acks)?;
        let room = Arc::new(Room::default());
        while let Some(incoming) = endpoint.accept().await {
            let room = room.clone();
            // A connection that ends is its client's affair.
            tokio::spawn(async move { serve(incoming, &room).await });
        }
        Ok(())
    })
}

async fn serve(incoming: quinn::Incoming, room: &Room) -> Result<()> {
    let connection = incoming.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let mut role = [0];
    receive.read_exact(&mut role).await.context("reading the role")?;
    send.write_all(&role).await?;
    match role[0] {
        SUBSCRIBER => {
            room.subscribers.lock().await.push(send);
            connection.closed().await;
        }
        PUBLISHER => {
            let mut buffer = BytesMut::new();
            while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
                buffer.extend_from_slice(&chunk.bytes);
                while let Some(body) = next(&mut buffer) {
                    room.publish(framed(&body)).await;
                }
            }
        }
        _ => {}
    }
    Ok(())
}
