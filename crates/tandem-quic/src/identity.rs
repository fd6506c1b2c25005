//! Several nodes behind one UDP address, and a restarted node told apart from its predecessor.
//!
//! **Connection ids** name their node in the plain-text form of QUIC-LB (draft-ietf-quic-load-balancers), which AWS'
//! NLB reads. All are 16 bytes, whatever the settings, because the packets of an established connection don't say how
//! long its id is:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | three bits of configuration: 0, or 7 where there is no server id (unroutable); then five bits that are random, or the endpoint's number where several share the port |
//! | 0–8 | the server id |
//! | 4–12 | random |
//! | 3 | a keyed check sum: packets with an id that no node of ours has made are not answered |
//!
//! **Keys** are derived from one secret of all nodes. A node that gets a packet of an unknown connection answers with a
//! stateless reset (RFC 9000 §10.3). The client believes it, because it carries the token that the other node (or this
//! one, before a restart) had announced: the client learns in one round trip what it would otherwise conclude from an
//! idle timeout. Likewise a Retry token of one node is valid on another. RFC 9000 §21.11 describes the risk: an
//! attacker who reads packets can have another node disclose the token that ends a connection.
//!
//! Without a secret the keys are random, and packets of unknown connections are not answered.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, EndpointConfig, InvalidCid, ServerConfig};
use ring::{hkdf, hmac};
use secrecy::{ExposeSecret, SecretString};

use crate::BindError;

/// Bytes of a connection id.
const ID_BYTES: usize = 16;
/// Bytes of its check sum.
const CHECK_BYTES: usize = 3;
/// Leaves four random bytes, the least that QUIC-LB allows.
const MAX_SERVER_ID_BYTES: usize = 8;
/// QUIC-LB's configuration 0, in the first byte.
const ROUTABLE: u8 = 0b000 << 5;
/// QUIC-LB's reserved configuration: balancers route such an id by the address.
const UNROUTABLE: u8 = 0b111 << 5;
const ENDPOINT_BITS: u8 = 0b0001_1111;
/// Endpoints of one port, at most: a connection id has five bits for their number.
pub const MAX_ENDPOINTS: usize = ENDPOINT_BITS as usize + 1;

/// When a node fails, all its clients arrive at another node at once, and each must be answered before its connection
/// would time out anyway; with quinn-proto's default of one reset in 20 ms that takes minutes. Zero is safe: a reset is
/// smaller than the packet that it answers, and only an id with the right check sum gets one, so two servers can't
/// reset each other's resets.
const RESET_INTERVAL: Duration = Duration::ZERO;

/// This node among those behind the same address.
#[derive(Debug, Clone, Default)]
pub struct NodeIdentity {
    /// Written into connection ids, for a load balancer to route by.
    pub server_id: Option<ServerId>,
    /// Known to all nodes: makes stateless resets and Retry tokens valid on each of them.
    pub secret: Option<SharedSecret>,
}

/// The 1–8 bytes by which a load balancer knows a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerId(Box<[u8]>);

impl ServerId {
    /// Reads `0x` and hex digits, as load balancers show an id, or an IPv4 address, which stands for its four bytes.
    pub fn parse(text: &str) -> Result<Self, ServerIdError> {
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Self::new(&address.octets());
        }
        let Some(digits) = text.strip_prefix("0x") else {
            return Err(ServerIdError::Form);
        };
        if let Some(other) = digits.chars().find(|digit| !digit.is_ascii_hexdigit()) {
            return Err(ServerIdError::Digit(other));
        }
        if digits.len() % 2 == 1 {
            return Err(ServerIdError::OddDigits(digits.len()));
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let pairs = digits.as_bytes().as_chunks::<2>().0.iter();
        let bytes: Vec<_> = pairs.filter_map(|&[high, low]| Some(value(high)? << 4 | value(low)?)).collect();
        Self::new(&bytes)
    }

