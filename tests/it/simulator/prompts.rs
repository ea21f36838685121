//! Prompts and chunks: what the device hears while it waits, and how a person's press counts.

use std::time::Duration;

use amanatd::devkit::trezor::{Awaits, Press, SimulatedTrezor, SimulatorOptions};
use trezor_client::protos::{
    EthereumAddress, EthereumDefinitions, EthereumTxAck, EthereumTxRequest, Failure, Features, PinMatrixAck, Success,
};

use super::client::{
    ADDRESS, BUTTON_ACK, BUTTON_REQUEST, FAILURE, FEATURES, GET_ADDRESS, GET_FEATURES, Host, INITIALIZE, LOCK_DEVICE, PASSPHRASE_ACK,
    PASSPHRASE_REQUEST, PIN_MATRIX_ACK, PIN_MATRIX_REQUEST, PING, Raw, SIGN_TX_EIP1559, SUCCESS, TX_ACK, TX_REQUEST, path,
};
use super::{FIRST, FIRST_PATH, PAYEE, eip1559, finish, get_address, open};

fn locked() -> (SimulatedTrezor, Host) {
    open(SimulatorOptions { pin: Some("1234".to_owned()), ..SimulatorOptions::default() })
}

fn type_pin(trezor: &SimulatedTrezor, host: &Host, pin: &str) -> Raw {
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, PIN_MATRIX_REQUEST);
    send_pin(host, &trezor.officer().positions_of(pin).unwrap())
}

fn send_pin(host: &Host, positions: &str) -> Raw {
    let mut ack = PinMatrixAck::new();
    ack.set_pin(positions.to_owned());
    host.call(PIN_MATRIX_ACK, &ack)
}

fn begin(host: &Host) {
    assert_eq!(host.call(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[1])).id, BUTTON_REQUEST);
}

/// In each of the three prompts, and after the acknowledgement of a button.
#[test]
fn prompts_drop_everything_but_their_ack_cancel_and_initialize() {
    let noise = [PING, LOCK_DEVICE, GET_FEATURES, GET_ADDRESS, SIGN_TX_EIP1559, TX_ACK, 9999];
    let (trezor, host) = locked();
    let deaf = |acks: &[u16], code| {
        for id in noise.iter().chain(acks) {
            host.send(*id, &[]);
        }
        host.cancelled_with(code);
    };
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, PIN_MATRIX_REQUEST);
    deaf(&[BUTTON_ACK, PASSPHRASE_ACK], 6);
    assert_eq!(type_pin(&trezor, &host, "1234").id, ADDRESS);

    trezor.officer().absent();
    begin(&host);
    deaf(&[PIN_MATRIX_ACK, PASSPHRASE_ACK], 4);
    begin(&host);
    host.send(BUTTON_ACK, &[]);
    deaf(&[PIN_MATRIX_ACK, PASSPHRASE_ACK, BUTTON_ACK], 4);

    let (_trezor, host) = open(SimulatorOptions { passphrase_protection: true, ..SimulatorOptions::default() });
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, PASSPHRASE_REQUEST);
    for id in noise.iter().chain(&[PIN_MATRIX_ACK, BUTTON_ACK]) {
        host.send(*id, &[]);
    }
    host.cancelled();
}

#[test]
fn initialize_in_a_prompt_ends_it_with_a_new_session_and_no_failure() {
    let (trezor, host) = open(SimulatorOptions::default());
    let session = host.initialize(None);
    trezor.officer().absent();
    for acknowledged in [false, true] {
        begin(&host);
        if acknowledged {
            host.send(BUTTON_ACK, &[]);
        }
        assert_ne!(host.initialize(Some(&session)), session);
        assert_eq!(host.initialize(Some(&session)), session, "the old one is still there");
    }
    host.cancelled();
}

