//! `NODE_URL`: the address of one node of a cluster, beside the address that all nodes share.
//!
//! Each node publishes its own address in its report, through Redis; `/api/transports` lists those of the live nodes. A
//! client whose node is gone reconnects to one of them.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use url::Url;

/// An `http` or `https` address with the node's path. With `https`, WebTransport is at the same port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUrl(Url);

impl NodeUrl {
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        let bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || !bare {
            return Err("not an http(s) address such as https://b.example:4433".to_owned());
        }
        Ok(Self(url))
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Addresses for clients. `quic`: where QUIC is bound, unless it is off; an `https` address may be published on
    /// another port. `hashes`: of a self-signed certificate.
    pub fn endpoints(&self, quic: Option<SocketAddr>, hashes: &[[u8; 32]]) -> NodeEndpoints {
        let mut socket = self.0.clone();
        // Can't fail: the URL standard allows a change between special schemes.
        let _ = socket.set_scheme(if self.0.scheme() == "https" { "wss" } else { "ws" });
        socket.set_path(&format!("{}/ws", self.0.path().trim_end_matches('/')));
        let web_transport = quic.map(|quic| {
            let mut url = self.0.clone();
            let port = quic.port();
            if quic.is_ipv4() && self.0.host_str() == Some("localhost") {
                // As in /api/transports: for QUIC, browsers try only the first address of a name.
                let _ = url.set_host(Some("127.0.0.1"));
            }
            let _ = url.set_scheme("https");
            let _ = url.set_port(Some(if self.0.scheme() == "https" { self.0.port().unwrap_or(443) } else { port }));
            url.set_path("/wt");
            Endpoint { url: url.to_string(), server_certificate_hashes: hashes.iter().map(Hash::of).collect() }
        });
        NodeEndpoints { web_transport, web_socket: Endpoint { url: socket.to_string(), ..Endpoint::default() } }
    }
}

/// Another node, as `/api/transports` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEndpoints {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    web_transport: Option<Endpoint>,
    web_socket: Endpoint,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    url: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    server_certificate_hashes: Vec<Hash>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

impl Hash {
    fn of(hash: &[u8; 32]) -> Self {
        Self { algorithm: "sha-256".to_owned(), value: STANDARD.encode(hash) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::NodeUrl;

    fn endpoints(url: &str, quic: Option<u16>, hashes: &[[u8; 32]]) -> Value {
        let quic = quic.map(|port| ([0, 0, 0, 0], port).into());
        serde_json::to_value(NodeUrl::parse(url).unwrap().endpoints(quic, hashes)).unwrap()
    }

    #[test]
    fn a_nodes_address_leads_to_both_transports() {
        assert_eq!(
            endpoints("https://b.example:4433", Some(4433), &[]),
            json!({"webTransport": {"url": "https://b.example:4433/wt"}, "webSocket": {"url": "wss://b.example:4433/ws"}})
        );
        assert_eq!(
            endpoints("http://localhost:4002/watch/", Some(4434), &[[0; 32]]),
            json!({
                "webTransport": {"url": "https://127.0.0.1:4434/wt", "serverCertificateHashes": [
                    {"algorithm": "sha-256", "value": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]},
                "webSocket": {"url": "ws://localhost:4002/watch/ws"},
            })
        );
        assert_eq!(endpoints("https://b.example", None, &[]), json!({"webSocket": {"url": "wss://b.example/ws"}}));
        assert_eq!(
            endpoints("https://b.example", Some(4433), &[])["webTransport"]["url"],
            json!("https://b.example/wt"),
            "published on 443"
        );
    }

    #[test]
    fn what_is_no_address_of_a_server_is_refused() {
        for wrong in
            ["b.example", "wss://b.example", "https://b.example/?a", "https://u@b.example", "https://b.example/#a"]
        {
            assert!(NodeUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