    /// Reads base64, as the AWS Load Balancer Controller puts it into a pod's environment.
    pub fn from_base64(text: &str) -> Result<Self, ServerIdError> {
        // Some hexadecimal ids are valid base64 of other bytes. The controller's eight bytes always end with a `=`.
        if text.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            return Err(ServerIdError::HexForBase64);
        }
        Self::new(&STANDARD.decode(text).map_err(|_| ServerIdError::Base64)?)
    }

    fn new(bytes: &[u8]) -> Result<Self, ServerIdError> {
        if (1..=MAX_SERVER_ID_BYTES).contains(&bytes.len()) {
            return Ok(Self(bytes.into()));
        }
        Err(ServerIdError::Length(bytes.len()))
    }
}

/// Why a text is no server id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServerIdError {
    /// Neither of the two forms.
    #[error("neither 0x and hex digits, such as 0x2d65, nor an IPv4 address")]
    Form,
    /// A character is no hex digit.
    #[error("not hexadecimal: {0:?} is no digit of it")]
    Digit(char),
    /// Half a byte is missing.
    #[error("an odd number of hex digits ({0}); two make a byte")]
    OddDigits(usize),
    /// Too short or too long.
    #[error("a server id of {0} bytes, not of 1-{MAX_SERVER_ID_BYTES}")]
    Length(usize),
    /// Hexadecimal where base64 is wanted.
    #[error("hexadecimal, as QUIC_SERVER_ID takes it; the controller writes base64")]
    HexForBase64,
    /// Not base64.
    #[error("not base64, in which the controller writes it")]
    Base64,
}

/// The secret that the nodes' common keys are derived from. `Debug` doesn't print it.
#[derive(Debug, Clone)]
pub struct SharedSecret(SecretString);

impl SharedSecret {
    /// Takes any text of 32 bytes or more. Somebody who knows it can end all connections.
    pub fn parse(text: &str) -> Result<Self, SecretTooShort> {
        if text.len() < 32 {
            return Err(SecretTooShort(text.len()));
        }
        Ok(Self(SecretString::from(text)))
    }
}

/// A secret of so many bytes is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes, fewer than 32; `openssl rand -hex 32` makes a good one")]
pub struct SecretTooShort(pub usize);

/// How the endpoints of a port are configured.
pub(super) struct EndpointConfigs {
    pub(super) configs: Vec<Arc<EndpointConfig>>,
    /// Reads an endpoint's number from a packet, if there are several.
    pub(super) ids: Option<ConnectionIds>,
}

impl NodeIdentity {
    /// Sets the server's token key, and the endpoints' reset key and connection ids. One endpoint without identity
    /// keeps quinn-proto's random ones.
    pub(super) fn endpoints(&self, server: &mut ServerConfig, count: usize) -> Result<EndpointConfigs, BindError> {
        let several = count > 1;
        if self.server_id.is_none() && self.secret.is_none() && !several {
            return Ok(EndpointConfigs { configs: vec![Arc::new(EndpointConfig::default())], ids: None });
        }
        let random: [u8; 32];
        let secret = if let Some(SharedSecret(secret)) = &self.secret {
            secret.expose_secret().as_bytes()
        } else {
            random = rand::random();
            &random
        };
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tandem QUIC 1").extract(secret);
        let failed = |_| BindError::Options("the keys can't be derived");
        let tokens: hkdf::Prk = root.expand(&[b"retry token"], hkdf::HKDF_SHA256).map_err(failed)?.into();
        let resets: hmac::Key = root.expand(&[b"stateless reset"], hmac::HMAC_SHA256).map_err(failed)?.into();
        let checks: hmac::Key = root.expand(&[b"connection id"], hmac::HMAC_SHA256).map_err(failed)?.into();

        server.token_key(Arc::new(tokens));
        let resets = Arc::new(resets);
        let ids = ConnectionIds { server_id: self.server_id.clone(), endpoint: None, checks };
        let config = |number| {
            let ids = ConnectionIds { endpoint: several.then_some(number), ..ids.clone() };
            let mut config = EndpointConfig::new(Arc::clone(&resets) as _);
            config.min_reset_interval(RESET_INTERVAL).cid_generator(move || Box::new(ids.clone()));
            Arc::new(config)
        };
        let configs = (0..=ENDPOINT_BITS).take(count).map(config).collect();
        Ok(EndpointConfigs { configs, ids: several.then_some(ids) })
    }
}

