//! Every fault on the wire, and that the device works again afterwards.

use std::time::Duration;

use alloy::primitives::{Address, B256, Signature, U256, uint};
use amanatd::devkit::trezor::{Fault, SimulatedTrezor, SimulatorOptions};
use trezor_client::protos::{EthereumSignMessage, EthereumTxAck, EthereumTxRequest, PinMatrixAck};

use super::client::{
    ADDRESS, BUTTON_ACK, BUTTON_REQUEST, CANCEL, FEATURES, GET_ADDRESS, GET_FEATURES, Host, INITIALIZE, PIN_MATRIX_ACK, PIN_MATRIX_REQUEST,
    Raw, SIGN_MESSAGE, SIGN_TX, SIGN_TX_EIP1559, TX_ACK, TX_REQUEST, minimal, path,
};
use super::{FIRST, FIRST_PATH, PAYEE, eip1559, get_address, legacy, open};

const ORDER: U256 = uint!(0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141_U256);

fn sign(host: &Host) -> EthereumTxRequest {
    host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[])).0.expect(TX_REQUEST)
}

fn works(trezor: &SimulatedTrezor) {
    let host = Host::new(trezor);
    host.initialize(None);
    assert_eq!(sign(&host).signature_r().len(), 32);
}

/// Who signed, as a host would find out: from a hash of its own.
fn recovered(signed: &EthereumTxRequest, nonce: u64) -> Address {
    use alloy::consensus::{SignableTransaction, TxEip1559};
    let tx = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 30_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: PAYEE.parse::<Address>().unwrap().into(),
        ..TxEip1559::default()
    };
    let r = U256::from_be_slice(signed.signature_r());
    let s = U256::from_be_slice(signed.signature_s());
    let signature = Signature::new(r, s, signed.signature_v() == 1);
    signature.recover_address_from_prehash(&tx.signature_hash()).unwrap_or_default()
}

fn send_chunk(host: &Host, chunk: &[u8]) -> Raw {
    let mut ack = EthereumTxAck::new();
    ack.set_data_chunk(chunk.to_vec());
    host.call(TX_ACK, &ack)
}

#[test]
fn vanish_after_packets() {
    let (trezor, host) = open(SimulatorOptions::default());
    let whole = host.call_raw(INITIALIZE, &[]).payload.len().saturating_sub(55).div_ceil(63) + 1;
    assert!(whole > 1, "Features fill more than one packet");
    for packets in 0..whole {
        trezor.inject(Fault::VanishAfterPackets(u32::try_from(packets).unwrap()));
        host.send(INITIALIZE, &[]);
        for _ in 0..packets {
            assert_eq!(host.receive_datagram()[0], b'?');
        }
        host.send(CANCEL, &[]);
        host.send_datagram(b"PINGPING");
        trezor.plug_in();
        // Whatever was sent meanwhile is lost: the next answer is the answer to this.
        assert_eq!(host.call_raw(GET_FEATURES, &[]).id, FEATURES);
        host.assert_silent();
    }
    works(&trezor);
}

#[test]
fn vanish_mid_chunk() {
    let (trezor, host) = open(SimulatorOptions::default());
    trezor.inject(Fault::VanishMidChunk);
    host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[7; 2000]));
    let mut ack = EthereumTxAck::new();
    ack.set_data_chunk(vec![7; 976]);
    host.send(TX_ACK, &protobuf::Message::write_to_bytes(&ack).unwrap());
    trezor.plug_in();
    assert_eq!(send_chunk(&host, &[7; 976]).failure(), 1, "the transaction is forgotten");
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).failure(), 14, "and the session too");
    works(&trezor);
}

#[test]
fn unplugged_in_a_prompt() {
    let (trezor, host) = open(SimulatorOptions::default());
    trezor.officer().absent();
    assert_eq!(host.call(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[])).id, BUTTON_REQUEST);
    trezor.unplug();
    host.send(BUTTON_ACK, &[]);
    host.send(CANCEL, &[]);
    trezor.plug_in();
    host.cancelled();
    host.assert_silent();
    assert!(trezor.officer().looks_at().is_none());
    trezor.officer().confirm_all();
    works(&trezor);
}

#[test]
fn a_late_reply_lets_others_pass_and_still_comes() {
    let (trezor, host) = open(SimulatorOptions::default());
    trezor.inject(Fault::ReplyLate(Duration::MAX));
    host.send(GET_FEATURES, &[]);
    // The host has lost patience; the device is not deaf, only slow to say one thing.
    host.cancelled();
    host.assert_silent();
    trezor.inject(Fault::ReplyLate(Duration::from_millis(5)));
    assert_eq!(host.call_raw(GET_FEATURES, &[]).id, FEATURES);
    works(&trezor);
}

