//! A port of loopback that is nobody else's: bound, and not listened on. Whoever connects to it is
//! refused, and the kernel gives it to nobody who asks for any port; a child that is told it can listen
//! on it, as its server sets `SO_REUSEADDR`. A port that is only remembered is the next listener's:
//! the very server that a case starts.

use std::net::Ipv4Addr;
use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// Held for as long as this lives.
#[derive(Debug)]
pub struct Reserved {
    _socket: TcpSocket,
    address: SocketAddr,
}

impl Reserved {
    /// Any that is free.
    ///
    /// # Errors
    /// If loopback has none.
    pub fn new() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = socket.local_addr()?;
        Ok(Self { _socket: socket, address })
    }

    /// Where nobody listens, unless a child was told to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it calls a port of its own")]
    fn nobody_answers_until_somebody_who_was_told_listens() {
        let reserved = Reserved::new().expect("reserved");
        let connect = || std::net::TcpStream::connect(reserved.address());
        assert_eq!(connect().expect_err("nobody listens").kind(), std::io::ErrorKind::ConnectionRefused);
        let told = std::net::TcpListener::bind(reserved.address()).expect("whoever is told may listen");
        connect().expect("somebody listens");
        drop(told);
    }
}