#[test]
fn a_rejection_at_any_step_ends_it() {
    let (trezor, host) = open(SimulatorOptions::default());
    for step in 1..=4 {
        trezor.officer().reject_at(step);
        let (answer, codes) = host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[]));
        assert_eq!(answer.failure(), 4);
        assert_eq!(codes.len(), step);
    }
    let (answer, codes) = host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[]));
    assert_eq!((answer.id, codes.len()), (TX_REQUEST, 4));
}

#[test]
fn an_absent_officer_leaves_it_waiting_until_cancel() {
    let (trezor, host) = open(SimulatorOptions::default());
    trezor.officer().absent();
    begin(&host);
    host.send(BUTTON_ACK, &[]);
    host.send(GET_FEATURES, &[]);
    assert!(trezor.officer().looks_at().is_some());
    host.cancelled();
    assert!(trezor.officer().looks_at().is_none());
    assert_eq!(host.call_raw(GET_FEATURES, &[]).id, FEATURES);
}

#[test]
fn a_press_counts_only_after_the_acknowledgement() {
    let (trezor, host) = open(SimulatorOptions::default());
    let officer = trezor.officer();
    officer.absent();
    assert!(!officer.confirm(), "the display is dark");
    begin(&host);
    assert!(officer.confirm());
    host.assert_silent();
    assert_eq!(host.call_raw(BUTTON_ACK, &[]).id, BUTTON_REQUEST);
    assert!(officer.reject());
    assert_eq!(host.call_raw(BUTTON_ACK, &[]).failure(), 4);
}

#[test]
fn a_press_does_not_outlive_its_screen() {
    let (trezor, host) = open(SimulatorOptions::default());
    let officer = trezor.officer();
    officer.absent();
    begin(&host);
    assert!(officer.confirm());
    host.cancelled();
    begin(&host);
    host.send(BUTTON_ACK, &[]);
    host.send(GET_FEATURES, &[]);
    host.cancelled();
}

#[test]
fn scripts_wait_and_fall_back_to_what_was_usual() {
    let (trezor, host) = open(SimulatorOptions::default());
    let soon = Duration::from_millis(5);
    trezor.officer().script([Press::ConfirmAfter(soon), Press::Confirm, Press::RejectAfter(soon)]);
    let (answer, codes) = host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[]));
    assert_eq!((answer.failure(), codes.len()), (4, 3));
    // A wait is no deafness.
    trezor.officer().script([Press::ConfirmAfter(Duration::from_secs(3600))]);
    begin(&host);
    host.send(BUTTON_ACK, &[]);
    host.cancelled();
    // Telling the officer otherwise changes what happens to the open screen.
    trezor.officer().absent();
    begin(&host);
    host.send(BUTTON_ACK, &[]);
    trezor.officer().confirm_all();
    assert_eq!(host.receive().id, BUTTON_REQUEST);
}

#[test]
fn the_pin_unlocks_by_position() {
    let (trezor, host) = locked();
    let answer: EthereumAddress = type_pin(&trezor, &host, "1234").expect(ADDRESS);
    assert_eq!(answer.address(), FIRST);
    assert_eq!(trezor.screens()[0].awaits, Awaits::Pin);
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, ADDRESS);
    host.call_raw(LOCK_DEVICE, &[]).expect::<Success>(SUCCESS);
    assert_eq!(host.call_raw(GET_FEATURES, &[]).expect::<Features>(FEATURES).unlocked, Some(false));
    assert_eq!(type_pin(&trezor, &host, "1234").id, ADDRESS);
}

#[test]
fn pins_that_are_wrong_or_none() {
    let (trezor, host) = locked();
    assert_eq!(type_pin(&trezor, &host, "1235").failure(), 7);
    assert_eq!(type_pin(&trezor, &host, "").failure(), 7);
    for none in ["0", "12a4", "12\u{663}4"] {
        assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, PIN_MATRIX_REQUEST);
        assert_eq!(send_pin(&host, none).failure(), 6);
    }
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, PIN_MATRIX_REQUEST);
    host.cancelled_with(6);
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, PIN_MATRIX_REQUEST);
    assert_eq!(host.call_raw(INITIALIZE, &[]).id, FEATURES);
}

