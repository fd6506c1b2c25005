//! The UDP sockets of a port and their buffers.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::task::{Context, Poll, ready};

use quinn_proto::Transmit;
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;

use crate::BindError;

/// A socket of an endpoint.
#[derive(Debug)]
pub(super) struct QuicSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
}

impl QuicSocket {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { io: tokio::net::UdpSocket::from_std(socket)?, state })
    }

    /// Reads a batch of at least one packet and at most one for each buffer.
    pub(super) fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(context))?;
            let mut count = 0;
            let read = self.io.try_io(Interest::READABLE, || {
                count = self.state.recv((&self.io).into(), buffers, metas)?;
                // A batch that is not full has emptied the socket: clearing readiness here saves the call that would
                // say so.
                if count < buffers.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match read {
                Ok(()) => return Poll::Ready(Ok(count)),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                Err(_) if count > 0 => return Poll::Ready(Ok(count)),
                Err(_) => {}
            }
        }
    }

    /// Sends a packet, or several of one connection. Errors of the network (ICMP, no route) are not reported: UDP may
    /// lose anything.
    pub(super) fn try_send(&self, transmit: &Transmit, contents: &[u8]) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &contents[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        self.io.try_io(Interest::WRITABLE, || self.state.send((&self.io).into(), &transmit))
    }

    pub(super) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_send_ready(context)
    }

    /// Packets that the kernel may join into one buffer (GRO).
    pub(super) fn receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    /// Whether routers may fragment packets, i.e. the don't-fragment bit can't be set.
    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Opens `count` sockets on one port, which no other process may have.
pub(super) fn open(mut address: SocketAddr, count: usize, buffer_bytes: usize) -> Result<Vec<UdpSocket>, BindError> {
    if count == 1 {
        return Ok(vec![open_one(address, false, buffer_bytes)?]);
    }
    // SO_REUSEPORT lets another process of the same user share the port, and take packets away. A socket without it can
    // be bound only if nobody has the port.
    let alone = open_one(address, false, 0)?;
    address =
        alone.local_addr().map_err(|source| BindError::Socket { address, doing: "reading the address", source })?;
    drop(alone);
    (0..count).map(|_| open_one(address, true, buffer_bytes)).collect()
}

fn open_one(address: SocketAddr, shared: bool, buffer_bytes: usize) -> Result<UdpSocket, BindError> {
    let failed = |doing| move |source| BindError::Socket { address, doing, source };
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(failed("opening the socket"))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // `::` accepts IPv4 too, whatever the system's default is.
        socket.set_only_v6(false).map_err(failed("making it dual-stack"))?;
    }
    if shared {
        socket.set_reuse_port(true).map_err(failed("sharing the port"))?;
    }
    socket.bind(&address.into()).map_err(failed("binding"))?;
    if buffer_bytes > 0 {
        size_buffers(&socket, buffer_bytes);
    }
    Ok(socket.into())
}

/// One socket carries all clients, so a burst of theirs must fit into its buffers. A smaller buffer is only warned
/// about.
fn size_buffers(socket: &socket2::Socket, wanted: usize) {
    let received = socket.set_recv_buffer_size(wanted).and_then(|()| socket.recv_buffer_size());
    let sent = socket.set_send_buffer_size(wanted).and_then(|()| socket.send_buffer_size());
    for (buffer, result, setting) in [("receive", received, "net.core.rmem_max"), ("send", sent, "net.core.wmem_max")] {
        match result.map(usable) {
            Ok(size) if size >= wanted => tracing::debug!(buffer, size, "UDP socket buffer"),
            Ok(size) => tracing::warn!(
                buffer,
                size,
                wanted,
                "the kernel clamps the UDP socket buffer; under load it drops packets. Raise {setting}"
            ),
            Err(error) => tracing::warn!(buffer, wanted, %error, "can't size the UDP socket buffer"),
        }
    }
}

/// Linux reports twice the size that was set, which includes its bookkeeping (socket(7), SO_RCVBUF).
fn usable(reported: usize) -> usize {
    if cfg!(target_os = "linux") { reported / 2 } else { reported }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::Write;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The log lines of opening a socket with such buffers.
    fn warnings(buffer_bytes: usize) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let socket = tracing::dispatcher::with_default(&tracing::Dispatch::new(subscriber), || {
            open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1, buffer_bytes).unwrap().remove(0)
        });
        assert_ne!(socket.local_addr().unwrap().port(), 0);
        String::from_utf8(lines.0.lock().clone()).unwrap()
    }

    #[test]
    fn buffers_that_the_kernel_clamps_are_warned_about_with_the_setting_to_raise_and_the_socket_serves() {
        // No kernel allows half a GiB by itself.
        let said = warnings(1 << 29);
        for setting in ["net.core.rmem_max", "net.core.wmem_max"] {
            assert!(said.contains(&format!("Raise {setting}")), "{said}");
        }
        assert_eq!(warnings(16 << 10), "");
    }

    #[test]
    fn several_sockets_share_a_port_that_no_other_process_can_have() {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sockets = open(anywhere, 3, 0).unwrap();
        let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
        for count in [1, 3] {
            let error = open(addresses[0], count, 0).unwrap_err().to_string();
            assert!(error.contains("in use"), "{count}: {error}");
        }
    }
}
