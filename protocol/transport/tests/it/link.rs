//! Links between clients and servers.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use throng_protocol::code::Code;
use throng_protocol::frame::{self, Frame};
use throng_protocol::limits::FRAME_BYTES_MAX;
use throng_transport::dev_ca::DevCa;
use throng_transport::settings::{CLIENT_STREAM_WINDOW, SERVER_SEND_WINDOW};
use throng_transport::{
    BindError, ClientEndpoint, ConnectError, FrameReadError, FrameReader, FrameWriter, HandshakeError,
    Limits, Link, LinkClosed, ServerEndpoint, ServerTls, TlsError, Trust,
};
use tokio::time::timeout;

use crate::support::{PATIENCE, Pair, local};

/// Sends every frame of the peer's streams back.
async fn echo(link: Arc<dyn Link>) {
    while let Ok((send, recv)) = link.accept_bi().await {
        tokio::spawn(async move {
            let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(recv));
            while let Ok(Some(frame)) = reader.next().await {
                if writer
                    .write_one(frame::encode(frame.kind, &frame.payload))
                    .await
                    .is_err()
                {
                    break;
                }
            }
        });
    }
}

async fn open(link: &Arc<dyn Link>) -> (FrameWriter, FrameReader) {
    let (send, recv) = link.open_bi().await.unwrap();
    (FrameWriter::new(send), FrameReader::new(recv))
}

/// Sends one frame and expects it back.
async fn ping(writer: &mut FrameWriter, reader: &mut FrameReader, payload: &[u8]) {
    writer.write_one(frame::encode(9, payload)).await.unwrap();
    let back = timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
    assert_eq!(
        back,
        Some(Frame {
            kind: 9,
            payload: Bytes::copy_from_slice(payload)
        })
    );
}

