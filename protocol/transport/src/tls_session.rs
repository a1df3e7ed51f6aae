//! TLS of one client's connection, forgotten but for its keys when the handshake is over.
//!
//! quinn's own session keeps rustls's connection for as long as the QUIC connection lives: buffers of
//! the handshake, record keys that QUIC never uses, and packet keys of the next key update, which quinn
//! makes after ten to a thousand packets of a connection and then once in millions. That is a quarter of
//! what an idle client costs an edge. A server
//! asks nothing of TLS after the handshake but the keys of such an update, and takes nothing from it:
//! clients have no certificates here, and the messages TLS clients may send later have no place in QUIC
//! (RFC 9001, 4.4 and 6). It refuses to know certificates and settings, which are `tls`'s.

use std::any::Any;
use std::io::Cursor;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn_proto::crypto::{
    self, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode};
use rand::Rng as _;
use rustls::quic::{KeyChange, PacketKeySet, Secrets, ServerConnection, Version};

#[cfg(any(test, feature = "bare"))]
use crate::ack_frequency::Acks;
use crate::ack_frequency::client_parameters;
use crate::settings::CLIENT_ACK_DELAY;

/// QUIC version 1; a connection of another one has quinn's session.
const QUIC_V1: u32 = 1;

/// The alert `unexpected_message` of TLS (RFC 8446, 6).
const UNEXPECTED_MESSAGE: u8 = 10;

/// What connections of clients begin with.
pub(crate) struct ServerCrypto {
    quinn: Arc<QuicServerConfig>,
    tls: Arc<rustls::ServerConfig>,
    /// Between which delays a client is asked to acknowledge, beyond what quinn would ask.
    ack_delay: Option<Range<Duration>>,
}

impl ServerCrypto {
    /// `quinn` is made from `tls`.
    pub fn new(quinn: QuicServerConfig, tls: Arc<rustls::ServerConfig>) -> Self {
        Self {
            quinn: Arc::new(quinn),
            tls,
            ack_delay: Some(CLIENT_ACK_DELAY),
        }
    }

    /// The same with acknowledgements asked for in this way.
    #[cfg(any(test, feature = "bare"))]
    pub fn with_acks(&self, acks: Acks) -> Self {
        Self {
            quinn: Arc::clone(&self.quinn),
            tls: Arc::clone(&self.tls),
            ack_delay: match acks {
                Acks::OfQuinn => None,
                Acks::OfThrong => Some(CLIENT_ACK_DELAY),
                #[cfg(test)]
                Acks::After(delay) => Some(delay..delay + Duration::from_nanos(1)),
            },
        }
    }

    /// A session of QUIC version 1.
    fn begin(self: Arc<Self>, params: &TransportParameters) -> Result<TlsSession, rustls::Error> {
        let mut parameters = Vec::new();
        params.write(&mut parameters);
        let tls = ServerConnection::new(Arc::clone(&self.tls), Version::V1, parameters)?;
        let ack_delay = self
            .ack_delay
            .clone()
            .map(|delays| rand::rng().random_range(delays));
        Ok(TlsSession {
            crypto: self,
            phase: Phase::Handshake {
                tls: Box::new(tls),
                ack_delay,
            },
            has_data: false,
            limits: Limits::default(),
            next: Next::None,
        })
    }
}

impl crypto::ServerConfig for ServerCrypto {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.quinn.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.quinn.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        let quinn = Arc::clone(&self.quinn);
        if version != QUIC_V1 {
            return quinn.start_session(version, params);
        }
        match self.begin(params) {
            Ok(session) => Box::new(session),
            // Refused only where TLS 1.3 or its suites are missing, of which quinn has more to say.
            Err(_) => quinn.start_session(version, params),
        }
    }
}

enum Phase {
    Handshake {
        tls: Box<ServerConnection>,
        /// What the client is asked to take for an acknowledgement.
        ack_delay: Option<Duration>,
    },
    /// The handshake is over, and this protocol was agreed on.
    Over { protocol: Option<Vec<u8>> },
}

