//! Sessions, passphrases and wallets: what S11 rests on. A wrong passphrase is not an error on
//! the wire, and neither is another seed: only the xpub tells.

use amanatd::devkit::trezor::{Fault, SimulatorOptions};
use trezor_client::protos::{EthereumAddress, EthereumGetPublicKey, EthereumPublicKey, PassphraseAck, Success};

use super::client::{
    ADDRESS, END_SESSION, GET_ADDRESS, GET_PUBLIC_KEY, Host, INITIALIZE, LOCK_DEVICE, PASSPHRASE_ACK, PASSPHRASE_REQUEST, PUBLIC_KEY, Raw,
    SIGN_TX_EIP1559, SUCCESS, path,
};
use super::{FIRST, FIRST_OF_X, FIRST_PATH, PAYEE, eip1559, get_address, open, start};

fn with_passphrase() -> SimulatorOptions {
    SimulatorOptions { passphrase_protection: true, ..SimulatorOptions::default() }
}

fn ask(host: &Host) -> Raw {
    host.call(GET_ADDRESS, &get_address(FIRST_PATH))
}

fn type_passphrase(host: &Host, passphrase: &str) -> Raw {
    let mut ack = PassphraseAck::new();
    ack.set_passphrase(passphrase.to_owned());
    host.talk(PASSPHRASE_ACK, &ack).0
}

fn address(answer: &Raw) -> String {
    answer.expect::<EthereumAddress>(ADDRESS).address().to_owned()
}

fn xpub(host: &Host, account: u32) -> String {
    let mut request = EthereumGetPublicKey::new();
    request.address_n = path(&format!("m/44'/60'/{account}'"));
    host.call(GET_PUBLIC_KEY, &request).expect::<EthereumPublicKey>(PUBLIC_KEY).xpub().to_owned()
}

#[test]
fn no_session_before_initialize_and_after_its_end() {
    let trezor = start(SimulatorOptions::default());
    let host = Host::new(&trezor);
    assert_eq!(ask(&host).failure(), 14);
    host.initialize(None);
    assert_eq!(address(&ask(&host)), FIRST);
    host.call_raw(END_SESSION, &[]).expect::<Success>(SUCCESS);
    assert_eq!(ask(&host).failure(), 14);
}

#[test]
fn a_known_id_resumes_and_an_unknown_one_begins_anew() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let first = host.initialize(None);
    let second = host.initialize(None);
    assert_ne!(first, second);
    assert_eq!(host.initialize(Some(&first)), first);
    assert_eq!(host.initialize(Some(&second)), second);
    let third = host.initialize(Some(&[7; 32]));
    assert!(third != [7; 32] && third != first && third != second);
    assert_ne!(host.initialize(Some(&first[..31])), first);
}

#[test]
fn the_least_recently_used_of_ten_sessions_makes_room() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let sessions: Vec<Vec<u8>> = (0..10).map(|_| host.initialize(None)).collect();
    // Used again, so the second is now the oldest.
    assert_eq!(host.initialize(Some(&sessions[0])), sessions[0]);
    host.initialize(None);
    for (place, session) in sessions.iter().enumerate().rev() {
        if place != 1 {
            assert_eq!(&host.initialize(Some(session)), session, "{place}");
        }
    }
    assert_ne!(host.initialize(Some(&sessions[1])), sessions[1]);
}

#[test]
fn an_ended_session_does_not_come_back() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let first = host.initialize(None);
    let second = host.initialize(None);
    host.call_raw(END_SESSION, &[]).expect::<Success>(SUCCESS);
    assert_ne!(host.initialize(Some(&second)), second);
    assert_eq!(host.initialize(Some(&first)), first);
}

#[test]
fn the_passphrase_is_asked_once_per_session() {
    let (trezor, host) = open(with_passphrase());
    let session = host.initialize(None);
    assert_eq!(ask(&host).id, PASSPHRASE_REQUEST);
    assert_eq!(address(&type_passphrase(&host, "")), FIRST);
    assert!(trezor.screens().iter().all(|screen| screen.button().is_none()), "the standard wallet needs no button");
    assert_eq!(address(&ask(&host)), FIRST);
    host.initialize(None);
    assert_eq!(ask(&host).id, PASSPHRASE_REQUEST);
    host.cancelled();
    host.initialize(Some(&session));
    assert_eq!(address(&ask(&host)), FIRST);
    // Locking takes nothing away.
    host.call_raw(LOCK_DEVICE, &[]).expect::<Success>(SUCCESS);
    assert_eq!(address(&ask(&host)), FIRST);
}

