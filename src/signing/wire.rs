//! Whole messages over a link: one goes out, one comes back, or the reason why not.
//!
//! The client library's framing and message types are used, its own `call` is not: at TRACE it logs
//! PIN positions and passphrases, and it leaves copies of them in memory. Here they travel in one
//! packet that is wiped after it was sent.

use trezor_client::TrezorMessage;
use trezor_client::protos::MessageType;
use trezor_client::transport::ProtoMessage;
use trezor_client::transport::error::Error as TransportError;
use trezor_client::transport::protocol::{Protocol as _, ProtocolV1};
use zeroize::Zeroizing;

use std::time::Duration;

use super::link::{CancelFlag, DeviceLimits, DeviceLink, PACKET_LEN, Packet, Port, PortError, Stop};

/// Why no usable answer came.
#[derive(Debug)]
pub(super) enum WireError {
    Lost(PortError),
    /// We stopped waiting. `acknowledged`: the device said that it stopped too. `overtaken`: before
    /// that, it answered something that may be a result.
    Stopped {
        reason: Stop,
        acknowledged: bool,
        overtaken: bool,
    },
    Garbled(String),
    /// Packets that are not of this protocol at all.
    OtherProtocol,
}

/// An answer to a prompt that must not stay in memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum SecretAck {
    Pin,
    Passphrase,
}

impl SecretAck {
    fn id(self) -> u16 {
        match self {
            Self::Pin => 19,
            Self::Passphrase => 42,
        }
    }
}

pub(super) struct Wire {
    protocol: ProtocolV1<DeviceLink>,
}

impl Wire {
    pub(super) fn new(port: Port, limits: DeviceLimits) -> Self {
        Self { protocol: ProtocolV1 { link: DeviceLink::new(port, limits) } }
    }

    /// From here on, waiting ends when this job is cancelled.
    pub(super) fn serve(&mut self, cancel: Option<CancelFlag>) {
        self.protocol.link.serve(cancel);
    }

    pub(super) fn drain(&mut self) -> Result<(), WireError> {
        self.protocol.link.drain().map_err(WireError::Lost)
    }

    pub(super) fn call<S: TrezorMessage>(&mut self, message: &S, limit: Duration) -> Result<ProtoMessage, WireError> {
        let payload = message.write_to_bytes().map_err(|error| WireError::Garbled(format!("our own message: {error}")))?;
        let sent = self.protocol.write(ProtoMessage::new(S::MESSAGE_TYPE, payload));
        sent.map_err(|error| self.broken(error, false))?;
        self.protocol.link.arm(limit);
        self.read()
    }

    /// Both secrets are the first field of their message, and short enough for one packet.
    pub(super) fn call_secret(&mut self, ack: SecretAck, secret: &str, limit: Duration) -> Result<ProtoMessage, WireError> {
        let packet = secret_packet(ack, secret).ok_or_else(|| WireError::Garbled("our own answer: too long".to_owned()))?;
        let sent = self.protocol.link.write_packet(packet.as_slice());
        sent.map_err(|error| self.broken(error, false))?;
        self.protocol.link.arm(limit);
        self.read()
    }

    /// Leaves a prompt of the device without answering it.
    pub(super) fn abandon(&mut self, reason: Stop) -> WireError {
        match self.protocol.link.stop(reason).map_err(|error| self.broken(error, false)).and_then(|()| self.read()) {
            Ok(_) => WireError::Garbled("an answer out of turn".to_owned()),
            Err(error) => error,
        }
    }

    /// Parting words of a line that is given up: whatever the device shows, it shall stop. If even
    /// that cannot be sent, the next connection says it again.
    pub(super) fn leave(&mut self) {
        let _ = self.protocol.link.stop(Stop::Cancelled);
    }

    /// Ends at the link's deadline at the latest, however much the device sends.
    fn read(&mut self) -> Result<ProtoMessage, WireError> {
        let mut overtaken = false;
        loop {
            let message = match self.protocol.read() {
                Ok(message) => message,
                Err(error) => return Err(self.broken(error, overtaken)),
            };
            let Some(reason) = self.protocol.link.stopped() else {
                return Ok(message);
            };
            match message.message_type() {
                MessageType::MessageType_Failure => return Err(WireError::Stopped { reason, acknowledged: true, overtaken }),
                MessageType::MessageType_ButtonRequest => {}
                _ => overtaken = true,
            }
        }
    }

    fn broken(&mut self, error: TransportError, overtaken: bool) -> WireError {
        if let Some(fault) = self.protocol.link.take_fault() {
            return WireError::Lost(fault);
        }
        match (error, self.protocol.link.stopped()) {
            (TransportError::DeviceReadTimeout, Some(reason)) => WireError::Stopped { reason, acknowledged: false, overtaken },
            (TransportError::InvalidMessageType(id), _) => WireError::Garbled(format!("message {id}, which does not exist")),
            (TransportError::UnexpectedChunkSizeFromDevice(length), _) => WireError::Garbled(format!("a message of {length} bytes")),
            (TransportError::DeviceBadMagic, _) => WireError::OtherProtocol,
            (error, _) => WireError::Garbled(error.to_string()),
        }
    }
}

fn secret_packet(ack: SecretAck, secret: &str) -> Option<Zeroizing<Packet>> {
    const HEADER: usize = 9;
    const FIELD_1_TEXT: u8 = 0x0a;
    let length = u8::try_from(secret.len()).ok().filter(|length| usize::from(*length) + HEADER + 2 <= PACKET_LEN)?;
    let [high, low] = ack.id().to_be_bytes();
    let mut packet = Zeroizing::new([0; PACKET_LEN]);
    packet[..HEADER + 2].copy_from_slice(&[b'?', b'#', b'#', high, low, 0, 0, 0, length + 2, FIELD_1_TEXT, length]);
    packet[HEADER + 2..HEADER + 2 + secret.len()].copy_from_slice(secret.as_bytes());
    Some(packet)
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;
    use trezor_client::protos::{PassphraseAck, PinMatrixAck};

    use super::*;

    #[test]
    fn a_secret_packet_is_the_message_the_library_would_send() {
        let pin = secret_packet(SecretAck::Pin, "1379").unwrap();
        assert_eq!(u16::from_be_bytes([pin[3], pin[4]]), MessageType::MessageType_PinMatrixAck as u16);
        assert_eq!(PinMatrixAck::parse_from_bytes(&pin[9..9 + usize::from(pin[8])]).unwrap().pin(), "1379");
        for text in ["", "a b", &"x".repeat(50)] {
            let packet = secret_packet(SecretAck::Passphrase, text).unwrap();
            assert_eq!(u16::from_be_bytes([packet[3], packet[4]]), MessageType::MessageType_PassphraseAck as u16);
            let read = PassphraseAck::parse_from_bytes(&packet[9..9 + usize::from(packet[8])]).unwrap();
            assert_eq!((read.has_passphrase(), read.passphrase()), (true, text));
        }
        assert!(secret_packet(SecretAck::Passphrase, &"x".repeat(54)).is_none());
    }
}
