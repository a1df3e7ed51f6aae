//! The exchange of hellos: the first lane of a connection settles cluster and version.

use std::fmt;
use std::sync::Arc;

use throng_protocol::cluster::{self, ClusterHello};

use crate::cluster::error::AcceptError;
use crate::cluster::lane::{CONTROL_LANE, LaneReader, LaneWriter};
use crate::link::LinkClosed;

/// What this side says, and how it judges the other's.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) cluster: Arc<str>,
    pub(super) versions: Vec<u16>,
}

impl Hello {
    /// The connecting side: speaks first.
    pub(super) async fn say(&self, connection: &quinn::Connection) -> Result<u16, AcceptError> {
        let (send, recv) = connection.open_bi().await.map_err(LinkClosed::from)?;
        let writer = LaneWriter::start(Box::new(send), CONTROL_LANE).await;
        let mut writer = writer.map_err(|error| hello_failed(connection, &error))?;
        self.write(connection, &mut writer).await?;
        self.read(connection, &mut LaneReader::new(Box::new(recv))).await
    }

    /// The accepting side.
    pub(super) async fn answer(&self, connection: &quinn::Connection) -> Result<u16, AcceptError> {
        let (send, recv) = connection.accept_bi().await.map_err(LinkClosed::from)?;
        let mut reader = LaneReader::new(Box::new(recv));
        let kind = reader
            .kind()
            .await
            .map_err(|error| hello_failed(connection, &error))?;
        if kind != CONTROL_LANE {
            return Err(AcceptError::Hello(format!("the first lane is of kind {kind}")));
        }
        let version = self.read(connection, &mut reader).await?;
        self.write(connection, &mut LaneWriter::answer(Box::new(send)))
            .await?;
        Ok(version)
    }

    async fn write(
        &self,
        connection: &quinn::Connection,
        writer: &mut LaneWriter,
    ) -> Result<(), AcceptError> {
        let hello = ClusterHello {
            versions: self.versions.clone(),
            cluster: self.cluster.to_string(),
        };
        let frame = cluster::encode(&hello);
        writer
            .write_one(frame)
            .await
            .map_err(|error| hello_failed(connection, &error))?;
        writer.finish();
        Ok(())
    }

    async fn read(
        &self,
        connection: &quinn::Connection,
        reader: &mut LaneReader,
    ) -> Result<u16, AcceptError> {
        let frame = reader
            .next()
            .await
            .map_err(|error| hello_failed(connection, &error))?;
        let frame = frame.ok_or_else(|| AcceptError::Hello("the control lane ended".to_owned()))?;
        let hello: ClusterHello =
            cluster::decode(&frame).map_err(|error| AcceptError::Hello(error.to_string()))?;
        if *hello.cluster != *self.cluster {
            return Err(AcceptError::OtherCluster(hello.cluster));
        }
        let common = self
            .versions
            .iter()
            .filter(|version| hello.versions.contains(version))
            .max();
        common.copied().ok_or_else(|| AcceptError::Version {
            theirs: hello.versions,
            ours: self.versions.clone(),
        })
    }
}

/// A hello that failed with its stream: the connection's end says more, if it ended.
fn hello_failed(connection: &quinn::Connection, error: &dyn fmt::Display) -> AcceptError {
    match connection.close_reason() {
        Some(reason) => AcceptError::Closed(reason.into()),
        None => AcceptError::Hello(error.to_string()),
    }
}