#[test]
fn the_pin_grid_is_fresh_each_time_and_repeats_with_the_seed() {
    let grids = |seed| {
        let options = SimulatorOptions { pin: Some("1".to_owned()), seed: Some(seed), ..SimulatorOptions::default() };
        let (trezor, host) = open(options);
        for _ in 0..5 {
            assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, PIN_MATRIX_REQUEST);
            host.cancelled_with(6);
        }
        trezor.screens().into_iter().map(|screen| screen.lines).collect::<Vec<_>>()
    };
    let mut distinct = grids(1);
    assert_eq!(distinct, grids(1));
    assert_ne!(distinct, grids(2));
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 5);
}

#[test]
fn wrong_pins_cost_time_which_doubles() {
    let hour = Duration::from_secs(3600);
    let (trezor, host) = open(SimulatorOptions { pin: Some("12".to_owned()), pin_wait: hour, ..SimulatorOptions::default() });
    // The first try is free, the second one waits: not even Cancel is heard.
    assert_eq!(type_pin(&trezor, &host, "9").failure(), 7);
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, PIN_MATRIX_REQUEST);
    let mut ack = PinMatrixAck::new();
    ack.set_pin(trezor.officer().positions_of("12").unwrap());
    host.send(PIN_MATRIX_ACK, &protobuf::Message::write_to_bytes(&ack).unwrap());
    host.send(GET_FEATURES, &[]);
    trezor.plug_in();
    host.cancelled();
    host.assert_silent();
}

#[test]
fn the_sixteenth_wrong_pin_wipes_it() {
    let (trezor, host) = locked();
    let before = host.call_raw(GET_FEATURES, &[]).expect::<Features>(FEATURES);
    for _ in 0..15 {
        assert_eq!(type_pin(&trezor, &host, "9").failure(), 7);
    }
    assert_eq!(type_pin(&trezor, &host, "9").failure(), 7);
    let after = host.call_raw(INITIALIZE, &[]).expect::<Features>(FEATURES);
    assert!(!after.initialized() && !after.pin_protection());
    assert_ne!(after.device_id(), before.device_id());
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).failure(), 11);

    // A right one in time starts the count anew.
    let (trezor, host) = locked();
    for _ in 0..15 {
        assert_eq!(type_pin(&trezor, &host, "9").failure(), 7);
    }
    assert_eq!(type_pin(&trezor, &host, "1234").id, ADDRESS);
    host.call_raw(LOCK_DEVICE, &[]);
    assert_eq!(type_pin(&trezor, &host, "9").failure(), 7);
    assert_eq!(type_pin(&trezor, &host, "1234").id, ADDRESS);
}

/// A transaction whose first chunk is confirmed, and the rest of its data.
fn chunked(host: &Host, length: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..length).map(|k| ((7 * k + 3) % 256) as u8).collect();
    let (answer, _) = host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &data));
    let asked: EthereumTxRequest = answer.expect(TX_REQUEST);
    assert_eq!(asked.data_length(), (length as u32 - 1024).min(1024));
    data
}

fn send_chunk(host: &Host, chunk: &[u8]) -> Raw {
    let mut ack = EthereumTxAck::new();
    ack.set_data_chunk(chunk.to_vec());
    host.call(TX_ACK, &ack)
}

