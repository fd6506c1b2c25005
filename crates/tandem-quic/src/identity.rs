//! What lets several nodes stand behind one UDP address, and a restarted one be told from its predecessor.
//!
//! **Connection ids** name their node in the plain form of QUIC-LB (draft-ietf-quic-load-balancers), which is what AWS's
//! NLB reads. 16 bytes, whatever the settings, because a packet of an established connection doesn't say how long its id is:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | three bits of configuration: 0, or 7 where there is no server id (nobody can route by it); five that are random, or the number of the endpoint where several share the port |
//! | 0–8 | the server id |
//! | 4–12 | random |
//! | 3 | a keyed check sum: ids that no node of ours has made are not answered |
//!
//! **Keys** come from one secret that all nodes have. A node that gets a packet of a connection that it doesn't know
//! answers with a stateless reset, which the client believes, because it carries the token that the other node (or this
//! one, before it was restarted) had announced: the client learns in one round trip what it would otherwise conclude from
//! silence. Likewise a Retry token of one node is good on another. The price is in `docs/SECURITY.md`.
//!
//! Without a secret the keys are random, and a foreign packet is met with silence.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, EndpointConfig, InvalidCid, ServerConfig};
use ring::{hkdf, hmac};
use secrecy::{ExposeSecret, SecretString};

use super::BindError;

/// Bytes of a connection id.
const ID_BYTES: usize = 16;
/// Bytes of its check sum.
const CHECK_BYTES: usize = 3;
/// Leaves four random bytes, the least that QUIC-LB allows.
const MAX_SERVER_ID_BYTES: usize = 8;
/// The configuration's number in the first byte; balancers begin with it.
const ROUTABLE: u8 = 0b000 << 5;
/// QUIC-LB's sign for "not by the id".
const UNROUTABLE: u8 = 0b111 << 5;
const ENDPOINT_BITS: u8 = 0b0001_1111;
/// Endpoints of a port that can be told apart.
pub const MAX_ENDPOINTS: usize = ENDPOINT_BITS as usize + 1;

/// When a node goes, all its clients turn up elsewhere at once, and each must be answered before its connection would time
/// out anyway. Any interval above zero lets quinn answer one packet of a batch that it reads together, and its default of
/// 20 ms would take minutes. Floods gain nothing without it: a reset is smaller than what asked for it, and only an
/// id with the right check sum gets one, so two servers can't reset each other's resets either.
const RESET_INTERVAL: Duration = Duration::ZERO;

/// This node among those behind the same address.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// What a load balancer finds in our connection ids.
    pub server_id: Option<ServerId>,
    /// What all nodes know.
    pub secret: Option<SharedSecret>,
}

/// The name by which a load balancer knows a node: 1–8 bytes, no other node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerId(Box<[u8]>);

impl ServerId {
    /// `0x` and hex digits, as load balancers show it, or an IPv4 address for its four bytes.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Self::new(&address.octets());
        }
        let Some(digits) = text.strip_prefix("0x") else {
            return Err("neither 0x and hex digits, such as 0x2d65, nor an IPv4 address".to_owned());
        };
        if let Some(other) = digits.chars().find(|digit| !digit.is_ascii_hexdigit()) {
            return Err(format!("not hexadecimal: {other:?} is no digit of it"));
        }
        if digits.len() % 2 == 1 {
            return Err(format!("an odd number of hex digits ({}); two make a byte", digits.len()));
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let pairs = digits.as_bytes().as_chunks::<2>().0.iter();
        let bytes: Vec<_> = pairs.filter_map(|&[high, low]| Some(value(high)? << 4 | value(low)?)).collect();
        Self::new(&bytes)
    }

    /// As the AWS Load Balancer Controller puts it into a pod's environment.
    pub fn from_base64(text: &str) -> Result<Self, String> {
        // Some hex is base64 too, of other bytes. The controller's eight bytes end with a `=`.
        if text.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            return Err("hexadecimal, as QUIC_SERVER_ID takes it; the controller writes base64".to_owned());
        }
        Self::new(&STANDARD.decode(text).map_err(|_| "not base64, in which the controller writes it".to_owned())?)
    }

    fn new(bytes: &[u8]) -> Result<Self, String> {
        if (1..=MAX_SERVER_ID_BYTES).contains(&bytes.len()) {
            return Ok(Self(bytes.into()));
        }
        Err(format!("a server id of {} bytes, not of 1-{MAX_SERVER_ID_BYTES}", bytes.len()))
    }
}

