//! An echo server for browsers: `cargo run -p tandem-webtransport --example echo` prints what to paste into a console.
#[path = "echo/certificate.rs"]
mod certificate;
use futures_util::future::BoxFuture;
use tandem_webtransport::quic::{QuicListener, QuicOptions};
use tandem_webtransport::{Application, Datagram, Received, SessionRefusal, WebTransportServer, WebTransportSession};

#[derive(Clone)]
struct Echo;

impl Application for Echo {
    type Permit = ();
    fn admit(&self, _: std::net::IpAddr) -> Result<(), SessionRefusal> {
        Ok(())
    }

    fn serve(&self, session: WebTransportSession, (): ()) -> BoxFuture<'static, ()> {
        let (mut reader, mut writer) = session.split();
        Box::pin(async move {
            while let Ok(received) = reader.next().await {
                match received {
                    Received::Message(message) => drop((writer.queue(message), writer.flush().await)),
                    Received::Datagram(payload) => drop(writer.datagrams().try_send(&Datagram::new(&payload))),
                    Received::Closed(code) => return writer.close(code, "").await,
                }
            }
        })
    }
}

#[tokio::main]
async fn main() {
    let (certificates, hash) = certificate::self_signed();
    let listener =
        QuicListener::bind(certificate::address(), certificates, QuicOptions::default()).expect("a free port");
    println!("{}", certificate::snippet(&hash, listener.local_addr()));
    let (tracker, stop) = Default::default();
    let drivers = tandem_webtransport::serve(listener, WebTransportServer::new("/echo", Echo), &tracker, stop);
    futures_util::future::join_all(drivers).await;
}
