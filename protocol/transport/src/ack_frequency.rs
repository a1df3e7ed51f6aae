//! How often a client acknowledges the datagrams of its deliveries.
//!
//! In a group that speaks twenty times a second a client sends as many acknowledgements as it gets
//! messages, each 25 ms after its datagram, and the edge takes in as many datagrams as it sends. With the ACK
//! frequency extension of QUIC (draft-ietf-quic-ack-frequency) a sender asks for fewer. quinn-proto asks,
//! but for no more delay than a round trip or 25 ms, unless the peer says that it needs more. So the
//! parameters of a client that knows the extension are read as if it had said so: it is asked for that delay,
//! once, whatever the round trip is. Should that one frame be lost, it is asked for nothing, and acknowledges
//! as if there were no extension. It refuses to change anything for a client that does not know the
//! extension, and to repair parameters that are wrong.

use std::time::Duration;

use bytes::Buf;
use quinn_proto::coding::Codec as _;
use quinn_proto::transport_parameters::{Error, TransportParameters};
use quinn_proto::{Side, VarInt};

/// `max_ack_delay`, in milliseconds (RFC 9000, 18.2).
const MAX_ACK_DELAY: u64 = 0x0b;
/// What holds for a client that does not give it.
const MAX_ACK_DELAY_DEFAULT: u64 = 25;
/// `min_ack_delay`, in microseconds: whoever sends it knows the extension.
const MIN_ACK_DELAY: u64 = 0xff04_de1b;

/// How often clients are asked to acknowledge.
#[cfg(any(test, feature = "bare"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// As quinn asks by our settings: after a round trip or 25 ms at the latest.
    OfQuinn,
    /// As an edge asks.
    OfThrong,
    /// As an edge asks a client that by chance gets this delay.
    #[cfg(test)]
    After(Duration),
}

/// A client's parameters, for a server that asks it to take `delay` for an acknowledgement.
pub(crate) fn client_parameters(sent: &[u8], delay: Duration) -> Result<TransportParameters, Error> {
    // As they were sent first: what is wrong with them is the client's.
    let parameters = TransportParameters::read(Side::Server, &mut &*sent)?;
    match with_delay(sent, delay) {
        Some(delayed) => TransportParameters::read(Side::Server, &mut &*delayed),
        None => Ok(parameters),
    }
}

/// The parameters with both delays raised; `None` for a client that does not know the extension, or is
/// slower anyway.
fn with_delay(sent: &[u8], delay: Duration) -> Option<Vec<u8>> {
    let (mut rest, mut others) = (sent, Vec::with_capacity(sent.len()));
    let (mut max_ms, mut min_us) = (MAX_ACK_DELAY_DEFAULT, None);
    while rest.has_remaining() {
        let whole = rest;
        let (id, mut value) = next(&mut rest)?;
        match id {
            MAX_ACK_DELAY => max_ms = VarInt::decode(&mut value).ok()?.into_inner(),
            MIN_ACK_DELAY => min_us = Some(VarInt::decode(&mut value).ok()?.into_inner()),
            _ => others.extend_from_slice(&whole[..whole.len() - rest.len()]),
        }
    }
    let delay_us = u64::try_from(delay.as_micros()).ok()?;
    if min_us? >= delay_us {
        return None;
    }
    put(&mut others, MIN_ACK_DELAY, delay_us)?;
    put(&mut others, MAX_ACK_DELAY, max_ms.max(delay_us.div_ceil(1_000)))?;
    Some(others)
}

/// Takes a parameter's id and value off.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let id = VarInt::decode(rest).ok()?.into_inner();
    let length = usize::try_from(VarInt::decode(rest).ok()?.into_inner()).ok()?;
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((id, value))
}

fn put(parameters: &mut Vec<u8>, id: u64, value: u64) -> Option<()> {
    let mut encoded = Vec::with_capacity(8);
    VarInt::from_u64(value).ok()?.encode(&mut encoded);
    VarInt::from_u64(id).ok()?.encode(parameters);
    VarInt::try_from(encoded.len()).ok()?.encode(parameters);
    parameters.extend_from_slice(&encoded);
    Some(())
}

#[cfg(test)]
mod over_time;

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(120);

    fn sent(parameters: &[(u64, u64)]) -> Vec<u8> {
        let mut encoded = Vec::new();
        for (id, value) in parameters {
            put(&mut encoded, *id, *value).unwrap();
        }
        encoded
    }

    fn read(encoded: &[u8]) -> TransportParameters {
        TransportParameters::read(Side::Server, &mut &*encoded).unwrap()
    }

    #[test]
    fn a_client_that_knows_the_extension_is_read_as_a_slow_one() {
        // A window and a parameter nobody knows stay as they are.
        let client = sent(&[
            (0x04, 70_000),
            (MIN_ACK_DELAY, 1_000),
            (0x7fff, 5),
            (MAX_ACK_DELAY, 40),
        ]);
        let expected = [
            (0x04, 70_000),
            (0x7fff, 5),
            (MIN_ACK_DELAY, 120_000),
            (MAX_ACK_DELAY, 120),
        ];
        assert_eq!(with_delay(&client, DELAY), Some(sent(&expected)));
        assert_eq!(client_parameters(&client, DELAY).unwrap(), read(&sent(&expected)));
    }

    #[test]
    fn a_delay_the_client_gave_is_never_made_less() {
        let client = sent(&[(MIN_ACK_DELAY, 1_000), (MAX_ACK_DELAY, 300)]);
        let read_as = client_parameters(&client, DELAY).unwrap();
        assert_eq!(
            read_as,
            read(&sent(&[(MIN_ACK_DELAY, 120_000), (MAX_ACK_DELAY, 300)]))
        );
        let slower = sent(&[(MIN_ACK_DELAY, 200_000), (MAX_ACK_DELAY, 300)]);
        assert_eq!(client_parameters(&slower, DELAY).unwrap(), read(&slower));
    }

    #[test]
    fn a_client_that_does_not_know_the_extension_is_read_as_it_is() {
        for client in [sent(&[]), sent(&[(0x04, 70_000), (MAX_ACK_DELAY, 40)])] {
            assert_eq!(with_delay(&client, DELAY), None);
            assert_eq!(client_parameters(&client, DELAY).unwrap(), read(&client));
        }
    }

    #[test]
    fn what_is_wrong_stays_wrong() {
        let twice = sent(&[(MAX_ACK_DELAY, 30), (MIN_ACK_DELAY, 1_000), (MAX_ACK_DELAY, 30)]);
        assert_eq!(client_parameters(&twice, DELAY), Err(Error::Malformed));
        let least_above_most = sent(&[(MIN_ACK_DELAY, 30_000)]);
        assert_eq!(
            client_parameters(&least_above_most, DELAY),
            Err(Error::IllegalValue)
        );
        let whole = sent(&[(0x04, 70_000), (MIN_ACK_DELAY, 1_000)]);
        for length in 0..whole.len() {
            // A shorter one is whole at the border of a parameter only; none may panic.
            let _ = client_parameters(&whole[..length], DELAY);
        }
        assert_eq!(
            client_parameters(&whole[..whole.len() - 1], DELAY),
            Err(Error::Malformed)
        );
    }
}
