//! Who may connect to whom between nodes, and what lanes carry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use throng_protocol::cluster::{ALPN, PeerId};
use throng_transport::cluster::{LaneReadError, LaneWriteError, node_name};
use throng_transport::dev_ca::DevCa;
use throng_transport::settings::{CLUSTER_FRAME_BYTES_MAX, CLUSTER_IDLE_TIMEOUT};
use throng_transport::{
    AcceptError, ClusterConnectError, ClusterConnection, ClusterEndpoint, ClusterTls, LinkClosed, TlsError,
};
use tokio::time::timeout;

use crate::support::{CORE_1, CORE_2, EDGE_1, Nodes, PATIENCE, local, node, node_tls};

type Connected = Result<ClusterConnection, ClusterConnectError>;
type Accepted = Result<ClusterConnection, AcceptError>;

async fn meet(one: &ClusterEndpoint, two: &ClusterEndpoint, expected: PeerId) -> (Connected, Accepted) {
    let accept = async { two.accept().await.unwrap().finish(PATIENCE).await };
    tokio::join!(one.connect(two.local_addr().unwrap(), expected), accept)
}

#[tokio::test]
async fn nodes_know_each_other_by_their_certificates() {
    let nodes = Nodes::new().await;
    assert_eq!((nodes.from_one.peer(), nodes.at_two.peer()), (CORE_2, EDGE_1));
    assert_eq!((nodes.from_one.version(), nodes.at_two.version()), (1, 1));
    assert_eq!(nodes.at_two.remote_address(), nodes.one.local_addr().unwrap());
    nodes.at_two.close(5, "done");
    let closed = timeout(PATIENCE, nodes.from_one.closed()).await.unwrap();
    assert_eq!(
        closed,
        LinkClosed::Peer {
            code: 5,
            reason: "done".to_owned()
        }
    );
}

#[tokio::test]
async fn an_admin_connects_without_listening() {
    let folder = tempfile::tempdir().unwrap();
    let admin = ClusterEndpoint::outgoing(&node_tls(folder.path(), PeerId::Admin, "dev")).unwrap();
    let (connected, accepted) = meet(&admin, &node(folder.path(), CORE_2, "dev"), CORE_2).await;
    assert_eq!(connected.unwrap().peer(), CORE_2);
    assert_eq!(accepted.unwrap().peer(), PeerId::Admin);
}

#[tokio::test]
async fn a_node_of_another_ca_is_refused_by_either_side() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = node(ours.path(), CORE_1, "dev");
    let (connected, accepted) = meet(&one, &node(theirs.path(), CORE_2, "dev"), CORE_2).await;
    assert!(
        matches!(connected, Err(ClusterConnectError::Untrusted { .. })),
        "{connected:?}"
    );
    assert!(
        matches!(accepted, Err(AcceptError::Closed(LinkClosed::Untrusted { .. }))),
        "{accepted:?}"
    );

    // Trusts the right CA, but shows a certificate of the other: only the acceptor can notice.
    let files = DevCa::open(theirs.path()).unwrap().node(CORE_1, "dev").unwrap();
    let trusted = DevCa::open(ours.path()).unwrap().ca_file();
    let tls = ClusterTls::load(&trusted, &files.cert, &files.key, "dev").unwrap();
    let intruder = ClusterEndpoint::bind(local(), &tls).unwrap();
    let (connected, accepted) = meet(&intruder, &node(ours.path(), CORE_2, "dev"), CORE_2).await;
    assert!(
        matches!(connected, Err(ClusterConnectError::Untrusted { .. })),
        "{connected:?}"
    );
    assert!(
        matches!(accepted, Err(AcceptError::Closed(LinkClosed::Untrusted { .. }))),
        "{accepted:?}"
    );
}