#[test]
fn locked_while_signing() {
    let (trezor, host) = open(SimulatorOptions { pin: Some("12".to_owned()), ..SimulatorOptions::default() });
    let unlock = |answer: Raw| {
        assert_eq!(answer.id, PIN_MATRIX_REQUEST);
        let mut ack = PinMatrixAck::new();
        ack.set_pin(trezor.officer().positions_of("12").unwrap());
        host.talk(PIN_MATRIX_ACK, &ack).0
    };
    let request = eip1559(FIRST_PATH, 1, PAYEE, &[7; 1025]);
    trezor.inject(Fault::LockWhileSigning);
    let asked = unlock(host.call(SIGN_TX_EIP1559, &request));
    assert_eq!(asked.expect::<EthereumTxRequest>(TX_REQUEST).data_length(), 1);
    assert_eq!(send_chunk(&host, &[7]).failure(), 9);
    // The next attempt asks for the PIN and signs.
    let asked = unlock(host.call(SIGN_TX_EIP1559, &request));
    assert_eq!(asked.expect::<EthereumTxRequest>(TX_REQUEST).data_length(), 1);
    assert_eq!(send_chunk(&host, &[7]).expect::<EthereumTxRequest>(TX_REQUEST).signature_r().len(), 32);
}

#[test]
fn s3_signatures_that_must_not_be_accepted() {
    let (trezor, host) = open(SimulatorOptions::default());
    let good = sign(&host);
    let first: Address = FIRST.parse().unwrap();
    assert_eq!(recovered(&good, 1), first);

    trezor.inject(Fault::FlippedV);
    let flipped = sign(&host);
    assert_eq!(flipped.signature_v(), 1 - good.signature_v());
    assert_ne!(recovered(&flipped, 1), first);

    trezor.inject(Fault::HighS);
    let high = sign(&host);
    assert_eq!(recovered(&high, 1), first, "only its s gives it away");
    let s = U256::from_be_slice(high.signature_s());
    assert!(s > ORDER / U256::from(2));
    assert_eq!(ORDER - s, U256::from_be_slice(good.signature_s()));

    trezor.inject(Fault::ShortR);
    assert_eq!(sign(&host).signature_r(), &good.signature_r()[1..]);

    trezor.inject(Fault::OtherNonce);
    let other = sign(&host);
    assert_ne!(recovered(&other, 1), first);
    assert_eq!(recovered(&other, 2), first);

    trezor.inject(Fault::OtherChainV);
    assert_eq!(sign(&host).signature_v(), 37 + good.signature_v());

    let one_byte_only = sign(&host);
    assert_eq!(one_byte_only, good, "each struck once");
}

#[test]
fn s3_legacy_and_messages_suffer_alike() {
    let (trezor, host) = open(SimulatorOptions::default());
    let ask = || host.talk(SIGN_TX, &legacy(FIRST_PATH, 56, PAYEE)).0.expect::<EthereumTxRequest>(TX_REQUEST);
    let good = ask();
    assert!([147, 148].contains(&good.signature_v()));
    trezor.inject(Fault::OtherChainV);
    assert_eq!(ask().signature_v(), good.signature_v() + 2);

    let mut message = EthereumSignMessage::new();
    message.address_n = path(FIRST_PATH);
    message.set_message(minimal(0x6162));
    trezor.inject(Fault::ShortR);
    let answer: trezor_client::protos::EthereumMessageSignature = host.talk(SIGN_MESSAGE, &message).0.expect(66);
    assert_eq!(answer.signature().len(), 64);
    trezor.inject(Fault::FlippedV);
    let flipped: trezor_client::protos::EthereumMessageSignature = host.talk(SIGN_MESSAGE, &message).0.expect(66);
    let parity = flipped.signature()[64] == 28;
    let signature = Signature::from_bytes_and_parity(&flipped.signature()[..64], parity);
    let hash: B256 = alloy::primitives::eip191_hash_message([0x61, 0x62]);
    assert_ne!(signature.recover_address_from_prehash(&hash).unwrap_or_default(), FIRST.parse::<Address>().unwrap());
}

#[test]
fn a_chunk_request_beyond_what_is_left() {
    let (trezor, host) = open(SimulatorOptions::default());
    for (length, asked) in [(0, 1), (1, 1), (1034, 11)] {
        trezor.inject(Fault::ChunkTooLarge);
        let (answer, _) = host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &vec![7; length]));
        assert_eq!(answer.expect::<EthereumTxRequest>(TX_REQUEST).data_length(), asked);
        host.cancelled();
        works(&trezor);
    }
}

#[test]
fn chunk_requests_without_end() {
    let (trezor, host) = open(SimulatorOptions::default());
    trezor.inject(Fault::ChunkWithoutEnd);
    let (mut answer, _) = host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[7; 1500]));
    for asked in [476, 1024, 1024, 1024] {
        assert_eq!(answer.expect::<EthereumTxRequest>(TX_REQUEST).data_length(), asked);
        answer = send_chunk(&host, &vec![7; asked as usize]);
    }
    host.cancelled();
    works(&trezor);
}

#[test]
fn answers_that_are_none() {
    let (trezor, host) = open(SimulatorOptions::default());
    trezor.inject(Fault::UnknownMessage(999));
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)), Raw { id: 999, payload: Vec::new() });
    trezor.inject(Fault::Busy);
    host.cancelled();
    host.initialize(None);
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).failure(), 15);
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, ADDRESS);
    trezor.inject(Fault::InvalidProtocol);
    for id in [CANCEL, INITIALIZE, GET_FEATURES, GET_ADDRESS] {
        assert_eq!(host.call_raw(id, &[]).failure(), 17);
    }
    trezor.mend();
    works(&trezor);
}
