//! A TCP proxy that makes trouble on the way.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the proxy does with every connection, the present ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "not every test binary makes every trouble")]
pub(crate) enum Way {
    /// Both directions pass.
    Open,
    /// Requests pass; answers vanish.
    Mute,
    /// New connections are closed at once.
    Shut,
    /// Everything passes but what Redis pushes to subscribers.
    Deaf,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    /// Ends the present connections.
    cut: Arc<Mutex<CancellationToken>>,
    _stop: DropGuard,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let stop = CancellationToken::new();
        let cut = Arc::new(Mutex::new(CancellationToken::new()));
        let (ways, cuts, stopped) = (Arc::clone(&way), Arc::clone(&cut), stop.clone());
        let accept = async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *ways.borrow() == Way::Shut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
                tokio::spawn(cuts.lock().clone().run_until_cancelled_owned(carry(client, server, ways.subscribe())));
            }
        };
        #[expect(clippy::disallowed_methods, reason = "stopped on drop")]
        tokio::spawn(stopped.run_until_cancelled_owned(accept));
        Self { address, way, cut, _stop: stop.drop_guard() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the present connections. New ones are taken.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock()).cancel();
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mut ways: watch::Receiver<Way>) {
    let (mut to_server, mut to_client) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            changed = ways.changed() => if changed.is_err() { return },
            read = client.read(&mut to_server) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => if server.write_all(&to_server[..count]).await.is_err() { return },
            },
            read = server.read(&mut to_client) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let pass = match *ways.borrow() {
                        Way::Deaf => !to_client[..count].starts_with(b">3\r\n$7\r\nmessage\r\n"),
                        way => way == Way::Open,
                    };
                    if pass && client.write_all(&to_client[..count]).await.is_err() {
                        return;
                    }
                }
            },
        }
    }
}
