//! STUN and TURN servers for the members' WebRTC connections. TURN credentials follow the TURN REST convention
//! (draft-uberti-behave-turn-rest): the user name is an expiry, the password its HMAC under a secret shared with the
//! TURN server.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha1::Sha1;

use super::HttpState;
use crate::domain::RoomTime;

#[derive(Debug, Clone, Default)]
pub struct IceServers {
    /// `ICE_URLS`: without credentials.
    pub open: Vec<String>,
    /// `TURN_URLS`, `TURN_SECRET`, `TURN_TTL_SECS`.
    pub turn: Option<Turn>,
}

/// TURN servers that share one secret.
#[derive(Debug, Clone)]
pub struct Turn {
    pub urls: Vec<String>,
    pub secret: SecretString,
    pub ttl: Duration,
}

/// A list without credentials may be cached for this long.
const OPEN_TTL: Duration = Duration::from_secs(3600);

/// Reads a comma-separated list of URLs with one of these schemes.
pub fn parse_urls(list: &str, schemes: &[&str]) -> Result<Vec<String>, String> {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| match item.split_once(':') {
            Some((scheme, rest)) if schemes.contains(&scheme) && !rest.is_empty() && !rest.contains(' ') => {
                Ok(item.to_owned())
            }
            _ => Err(format!("{item:?} is not a URL that begins with {}:", schemes.join(": or "))),
        })
        .collect()
}

impl IceServers {
    /// The answer at `now`. `nonce` makes each caller's user name unique.
    fn answer(&self, now: RoomTime, nonce: u64) -> Value {
        let mut servers = Vec::new();
        if !self.open.is_empty() {
            servers.push(json!({ "urls": self.open }));
        }
        if let Some(turn) = &self.turn {
            let username = format!("{}:{nonce:016x}", (now + turn.ttl).as_millis() / 1000);
            let credential = credential(turn.secret.expose_secret(), &username);
            servers.push(json!({"urls": turn.urls, "username": username, "credential": credential}));
        }
        let ttl = self.turn.as_ref().map_or(OPEN_TTL, |turn| turn.ttl);
        json!({"iceServers": servers, "ttlSecs": ttl.as_secs()})
    }
}

fn credential(secret: &str, username: &str) -> String {
    // Can't fail: HMAC takes a key of any length.
    let Ok(mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else { return String::new() };
    STANDARD.encode(mac.chain_update(username.as_bytes()).finalize().into_bytes())
}

pub(super) async fn ice_servers(State(http): HttpState) -> Json<Value> {
    Json(http.ice.answer(http.clock.now(), rand::random()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credential_is_what_a_turn_server_computes() {
        // printf %s 1795003600:00000000000000ff | openssl dgst -sha1 -hmac north -binary | base64
        let turn = Turn {
            urls: vec!["turn:t.example".into()],
            secret: "north".to_owned().into(),
            ttl: Duration::from_secs(3600),
        };
        let servers = IceServers { open: vec!["stun:s.example".into()], turn: Some(turn) };
        let answer = servers.answer(RoomTime::from_millis(1_795_000_000_000), 255);
        assert_eq!(answer["iceServers"][0], json!({"urls": ["stun:s.example"]}));
        assert_eq!(answer["iceServers"][1]["username"], "1795003600:00000000000000ff");
        assert_eq!(answer["iceServers"][1]["credential"], "vO/Q6K+nHoIxu4lrTWzKyTe0kTc=");
        assert_eq!(answer["ttlSecs"], 3600);
    }

    #[test]
    fn nothing_configured_is_an_empty_list() {
        assert_eq!(IceServers::default().answer(RoomTime::default(), 0), json!({"iceServers": [], "ttlSecs": 3600}));
    }
}
