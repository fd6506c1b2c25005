//! A client's connection over any transport: one way to send, one queue of incoming messages.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::server::Place;

/// Transport and client library of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    WebSocket,
    /// WebTransport by `web-transport-quinn`.
    Quinn,
    /// WebTransport by `wtransport`.
    Wtransport,
}

impl Carrier {
    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Quinn | Self::Wtransport => "webtransport",
        }
    }
}

/// One message that arrived, or the end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    Message(Value),
    Compact(Vec<u8>),
    /// The end, with code and reason; `None`: without a word.
    Closed(Option<(u32, String)>),
}

/// The sending half of a connection.
pub(crate) enum CarrierLink {
    WebSocket(SplitSink<WebSocketStream<MaybeTlsStream<TcpStream>>, Message>),
    Quinn(Box<(web_transport_quinn::Session, web_transport_quinn::SendStream)>),
    Wtransport(Arc<wtransport::Connection>, wtransport::SendStream),
}

/// A connection that was made.
pub(crate) struct Connected {
    pub(crate) link: CarrierLink,
    pub(crate) inbox: mpsc::Receiver<Incoming>,
    /// Dropping it stops the reader.
    pub(crate) reading: DropGuard,
}

impl Connected {
    /// So much may wait in the inbox.
    pub(crate) async fn by(carrier: Carrier, place: &Place, inbox: usize) -> Result<Self, String> {
        let (sender, inbox) = mpsc::channel(inbox);
        let pumps = TaskTracker::new();
        let stop = CancellationToken::new();
        let link = match carrier {
            Carrier::WebSocket => {
                let url = format!("ws://{}/ws", place.plain);
                let (stream, _) = tokio_tungstenite::connect_async(url).await.map_err(|error| error.to_string())?;
                let (sink, mut frames) = stream.split();
                pumps.spawn(stop.clone().run_until_cancelled_owned(async move {
                    'frames: loop {
                        let incoming = match frames.next().await {
                            Some(Ok(Message::Text(text))) => Incoming::Message(serde_json::from_str(&text).unwrap()),
                            Some(Ok(Message::Binary(bytes))) => {
                                for part in tandem::protocol::unbundled(&bytes) {
                                    if sender.send(Incoming::Compact(part.to_vec())).await.is_err() {
                                        break 'frames;
                                    }
                                }
                                continue;
                            }
                            Some(Ok(Message::Close(frame))) => {
                                let frame = frame.map(|frame| (u16::from(frame.code).into(), frame.reason.to_string()));
                                let _ =
                                    sender.send(Incoming::Closed(Some(frame.unwrap_or((1005, String::new()))))).await;
                                // The answer to it goes out with the next read.
                                while let Some(Ok(_)) = frames.next().await {}
                                return;
                            }
                            Some(Ok(_)) => continue,
                            Some(Err(_)) | None => Incoming::Closed(None),
                        };
                        let end = matches!(incoming, Incoming::Closed(_));
                        if sender.send(incoming).await.is_err() || end {
                            return;
                        }
                    }
                }));
                CarrierLink::WebSocket(sink)
            }
            Carrier::Quinn => {
                let client = web_transport_quinn::ClientBuilder::new()
                    .with_server_certificate_hashes(hashes(place).await?)
                    .map_err(|error| error.to_string())?;
                let url: url::Url = format!("https://127.0.0.1:{}/wt", place.secure.port()).parse().unwrap();
                let session = client.connect(url).await.map_err(|error| error.to_string())?;
                let (send, mut recv) = session.open_bi().await.map_err(|error| error.to_string())?;
                let (stream, datagrams, messages) = (session.clone(), session.clone(), sender.clone());
                pumps.spawn(stop.clone().run_until_cancelled_owned(async move {
                    if read_messages(&mut recv, &messages).await.is_err() {
                        return;
                    }
                    let end = match stream.closed().await {
                        web_transport_quinn::SessionError::WebTransportError(
                            web_transport_quinn::WebTransportError::Closed(code, reason),
                        ) => Some((code, reason)),
                        _ => None,
                    };
                    let _ = messages.send(Incoming::Closed(end)).await;
                }));
                pumps.spawn(stop.clone().run_until_cancelled_owned(async move {
                    while let Ok(datagram) = datagrams.read_datagram().await {
                        for part in tandem::protocol::unbundled(&datagram) {
                            if sender.send(Incoming::Compact(part.to_vec())).await.is_err() {
                                return;
                            }
                        }
                    }
                }));
                CarrierLink::Quinn(Box::new((session, send)))
            }
            Carrier::Wtransport => {
                let digest = |hash: Vec<u8>| wtransport::tls::Sha256Digest::new(hash.try_into().unwrap());
                let config = wtransport::ClientConfig::builder()
                    .with_bind_address(([127, 0, 0, 1], 0).into())
                    .with_server_certificate_hashes(hashes(place).await?.into_iter().map(digest))
                    .build();
                let endpoint = wtransport::Endpoint::client(config).map_err(|error| error.to_string())?;
                let url = format!("https://127.0.0.1:{}/wt", place.secure.port());
                let connection = endpoint.connect(url).await.map_err(|error| error.to_string())?;
                let opening = connection.open_bi().await.map_err(|error| error.to_string())?;
                let (send, mut recv) = opening.await.map_err(|error| error.to_string())?;
                let connection = Arc::new(connection);
                let (stream, datagrams, messages) = (Arc::clone(&connection), Arc::clone(&connection), sender.clone());
                pumps.spawn(stop.clone().run_until_cancelled_owned(async move {
                    if read_messages(&mut recv, &messages).await.is_err() {
                        return;
                    }
                    // This client doesn't tell the capsule's code, only that the session is over.
                    let _ = stream.closed().await;
                    let _ = messages.send(Incoming::Closed(None)).await;
                }));
                pumps.spawn(stop.clone().run_until_cancelled_owned(async move {
                    while let Ok(datagram) = datagrams.receive_datagram().await {
                        for part in tandem::protocol::unbundled(&datagram) {
                            if sender.send(Incoming::Compact(part.to_vec())).await.is_err() {
                                return;
                            }
                        }
                    }
                }));
                CarrierLink::Wtransport(connection, send)
            }
        };
        Ok(Self { link, inbox, reading: stop.drop_guard() })
    }
}