#[tokio::test]
async fn another_node_than_the_expected_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (
        node(folder.path(), CORE_1, "dev"),
        node(folder.path(), CORE_2, "dev"),
    );
    for expected in [CORE_1, EDGE_1, PeerId::Admin] {
        let (connected, _) = meet(&one, &two, expected).await;
        assert!(
            matches!(connected, Err(ClusterConnectError::OtherPeer { .. })),
            "{connected:?}"
        );
    }
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_by_either_side() {
    let folder = tempfile::tempdir().unwrap();
    let two = node(folder.path(), CORE_2, "dev");
    let stranger_folder = folder.path().join("prod");
    std::fs::create_dir(&stranger_folder).unwrap();
    for file in ["ca.pem", "ca.key"] {
        std::fs::copy(folder.path().join(file), stranger_folder.join(file)).unwrap();
    }
    let stranger = node(&stranger_folder, CORE_1, "prod");
    let (connected, _) = meet(&stranger, &two, CORE_2).await;
    assert!(
        matches!(connected, Err(ClusterConnectError::OtherPeer { .. })),
        "{connected:?}"
    );

    // A foreign program with the other cluster's certificate does not look at names.
    let config = raw_client(&stranger_folder, Some("core-1"));
    let raw = quinn::Endpoint::client(local()).unwrap();
    let connecting = raw
        .connect_with(config, two.local_addr().unwrap(), &node_name(CORE_2, "dev"))
        .unwrap();
    let accept = async { two.accept().await.unwrap().finish(PATIENCE).await };
    let (connected, accepted) = tokio::join!(connecting, accept);
    assert!(matches!(accepted, Err(AcceptError::Peer(_))), "{accepted:?}");
    let closed = timeout(PATIENCE, connected.unwrap().closed()).await.unwrap();
    assert!(matches!(closed.into(), LinkClosed::Peer { .. }));

    let files = DevCa::open(&stranger_folder)
        .unwrap()
        .node(CORE_1, "prod")
        .unwrap();
    let error = ClusterTls::load(&files.ca, &files.cert, &files.key, "dev").unwrap_err();
    assert!(matches!(error, TlsError::Identity { .. }), "{error}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let two = node(folder.path(), CORE_2, "dev");
    let raw = quinn::Endpoint::client(local()).unwrap();
    let config = raw_client(folder.path(), None);
    let connecting = raw
        .connect_with(config, two.local_addr().unwrap(), &node_name(CORE_2, "dev"))
        .unwrap();
    let accept = async { two.accept().await.unwrap().finish(PATIENCE).await };
    let (connected, accepted) = tokio::join!(connecting, accept);
    let Err(AcceptError::Closed(LinkClosed::Untrusted { .. })) = accepted else {
        panic!("{accepted:?}")
    };
    // The client's half of the handshake may end before the server has refused it.
    if let Ok(connection) = connected {
        let closed: LinkClosed = timeout(PATIENCE, connection.closed()).await.unwrap().into();
        assert!(matches!(closed, LinkClosed::Untrusted { .. }), "{closed:?}");
    }
}

#[tokio::test]
async fn a_lane_carries_frames_up_to_its_limit_in_order() {
    let nodes = Nodes::new().await;
    let ((mut writer, _opener), (_, mut reader)) = nodes.lane().await;
    let frames = [
        Bytes::new(),
        Bytes::from_static(b"small"),
        Bytes::from(vec![3; CLUSTER_FRAME_BYTES_MAX]),
    ];
    let write = async {
        writer.write(&frames).await.unwrap();
        let too_large = Bytes::from(vec![0; CLUSTER_FRAME_BYTES_MAX + 1]);
        let size = too_large.len();
        assert_eq!(
            writer.write_one(too_large).await,
            Err(LaneWriteError::TooLarge(size))
        );
        writer.finish();
    };
    let read = async {
        for frame in &frames {
            assert_eq!(
                timeout(PATIENCE, reader.next()).await.unwrap().unwrap().as_ref(),
                Some(frame)
            );
        }
        assert_eq!(reader.next().await.unwrap(), None);
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn a_lane_given_up_is_told_from_a_finished_one() {
    let nodes = Nodes::new().await;
    let ((mut writer, _opener), (_, mut reader)) = nodes.lane().await;
    writer.write_one(Bytes::from_static(b"last")).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap(), b"last"[..]);
    writer.reset(3);
    let error = timeout(PATIENCE, reader.next()).await.unwrap().unwrap_err();
    assert_eq!(
        error,
        LaneReadError::Stream(throng_transport::ReadError::Reset(3))
    );
}

#[test]
fn peers_of_a_node_that_was_killed_and_came_back_hear_of_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let tls = node_tls(folder.path(), CORE_2, "dev");
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (ours, theirs) = (runtime(), runtime());
    let bind = |addr| ClusterEndpoint::bind(addr, &tls).unwrap();

    let two = theirs.block_on(async { bind(local()) });
    let addr = two.local_addr().unwrap();
    let accepting = theirs.spawn(async move {
        let connection = two.accept().await.unwrap().finish(PATIENCE).await.unwrap();
        (two, connection)
    });
    let one = ours.block_on(async { node(folder.path(), CORE_1, "dev") });
    let connection = ours.block_on(one.connect(addr, CORE_2)).unwrap();
    let killed = ours.block_on(accepting).unwrap();
    // Nothing of the node runs any more when its handles go: it says no farewell.
    theirs.shutdown_timeout(PATIENCE);
    drop(killed);

    let again = runtime();
    let started = Instant::now();
    let _two = again.block_on(async { bind(addr) });
    let closed = ours.block_on(connection.closed());
    assert_eq!(closed, LinkClosed::Lost("the peer has restarted".to_owned()));
    assert!(
        started.elapsed() < CLUSTER_IDLE_TIMEOUT - Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

/// What a foreign program would use: quinn and rustls directly.
fn raw_client(folder: &std::path::Path, identity: Option<&str>) -> quinn::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap())
        .unwrap();
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
    let mut tls = match identity {
        Some(stem) => {
            let cert = CertificateDer::from_pem_file(folder.join(format!("{stem}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(folder.join(format!("{stem}.key"))).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}
