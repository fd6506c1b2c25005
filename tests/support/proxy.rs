//! A TCP proxy under the test's thumb: what goes through it can be delayed, stalled, silenced and cut.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// In front of one server. Ends with the value.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    listening: JoinHandle<()>,
}

struct State {
    mode: watch::Sender<Mode>,
    delay: Mutex<Duration>,
    /// Times that all connections were forgotten.
    forgotten: watch::Sender<u32>,
    /// Times that all connections were closed.
    hung_up: watch::Sender<u32>,
    trap: Mutex<Option<(Vec<u8>, Trap)>>,
    /// Whether a trap has closed.
    trapped: watch::Sender<bool>,
    /// Whether what a trap holds may go on.
    released: watch::Sender<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    /// Connections stay, new ones are made, and nothing gets through, in either direction.
    Stalled,
    /// Requests pass, answers vanish.
    Mute,
    /// Everything passes but what Redis pushes to subscribers.
    Deaf,
    /// Connections are closed, and new ones at once.
    Cut,
}

/// A fault that certain words of the client set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trap {
    /// Everything is cut, and the server never hears them.
    CutBefore,
    /// Everything is cut, the server hears them, and the client hears no answer.
    CutAfter,
    /// They are on their way until [`Proxy::release`], whatever becomes of the client.
    Hold,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Open),
            delay: Mutex::default(),
            forgotten: watch::Sender::new(0),
            hung_up: watch::Sender::new(0),
            trap: Mutex::default(),
            trapped: watch::Sender::new(false),
            released: watch::Sender::new(false),
        });
        let listening = spawn(listen(listener, server, Arc::clone(&state)));
        Self { address, state, listening }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn cut(&self) {
        self.state.mode.send_replace(Mode::Cut);
    }

    pub(crate) fn stall(&self) {
        self.state.mode.send_replace(Mode::Stalled);
    }

    /// Answers vanish, requests don't. A connection that has lost an answer loses all later ones, healed or not.
    pub(crate) fn mute(&self) {
        self.state.mode.send_replace(Mode::Mute);
    }

    /// Drops Redis' pushes to subscribers, and nothing else.
    pub(crate) fn deafen(&self) {
        self.state.mode.send_replace(Mode::Deaf);
    }

    /// The connections there are end. New ones work.
    pub(crate) fn hang_up(&self) {
        self.state.hung_up.send_modify(|count| *count += 1);
    }

    /// Blackholes the present connections without RST or FIN, as a router does that lost its NAT table.
    /// New ones work.
    pub(crate) fn forget(&self) {
        self.state.forgotten.send_modify(|count| *count += 1);
    }

    /// Every piece of data takes so long, in each direction.
    pub(crate) fn delay(&self, by: Duration) {
        *self.state.delay.lock() = by;
    }

    /// All is well again; a trap that has not closed is taken away.
    pub(crate) fn heal(&self) {
        *self.state.trap.lock() = None;
        *self.state.delay.lock() = Duration::ZERO;
        self.state.trapped.send_replace(false);
        self.state.mode.send_replace(Mode::Open);
    }

    /// Closes once, on the first connection whose client says this.
    pub(crate) fn set_trap(&self, words: &str, trap: Trap) {
        self.state.released.send_replace(false);
        *self.state.trap.lock() = Some((words.as_bytes().to_vec(), trap));
    }

    /// Resolves when the trap has closed.
    pub(crate) async fn trapped(&self) {
        self.state.trapped.subscribe().wait_for(|trapped| *trapped).await.unwrap();
    }

    /// Lets go of what [`Trap::Hold`] holds.
    pub(crate) fn release(&self) {
        self.state.released.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

async fn listen(listener: TcpListener, server: SocketAddr, state: Arc<State>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        if *state.mode.borrow() == Mode::Cut {
            continue;
        }
        let state = Arc::clone(&state);
        spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else { return };
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let _ =
                tokio::join!(pump(from_client, to_server, &state, true), pump(from_server, to_client, &state, false));
        });
    }
}

/// Until one end closes or everything is cut.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State, asking: bool) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let known = *state.forgotten.borrow();
    let mut mode = state.mode.subscribe();
    let mut hung_up = state.hung_up.subscribe();
    let answered = *hung_up.borrow_and_update();
    let mut muted = false;
    loop {
        let count = tokio::select! {
            count = from.read(&mut buffer) => count?,
            _ = mode.wait_for(|mode| *mode == Mode::Cut) => return Ok(()),
            _ = hung_up.wait_for(|count| *count != answered) => return Ok(()),
        };
        if count == 0 {
            return Ok(());
        }
        let data = &buffer[..count];
        if asking && let Some(trap) = state.spring(data) {
            match trap {
                Trap::CutBefore => {
                    state.mode.send_replace(Mode::Cut);
                    return Ok(());
                }
                Trap::CutAfter => {
                    state.mode.send_replace(Mode::Cut);
                    return to.write_all(data).await;
                }
                Trap::Hold => {
                    let _ = state.released.subscribe().wait_for(|released| *released).await;
                }
            }
        }
        let delay = *state.delay.lock();
        tokio::time::sleep(delay).await;
        let now = *mode.wait_for(|mode| *mode != Mode::Stalled).await.expect("the proxy is there");
        match now {
            Mode::Cut => return Ok(()),
            // For good: the client would take a later answer for the one that vanished.
            Mode::Mute if !asking => muted = true,
            Mode::Deaf if !asking && is_pushed(data) => continue,
            _ => {}
        }
        if muted {
            continue;
        }
        if *state.forgotten.borrow() != known {
            let _ = mode.wait_for(|mode| *mode == Mode::Cut).await;
            return Ok(());
        }
        to.write_all(data).await?;
    }
}

/// A message of Redis to a subscriber: pushed (RESP3), to a plain channel or a sharded one.
fn is_pushed(data: &[u8]) -> bool {
    data.starts_with(b">3\r\n$7\r\nmessage\r\n") || data.starts_with(b">3\r\n$8\r\nsmessage\r\n")
}

impl State {
    fn spring(&self, data: &[u8]) -> Option<Trap> {
        let mut trap = self.trap.lock();
        let (_, kind) = trap.take_if(|(words, _)| data.windows(words.len()).any(|window| window == words))?;
        self.trapped.send_replace(true);
        Some(kind)
    }
}

#[expect(clippy::disallowed_methods, reason = "ends when the proxy is dropped")]
fn spawn<F: Future<Output = ()> + Send + 'static>(future: F) -> JoinHandle<()> {
    tokio::spawn(future)
}
