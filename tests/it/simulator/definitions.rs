//! Definitions attached to a request: what they change on the screen, and what breaks them.

use alloy::primitives::Address;
use amanatd::devkit::trezor::{DATA_VERSION_MIN, Definition, Fault, Firmware, SimulatorOptions};
use trezor_client::protos::{EthereumDefinitions, EthereumSignMessage};

use super::client::{Host, SIGN_MESSAGE, SIGN_TX_EIP1559, TX_REQUEST, path};
use super::{FIRST_PATH, PAYEE, USDT, eip1559, open, transfer};

fn network(chain_id: u64, slip44: u32) -> Vec<u8> {
    Definition::Network { chain_id, symbol: "LOCAL".to_owned(), slip44, name: "A local chain".to_owned() }.encode(DATA_VERSION_MIN)
}

fn token(chain_id: u64, address: &str) -> Vec<u8> {
    let address: Address = address.parse().unwrap();
    Definition::Token { chain_id, address, symbol: "tUSD".to_owned(), decimals: 6, name: "Test dollars".to_owned() }
        .encode(DATA_VERSION_MIN)
}

/// The first and the last text that a transfer shows, or the code of the refusal.
fn transfer_shows(chain_id: u64, to: &str, network: Option<Vec<u8>>, token: Option<Vec<u8>>) -> Result<(String, String), i32> {
    let (trezor, host) = open(SimulatorOptions::default());
    let (answer, codes) = ask(&host, chain_id, to, network, token);
    if answer.id != TX_REQUEST {
        assert!(codes.is_empty(), "refused before any screen");
        return Err(answer.failure());
    }
    let screens = trezor.screens();
    Ok((screens[0].lines[1].clone(), screens[3].lines[2].clone()))
}

fn ask(host: &Host, chain_id: u64, to: &str, network: Option<Vec<u8>>, token: Option<Vec<u8>>) -> (super::client::Raw, Vec<u8>) {
    let mut request = eip1559(FIRST_PATH, chain_id, to, &transfer(123_456_789));
    let mut definitions = EthereumDefinitions::new();
    definitions.encoded_network = network;
    definitions.encoded_token = token;
    request.definitions = Some(definitions).into();
    host.talk(SIGN_TX_EIP1559, &request)
}

fn shows(amount: &str, fee: &str) -> Result<(String, String), i32> {
    Ok((amount.to_owned(), fee.to_owned()))
}

fn broken(mut blob: Vec<u8>) -> Vec<u8> {
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    blob
}

#[test]
fn definitions_name_what_is_not_built_in() {
    let unknown = "123,456,789 Wei UNKN";
    assert_eq!(transfer_shows(56, USDT, None, Some(token(56, USDT))), shows("123.456789 tUSD", "0.003 BNB"));
    assert_eq!(transfer_shows(31337, USDT, Some(network(31337, 60)), None), shows(unknown, "0.003 LOCAL"));
    assert_eq!(transfer_shows(31337, USDT, Some(network(31337, 60)), Some(token(31337, USDT))), shows("123.456789 tUSD", "0.003 LOCAL"));
    // Without its network a token is not even read.
    assert_eq!(transfer_shows(31337, USDT, None, Some(token(31337, USDT))), shows(unknown, "0.003 UNKN"));
    assert_eq!(transfer_shows(31337, USDT, None, Some(broken(token(31337, USDT)))), shows(unknown, "0.003 UNKN"));
}

#[test]
fn what_is_built_in_wins_unread() {
    let junk = || Some(b"abc".to_vec());
    assert_eq!(transfer_shows(1, USDT, junk(), junk()), shows("123.456789 USDT", "0.003 ETH"));
    assert_eq!(transfer_shows(1, USDT, Some(network(1, 60)), Some(token(1, USDT))), shows("123.456789 USDT", "0.003 ETH"));
}

#[test]
fn a_token_that_is_another_one_is_ignored_in_silence() {
    let unknown = shows("123,456,789 Wei UNKN", "0.003 BNB");
    assert_eq!(transfer_shows(56, USDT, None, Some(token(56, PAYEE))), unknown);
    assert_eq!(transfer_shows(56, USDT, None, Some(token(137, USDT))), unknown);
}