/// What the nodes' common keys are made of. It doesn't print itself.
#[derive(Debug, Clone)]
pub struct SharedSecret(SecretString);

impl SharedSecret {
    /// Any text of 32 bytes or more. Whoever knows it can end everybody's connections.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() < 32 {
            let given = text.len();
            return Err(format!("{given} bytes, fewer than 32; `openssl rand -hex 32` makes a good one"));
        }
        Ok(Self(SecretString::from(text)))
    }
}

/// What the endpoints of a port are made with.
pub(super) struct Endpoints {
    /// One for each.
    pub(super) configs: Vec<Arc<EndpointConfig>>,
    /// Tells them apart, if there are several.
    pub(super) ids: Option<Ids>,
}

impl Identity {
    /// Gives the server its token key, the endpoints their reset key and their ids. Nothing is set, and one endpoint:
    /// quinn's own, at random.
    pub(super) fn endpoints(&self, server: &mut ServerConfig, count: usize) -> Result<Endpoints, BindError> {
        let several = count > 1;
        if self.server_id.is_none() && self.secret.is_none() && !several {
            return Ok(Endpoints { configs: vec![Arc::new(EndpointConfig::default())], ids: None });
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
        let ids = Ids { server_id: self.server_id.clone(), endpoint: None, checks };
        let config = |number| {
            let ids = Ids { endpoint: several.then_some(number), ..ids.clone() };
            let mut config = EndpointConfig::new(Arc::clone(&resets) as _);
            config.min_reset_interval(RESET_INTERVAL).cid_generator(move || Box::new(ids.clone()));
            Arc::new(config)
        };
        let configs = (0..=ENDPOINT_BITS).take(count).map(config).collect();
        Ok(Endpoints { configs, ids: several.then_some(ids) })
    }
}

/// Makes connection ids, and knows those of all nodes with the same secret.
#[derive(Clone)]
pub(super) struct Ids {
    server_id: Option<ServerId>,
    /// Whose connections these are, if several endpoints share the port.
    endpoint: Option<u8>,
    checks: hmac::Key,
}

impl Ids {
    /// The endpoint to whose connection a packet belongs, if it is one of a connection of ours.
    ///
    /// The id of a short header is looked at without its check sum: a made-up one is nobody's anywhere. In a long header
    /// it may be the client's choice.
    pub(super) fn endpoint_of(&self, packet: &[u8]) -> Option<usize> {
        const LONG_HEADER: u8 = 0x80;
        // RFC 9000 §17: flags, in a long header version and length, then the destination's id.
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

impl ConnectionIdGenerator for Ids {
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

    fn ids(server_id: Option<&str>, key: &[u8]) -> Ids {
        let server_id = server_id.map(|text| ServerId::parse(text).unwrap());
        Ids { server_id, endpoint: None, checks: hmac::Key::new(hmac::HMAC_SHA256, key) }
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
            let id = Ids { endpoint: Some(endpoint), ..ids.clone() }.generate_cid();
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
            let error = ServerId::parse(wrong).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{wrong} says: {error}");
        }
        for hex in ["0x11", "0x1122334455667788"] {
            assert!(ServerId::from_base64(hex).unwrap_err().contains("hexadecimal"), "{hex}");
        }
        assert!(ServerId::from_base64("!").is_err() && ServerId::from_base64("").is_err());
        assert!(ServerId::from_base64("LWV1oW+gjqQtZQ==").is_err(), "ten bytes");
    }

    #[test]
    fn a_secret_is_long_and_silent() {
        assert!(SharedSecret::parse(&"x".repeat(31)).unwrap_err().contains("31 bytes, fewer than 32"));
        let secret = SharedSecret::parse(&"hush".repeat(8)).unwrap();
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