impl CarrierLink {
    /// Sends text as it is. `false`: the connection is gone.
    pub(crate) async fn send(&mut self, text: &str) -> bool {
        let framed = || [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
        match self {
            Self::WebSocket(sink) => sink.send(Message::text(text)).await.is_ok(),
            Self::Quinn(link) => link.1.write_all(&framed()).await.is_ok(),
            Self::Wtransport(_, stream) => stream.write_all(&framed()).await.is_ok(),
        }
    }

    /// `false`: the connection is gone.
    pub(crate) async fn send_compact(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::WebSocket(sink) => sink.send(Message::binary(bytes.to_vec())).await.is_ok(),
            Self::Quinn(link) => link.0.send_datagram(Bytes::copy_from_slice(bytes)).is_ok(),
            Self::Wtransport(connection, _) => connection.send_datagram(bytes).is_ok(),
        }
    }

    /// Ends in order.
    pub(crate) async fn close(&mut self) {
        match self {
            Self::WebSocket(sink) => drop(sink.send(Message::Close(None)).await),
            Self::Quinn(link) => {
                link.0.close(1000, b"bye");
                link.0.closed().await;
            }
            // It has no capsule; FIN of the control stream and the end of the connection are what it can say.
            Self::Wtransport(connection, _) => connection.close(wtransport::VarInt::from_u32(0), b"bye"),
        }
    }
}

async fn hashes(place: &Place) -> Result<Vec<Vec<u8>>, String> {
    use base64::Engine;
    let transports = place.try_get_json("/api/transports").await?;
    let hashes = transports["webtransport"]["serverCertificateHashes"].as_array().ok_or("no hashes")?;
    let decode =
        |hash: &Value| base64::engine::general_purpose::STANDARD.decode(hash["value"].as_str().unwrap()).unwrap();
    Ok(hashes.iter().map(decode).collect())
}

/// Hands on the messages of a control stream until it ends. An error: the receiver is gone.
async fn read_messages(
    stream: &mut (impl AsyncRead + Unpin),
    messages: &mpsc::Sender<Incoming>,
) -> Result<(), mpsc::error::SendError<Incoming>> {
    loop {
        let mut length = [0; 4];
        if stream.read_exact(&mut length).await.is_err() {
            return Ok(());
        }
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        if stream.read_exact(&mut message).await.is_err() {
            return Ok(());
        }
        messages.send(Incoming::Message(serde_json::from_slice(&message).unwrap())).await?;
    }
}
