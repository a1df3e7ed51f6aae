//! Keys of the Server API: what a back end shows, and what the cluster keeps of it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore as _;
use ring::digest;
use throng_protocol::cluster::ApiKey;
use throng_protocol::ids::AppId;

/// Bytes of a secret: as many as its digest has.
const SECRET_BYTES: usize = 32;

/// A key as a back end has it: `app.kid.secret`, the first and the last in base64 for URLs.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    app: AppId,
    kid: String,
    secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for Key {
    /// Never prints the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("app", &self.app)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// A new key of an app. `kid` has letters, digits, `-` and `_` only.
    pub fn random(app: AppId, kid: &str) -> Self {
        let mut secret = [0; SECRET_BYTES];
        rand::rng().fill_bytes(&mut secret);
        Self {
            app,
            kid: kid.to_owned(),
            secret,
        }
    }

    /// Reads a key as a back end has it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let app = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        let (kid, secret) = (parts.next()?, URL_SAFE_NO_PAD.decode(parts.next()?).ok()?);
        Some(Self {
            app: AppId::new(std::str::from_utf8(&app).ok()?).ok()?,
            kid: kid.to_owned(),
            secret: secret.try_into().ok()?,
        })
    }

    /// The key as a back end has it. Whoever has it may do everything in the app.
    pub fn reveal(&self) -> String {
        let Self { app, kid, secret } = self;
        let (app, secret) = (
            URL_SAFE_NO_PAD.encode(app.as_str()),
            URL_SAFE_NO_PAD.encode(secret),
        );
        format!("{app}.{kid}.{secret}")
    }

    /// The app.
    pub fn app(&self) -> &AppId {
        &self.app
    }

    /// What the cluster keeps of it.
    pub fn kept(&self) -> ApiKey {
        let digest = digest::digest(&digest::SHA256, &self.secret);
        let mut kept = ApiKey {
            kid: self.kid.clone(),
            digest: [0; 32],
        };
        // SHA-256 has 32 bytes.
        kept.digest.copy_from_slice(digest.as_ref());
        kept
    }

    /// Whether it is one of these. Digests of random secrets are compared: how long that takes says nothing
    /// of a secret.
    pub fn is_among(&self, keys: &[ApiKey]) -> bool {
        keys.contains(&self.kept())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::random(AppId::new("größe.1").unwrap(), "back-end_1")
    }

    #[test]
    fn a_key_is_read_as_it_was_revealed_and_found_among_those_kept() {
        let (one, other) = (key(), key());
        assert_eq!(Key::parse(&one.reveal()), Some(one.clone()));
        assert!(one.is_among(&[other.kept(), one.kept()]));
        assert!(!one.is_among(&[other.kept()]), "another secret under the same id");
        let renamed = ApiKey {
            kid: "other".to_owned(),
            ..one.kept()
        };
        assert!(!one.is_among(&[renamed]));
        assert!(!format!("{one:?}").contains(&one.reveal()));
    }

    #[test]
    fn what_is_no_key_is_none() {
        let good = key().reveal();
        for bad in [
            "",
            ".",
            "..",
            "a.b.c",
            &good[1..],
            &good[..good.len() - 2],
            "Zm9v.kid.c2hvcnQ",
        ] {
            assert_eq!(Key::parse(bad), None, "{bad}");
        }
    }
}
