//! The people at one end of the line, in a process of their own: they join, tick at each other, and write down how old
//! each tick was that reached them.
//!
//! The parent gives the [`Party`] as an argument and waits for `joined` on standard output; `go` on standard input
//! starts the ticks; the [`Told`] of everybody is the last line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Digest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Carrier {
    /// Ticks as datagrams.
    WebTransport,
    /// Ticks as binary frames.
    WebSocket,
}

/// The members at one end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Party {
    pub(crate) server: Ipv4Addr,
    /// TCP and UDP.
    pub(crate) port: u16,
    pub(crate) certificate: PathBuf,
    pub(crate) members: Vec<Member>,
    /// Duration of the ticking.
    pub(crate) micros: u64,
    /// After the last tick: time for what is still on its way.
    pub(crate) patience_micros: u64,
}

/// One of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) user: String,
    pub(crate) room: String,
    pub(crate) carrier: Carrier,
    /// From one tick of it to the next.
    pub(crate) period_micros: u64,
    /// Phase of its ticks, so that no two members' fall together.
    pub(crate) phase_micros: u64,
}

/// The report of one member.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) slot: u16,
    /// Times of its ticks, µs.
    pub(crate) sent: Vec<i64>,
    pub(crate) heard: Vec<Heard>,
}

/// A tick that came.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Heard {
    pub(crate) slot: u16,
    /// Time of the tick, µs.
    pub(crate) at: i64,
    /// Time of arrival, µs.
    pub(crate) came: i64,
}

/// The program of the child process.
pub(crate) async fn attend(party: Party) -> Result<()> {
    // Some at a time: all handshakes at once would fill the line's queue.
    let joining = party.members.iter().map(|member| Seat::take(&party, member));
    let members: Vec<Seat> = futures_util::stream::iter(joining).buffered(8).try_collect().await?;
    println!("joined");
    let mut line = String::new();
    // Blocks this thread alone: the joined members run on the others.
    std::io::stdin().read_line(&mut line)?;
    if line.trim() != "go" {
        bail!("the parent is gone");
    }
    let began = tandem::clock::Clock::instant();
    let told = futures_util::future::try_join_all(members.into_iter().map(|seat| seat.sit(&party, began))).await?;
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}

/// µs since the Unix epoch, on the clock that all processes of this machine share.
#[expect(clippy::disallowed_methods, reason = "the ages are differences of this one clock, over three processes")]
fn wall() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

enum Sender {
    WebTransport(Box<web_transport_quinn::Session>),
    WebSocket(SplitSink<Socket, Message>),
}

/// A member that has joined.
struct Seat {
    member: Member,
    slot: u16,
    sender: Sender,
    ears: TaskTracker,
    /// Set when the reading shall end.
    enough: watch::Sender<bool>,
    heard: Arc<parking_lot::Mutex<Vec<Heard>>>,
    /// Kept: a stream that is dropped is finished.
    _control: Option<web_transport_quinn::SendStream>,
}

impl Seat {
    async fn take(party: &Party, member: &Member) -> Result<Self> {
        let (enough, until) = watch::channel(false);
        let (ears, heard) = (TaskTracker::new(), Arc::default());
        let ear = Ear { heard: Arc::clone(&heard), until };
        let join = serde_json::json!({
            "type": "JOIN", "protocol": 3, "roomId": member.room, "userId": member.user, "username": member.user,
        });
        let (state, sender, control) = match member.carrier {
            Carrier::WebSocket => {
                let (mut sink, mut stream) = web_socket(party).await?.split();
                sink.send(Message::text(join.to_string())).await?;
                let state = first_text(&mut stream).await?;
                ears.spawn(ear.web_socket(stream));
                (state, Sender::WebSocket(sink), None)
            }
            Carrier::WebTransport => {
                let session = web_transport(party).await?;
                let (mut control, mut messages) = session.open_bi().await?;
                let text = join.to_string();
                control.write_all(&(text.len() as u32).to_be_bytes()).await?;
                control.write_all(text.as_bytes()).await?;
                let state = message(&mut messages).await?;
                ears.spawn(ear.web_transport(session.clone()));
                // Read to the end, so that the stream's window never closes.
                ears.spawn(async move { while message(&mut messages).await.is_ok() {} });
                (state, Sender::WebTransport(Box::new(session)), Some(control))
            }
        };
        if state["type"] != "ROOM_STATE" {
            bail!("{state} instead of ROOM_STATE");
        }
        let slot = state["slot"].as_u64().and_then(|slot| u16::try_from(slot).ok()).context("no slot")?;
        let member = member.clone();
        Ok(Self { member, slot, sender, ears, enough, heard, _control: control })
    }