/// Makes connection ids, and recognises those of all nodes with the same secret.
#[derive(Clone)]
pub(super) struct ConnectionIds {
    server_id: Option<ServerId>,
    /// The endpoint's number, if several share the port.
    endpoint: Option<u8>,
    checks: hmac::Key,
}

impl ConnectionIds {
    /// The number of the endpoint that a packet's connection belongs to, or `None` if the id is not one of this
    /// server's.
    ///
    /// In a long header the id may be the client's choice, so its check sum is verified. In a short header it isn't:
    /// the endpoint drops a packet with an unknown id anyway.
    pub(super) fn endpoint_of(&self, packet: &[u8]) -> Option<usize> {
        const LONG_HEADER: u8 = 0x80;
        // RFC 9000 §17: flags, in a long header also version and id length, then the destination connection id.
        let id = if packet.first()? & LONG_HEADER == 0 {
            packet.get(1..1 + ID_BYTES)?
        } else {
            let id = packet.get(6..6 + usize::from(*packet.get(5)?))?;
            self.is_ours(id).then_some(id)?
        };
        Some(usize::from(id[0] & ENDPOINT_BITS))
    }

    fn is_ours(&self, id: &[u8]) -> bool {
        id.split_last_chunk().is_some_and(|(unchecked, check)| id.len() == ID_BYTES && *check == self.check(unchecked))
    }

