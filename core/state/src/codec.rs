//! How commands, replies and records are written: one version byte, then postcard.
//!
//! Postcard numbers enum variants and orders fields by their place in the source: what is stored
//! only ever grows at the end of an enum, and a changed struct gets a new version. Leftover bytes
//! and unknown versions are refused.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There are no bytes, not even a version.
    #[error("it is empty")]
    Empty,
    /// Another build wrote it.
    #[error("its version is {found}, this build knows {known}")]
    Version {
        /// The version found.
        found: u8,
        /// The version this build reads.
        known: u8,
    },
    /// The bytes behind the version are not what the version says.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// It ends before its bytes do.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
}

/// Encodes a value behind its version.
pub(crate) fn encode<T: Serialize>(version: u8, value: &T) -> Bytes {
    let bytes = postcard::to_extend(value, vec![version])
        .expect("invariant: stored types hold no sequences of unknown length, and memory does not refuse");
    Bytes::from(bytes)
}

/// Decodes a value written by [`encode`].
pub(crate) fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    let rest = checked(version, bytes)?;
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        Ok((_, left)) => Err(DecodeError::LeftOver(left.len())),
        Err(error) => Err(DecodeError::Malformed(error.to_string())),
    }
}

/// Decodes a value that those written by [`encode`] begin with.
pub(crate) fn decode_start<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    let rest = checked(version, bytes)?;
    let (value, _) =
        postcard::take_from_bytes(rest).map_err(|error| DecodeError::Malformed(error.to_string()))?;
    Ok(value)
}

/// What follows the version, which must be this one.
fn checked(version: u8, bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let (found, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if *found != version {
        return Err(DecodeError::Version {
            found: *found,
            known: version,
        });
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_nothing_else_is() {
        let bytes = encode(1, &(7_u64, "text".to_owned()));
        assert_eq!(bytes[0], 1);
        assert_eq!(decode::<(u64, String)>(1, &bytes), Ok((7, "text".to_owned())));
        assert_eq!(decode::<(u64, String)>(1, &[]), Err(DecodeError::Empty));
        assert_eq!(
            decode::<(u64, String)>(2, &bytes),
            Err(DecodeError::Version { found: 1, known: 2 })
        );
        assert!(matches!(
            decode::<(u64, String)>(1, &bytes[..bytes.len() - 1]),
            Err(DecodeError::Malformed(_))
        ));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode::<(u64, String)>(1, &longer), Err(DecodeError::LeftOver(1)));
        assert_eq!(decode_start::<u64>(1, &bytes), Ok(7));
        assert!(decode_start::<u64>(2, &bytes).is_err());
        assert!(decode_start::<u64>(1, &bytes[..1]).is_err());
    }
}