#[tokio::test]
async fn frames_streams_and_datagrams_go_both_ways() {
    for pair in Pair::both() {
        let (client, server) = pair.link().await;
        let echoing = tokio::spawn(echo(server.clone()));

        let (mut writer, mut reader) = open(&client).await;
        ping(&mut writer, &mut reader, b"hello").await;
        ping(&mut writer, &mut reader, &vec![7; FRAME_BYTES_MAX]).await;
        let mut batch: Vec<Bytes> = (0..100).map(|kind| frame::encode(kind, &[kind])).collect();
        writer.write(&mut batch).await.unwrap();
        assert!(batch.iter().all(Bytes::is_empty));
        for kind in 0..100 {
            assert_eq!(reader.next().await.unwrap().unwrap().kind, kind);
        }

        let mut lane = server.open_uni().await.unwrap();
        lane.write_all_chunks(&mut [Bytes::from_static(b"one way")])
            .await
            .unwrap();
        lane.finish();
        let mut received = BytesMut::new();
        let mut lane = client.accept_uni().await.unwrap();
        while lane.read(&mut received, 3).await.unwrap() {}
        assert_eq!(received, b"one way"[..]);

        assert!(client.max_datagram_size().unwrap() >= 1_000);
        client.send_datagram(Bytes::from_static(b"typing")).unwrap();
        assert_eq!(
            timeout(PATIENCE, server.recv_datagram()).await.unwrap().unwrap(),
            b"typing"[..]
        );
        server.send_datagram(Bytes::from_static(b"seen")).unwrap();
        assert_eq!(
            timeout(PATIENCE, client.recv_datagram()).await.unwrap().unwrap(),
            b"seen"[..]
        );

        assert_eq!(client.remote_address(), pair.addr);
        assert!(client.stats().bytes_sent > FRAME_BYTES_MAX as u64);
        server.close(7, "bye");
        let closed = timeout(PATIENCE, client.closed()).await.unwrap();
        assert_eq!(
            closed,
            LinkClosed::Peer {
                code: 7,
                reason: "bye".to_owned()
            }
        );
        assert_eq!(server.closed().await, LinkClosed::Local);
        echoing.await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_alpn_is_refused_by_tls() {
    for pair in Pair::both() {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(pair.folder.path().join("ca.pem")).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"throng/9".to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let stranger = quinn::Endpoint::client(local()).unwrap();
        tokio::select! {
            taken = pair.server.accept() => panic!("the first packet is refused already: {taken:?}"),
            connected = stranger.connect_with(config, pair.addr, "localhost").unwrap() => {
                let closed = LinkClosed::from(connected.unwrap_err());
                assert!(matches!(closed, LinkClosed::Mismatch(_)), "{closed:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_of_another_ca_or_name_is_not_trusted() {
    for pair in Pair::both() {
        let other = tempfile::tempdir().unwrap();
        let trust = Trust::ca_file(&DevCa::open(other.path()).unwrap().ca_file()).unwrap();
        let client = ClientEndpoint::new(&trust).unwrap();
        for (client, name) in [(&client, "localhost"), (&pair.client, "chat.example")] {
            let accept = async { pair.server.accept().await.unwrap().finish(PATIENCE).await };
            let (connected, accepted) = tokio::join!(client.connect(pair.addr, name), accept);
            let Err(ConnectError::Closed {
                reason: LinkClosed::Untrusted { .. },
                ..
            }) = connected
            else {
                panic!("{connected:?}");
            };
            assert!(accepted.is_err());
        }
    }
}

#[tokio::test]
async fn a_stream_goes_on_when_the_client_moves_to_another_socket() {
    for pair in Pair::both() {
        let (client, server) = pair.link().await;
        let before = server.remote_address();
        let echoing = tokio::spawn(echo(server.clone()));
        let (mut writer, mut reader) = open(&client).await;
        ping(&mut writer, &mut reader, b"before").await;
        let signals = server.signals();
        let moved = pair.client.rebind().unwrap();
        ping(&mut writer, &mut reader, b"behind").await;
        assert_ne!(moved.port(), before.port());
        assert!(server.signals() > signals, "a move is no signal");
        assert_eq!(server.remote_address().port(), moved.port());
        client.close(0, "");
        echoing.await.unwrap();
    }
}

#[tokio::test]
async fn an_oversized_frame_and_a_cut_one_have_their_codes() {
    for pair in Pair::both() {
        let (client, server) = pair.link().await;
        let (mut writer, _) = open(&client).await;
        // The length 2^20 of a frame of type 1.
        writer
            .write_one(Bytes::from_static(&[0x80, 0x80, 0x40, 1]))
            .await
            .unwrap();
        let (_, recv) = server.accept_bi().await.unwrap();
        let error = timeout(PATIENCE, FrameReader::new(recv).next())
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.code(), Some(Code::FrameTooLarge));

        let (mut writer, _) = open(&client).await;
        writer
            .write_one(frame::encode(1, b"whole").slice(..4))
            .await
            .unwrap();
        writer.finish();
        let (_, recv) = server.accept_bi().await.unwrap();
        let mut reader = FrameReader::new(recv);
        let error = timeout(PATIENCE, reader.next()).await.unwrap().unwrap_err();
        assert_eq!(error, FrameReadError::Truncated);
        assert_eq!(error.code(), Some(Code::MalformedFrame));
        assert!(reader.is_inside_frame());
    }
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_own_stream_only_and_within_the_windows() {
    for pair in Pair::both() {
        let (slow, to_slow) = pair.link().await;
        let (other, to_other) = pair.link().await;
        let echoing = tokio::spawn(echo(to_other));
        let mut lane = to_slow.open_uni().await.unwrap();
        let chunk = Bytes::from(vec![1; 16 * 1024]);
        let mut chunks = vec![chunk; 128];
        let whole: usize = chunks.iter().map(Bytes::len).sum();

        let blocked = timeout(Duration::from_millis(500), lane.write_all_chunks(&mut chunks)).await;
        assert!(blocked.is_err(), "2 MiB fit into the windows");
        let left: usize = chunks.iter().map(Bytes::len).sum();
        let taken = (whole - left) as u64;
        assert!(
            taken <= u64::from(CLIENT_STREAM_WINDOW) + SERVER_SEND_WINDOW,
            "{taken} bytes taken"
        );

        let (mut writer, mut reader) = open(&other).await;
        ping(&mut writer, &mut reader, b"others go on").await;

        let mut reading = slow.accept_uni().await.unwrap();
        let read = async {
            let mut received = 0;
            while let Some(chunk) = reading.read_chunk(usize::MAX).await.unwrap() {
                received += chunk.len();
            }
            received
        };
        // The same slice again: it holds what was not taken.
        let write = async {
            lane.write_all_chunks(&mut chunks).await.unwrap();
            lane.finish();
        };
        let (received, ()) = timeout(PATIENCE, async { tokio::join!(read, write) })
            .await
            .unwrap();
        assert_eq!(received, whole);
        other.close(0, "");
        echoing.await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_cancelled_inside_a_frame_loses_nothing() {
    for pair in Pair::both() {
        let (client, server) = pair.link().await;
        let (mut writer, _) = open(&client).await;
        let whole = frame::encode(3, &[5; 100]);
        writer.write_one(whole.slice(..50)).await.unwrap();
        let (_, recv) = server.accept_bi().await.unwrap();
        let mut reader = FrameReader::new(recv);
        while !reader.is_inside_frame() {
            assert!(timeout(Duration::from_millis(5), reader.next()).await.is_err());
        }
        writer.write_one(whole.slice(50..)).await.unwrap();
        let frame = timeout(PATIENCE, reader.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.payload, vec![5; 100]);
    }
}

#[tokio::test]
async fn a_silent_handshake_does_not_stand_before_another_and_times_out() {
    for pair in Pair::both() {
        // Passes on one packet of a handshake and no more.
        let relay = tokio::net::UdpSocket::bind(local()).await.unwrap();
        let lone = ClientEndpoint::new(&trust(&pair)).unwrap();
        let at = relay.local_addr().unwrap();
        let connecting = tokio::spawn(async move { lone.connect(at, "localhost").await });
        let mut packet = [0; 1_500];
        let (length, _) = relay.recv_from(&mut packet).await.unwrap();
        relay.send_to(&packet[..length], pair.addr).await.unwrap();
        let handshake = pair.server.accept().await.unwrap();
        // Another client gets through meanwhile.
        pair.link().await;
        let short = Duration::from_millis(50);
        assert_eq!(
            handshake.finish(short).await.unwrap_err(),
            HandshakeError::Timeout(short)
        );
        connecting.abort();
    }
}

#[tokio::test]
async fn above_the_limits_clients_prove_their_address_or_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = DevCa::open(folder.path()).unwrap().server("edge", &[]).unwrap();
    let tls = ServerTls::load(&files.cert, &files.key).unwrap();
    let client = ClientEndpoint::new(&Trust::ca_file(&files.ca).unwrap()).unwrap();

    let limits = Limits {
        retry_above: 0,
        ..Limits::default()
    };
    let server = ServerEndpoint::bind(local(), &tls, limits).unwrap();
    let accept = async { server.accept().await.unwrap().finish(PATIENCE).await };
    let addr = server.local_addr().unwrap();
    let (link, accepted) = tokio::join!(client.connect(addr, "localhost"), accept);
    assert!(
        link.is_ok() && accepted.is_ok(),
        "a retry costs a round trip and no more"
    );

    let limits = Limits {
        handshakes_max: 0,
        ..Limits::default()
    };
    let server = ServerEndpoint::bind(local(), &tls, limits).unwrap();
    let addr = server.local_addr().unwrap();
    tokio::select! {
        _ = server.accept() => panic!("taken above the limit"),
        refused = client.connect(addr, "localhost") => {
            assert_eq!(refused.unwrap_err(), ConnectError::Closed { addr, reason: LinkClosed::Refused });
        }
    }
}

#[tokio::test]
async fn a_port_in_use_and_a_missing_file_are_named() {
    for pair in Pair::both() {
        let cert = pair.folder.path().join("edge.pem");
        let key = pair.folder.path().join("edge.key");
        let tls = ServerTls::load(&cert, &key).unwrap();
        let error = ServerEndpoint::bind(pair.addr, &tls, Limits::default()).unwrap_err();
        assert!(
            matches!(error, BindError::InUse { addr } if addr == pair.addr),
            "{error}"
        );

        let missing = pair.folder.path().join("none.pem");
        let error = ServerTls::load(&missing, &key).unwrap_err();
        assert!(
            matches!(&error, TlsError::Read { path, .. } if *path == missing),
            "{error}"
        );
        let error = ServerTls::load(&key, &key).unwrap_err();
        assert!(
            matches!(&error, TlsError::NoCertificate { path } if *path == key),
            "{error}"
        );
        let error = ServerTls::load(&cert, &cert).unwrap_err();
        assert!(
            matches!(&error, TlsError::NoKey { path } if *path == cert),
            "{error}"
        );
        let error = ServerTls::load(&cert, &pair.folder.path().join("ca.key")).unwrap_err();
        assert!(matches!(error, TlsError::Pair { .. }), "{error}");
    }
}

fn trust(pair: &Pair) -> Trust {
    Trust::ca_file(&pair.folder.path().join("ca.pem")).unwrap()
}
