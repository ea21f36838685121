//! The vendor's 49 vectors at both safety levels: the same answer as Trezor One firmware gave,
//! with the same screens, or the same refusal.
//!
//! The files are the vendor's, under a licence that keeps them out of this repository. They are
//! read from the folder named by `AMANATD_TREZOR_DATA`; without it the test says so and returns.

use std::fs;
use std::path::PathBuf;

use alloy::primitives::{U256, hex};
use amanatd::devkit::trezor::{Safety, SimulatedTrezor, SimulatorOptions};
use serde::Deserialize;
use serde_json::value::RawValue;
use trezor_client::protos::{
    EthereumAddress, EthereumGetPublicKey, EthereumMessageSignature, EthereumPublicKey, EthereumSignMessage, EthereumSignTx,
    EthereumSignTxEIP1559,
};

use super::client::{
    ADDRESS, FAILURE, GET_ADDRESS, GET_PUBLIC_KEY, Host, MESSAGE_SIGNATURE, PUBLIC_KEY, Raw, SIGN_MESSAGE, SIGN_TX, SIGN_TX_EIP1559, path,
};
use super::{finish, get_address, start};

#[derive(Deserialize)]
struct File {
    setup: Setup,
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
struct Setup {
    mnemonic: String,
}

#[derive(Deserialize)]
struct Vector {
    parameters: Parameters,
    result: Expected,
}

#[derive(Deserialize)]
struct Parameters {
    path: String,
    msg: Option<String>,
    data: Option<String>,
    to_address: Option<String>,
    chain_id: Option<u64>,
    nonce: Option<String>,
    gas_price: Option<String>,
    gas_limit: Option<String>,
    max_gas_fee: Option<String>,
    max_priority_fee: Option<String>,
    tx_type: Option<u32>,
    value: Option<String>,
}

#[derive(Deserialize)]
struct Expected {
    address: Option<String>,
    fingerprint: Option<u32>,
    child_num: Option<u32>,
    chain_code: Option<String>,
    public_key: Option<String>,
    xpub: Option<String>,
    sig: Option<String>,
    /// Beyond u64 in one vector, so it is kept as text.
    sig_v: Option<Box<RawValue>>,
    sig_r: Option<String>,
    sig_s: Option<String>,
}

/// One line of `fixture_flows.csv`.
struct Flow {
    file: String,
    place: usize,
    safety: Safety,
    buttons: Vec<u8>,
    extra_chunks: Option<usize>,
    wire_v: Option<u32>,
    failure: Option<i32>,
    equal: bool,
}

#[test]
fn vendor_vectors_are_answered_as_on_the_device() {
    let Some(folder) = folder() else {
        println!("skipped: no folder with the vendor's vectors; AMANATD_TREZOR_DATA names one");
        return;
    };
    let flows = fs::read_to_string(folder.join("fixture_flows.csv")).unwrap();
    let flows: Vec<Flow> = flows.lines().skip(1).map(flow).collect();
    assert_eq!(flows.len(), 98);
    let mut equal = 0;
    for safety in [Safety::Strict, Safety::Prompt] {
        for name in ["getaddress", "getpublickey", "sign_tx", "sign_tx_eip155", "sign_tx_eip1559", "signmessage"] {
            let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
            let file: File = serde_json::from_str(&text).unwrap();
            let trezor = start(SimulatorOptions { mnemonic: file.setup.mnemonic.clone(), safety, ..SimulatorOptions::default() });
            let host = opened(&trezor);
            for flow in flows.iter().filter(|flow| (flow.file.as_str(), flow.safety) == (name, safety)) {
                equal += usize::from(flow.equal);
                check(&host, flow, &file.tests[flow.place]);
            }
        }
    }
    assert_eq!(equal, 45 + 48);
}

fn folder() -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("AMANATD_TREZOR_DATA").map(PathBuf::from);
    let beside = ["../shared/data/trezor", "../../shared/data/trezor"].map(|place| here.join(place));
    named.into_iter().chain(beside).find(|folder| folder.join("fixture_flows.csv").is_file())
}

fn opened(trezor: &SimulatedTrezor) -> Host {
    let host = Host::new(trezor);
    host.initialize(None);
    host
}

/// The name may be quoted and hold a comma; nothing else does.
fn flow(line: &str) -> Flow {
    let (file, rest) = line.split_once(',').unwrap();
    let (place, rest) = rest.split_once(',').unwrap();
    let rest = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once("\",").unwrap().1,
        None => rest.split_once(',').unwrap().1,
    };
    let columns: Vec<&str> = rest.split(',').collect();
    let [safety, buttons, extra_chunks, wire_v, failure, equal] = columns[..] else { panic!("{line}") };
    Flow {
        file: file.to_owned(),
        place: place.parse().unwrap(),
        safety: match safety {
            "strict" => Safety::Strict,
            "prompt" => Safety::Prompt,
            other => panic!("{other}"),
        },
        buttons: buttons.split_whitespace().map(|code| code.parse().unwrap()).collect(),
        extra_chunks: extra_chunks.parse().ok(),
        wire_v: wire_v.parse().ok(),
        failure: failure.parse().ok(),
        equal: equal == "True",
    }
}