/// Initialized, PIN, definitions, path, session, fields: each complaint hides those after it.
#[test]
fn checks_come_in_the_devices_order() {
    let trezor = SimulatedTrezor::start(SimulatorOptions { pin: Some("12".to_owned()), ..SimulatorOptions::default() }).unwrap();
    let host = Host::new(&trezor);
    let mut request = eip1559("m/44'/60'/101'/0/0", 31337, PAYEE, &[]);
    request.set_max_gas_fee(vec![1; 32]);
    let mut definitions = EthereumDefinitions::new();
    definitions.set_encoded_network(b"abc".to_vec());
    request.definitions = Some(definitions).into();
    let text = |answer: Raw| answer.expect::<Failure>(FAILURE).message().to_owned();

    assert_eq!(host.call(SIGN_TX_EIP1559, &request).id, PIN_MATRIX_REQUEST);
    let answer = send_pin(&host, &trezor.officer().positions_of("12").unwrap());
    assert_eq!(text(answer), "Invalid definition");
    request.definitions = None.into();
    assert_eq!(text(host.call(SIGN_TX_EIP1559, &request)), "Forbidden key path");
    request.address_n = path(FIRST_PATH);
    assert_eq!(text(host.call(SIGN_TX_EIP1559, &request)), "Invalid session");
    host.initialize(None);
    assert_eq!(text(host.call(SIGN_TX_EIP1559, &request)), "Fee out of bounds");
    request.set_max_gas_fee(vec![1]);
    assert_eq!(host.call(SIGN_TX_EIP1559, &request).id, BUTTON_REQUEST);
}

#[test]
fn between_chunks_other_requests_are_served() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let data = chunked(&host, 3000);
    assert_eq!(host.call_raw(GET_FEATURES, &[]).id, FEATURES);
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, ADDRESS);
    assert_eq!(host.call_raw(9999, &[]).failure(), 1);
    let answer = send_chunk(&host, &data[1024..2048]);
    assert_eq!(answer.expect::<EthereumTxRequest>(TX_REQUEST).data_length(), 952);
    let signed: EthereumTxRequest = send_chunk(&host, &data[2048..]).expect(TX_REQUEST);
    assert_eq!(signed.signature_r().len(), 32);
}

#[test]
fn fewer_bytes_than_asked_for_make_the_same_signature() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let data = chunked(&host, 1100);
    let mut last = None;
    for byte in &data[1024..] {
        last = Some(send_chunk(&host, &[*byte]).expect::<EthereumTxRequest>(TX_REQUEST));
    }
    let byte_by_byte = last.unwrap();
    let (answer, _) = host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &data));
    let (at_once, _) = finish(&host, answer, &data);
    assert_eq!(byte_by_byte.signature_r(), at_once.signature_r());
    assert_eq!(byte_by_byte.signature_s(), at_once.signature_s());
}

#[test]
fn what_ends_a_transaction_between_chunks() {
    let (trezor, host) = open(SimulatorOptions::default());
    let data = chunked(&host, 3000);
    host.cancelled();
    assert_eq!(send_chunk(&host, &data[1024..2048]).failure(), 1);

    let data = chunked(&host, 3000);
    host.initialize(None);
    assert_eq!(send_chunk(&host, &data[1024..2048]).failure(), 1);

    let data = chunked(&host, 1030);
    assert_eq!(send_chunk(&host, &[0; 7]).failure(), 3);
    assert_eq!(send_chunk(&host, &data[1024..]).failure(), 1);

    let data = chunked(&host, 1030);
    assert_eq!(send_chunk(&host, &[]).failure(), 3);
    assert_eq!(send_chunk(&host, &data[1024..]).failure(), 1);

    chunked(&host, 3000);
    assert_eq!(send_chunk(&host, &[0; 1025]).failure(), 3);

    let data = chunked(&host, 1030);
    host.call_raw(LOCK_DEVICE, &[]).expect::<Success>(SUCCESS);
    assert_eq!(send_chunk(&host, &data[1024..]).failure(), 9);
    assert_eq!(host.call(GET_ADDRESS, &get_address(FIRST_PATH)).id, ADDRESS);
    assert_eq!(send_chunk(&host, &data[1024..]).failure(), 1);
    drop(trezor);
}
