//! The exchange of hellos: the first lane of a connection settles cluster and version.

use std::fmt;
use std::sync::Arc;

use throng_protocol::cluster::{self, ClusterHello};

use crate::cluster::error::AcceptError;
use crate::cluster::lane::{CONTROL_LANE, LaneReader, LaneWriter};
use crate::link::Link;

/// What this side says, and how it judges the other's.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) cluster: Arc<str>,
    pub(super) versions: Vec<u16>,
}

impl Hello {
    /// The connecting side: speaks first.
    pub(super) async fn say(&self, link: &dyn Link) -> Result<u16, AcceptError> {
        let (send, recv) = link.open_bi().await?;
        let writer = LaneWriter::start(send, CONTROL_LANE).await;
        let mut writer = writer.map_err(|error| hello_failed(link, &error))?;
        self.write(link, &mut writer).await?;
        self.read(link, &mut LaneReader::new(recv)).await
    }

    /// The accepting side.
    pub(super) async fn answer(&self, link: &dyn Link) -> Result<u16, AcceptError> {
        let (send, recv) = link.accept_bi().await?;
        let mut reader = LaneReader::new(recv);
        let kind = reader.kind().await.map_err(|error| hello_failed(link, &error))?;
        if kind != CONTROL_LANE {
            return Err(AcceptError::Hello(format!("the first lane is of kind {kind}")));
        }
        let version = self.read(link, &mut reader).await?;
        self.write(link, &mut LaneWriter::answer(send)).await?;
        Ok(version)
    }

    async fn write(&self, link: &dyn Link, writer: &mut LaneWriter) -> Result<(), AcceptError> {
        let hello = ClusterHello {
            versions: self.versions.clone(),
            cluster: self.cluster.to_string(),
        };
        let frame = cluster::encode(&hello);
        writer
            .write_one(frame)
            .await
            .map_err(|error| hello_failed(link, &error))?;
        writer.finish();
        Ok(())
    }

    async fn read(&self, link: &dyn Link, reader: &mut LaneReader) -> Result<u16, AcceptError> {
        let frame = reader.next().await.map_err(|error| hello_failed(link, &error))?;
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
fn hello_failed(link: &dyn Link, error: &dyn fmt::Display) -> AcceptError {
    match link.ended() {
        Some(closed) => AcceptError::Closed(closed),
        None => AcceptError::Hello(error.to_string()),
    }
}