fn check(host: &Host, flow: &Flow, vector: &Vector) {
    let here = format!("{} {} {:?}", flow.file, flow.place, flow.safety);
    let (answer, codes) = ask(host, &flow.file, &vector.parameters);
    assert_eq!(codes, flow.buttons, "{here}");
    assert_eq!(answer.id == FAILURE, flow.failure.is_some(), "{here}");
    if let Some(code) = flow.failure {
        assert_eq!(answer.failure(), code, "{here}");
        return;
    }
    assert!(flow.equal, "{here}");
    let expected = &vector.result;
    match flow.file.as_str() {
        "getaddress" => {
            let answer: EthereumAddress = answer.expect(ADDRESS);
            assert_eq!(Some(answer.address()), expected.address.as_deref(), "{here}");
        }
        "getpublickey" => check_public_key(&answer.expect(PUBLIC_KEY), expected, &here),
        "signmessage" => {
            let answer: EthereumMessageSignature = answer.expect(MESSAGE_SIGNATURE);
            assert_eq!(Some(answer.address()), expected.address.as_deref(), "{here}");
            assert_eq!(Some(hex::encode(answer.signature())), expected.sig, "{here}");
        }
        _ => check_transaction(host, answer, flow, vector, &here),
    }
}

fn check_public_key(answer: &EthereumPublicKey, expected: &Expected, here: &str) {
    assert_eq!(answer.node.fingerprint, expected.fingerprint, "{here}");
    assert_eq!(answer.node.child_num, expected.child_num, "{here}");
    assert_eq!(answer.node.chain_code.as_ref().map(hex::encode), expected.chain_code, "{here}");
    assert_eq!(answer.node.public_key.as_ref().map(hex::encode), expected.public_key, "{here}");
    assert_eq!(answer.xpub, expected.xpub, "{here}");
}

fn check_transaction(host: &Host, answer: Raw, flow: &Flow, vector: &Vector, here: &str) {
    let data = hex::decode(vector.parameters.data.as_ref().unwrap()).unwrap();
    let (signed, asked) = finish(host, answer, &data);
    assert_eq!(Some(asked.len()), flow.extra_chunks, "{here}");
    assert_eq!(signed.signature_v, flow.wire_v, "{here}");
    let expected = &vector.result;
    assert_eq!(signed.signature_r.as_ref().map(hex::encode), expected.sig_r, "{here}");
    assert_eq!(signed.signature_s.as_ref().map(hex::encode), expected.sig_s, "{here}");
    // The vector's v is what a host makes of the wire's, in arithmetic wider than u64.
    let wire_v = U256::from(signed.signature_v());
    let chain_id = U256::from(vector.parameters.chain_id.unwrap());
    let folded = flow.file != "sign_tx_eip1559" && signed.signature_v() <= 1;
    let v = if folded { wire_v + chain_id * U256::from(2) + U256::from(35) } else { wire_v };
    assert_eq!(Some(v.to_string().as_str()), expected.sig_v.as_ref().map(|v| v.get()), "{here}");
}

fn ask(host: &Host, file: &str, parameters: &Parameters) -> (Raw, Vec<u8>) {
    match file {
        "getaddress" => host.talk(GET_ADDRESS, &get_address(&parameters.path)),
        "getpublickey" => {
            let mut request = EthereumGetPublicKey::new();
            request.address_n = path(&parameters.path);
            host.talk(GET_PUBLIC_KEY, &request)
        }
        "signmessage" => {
            let mut request = EthereumSignMessage::new();
            request.address_n = path(&parameters.path);
            request.set_message(parameters.msg.as_ref().unwrap().as_bytes().to_vec());
            host.talk(SIGN_MESSAGE, &request)
        }
        "sign_tx_eip1559" => host.talk(SIGN_TX_EIP1559, &eip1559(parameters)),
        _ => host.talk(SIGN_TX, &legacy(parameters)),
    }
}

fn eip1559(parameters: &Parameters) -> EthereumSignTxEIP1559 {
    let data = hex::decode(parameters.data.as_ref().unwrap()).unwrap();
    let mut request = EthereumSignTxEIP1559::new();
    request.address_n = path(&parameters.path);
    request.set_nonce(number(&parameters.nonce));
    request.set_max_gas_fee(number(&parameters.max_gas_fee));
    request.set_max_priority_fee(number(&parameters.max_priority_fee));
    request.set_gas_limit(number(&parameters.gas_limit));
    request.set_to(parameters.to_address.clone().unwrap());
    request.set_value(number(&parameters.value));
    request.set_data_initial_chunk(data[..data.len().min(1024)].to_vec());
    request.set_data_length(u32::try_from(data.len()).unwrap());
    request.set_chain_id(parameters.chain_id.unwrap());
    request
}

fn legacy(parameters: &Parameters) -> EthereumSignTx {
    let data = hex::decode(parameters.data.as_ref().unwrap()).unwrap();
    let mut request = EthereumSignTx::new();
    request.address_n = path(&parameters.path);
    request.set_nonce(number(&parameters.nonce));
    request.set_gas_price(number(&parameters.gas_price));
    request.set_gas_limit(number(&parameters.gas_limit));
    request.set_to(parameters.to_address.clone().unwrap());
    request.set_value(number(&parameters.value));
    request.set_data_initial_chunk(data[..data.len().min(1024)].to_vec());
    request.set_data_length(u32::try_from(data.len()).unwrap());
    request.set_chain_id(parameters.chain_id.unwrap());
    request.tx_type = parameters.tx_type;
    request
}

fn number(hex: &Option<String>) -> Vec<u8> {
    let number: U256 = hex.as_ref().unwrap().parse().unwrap();
    number.to_be_bytes_trimmed_vec()
}