    fn check(&self, unchecked: &[u8]) -> [u8; CHECK_BYTES] {
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&hmac::sign(&self.checks, unchecked).as_ref()[..CHECK_BYTES]);
        check
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id: [u8; ID_BYTES] = rand::random();
        id[0] = self.endpoint.unwrap_or(id[0]) & ENDPOINT_BITS;
        if let Some(ServerId(server)) = &self.server_id {
            id[0] |= ROUTABLE;
            id[1..=server.len()].copy_from_slice(server);
        } else {
            id[0] |= UNROUTABLE;
        }
        let (unchecked, check) = id.split_at_mut(ID_BYTES - CHECK_BYTES);
        check.copy_from_slice(&self.check(unchecked));
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if self.is_ours(id) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn ids(server_id: Option<&str>, key: &[u8]) -> ConnectionIds {
        let server_id = server_id.map(|text| ServerId::parse(text).unwrap());
        ConnectionIds { server_id, endpoint: None, checks: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    #[test]
    fn an_id_carries_the_servers_id_where_quic_lb_looks_for_it() {
        for (text, bytes) in [
            ("0x1122334455667788", &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88][..]),
            ("0xAb", &[0xab]),
            ("10.1.2.3", &[10, 1, 2, 3]),
        ] {
            let id = ids(Some(text), b"key").generate_cid();
            assert_eq!((id.len(), id[0] >> 5, &id[1..=bytes.len()]), (ID_BYTES, 0, bytes));
        }
        let id = ids(None, b"key").generate_cid();
        assert_eq!((id.len(), id[0] >> 5), (ID_BYTES, 7), "balancers must not route by it");
    }

    #[test]
    fn no_two_ids_are_alike_beyond_the_servers_id() {
        let mut ids = ids(Some("0x1122334455667788"), b"key");
        let made: Vec<_> = (0..1000).map(|_| ids.generate_cid()).collect();
        let distinct =
            |part: fn(&ConnectionId) -> &[u8]| made.iter().map(part).collect::<std::collections::BTreeSet<_>>().len();
        assert!(distinct(|id| &id[9..13]) >= 999, "the random part; one repetition in 8,000 runs is chance");
        assert_eq!(distinct(|id| &id[..1]), 32, "the first byte's random bits");
    }

    #[test]
    fn a_packet_goes_to_the_endpoint_that_made_its_id_and_one_with_the_clients_own_id_to_none() {
        let ids = ids(Some("0x01"), b"key");
        for endpoint in [0, 3, 31] {
            let id = ConnectionIds { endpoint: Some(endpoint), ..ids.clone() }.generate_cid();
            let short = [&[0x40][..], &id, b"sealed"].concat();
            let long = |id: &[u8]| [&[0xc0, 0, 0, 0, 1, u8::try_from(id.len()).unwrap()][..], id, b"sealed"].concat();
            assert_eq!(ids.endpoint_of(&short), Some(usize::from(endpoint)));
            assert_eq!(ids.endpoint_of(&long(&id)), Some(usize::from(endpoint)));
            for foreign in [&[7; ID_BYTES][..], &[7; 8], &[]] {
                assert_eq!(ids.endpoint_of(&long(foreign)), None);
            }
            for cut in [0, 1, 5, 6, ID_BYTES] {
                assert_eq!(ids.endpoint_of(&short[..cut]), None, "{cut}");
                assert_eq!(ids.endpoint_of(&long(&id)[..cut]), None, "{cut}");
            }
        }
    }

    #[test]
    fn the_ids_of_a_node_with_the_same_secret_are_known_and_no_others() {
        let ours = ids(Some("0x01"), b"key");
        for mut other in [ids(Some("0x02"), b"key"), ids(None, b"key"), ids(Some("10.1.2.3"), b"key")] {
            let id = other.generate_cid();
            ours.validate(&id).unwrap();
            for at in 0..ID_BYTES {
                let mut bent: [u8; ID_BYTES] = id[..].try_into().unwrap();
                bent[at] ^= 1;
                assert!(ours.validate(&ConnectionId::new(&bent)).is_err(), "byte {at}");
            }
            assert!(ours.validate(&ConnectionId::new(&id[..8])).is_err());
        }
        assert!(ours.validate(&ids(Some("0x01"), b"another").generate_cid()).is_err());
        assert!(ours.validate(&ConnectionId::new(&[])).is_err());
    }

    #[test]
    fn a_server_id_is_read_as_people_and_as_aws_write_it() {
        let aws = ServerId::from_base64("LWV1oW+gjqQ=").unwrap();
        assert_eq!(aws, ServerId::parse("0x2d6575a16fa08ea4").unwrap());
        for (wrong, why) in [
            ("zz", "neither 0x"),
            ("2d65", "neither 0x"),
            ("0X2d", "neither 0x"),
            ("fe80::1", "neither 0x"),
            ("10.1.2", "nor an IPv4 address"),
            ("pod-7", "nor an IPv4 address"),
            ("0xzz", "'z' is no digit"),
            ("0x2g", "'g' is no digit"),
            ("0x+1", "'+' is no digit"),
            ("0x 12", "' ' is no digit"),
            ("0x2\n", "'\\n' is no digit"),
            ("0xé", "'é' is no digit"),
            ("0x2d6", "an odd number of hex digits (3)"),
            ("0x", "0 bytes, not of 1-8"),
            ("0x112233445566778899", "9 bytes, not of 1-8"),
        ] {
            let error = ServerId::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains('\n'), "{wrong} says: {error}");
        }
        for hex in ["0x11", "0x1122334455667788"] {
            assert!(ServerId::from_base64(hex).unwrap_err().to_string().contains("hexadecimal"), "{hex}");
        }
        assert!(ServerId::from_base64("!").is_err() && ServerId::from_base64("").is_err());
        assert!(ServerId::from_base64("LWV1oW+gjqQtZQ==").is_err(), "ten bytes");
    }

    #[test]
    fn a_secret_is_long_and_silent() {
        assert!(SharedSecret::parse(&"x".repeat(31)).unwrap_err().to_string().contains("31 bytes, fewer than 32"));
        let secret = SharedSecret::parse(&"hush".repeat(8)).unwrap();
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