    async fn sit(mut self, party: &Party, began: tokio::time::Instant) -> Result<Told> {
        let mut sent = Vec::new();
        let Member { phase_micros, period_micros, .. } = self.member;
        for (number, due) in (phase_micros..party.micros).step_by(period_micros as usize).enumerate() {
            tokio::time::sleep_until(began + Duration::from_micros(due)).await;
            let at = wall();
            self.sender.tick(number as u32, at).await?;
            sent.push(at);
        }
        tokio::time::sleep(Duration::from_micros(party.patience_micros)).await;
        self.enough.send_replace(true);
        if let Sender::WebTransport(session) = &self.sender {
            session.close(1000, b"");
        }
        drop(self.sender);
        self.ears.close();
        self.ears.wait().await;
        let heard = std::mem::take(&mut *self.heard.lock());
        Ok(Told { slot: self.slot, sent, heard })
    }
}

impl Sender {
    async fn tick(&mut self, number: u32, at: i64) -> Result<()> {
        // A standing player at 0: the room doesn't move, and nothing is there to be corrected.
        let mut tick = vec![3, 0, 0, 0];
        tick.extend(number.to_be_bytes());
        tick.extend(0_f64.to_be_bytes());
        tick.extend((at as f64 / 1000.0).to_be_bytes());
        tick.extend(1_f32.to_be_bytes());
        match self {
            Self::WebTransport(session) => session.send_datagram(Bytes::from(tick))?,
            Self::WebSocket(sink) => sink.send(Message::binary(tick)).await?,
        }
        Ok(())
    }
}

/// Writes down what comes.
struct Ear {
    heard: Arc<parking_lot::Mutex<Vec<Heard>>>,
    until: watch::Receiver<bool>,
}

impl Ear {
    fn hear(&self, frame: &[u8]) {
        let came = wall();
        tandem::protocol::unbundled(frame).into_iter().for_each(|compact| self.hear_one(compact, came));
    }

    fn hear_one(&self, compact: &[u8], came: i64) {
        let (Some(&3), Some(slot), Some(at)) = (compact.first(), compact.get(2..4), compact.get(16..24)) else {
            return;
        };
        let (Ok(slot), Ok(at)) = (slot.try_into(), at.try_into()) else { return };
        let at = (f64::from_be_bytes(at) * 1000.0).round() as i64;
        self.heard.lock().push(Heard { slot: u16::from_be_bytes(slot), at, came });
    }

    async fn web_socket(mut self, mut stream: SplitStream<Socket>) {
        loop {
            let message = tokio::select! {
                message = stream.next() => message,
                _ = self.until.changed() => return,
            };
            match message {
                Some(Ok(Message::Binary(compact))) => self.hear(&compact),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
        }
    }

    async fn web_transport(self, session: web_transport_quinn::Session) {
        while let Ok(datagram) = session.read_datagram().await {
            self.hear(&datagram);
        }
    }
}

async fn web_socket(party: &Party) -> Result<Socket> {
    let stream = TcpStream::connect(SocketAddr::from((party.server, party.port))).await?;
    // As browsers do.
    stream.set_nodelay(true)?;
    let name = rustls::pki_types::ServerName::try_from("localhost")?;
    let secured = tokio_rustls::TlsConnector::from(Arc::new(trust(&party.certificate)?)).connect(name, stream).await?;
    let (socket, _) = tokio_tungstenite::client_async(format!("wss://localhost:{}/ws", party.port), secured).await?;
    Ok(socket)
}

async fn web_transport(party: &Party) -> Result<web_transport_quinn::Session> {
    let hash = sha2::Sha256::digest(certificate(&party.certificate)?).to_vec();
    let client = web_transport_quinn::ClientBuilder::new().with_server_certificate_hashes(vec![hash])?;
    let url: url::Url = format!("https://{}:{}/wt", party.server, party.port).parse()?;
    Ok(client.connect(url).await?)
}

fn certificate(path: &Path) -> Result<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    Ok(rustls::pki_types::CertificateDer::from_pem_file(path)?)
}

fn trust(path: &Path) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(path)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

async fn first_text(stream: &mut SplitStream<Socket>) -> Result<Value> {
    while let Some(message) = stream.next().await {
        if let Message::Text(text) = message? {
            return Ok(serde_json::from_str(&text)?);
        }
    }
    bail!("the connection ended")
}

/// The next message of a control stream.
async fn message(stream: &mut web_transport_quinn::RecvStream) -> Result<Value> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut message = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut message).await?;
    Ok(serde_json::from_slice(&message)?)
}
