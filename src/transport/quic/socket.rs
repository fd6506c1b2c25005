//! The UDP socket and its buffers.

use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::BindError;

pub(super) fn open(address: SocketAddr, buffer_bytes: usize) -> Result<UdpSocket, BindError> {
    let failed = |doing| move |source| BindError::Socket { address, doing, source };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(failed("opening the socket"))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // `::` means everything, IPv4 too, whatever the system's default is.
        socket.set_only_v6(false).map_err(failed("making it dual-stack"))?;
    }
    socket.bind(&address.into()).map_err(failed("binding"))?;
    size_buffers(&socket, buffer_bytes);
    Ok(socket.into())
}

/// One socket carries all clients, so a burst must fit into it. A small buffer is worth a warning, not a failed start.
fn size_buffers(socket: &Socket, wanted: usize) {
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

/// Linux reports twice what was set, to account for its own bookkeeping.
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

    /// What is warned about when a socket with such buffers is opened.
    fn warnings(buffer_bytes: usize) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let socket = tracing::subscriber::with_default(subscriber, || {
            open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), buffer_bytes).unwrap()
        });
        assert_ne!(socket.local_addr().unwrap().port(), 0);
        String::from_utf8(lines.0.lock().clone()).unwrap()
    }

    #[test]
    fn buffers_that_the_kernel_clamps_are_warned_about_with_what_to_raise_and_the_socket_serves() {
        // No kernel allows half a GiB by itself.
        let said = warnings(1 << 29);
        for setting in ["net.core.rmem_max", "net.core.wmem_max"] {
            assert!(said.contains(&format!("Raise {setting}")), "{said}");
        }
        assert_eq!(warnings(16 << 10), "");
    }
}
