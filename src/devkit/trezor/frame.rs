//! Wire protocol v1: how a message becomes 64-byte packets and packets become a message again.
//!
//! The first packet is `?##`, the message id, the length and 55 bytes of payload; each following
//! one is `?` and 63 bytes. Written for the simulator alone: the signing room has its own.

/// Every packet has this size; anything else on the wire is not a packet.
pub(super) const PACKET: usize = 64;

/// The longest message that the device takes.
pub(super) const MESSAGE_MAX: usize = 16 * 1024;

const HEADER: usize = 9;

/// One message as it travels: a type number and protobuf bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: u16,
    pub(super) payload: Vec<u8>,
}

/// What one more packet made of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// Noise, or a message that is not whole yet.
    Nothing,
    /// A first packet whose length is beyond [`MESSAGE_MAX`].
    TooBig,
    /// A message, complete.
    Whole(Message),
}

/// Cuts a message into packets, zero padded.
pub(super) fn packets(message: &Message) -> Vec<[u8; PACKET]> {
    let length = u32::try_from(message.payload.len()).expect("a reply is far below 4 GiB");
    let mut stream = Vec::with_capacity(HEADER - 1 + message.payload.len());
    stream.extend_from_slice(b"##");
    stream.extend_from_slice(&message.id.to_be_bytes());
    stream.extend_from_slice(&length.to_be_bytes());
    stream.extend_from_slice(&message.payload);
    stream
        .chunks(PACKET - 1)
        .map(|chunk| {
            let mut packet = [0; PACKET];
            packet[0] = b'?';
            packet[1..=chunk.len()].copy_from_slice(chunk);
            packet
        })
        .collect()
}

/// Joins packets to messages.
///
/// There is one stream, whoever sends: as on the device, a second client that talks in the middle
/// of a long message spoils it, and a half-sent message swallows what comes next.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    id: u16,
    length: usize,
    payload: Vec<u8>,
}

impl Assembler {
    /// The id of the message that is being received, if one is.
    pub(super) fn partial_id(&self) -> Option<u16> {
        self.partial.as_ref().map(|partial| partial.id)
    }

    /// Takes the next packet.
    pub(super) fn push(&mut self, packet: &[u8; PACKET]) -> Arrived {
        if packet[0] != b'?' {
            self.partial = None;
            return Arrived::Nothing;
        }
        let partial = match self.partial.take() {
            Some(mut partial) => {
                partial.payload.extend_from_slice(&packet[1..]);
                partial
            }
            None => match first(packet) {
                None => return Arrived::Nothing,
                Some(partial) if partial.length > MESSAGE_MAX => return Arrived::TooBig,
                Some(partial) => partial,
            },
        };
        if partial.payload.len() < partial.length {
            self.partial = Some(partial);
            return Arrived::Nothing;
        }
        let Partial { id, length, mut payload } = partial;
        payload.truncate(length);
        Arrived::Whole(Message { id, payload })
    }
}

fn first(packet: &[u8; PACKET]) -> Option<Partial> {
    if &packet[1..3] != b"##" {
        return None;
    }
    let id = u16::from_be_bytes([packet[3], packet[4]]);
    let length = u32::from_be_bytes([packet[5], packet[6], packet[7], packet[8]]);
    Some(Partial { id, length: usize::try_from(length).unwrap_or(usize::MAX), payload: packet[HEADER..].to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(packets: &[[u8; PACKET]]) -> Vec<Arrived> {
        let mut assembler = Assembler::default();
        packets.iter().map(|packet| assembler.push(packet)).collect()
    }

    proptest! {
        #[test]
        fn any_message_survives_splitting_and_joining(
            id: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..=MESSAGE_MAX),
        ) {
            let message = Message { id, payload };
            let packets = packets(&message);
            prop_assert_eq!(packets.len(), (8 + message.payload.len()).div_ceil(63));
            let mut arrived = join(&packets);
            prop_assert_eq!(arrived.pop(), Some(Arrived::Whole(message)));
            prop_assert!(arrived.iter().all(|each| *each == Arrived::Nothing));
        }
    }

    #[test]
    fn golden_packets_are_the_devices() {
        let golden: [(u16, &[u8], &[u8]); 4] = [
            (0, &[], b"?##\0\0\0\0\0\0"),
            (27, &[], b"?##\0\x1b\0\0\0\0"),
            (26, &[8, 8], b"?##\0\x1a\0\0\0\x02\x08\x08"),
            (18, &[8, 1], b"?##\0\x12\0\0\0\x02\x08\x01"),
        ];
        for (id, payload, start) in golden {
            let packets = packets(&Message { id, payload: payload.to_vec() });
            let mut expected = [0; PACKET];
            expected[..start.len()].copy_from_slice(start);
            assert_eq!(packets, [expected]);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_at_its_first_packet() {
        let mut packet = [0; PACKET];
        packet[..9].copy_from_slice(b"?##\0\x01\0\0\x40\x01");
        assert_eq!(join(&[packet]), [Arrived::TooBig]);
    }

    #[test]
    fn noise_between_messages_is_ignored() {
        let cancel = packets(&Message { id: 20, payload: vec![] });
        let arrived = join(&[[0; PACKET], [b'?'; PACKET], cancel[0]]);
        assert_eq!(arrived, [Arrived::Nothing, Arrived::Nothing, Arrived::Whole(Message { id: 20, payload: vec![] })]);
    }
}