#[test]
fn broken_blobs_are_refused() {
    assert_eq!(transfer_shows(56, USDT, None, Some(b"abc".to_vec())), Err(3));
    assert_eq!(transfer_shows(31337, USDT, Some(network(1337, 60)), None), Err(3), "another chain's");
    assert_eq!(transfer_shows(31337, USDT, Some(token(31337, USDT)), None), Err(3), "a token's");
    assert_eq!(transfer_shows(31337, USDT, Some(vec![0; 1025]), None), Err(3));
    let whole = network(31337, 60);
    for place in 0..whole.len() {
        let mut blob = whole.clone();
        blob[place] ^= 0x10;
        // The mask alone is not covered: which two of three keys signed.
        let is_mask = place == whole.len() - 65;
        assert_eq!(transfer_shows(31337, USDT, Some(blob), None).is_err(), !is_mask, "byte {place}");
    }
    assert_eq!(transfer_shows(31337, USDT, Some(whole[..whole.len() - 1].to_vec()), None), Err(3));
    assert_eq!(transfer_shows(31337, USDT, Some([&whole[..], &[0]].concat()), None), Err(3));
}

#[test]
fn outdated_blobs_are_refused() {
    let local = Definition::Network { chain_id: 31337, symbol: "LOCAL".to_owned(), slip44: 60, name: String::new() };
    assert!(transfer_shows(31337, USDT, Some(local.encode(DATA_VERSION_MIN)), None).is_ok());
    assert_eq!(transfer_shows(31337, USDT, Some(local.encode(DATA_VERSION_MIN - 1)), None), Err(3));
}

#[test]
fn messages_need_no_network_while_the_path_is_ethereums() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let mut message = EthereumSignMessage::new();
    message.address_n = path("m/44'/60'/0'/0/0");
    message.set_message(b"hello".to_vec());
    message.set_encoded_network(b"abc".to_vec());
    assert_eq!(host.talk(SIGN_MESSAGE, &message).0.id, 66);
    message.address_n = path("m/44'/344'/0'/0/0");
    assert_eq!(host.talk(SIGN_MESSAGE, &message).0.failure(), 3);
    message.set_encoded_network(network(28_945_486, 344));
    assert_eq!(host.talk(SIGN_MESSAGE, &message).0.id, 66);
    message.set_encoded_network(network(28_945_486, 345));
    assert_eq!(host.talk(SIGN_MESSAGE, &message).0.failure(), 3);
}

#[test]
fn old_firmware_knows_less() {
    let old = |minor, patch| Fault::OldFirmware(Firmware { major: 1, minor, patch });
    let (trezor, host) = open(SimulatorOptions::default());
    // Coin type 60 on a network that is registered with coin type 1, with and without its blob.
    trezor.inject(old(13, 0));
    assert_eq!(ask(&host, 999, USDT, None, None).0.failure(), 3);
    assert_eq!(ask(&host, 31337, USDT, Some(network(31337, 1)), None).0.failure(), 3);
    assert_eq!(ask(&host, 31337, USDT, Some(network(31337, 60)), None).0.id, TX_REQUEST);
    // No definitions: the field is unknown, so even junk in it does no harm.
    trezor.inject(old(12, 1));
    assert_eq!(ask(&host, 31337, USDT, Some(b"abc".to_vec()), None).0.id, TX_REQUEST);
    // No EIP-1559.
    trezor.inject(old(10, 3));
    assert_eq!(ask(&host, 1, USDT, None, None).0.failure(), 1);
    let features: trezor_client::protos::Features = host.call_raw(55, &[]).expect(17);
    assert_eq!((features.minor_version(), features.patch_version()), (10, 3));
}

#[test]
fn files_lie_where_the_vendors_service_has_them() {
    let local = Definition::Network { chain_id: 31337, symbol: "LOCAL".to_owned(), slip44: 60, name: String::new() };
    assert_eq!(local.file(), "eth/chain-id/31337/network.dat");
    let usdt = Definition::Token { chain_id: 56, address: USDT.parse().unwrap(), symbol: String::new(), decimals: 6, name: String::new() };
    assert_eq!(usdt.file(), "eth/chain-id/56/token-dac17f958d2ee523a2206206994597c13d831ec7.dat");
}
