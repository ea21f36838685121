//! The transport: packets, datagrams that are none, who gets the answer, and a library's client.

use std::net::UdpSocket;
use std::time::Duration;

use alloy::primitives::hex;
use amanatd::devkit::trezor::{Fault, SimulatedTrezor, SimulatorOptions};
use proptest::prelude::*;
use protobuf::Message;
use trezor_client::client::{TrezorResponse, trezor_with_transport};
use trezor_client::protos::{EthereumGetPublicKey, EthereumPublicKey, Features, Ping, Success};
use trezor_client::transport::error::Error;
use trezor_client::transport::protocol::{Link, Protocol, ProtocolV1};
use trezor_client::transport::{ProtoMessage, Transport};

use super::client::{
    BUTTON_ACK, BUTTON_REQUEST, CANCEL, FEATURES, GET_ADDRESS, GET_FEATURES, Host, PING, SIGN_TX_EIP1559, SUCCESS, path, split,
};
use super::{FIRST_PATH, PAYEE, eip1559, get_address, open, start};

/// A packet from its beginning.
fn padded(start: &[u8]) -> Vec<u8> {
    let mut packet = start.to_vec();
    packet.resize(64, 0);
    packet
}

#[test]
fn golden_packets() {
    let trezor = start(SimulatorOptions { pin: Some("1".to_owned()), ..SimulatorOptions::default() });
    let host = Host::new(&trezor);
    host.send_datagram(&padded(&hex!("3f232300140000000000")));
    let cancelled = [&hex!("3f232300030000001c08041218")[..], b"Action cancelled by user"].concat();
    assert_eq!(host.receive_datagram(), padded(&cancelled));

    host.send_datagram(&padded(&hex!("3f2323000000000000")));
    assert_eq!(host.receive().id, FEATURES);

    host.send(GET_ADDRESS, &get_address(FIRST_PATH).write_to_bytes().unwrap());
    assert_eq!(host.receive_datagram(), padded(&hex!("3f23230012000000020801")));
    host.cancelled_with(6);

    let (_trezor, host) = open(SimulatorOptions::default());
    host.send(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[1]).write_to_bytes().unwrap());
    for _screen in 0..2 {
        assert_eq!(host.receive_datagram(), padded(&hex!("3f2323001a000000020808")));
        host.send_datagram(&padded(&hex!("3f2323001b00000000")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    /// Lengths up to what a burst of UDP datagrams carries safely; the simulator's own tests go
    /// on to 16 KiB without a socket in between.
    #[test]
    fn any_message_survives_the_wire(text in "[ -~]{0,4096}") {
        let (_trezor, host) = open(SimulatorOptions::default());
        let mut ping = Ping::new();
        ping.set_message(text.clone());
        let answer: Success = host.call(PING, &ping).expect(SUCCESS);
        prop_assert_eq!(answer.message(), text);
    }
}

#[test]
fn only_datagrams_of_64_bytes_are_packets() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let cancel = &split(CANCEL, &[])[0];
    host.send_datagram(&[]);
    host.send_datagram(&cancel[..63]);
    host.send_datagram(&[&cancel[..], &[0]].concat());
    host.send_datagram(&[0; 64]);
    let answer: Success = host.call(PING, &Ping::new()).expect(SUCCESS);
    assert_eq!(answer.message(), "");
}

#[test]
fn probes_are_answered_idle_and_in_prompts() {
    let (trezor, host) = open(SimulatorOptions::default());
    let prober = Host::new(&trezor);
    prober.send_datagram(b"PINGPING");
    assert_eq!(prober.receive_datagram(), b"PONGPONG");
    assert_eq!(host.call(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[1])).id, BUTTON_REQUEST);
    prober.send_datagram(b"PINGPING");
    assert_eq!(prober.receive_datagram(), b"PONGPONG");
    // Pinned to the requester: the probe steals nothing.
    assert_eq!(host.call_raw(BUTTON_ACK, &[]).id, BUTTON_REQUEST);
}

#[test]
fn with_the_fault_the_last_sender_gets_the_answer() {
    let (trezor, host) = open(SimulatorOptions::default());
    trezor.officer().absent();
    trezor.inject(Fault::ReplyToLastSender);
    assert_eq!(host.call(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[1])).id, BUTTON_REQUEST);
    host.send(BUTTON_ACK, &[]);
    let thief = Host::new(&trezor);
    thief.send_datagram(b"PINGPING");
    assert_eq!(thief.receive_datagram(), b"PONGPONG");
    trezor.officer().confirm();
    assert_eq!(thief.receive().id, BUTTON_REQUEST);
    host.assert_silent();
    trezor.mend();
    host.cancelled();
}

#[test]
fn what_is_no_request_is_a_failure() {
    let (_trezor, host) = open(SimulatorOptions::default());
    assert_eq!(host.call_raw(9999, &[]).failure(), 1);
    assert_eq!(host.call_raw(464, &[]).failure(), 1);
    assert_eq!(host.call_raw(BUTTON_ACK, &[]).failure(), 1);
    assert_eq!(host.call_raw(GET_ADDRESS, &[0xff; 3]).failure(), 3);
    assert_eq!(host.call_raw(SIGN_TX_EIP1559, &[]).failure(), 3);
    let mut too_big = padded(b"?##\0\x01\0\0\x40\x01");
    host.send_datagram(&too_big);
    assert_eq!(host.receive().failure(), 3);
    too_big[7] = 0x40;
    too_big[8] = 0;
    // 16 KiB are taken: the device waits for the rest.
    host.send_datagram(&too_big);
    host.assert_silent();
}