/// The session of one connection.
struct TlsSession {
    crypto: Arc<ServerCrypto>,
    phase: Phase,
    /// It was said that data of the handshake is there.
    has_data: bool,
    /// What is said of packet keys, the same for all keys of a suite.
    limits: Limits,
    next: Next,
}

/// Where the keys of the next update come from.
enum Next {
    None,
    Secrets(Box<Secrets>),
    /// From those handed out last.
    After(Arc<Update>),
}

impl TlsSession {
    fn tls(&self) -> Option<&ServerConnection> {
        match &self.phase {
            Phase::Handshake { tls, .. } => Some(tls),
            Phase::Over { .. } => None,
        }
    }
}

impl crypto::Session for TlsSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, _: Side) -> Keys {
        // Of every connection that begins.
        match crypto::ServerConfig::initial_keys(&*self.crypto, QUIC_V1, dst_cid) {
            Ok(keys) => keys,
            Err(_) => unreachable!("invariant: version 1 is supported"),
        }
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        if !self.has_data {
            return None;
        }
        let (protocol, server_name) = match &self.phase {
            Phase::Handshake { tls, .. } => (
                tls.alpn_protocol().map(Vec::from),
                tls.server_name().map(str::to_owned),
            ),
            // Nobody asks for the name.
            Phase::Over { protocol } => (protocol.clone(), None),
        };
        Some(Box::new(HandshakeData {
            protocol,
            server_name,
        }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.tls().is_some_and(|tls| tls.is_handshaking())
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let Phase::Handshake { tls, .. } = &mut self.phase else {
            return Err(TransportError {
                code: TransportErrorCode::crypto(UNEXPECTED_MESSAGE),
                frame: None,
                reason: "TLS message after the handshake".to_owned(),
            });
        };
        tls.read_hs(buf).map_err(|error| TransportError {
            code: match tls.alert() {
                Some(alert) => TransportErrorCode::crypto(alert.into()),
                None => TransportErrorCode::PROTOCOL_VIOLATION,
            },
            frame: None,
            reason: format!("TLS: {error}"),
        })?;
        let has_data = tls.alpn_protocol().is_some() || tls.server_name().is_some() || !tls.is_handshaking();
        Ok(has_data && !std::mem::replace(&mut self.has_data, has_data))
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Phase::Handshake { tls, ack_delay } = &self.phase else {
            return Ok(None);
        };
        let Some(parameters) = tls.quic_transport_parameters() else {
            return Ok(None);
        };
        Ok(Some(match *ack_delay {
            Some(delay) => client_parameters(parameters, delay)?,
            None => TransportParameters::read(Side::Server, &mut Cursor::new(parameters))?,
        }))
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let Phase::Handshake { tls, .. } = &mut self.phase else {
            return None;
        };
        let keys = match tls.write_hs(buf) {
            Some(KeyChange::Handshake { keys }) => keys,
            Some(KeyChange::OneRtt { keys, next }) => {
                self.limits = Limits::of(&keys.local.packet);
                self.next = Next::Secrets(Box::new(next));
                keys
            }
            None => {
                if buf.is_empty() && !tls.is_handshaking() {
                    // The ticket was the last thing.
                    let protocol = tls.alpn_protocol().map(Vec::from);
                    self.phase = Phase::Over { protocol };
                }
                return None;
            }
        };
        Some(Keys {
            header: KeyPair {
                local: Box::new(keys.local.header),
                remote: Box::new(keys.remote.header),
            },
            packet: KeyPair {
                local: Box::new(keys.local.packet),
                remote: Box::new(keys.remote.packet),
            },
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let secrets = match std::mem::replace(&mut self.next, Next::None) {
            Next::None => return None,
            Next::Secrets(secrets) => secrets,
            Next::After(update) => update.pass_on(),
        };
        let update = Update::new(secrets);
        self.next = Next::After(Arc::clone(&update));
        Some(update.halves(self.limits))
    }

    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        // Servers get none.
        false
    }

    fn export_keying_material(
        &self,
        _: &mut [u8],
        _: &[u8],
        _: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        // What it would be made of is not kept.
        Err(ExportKeyingMaterialError)
    }
}

/// The packet keys of a key update, derived when they are first used.
struct Update {
    /// What they are derived from, and then what those of the update after it are.
    secrets: Mutex<Option<Box<Secrets>>>,
    keys: OnceLock<PacketKeySet>,
}

impl Update {
    fn new(secrets: Box<Secrets>) -> Arc<Self> {
        Arc::new(Self {
            secrets: Mutex::new(Some(secrets)),
            keys: OnceLock::new(),
        })
    }

    fn keys(&self) -> &PacketKeySet {
        self.keys.get_or_init(|| {
            let mut secrets = self.secrets.lock();
            secrets
                .as_mut()
                .expect("invariant: they are passed on after this")
                .next_packet_keys()
        })
    }

    /// Gives away what the keys of the update after it are derived from, once.
    fn pass_on(&self) -> Box<Secrets> {
        self.keys();
        let secrets = self.secrets.lock().take();
        secrets.expect("invariant: a session passes an update's on once")
    }

    fn halves(self: Arc<Self>, limits: Limits) -> KeyPair<Box<dyn PacketKey>> {
        let half = |whose| {
            let update = Arc::clone(&self);
            Box::new(Half {
                update,
                whose,
                limits,
            })
        };
        KeyPair {
            local: half(Whose::Local),
            remote: half(Whose::Remote),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Whose {
    Local,
    Remote,
}

/// One direction of an update.
struct Half {
    update: Arc<Update>,
    whose: Whose,
    limits: Limits,
}

impl Half {
    fn key(&self) -> &impl PacketKey {
        let keys = self.update.keys();
        match self.whose {
            Whose::Local => &keys.local,
            Whose::Remote => &keys.remote,
        }
    }
}

impl PacketKey for Half {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        PacketKey::encrypt(self.key(), packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        PacketKey::decrypt(self.key(), packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.limits.tag_len
    }

    fn confidentiality_limit(&self) -> u64 {
        self.limits.confidentiality
    }

    fn integrity_limit(&self) -> u64 {
        self.limits.integrity
    }
}

/// What quinn asks of a packet key before it uses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Limits {
    tag_len: usize,
    confidentiality: u64,
    integrity: u64,
}

impl Limits {
    fn of(key: &(impl PacketKey + ?Sized)) -> Self {
        Self {
            tag_len: key.tag_len(),
            confidentiality: key.confidentiality_limit(),
            integrity: key.integrity_limit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::crypto::Session as _;
    use rustls::quic::ClientConnection;

    use super::*;
    use crate::dev_ca::DevCa;
    use crate::tls::{self, Identity};

    const ALPN: &[u8] = b"test";

    /// All of them as they are when nothing is said.
    fn parameters() -> TransportParameters {
        TransportParameters::read(Side::Server, &mut Cursor::new(&[])).unwrap()
    }

    /// Both ends behind a handshake, with the keys of each.
    struct Pair {
        server: TlsSession,
        client: ClientConnection,
        keys: Keys,
        client_keys: rustls::quic::Keys,
        client_next: Secrets,
    }

    fn pair() -> Pair {
        let folder = tempfile::tempdir().unwrap();
        let leaf = DevCa::open(folder.path()).unwrap().server("server", &[]).unwrap();
        let identity = Identity::load(&leaf.cert, &leaf.key).unwrap();
        let crypto = Arc::new(tls::server_config(&identity, &[ALPN]).unwrap());
        let mut server = crypto.begin(&parameters()).unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(tls::load_roots(&leaf.ca).unwrap())
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let mut ours = Vec::new();
        parameters().write(&mut ours);
        let name = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), Version::V1, name, ours).unwrap();
        let (mut keys, mut client_keys, mut said) = (None, None, 0);
        assert!(server.is_handshaking() && server.handshake_data().is_none());
        loop {
            let mut sent = Vec::new();
            if let Some(KeyChange::OneRtt { keys, next }) = client.write_hs(&mut sent) {
                client_keys = Some((keys, next));
            }
            let mut moved = !sent.is_empty();
            if moved {
                said += usize::from(server.read_handshake(&sent).unwrap());
            }
            let mut answer = Vec::new();
            if let Some(new) = server.write_handshake(&mut answer) {
                (keys, moved) = (Some(new), true);
            }
            if !answer.is_empty() {
                client.read_hs(&answer).unwrap();
                moved = true;
            }
            if !moved && !client.is_handshaking() {
                break;
            }
        }
        assert_eq!(said, 1, "that there is data is said once");
        let (client_keys, client_next) = client_keys.unwrap();
        Pair {
            server,
            client,
            keys: keys.unwrap(),
            client_keys,
            client_next,
        }
    }

    fn crosses(server: &KeyPair<Box<dyn PacketKey>>, client: &PacketKeySet) {
        let (header, text) = (b"header", b"a message");
        let tag = server.local.tag_len();
        let mut packet = [&header[..], &text[..], &vec![0; tag][..]].concat();
        server.local.encrypt(7, &mut packet, header.len());
        let plain = client
            .remote
            .decrypt_in_place(7, header, &mut packet[header.len()..]);
        assert_eq!(plain.unwrap(), text);

        let mut body = text.to_vec();
        let tag = client.local.encrypt_in_place(8, header, &mut body).unwrap();
        body.extend_from_slice(tag.as_ref());
        let mut body = BytesMut::from(&body[..]);
        server.remote.decrypt(8, header, &mut body).unwrap();
        assert_eq!(&body[..], text);
        assert!(
            server
                .remote
                .decrypt(9, header, &mut BytesMut::from(&packet[..]))
                .is_err()
        );
    }

    #[test]
    fn after_the_handshake_only_the_protocol_and_the_keys_are_left() {
        let mut pair = pair();
        assert!(matches!(pair.server.phase, Phase::Over { .. }));
        assert!(!pair.server.is_handshaking());
        let data = pair.server.handshake_data().unwrap();
        let data = data.downcast::<HandshakeData>().unwrap();
        assert_eq!(data.protocol.as_deref(), Some(ALPN));
        let set = PacketKeySet {
            local: pair.client_keys.local.packet,
            remote: pair.client_keys.remote.packet,
        };
        crosses(&pair.keys.packet, &set);
        let mut more = Vec::new();
        assert!(pair.server.write_handshake(&mut more).is_none() && more.is_empty());
        assert!(!pair.client.is_handshaking());
    }

    #[test]
    fn a_message_after_the_handshake_is_an_error() {
        let mut pair = pair();
        // A key update of TLS, which QUIC forbids.
        let error = pair.server.read_handshake(&[24, 0, 0, 1, 0]).unwrap_err();
        assert_eq!(u64::from(error.code), 0x0100 + u64::from(UNEXPECTED_MESSAGE));
    }

    #[test]
    fn keys_of_updates_are_those_of_the_peer_and_are_made_when_used() {
        let mut pair = pair();
        for _ in 0..3 {
            let keys = pair.server.next_1rtt_keys().unwrap();
            let Next::After(update) = &pair.server.next else {
                panic!("an update was handed out");
            };
            assert_eq!(Limits::of(&*pair.keys.packet.local), Limits::of(&*keys.local));
            assert!(update.keys.get().is_none(), "nobody has used them");
            crosses(&keys, &pair.client_next.next_packet_keys());
        }
    }

    #[test]
    fn an_update_that_was_never_used_is_passed_over() {
        let mut pair = pair();
        pair.server.next_1rtt_keys().unwrap();
        pair.client_next.next_packet_keys();
        let keys = pair.server.next_1rtt_keys().unwrap();
        crosses(&keys, &pair.client_next.next_packet_keys());
    }

    #[test]
    fn what_is_no_handshake_is_an_error_with_an_alert() {
        let folder = tempfile::tempdir().unwrap();
        let leaf = DevCa::open(folder.path()).unwrap().server("server", &[]).unwrap();
        let identity = Identity::load(&leaf.cert, &leaf.key).unwrap();
        let crypto = Arc::new(tls::server_config(&identity, &[ALPN]).unwrap());
        let mut server = crypto.begin(&parameters()).unwrap();
        let error = server.read_handshake(&[0xff, 0, 0, 1, 0]).unwrap_err();
        assert!(error.reason.starts_with("TLS"), "{error}");
        assert!(server.is_handshaking() && server.next_1rtt_keys().is_none());
    }
}
