//! A host of the tests' own: raw protocol v1 over UDP, written against the protocol and nothing
//! else, so that neither the simulator's framing nor a library's is trusted.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use amanatd::devkit::trezor::SimulatedTrezor;
use protobuf::Message;
use trezor_client::protos::{Failure, Initialize};

/// Longer than any answer takes on a busy machine: only a failing test waits so long.
const ANSWER_MAX: Duration = Duration::from_secs(20);

pub(crate) const INITIALIZE: u16 = 0;
pub(crate) const PING: u16 = 1;
pub(crate) const SUCCESS: u16 = 2;
pub(crate) const FAILURE: u16 = 3;
pub(crate) const FEATURES: u16 = 17;
pub(crate) const PIN_MATRIX_REQUEST: u16 = 18;
pub(crate) const PIN_MATRIX_ACK: u16 = 19;
pub(crate) const CANCEL: u16 = 20;
pub(crate) const LOCK_DEVICE: u16 = 24;
pub(crate) const APPLY_SETTINGS: u16 = 25;
pub(crate) const BUTTON_REQUEST: u16 = 26;
pub(crate) const BUTTON_ACK: u16 = 27;
pub(crate) const PASSPHRASE_REQUEST: u16 = 41;
pub(crate) const PASSPHRASE_ACK: u16 = 42;
pub(crate) const GET_FEATURES: u16 = 55;
pub(crate) const GET_ADDRESS: u16 = 56;
pub(crate) const ADDRESS: u16 = 57;
pub(crate) const SIGN_TX: u16 = 58;
pub(crate) const TX_REQUEST: u16 = 59;
pub(crate) const TX_ACK: u16 = 60;
pub(crate) const SIGN_MESSAGE: u16 = 64;
pub(crate) const MESSAGE_SIGNATURE: u16 = 66;
pub(crate) const END_SESSION: u16 = 83;
pub(crate) const GET_PUBLIC_KEY: u16 = 450;
pub(crate) const PUBLIC_KEY: u16 = 451;
pub(crate) const SIGN_TX_EIP1559: u16 = 452;
pub(crate) const TYPED_DATA_SIGNATURE: u16 = 469;
pub(crate) const SIGN_TYPED_HASH: u16 = 470;

/// A message as it came from the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) id: u16,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    /// Its content, after checking that it is the message that was expected.
    #[track_caller]
    pub(crate) fn expect<M: Message>(&self, id: u16) -> M {
        assert_eq!(self.id, id, "{}", self.failure_text());
        M::parse_from_bytes(&self.payload).unwrap()
    }

    /// The code of the Failure that this must be.
    #[track_caller]
    pub(crate) fn failure(&self) -> i32 {
        self.expect::<Failure>(FAILURE).code.unwrap().value()
    }

    fn failure_text(&self) -> String {
        match self.id {
            FAILURE => format!("{:?}", Failure::parse_from_bytes(&self.payload)),
            _ => String::new(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Host {
    socket: UdpSocket,
}

impl Host {
    pub(crate) fn new(trezor: &SimulatedTrezor) -> Self {
        Self::at(trezor.address())
    }

    pub(crate) fn at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(ANSWER_MAX)).unwrap();
        Self { socket }
    }

    pub(crate) fn send_datagram(&self, bytes: &[u8]) {
        self.socket.send(bytes).unwrap();
    }

    pub(crate) fn receive_datagram(&self) -> Vec<u8> {
        let mut buffer = [0; 128];
        let length = self.socket.recv(&mut buffer).expect("the device answers");
        buffer[..length].to_vec()
    }

    pub(crate) fn send(&self, id: u16, payload: &[u8]) {
        for packet in split(id, payload) {
            self.send_datagram(&packet);
        }
    }

    pub(crate) fn receive(&self) -> Raw {
        let first = self.receive_datagram();
        assert_eq!(first.len(), 64);
        assert_eq!(&first[..3], b"?##");
        let id = u16::from_be_bytes([first[3], first[4]]);
        let length = u32::from_be_bytes(first[5..9].try_into().unwrap()) as usize;
        let mut payload = first[9..].to_vec();
        while payload.len() < length {
            let next = self.receive_datagram();
            assert_eq!((next.len(), next[0]), (64, b'?'));
            payload.extend_from_slice(&next[1..]);
        }
        assert!(payload[length..].iter().all(|byte| *byte == 0), "packets are padded with zeros");
        payload.truncate(length);
        Raw { id, payload }
    }

    pub(crate) fn call_raw(&self, id: u16, payload: &[u8]) -> Raw {
        self.send(id, payload);
        self.receive()
    }

    pub(crate) fn call<M: Message>(&self, id: u16, message: &M) -> Raw {
        self.call_raw(id, &message.write_to_bytes().unwrap())
    }

    /// Calls and acknowledges every button; the codes come back with the answer.
    pub(crate) fn talk<M: Message>(&self, id: u16, message: &M) -> (Raw, Vec<u8>) {
        self.acknowledge(self.call(id, message))
    }

    pub(crate) fn acknowledge(&self, answer: Raw) -> (Raw, Vec<u8>) {
        let mut answer = answer;
        let mut codes = Vec::new();
        while answer.id == BUTTON_REQUEST {
            assert_eq!((answer.payload.len(), answer.payload[0]), (2, 0x08), "a T1 sends the code alone");
            codes.push(answer.payload[1]);
            answer = self.call_raw(BUTTON_ACK, &[]);
        }
        (answer, codes)
    }

    /// Initialize, with the session to go on with; the session's id comes back.
    pub(crate) fn initialize(&self, session: Option<&[u8]>) -> Vec<u8> {
        let mut request = Initialize::new();
        request.session_id = session.map(<[u8]>::to_vec);
        let features: trezor_client::protos::Features = self.call(INITIALIZE, &request).expect(FEATURES);
        features.session_id.expect("Features in answer to Initialize name the session")
    }

    /// Cancels. The very next answer is the Failure for it: what was sent before was dropped
    /// without a reply, because answers keep their order.
    #[track_caller]
    pub(crate) fn cancelled(&self) {
        self.cancelled_with(4);
    }

    #[track_caller]
    pub(crate) fn cancelled_with(&self, code: i32) {
        assert_eq!(self.call_raw(CANCEL, &[]).failure(), code);
    }

    /// Nothing has come so far.
    pub(crate) fn assert_silent(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let heard = self.socket.recv(&mut [0; 128]);
        self.socket.set_nonblocking(false).unwrap();
        assert_eq!(heard.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// The packets of a message.
pub(crate) fn split(id: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let (first, mut rest) = payload.split_at(payload.len().min(55));
    let mut packet = b"?##".to_vec();
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    packet.extend_from_slice(first);
    packets.push(packet);
    while !rest.is_empty() {
        let (next, after) = rest.split_at(rest.len().min(63));
        packets.push([b"?", next].concat());
        rest = after;
    }
    packets.iter_mut().for_each(|packet| packet.resize(64, 0));
    packets
}

/// A path from its text.
pub(crate) fn path(text: &str) -> Vec<u32> {
    let steps = text.strip_prefix("m/").unwrap().split('/');
    let step = |step: &str| match step.strip_suffix('\'') {
        Some(hard) => hard.parse::<u32>().unwrap() | 1 << 31,
        None => step.parse().unwrap(),
    };
    steps.map(step).collect()
}

/// Big-endian without leading zeros.
pub(crate) fn minimal(number: u128) -> Vec<u8> {
    number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}
