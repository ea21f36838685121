//! Every request that was put to Trezor One firmware, put to the simulator: same screens, chunks and
//! signature, byte for byte.

use alloy::primitives::{Address, hex};
use amanatd::devkit::trezor::SimulatorOptions;
use serde::Deserialize;
use trezor_client::protos::{
    EthereumAddress, EthereumMessageSignature, EthereumSignMessage, EthereumSignTx, EthereumSignTxEIP1559, EthereumSignTypedHash,
    EthereumTypedDataSignature,
};

use super::client::{
    ADDRESS, GET_ADDRESS, MESSAGE_SIGNATURE, SIGN_MESSAGE, SIGN_TX, SIGN_TX_EIP1559, SIGN_TYPED_HASH, TYPED_DATA_SIGNATURE, minimal, path,
};
use super::{finish, get_address, open};

#[derive(Deserialize)]
struct Observed {
    transactions: Vec<Transaction>,
    messages: Vec<Message>,
    typed_hashes: Vec<TypedHash>,
}

#[derive(Deserialize)]
struct Transaction {
    name: String,
    kind: String,
    path: String,
    chain_id: u64,
    nonce: u64,
    gas_limit: u64,
    to: String,
    value: String,
    data: String,
    max_fee_per_gas: Option<String>,
    max_priority_fee_per_gas: Option<String>,
    gas_price: Option<String>,
    wire_v: u32,
    r: String,
    s: String,
    button_codes: Vec<u8>,
    chunk_requests: Vec<u32>,
}

#[derive(Deserialize)]
struct Message {
    name: String,
    path: String,
    message_hex: String,
    signature: String,
    address: String,
    button_codes: Vec<u8>,
}

#[derive(Deserialize)]
struct TypedHash {
    name: String,
    path: String,
    domain_separator_hash: String,
    message_hash: Option<String>,
    signature: String,
    address: String,
    button_codes: Vec<u8>,
}

fn observed() -> Observed {
    serde_json::from_str(include_str!("../../data/trezor/observed.json")).unwrap()
}

fn decimal(text: &str) -> Vec<u8> {
    minimal(text.parse().unwrap())
}

#[test]
fn observed_transactions_are_signed_alike() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let transactions = observed().transactions;
    assert_eq!(transactions.len(), 40);
    for tx in transactions {
        let data = hex::decode(&tx.data).unwrap();
        let initial = data[..data.len().min(1024)].to_vec();
        let length = u32::try_from(data.len()).unwrap();
        let (answer, codes) = match tx.kind.as_str() {
            "eip1559" => {
                let mut request = EthereumSignTxEIP1559::new();
                request.address_n = path(&tx.path);
                request.set_nonce(minimal(tx.nonce.into()));
                request.set_max_gas_fee(decimal(&tx.max_fee_per_gas.unwrap()));
                request.set_max_priority_fee(decimal(&tx.max_priority_fee_per_gas.unwrap()));
                request.set_gas_limit(minimal(tx.gas_limit.into()));
                request.set_to(tx.to);
                request.set_value(decimal(&tx.value));
                request.set_data_initial_chunk(initial);
                request.set_data_length(length);
                request.set_chain_id(tx.chain_id);
                host.talk(SIGN_TX_EIP1559, &request)
            }
            "legacy" => {
                let mut request = EthereumSignTx::new();
                request.address_n = path(&tx.path);
                request.set_nonce(minimal(tx.nonce.into()));
                request.set_gas_price(decimal(&tx.gas_price.unwrap()));
                request.set_gas_limit(minimal(tx.gas_limit.into()));
                request.set_to(tx.to);
                request.set_value(decimal(&tx.value));
                request.set_data_initial_chunk(initial);
                request.set_data_length(length);
                request.set_chain_id(tx.chain_id);
                host.talk(SIGN_TX, &request)
            }
            other => panic!("{other}"),
        };
        let (signed, asked) = finish(&host, answer, &data);
        assert_eq!(codes, tx.button_codes, "{}", tx.name);
        assert_eq!(asked, tx.chunk_requests, "{}", tx.name);
        assert_eq!(signed.signature_v(), tx.wire_v, "{}", tx.name);
        assert_eq!(hex::encode_prefixed(signed.signature_r()), tx.r, "{}", tx.name);
        assert_eq!(hex::encode_prefixed(signed.signature_s()), tx.s, "{}", tx.name);
    }
}

#[test]
fn observed_messages_are_signed_alike() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let messages = observed().messages;
    assert_eq!(messages.len(), 7);
    for message in messages {
        let mut request = EthereumSignMessage::new();
        request.address_n = path(&message.path);
        request.set_message(hex::decode(&message.message_hex).unwrap());
        let (answer, codes) = host.talk(SIGN_MESSAGE, &request);
        let signed: EthereumMessageSignature = answer.expect(MESSAGE_SIGNATURE);
        assert_eq!(codes, message.button_codes, "{}", message.name);
        assert_eq!(hex::encode_prefixed(signed.signature()), message.signature, "{}", message.name);
        assert_eq!(signed.address(), message.address, "{}", message.name);
    }
}

#[test]
fn observed_typed_hashes_are_signed_alike() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let hashes = observed().typed_hashes;
    assert_eq!(hashes.len(), 2);
    for hash in hashes {
        let mut request = EthereumSignTypedHash::new();
        request.address_n = path(&hash.path);
        request.set_domain_separator_hash(hex::decode(&hash.domain_separator_hash).unwrap());
        request.message_hash = hash.message_hash.map(|hash| hex::decode(hash).unwrap());
        let (answer, codes) = host.talk(SIGN_TYPED_HASH, &request);
        let signed: EthereumTypedDataSignature = answer.expect(TYPED_DATA_SIGNATURE);
        assert_eq!(codes, hash.button_codes, "{}", hash.name);
        assert_eq!(hex::encode_prefixed(signed.signature()), hash.signature, "{}", hash.name);
        assert_eq!(signed.address(), hash.address, "{}", hash.name);
    }
}

#[test]
fn d2_the_device_gives_the_600_addresses() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let rows = include_str!("../../data/trezor/addresses.csv").lines().skip(1);
    let mut count = 0;
    for row in rows {
        let columns: Vec<&str> = row.split(',').collect();
        let [.., path, expected] = columns[..] else { panic!("{row}") };
        let answer: EthereumAddress = host.call(GET_ADDRESS, &get_address(path)).expect(ADDRESS);
        assert_eq!(answer.address(), expected, "{path}");
        // The text is EIP-55 as well, not just the same hex.
        assert_eq!(Address::parse_checksummed(answer.address(), None).unwrap().to_string(), expected);
        count += 1;
    }
    assert_eq!(count, 600);
}