#[test]
fn s11_a_wrong_passphrase_is_no_error_but_another_wallet() {
    let (trezor, host) = open(with_passphrase());
    host.initialize(None);
    assert_eq!(ask(&host).id, PASSPHRASE_REQUEST);
    assert_eq!(address(&type_passphrase(&host, "x")), FIRST_OF_X);
    let shown: Vec<_> = trezor.screens().iter().filter_map(|screen| screen.button()).collect();
    assert_eq!(shown, [1, 1]);
    assert_eq!(trezor.screens().last().unwrap().text(), "Use this passphrase? x");
    // It would sign, too: only the comparison of the xpub stands in the way.
    let (answer, codes) = host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[1]));
    assert_eq!((answer.id, codes.len()), (59, 5));
    assert_ne!(xpub(&host, 0), xpub(&open(SimulatorOptions::default()).1, 0));
}

#[test]
fn s11_faults_make_it_another_device() {
    let (trezor, host) = open(SimulatorOptions::default());
    let session = host.initialize(None);
    let before = xpub(&host, 0);

    trezor.inject(Fault::OtherSeed("abandon ".repeat(11) + "about"));
    assert_ne!(host.initialize(Some(&session)), session);
    assert_ne!(xpub(&host, 0), before);

    trezor.inject(Fault::OtherSeed(SimulatorOptions::default().mnemonic));
    host.initialize(None);
    assert_eq!(xpub(&host, 0), before);

    trezor.inject(Fault::OtherPassphrase("x".to_owned()));
    host.initialize(None);
    assert_eq!(address(&ask(&host)), FIRST_OF_X);

    trezor.inject(Fault::OtherDeviceId("ANOTHER".to_owned()));
    let features: trezor_client::protos::Features = host.call_raw(INITIALIZE, &[]).expect(17);
    assert_eq!(features.device_id(), "ANOTHER");
}

#[test]
fn evicted_sessions_ask_for_the_passphrase_again() {
    let (trezor, host) = open(with_passphrase());
    let session = host.initialize(None);
    ask(&host);
    assert_eq!(address(&type_passphrase(&host, "")), FIRST);
    trezor.inject(Fault::SessionsEvicted);
    assert_ne!(host.initialize(Some(&session)), session);
    assert_eq!(ask(&host).id, PASSPHRASE_REQUEST);
    // Without Initialize the eviction shows as Failure 14.
    host.cancelled();
    trezor.inject(Fault::SessionsEvicted);
    assert_eq!(ask(&host).failure(), 14);
}

#[test]
fn a_passphrase_that_is_too_long_leaves_the_prompt_open() {
    let (_trezor, host) = open(with_passphrase());
    ask(&host);
    for length in [51, 200] {
        let mut ack = PassphraseAck::new();
        ack.set_passphrase("p".repeat(length));
        assert_eq!(host.call(PASSPHRASE_ACK, &ack).failure(), 3);
    }
    host.send(GET_ADDRESS, &[]);
    host.assert_silent();
    assert_eq!(type_passphrase(&host, &"p".repeat(50)).id, ADDRESS);
}

#[test]
fn public_keys_know_no_bounds() {
    let (_trezor, host) = open(SimulatorOptions::default());
    assert_eq!(
        xpub(&host, 1),
        "xpub6CNFa58kEQJu4f2ySPWzhVDTrQ1wEkkkoeAkAouhCCdc2JgRWkv5NLgeVvVwcYYiSu5rSjJzdN5ywG6fhT23WMQV5esHjn11MSghAunJefQ"
    );
    assert!(xpub(&host, 200).starts_with("xpub"));
}

#[test]
fn a_device_without_a_wallet_says_so() {
    let (_trezor, host) = open(SimulatorOptions { initialized: false, ..SimulatorOptions::default() });
    assert_eq!(ask(&host).failure(), 11);
    assert_eq!(host.call(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[1])).failure(), 11);
}
