//! A simulated device on this machine's loopback. Exists only in devkit builds.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::link::{PACKET_LEN, Packet, PortError};

pub(super) struct UdpPort {
    socket: UdpSocket,
}

impl UdpPort {
    /// A new socket each time, so no answer to an earlier conversation can arrive on it.
    pub(super) fn open(device: SocketAddr) -> Result<Self, PortError> {
        if !device.ip().is_loopback() {
            return Err(PortError::Unavailable(format!("{device} is not on this machine")));
        }
        let unavailable = |error: std::io::Error| PortError::Unavailable(error.kind().to_string());
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(unavailable)?;
        socket.connect(device).map_err(unavailable)?;
        Ok(Self { socket })
    }

    pub(super) fn write(&mut self, packet: &[u8], limit: Duration) -> Result<(), PortError> {
        self.socket.set_write_timeout(Some(limit)).map_err(|_| PortError::Gone)?;
        match self.socket.send(packet) {
            Ok(PACKET_LEN) => Ok(()),
            // An earlier packet found nobody listening, or the buffer stayed full.
            Ok(_) | Err(_) => Err(PortError::Gone),
        }
    }

    pub(super) fn read(&mut self, slice: Duration) -> Result<Option<Packet>, PortError> {
        self.socket.set_read_timeout(Some(slice)).map_err(|_| PortError::Gone)?;
        // One byte more than a packet, so that a longer datagram is seen to be none.
        let mut buffer = [0; PACKET_LEN + 1];
        match self.socket.recv(&mut buffer) {
            Ok(PACKET_LEN) => {
                let mut packet = [0; PACKET_LEN];
                packet.copy_from_slice(&buffer[..PACKET_LEN]);
                Ok(Some(packet))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => Ok(None),
            Ok(_) | Err(_) => Err(PortError::Gone),
        }
    }
}
