//! Secrets, whose `Debug` hides them: PINs and resume tokens. Rooms store only their hashes.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{ErrorCode, Invalid};

/// A PIN as typed.
#[derive(Clone)]
pub struct Pin(String);

impl Pin {
    /// Accepts 1–64 printable characters: v2 had no rule, and its short PINs must stay valid. Guesses are throttled.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let count = text.chars().take(65).count();
        if !(1..=64).contains(&count) || text.chars().any(char::is_control) {
            return Err(Invalid::new(ErrorCode::BadPinFormat, "a PIN is 1-64 printable characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// argon2id with a fresh salt. Takes milliseconds of CPU: not for the async threads.
    pub fn hash(&self) -> Result<PinHash, Invalid> {
        let hash = hasher()
            .hash_password(self.0.as_bytes())
            .map_err(|error| Invalid::new(ErrorCode::Internal, format!("PIN hash: {error}")))?;
        Ok(PinHash(hash.to_string().into()))
    }

    /// Whether the hash is of this PIN. Takes as long as [`Pin::hash`].
    pub fn matches(&self, hash: &PinHash) -> bool {
        argon2::PasswordHash::new(&hash.0)
            .is_ok_and(|parsed| hasher().verify_password(self.0.as_bytes(), &parsed).is_ok())
    }
}

/// OWASP's smaller argon2id profile (7 MiB, 5 passes); guesses are throttled per room and address as well.
fn hasher() -> argon2::Argon2<'static> {
    let params = argon2::Params::new(7 * 1024, 5, 1, None).unwrap_or_default();
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(…)")
    }
}

/// An argon2 hash in PHC form.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PinHash(Arc<str>);

impl PinHash {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PinHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinHash(…)")
    }
}

/// Proof of a membership: 128 random bits, sent to the member once.
#[derive(Clone)]
pub struct ResumeToken(String);

impl ResumeToken {
    pub fn random() -> Self {
        Self(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()))
    }

    /// A token as a client presents it. Accepts any text: a wrong one matches nothing.
    pub fn presented(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The stored hash. A plain one suffices for 128 random bits.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The text, for the member itself only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken(…)")
    }
}

/// SHA-256 of a key that a client makes and keeps (`hostKey`, `clientKey`); compared in constant time. base64url on the
/// wire and in stores.
#[derive(Clone, Copy, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Hashes a key as a client presents it: 22–128 characters of base64url, at least 128 bits.
    pub fn of_key(field: &str, text: &str) -> Result<Self, Invalid> {
        let fits = (22..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !fits {
            let message = format!("{field} must be 22-128 characters of A-Z a-z 0-9 - _, at random");
            return Err(Invalid::new(ErrorCode::OutOfRange, message));
        }
        Ok(Self(Sha256::digest(text.as_bytes()).into()))
    }

    /// Parses 43 characters of base64url.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| {
            Invalid::new(ErrorCode::OutOfRange, "owner must be the SHA-256 of a key, as 43 characters of base64url")
        })
    }

    /// From raw bytes, for tests and the simulation.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for KeyHash {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

/// SHA-256 of a resume token; compared in constant time.
#[derive(Clone, Copy, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash([u8; 32]);

impl std::hash::Hash for TokenHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl TokenHash {
    /// From raw bytes, for tests and the simulation.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}