#[test]
fn half_a_message_swallows_the_next_as_on_the_device() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let mut ping = Ping::new();
    ping.set_message("x".repeat(100));
    host.send_datagram(&split(PING, &ping.write_to_bytes().unwrap())[0]);
    host.send(CANCEL, &[]);
    let answer: Success = host.receive().expect(SUCCESS);
    assert!(answer.message().starts_with(&"x".repeat(53)));
    assert!(answer.message()[53..].starts_with("##\0\x14"), "the Cancel became part of the text");
    host.cancelled();
}

#[test]
fn features_say_what_it_is() {
    let (trezor, host) = open(SimulatorOptions::default());
    let answer = host.call_raw(GET_FEATURES, &[]);
    let features: Features = answer.expect(FEATURES);
    let mut fields = fields(&answer.payload);
    fields.dedup();
    assert_eq!(fields, [1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 19, 21, 25, 27, 28, 30, 34, 37, 38, 41]);
    assert_eq!((features.vendor(), features.model(), features.fw_vendor()), ("trezor.io", "1", "SIMULATOR"));
    assert_eq!((features.major_version(), features.minor_version(), features.patch_version()), (1, 14, 1));
    assert!(features.initialized() && features.unlocked() && !features.pin_protection());
    assert_eq!(features.capabilities.iter().map(|each| each.value()).collect::<Vec<_>>(), [1, 2, 5, 7, 10, 12, 14]);
    assert_eq!(features.safety_checks.unwrap().value(), 0);
    assert!(features.session_id.is_none(), "only Initialize tells the session");
    assert!(features.bootloader_mode.is_none());
    assert!(features.wipe_code_protection.is_some() && features.auto_lock_delay_ms.is_some());
    assert!(trezor.screens().is_empty());

    let (_trezor, host) = open(SimulatorOptions { pin: Some("1".to_owned()), ..SimulatorOptions::default() });
    let features: Features = host.call_raw(GET_FEATURES, &[]).expect(FEATURES);
    assert!(features.pin_protection() && !features.unlocked());
    assert!(features.wipe_code_protection.is_none() && features.auto_lock_delay_ms.is_none());
}

/// The field numbers in the order in which they were sent.
fn fields(payload: &[u8]) -> Vec<u32> {
    let mut stream = protobuf::CodedInputStream::from_bytes(payload);
    let mut fields = Vec::new();
    while let Some(tag) = stream.read_raw_tag_or_eof().unwrap() {
        fields.push(tag >> 3);
        match tag & 7 {
            0 => drop(stream.read_raw_varint64().unwrap()),
            _ => drop(stream.read_bytes().unwrap()),
        }
    }
    fields
}

#[test]
fn dropping_it_frees_the_port_for_the_next() {
    let trezor = start(SimulatorOptions::default());
    let address = trezor.address();
    assert!(SimulatedTrezor::start(SimulatorOptions { port: address.port(), ..SimulatorOptions::default() }).is_err());
    let first = Host::at(address).initialize(None);
    drop(trezor);
    let again = start(SimulatorOptions { port: address.port(), ..SimulatorOptions::default() });
    assert_eq!(again.address(), address);
    assert_ne!(Host::at(address).initialize(Some(&first)), first, "sessions do not survive");
}

#[test]
fn options_that_describe_no_device_are_refused() {
    for options in [
        SimulatorOptions { mnemonic: "all all all".to_owned(), ..SimulatorOptions::default() },
        SimulatorOptions { mnemonic: "abandon ".repeat(12).trim().to_owned(), ..SimulatorOptions::default() },
        SimulatorOptions { pin: Some("1230".to_owned()), ..SimulatorOptions::default() },
        SimulatorOptions { pin: Some(String::new()), ..SimulatorOptions::default() },
    ] {
        assert!(SimulatedTrezor::start(options).is_err());
    }
}

struct UdpLink(UdpSocket);

impl Link for UdpLink {
    fn write_chunk(&mut self, chunk: Vec<u8>) -> Result<(), Error> {
        self.0.send(&chunk)?;
        Ok(())
    }

    fn read_chunk(&mut self) -> Result<Vec<u8>, Error> {
        let mut chunk = vec![0; 64];
        self.0.recv(&mut chunk)?;
        Ok(chunk)
    }
}

struct Plain(ProtocolV1<UdpLink>);

impl Transport for Plain {
    fn session_begin(&mut self) -> Result<(), Error> {
        self.0.session_begin()
    }

    fn session_end(&mut self) -> Result<(), Error> {
        self.0.session_end()
    }

    fn write_message(&mut self, message: ProtoMessage) -> Result<(), Error> {
        self.0.write(message)
    }

    fn read_message(&mut self) -> Result<ProtoMessage, Error> {
        self.0.read()
    }
}

#[test]
fn the_librarys_client_and_framing_work_against_it() {
    let trezor = start(SimulatorOptions::default());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(trezor.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let transport = Plain(ProtocolV1 { link: UdpLink(socket) });
    let mut client = trezor_with_transport(trezor_client::Model::Trezor, Box::new(transport));
    client.init_device(None).unwrap();
    assert_eq!(client.features().unwrap().session_id().len(), 32);
    let mut request = EthereumGetPublicKey::new();
    request.address_n = path("m/44'/60'/0'");
    let answer = client.call(request, Box::new(|_, answer: EthereumPublicKey| Ok(answer))).unwrap();
    let TrezorResponse::Ok(answer) = answer else { panic!("{answer:?}") };
    assert_eq!(
        answer.xpub(),
        "xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke"
    );
}
