//! The simulated Trezor against what Trezor One firmware 1.14.1 did, over its wire alone.
//!
//! Invariant S11 (right device) has its ground here: a wrong passphrase, another seed and another
//! session must look on the wire exactly as they do on the device.

#![allow(clippy::unwrap_used, reason = "clippy takes only #[test] functions for tests, and these have helpers")]

mod client;
mod definitions;
mod faults;
mod observed;
mod prompts;
mod screens;
mod sessions;
mod transcripts;
mod vendor;
mod wire;

use amanatd::devkit::trezor::{SimulatedTrezor, SimulatorOptions};
use trezor_client::protos::{EthereumGetAddress, EthereumSignTx, EthereumSignTxEIP1559, EthereumTxAck, EthereumTxRequest};

use client::{Host, Raw, TX_ACK, TX_REQUEST, minimal, path};

/// The first address of the wallet, and the one that passphrase `x` opens in its place.
const FIRST: &str = "0x73d0385F4d8E00C5e6504C6030F47BF6212736A8";
const FIRST_OF_X: &str = "0x0550e47323C1f36325043D4efE9259eBEb4975F2";
const FIRST_PATH: &str = "m/44'/60'/0'/0/0";
const USDT: &str = "0xdAC17F958D2ee523a2206206994597C13D831ec7";
const PAYEE: &str = "0x2222222222222222222222222222222222222222";

/// A device whose officer confirms everything.
fn start(options: SimulatorOptions) -> SimulatedTrezor {
    let trezor = SimulatedTrezor::start(options).unwrap();
    trezor.officer().confirm_all();
    trezor
}

/// The same, opened.
fn open(options: SimulatorOptions) -> (SimulatedTrezor, Host) {
    let trezor = start(options);
    let host = Host::new(&trezor);
    host.initialize(None);
    (trezor, host)
}

fn get_address(at: &str) -> EthereumGetAddress {
    let mut request = EthereumGetAddress::new();
    request.address_n = path(at);
    request
}

/// 100,000 gas at 30 gwei at most, 1 gwei for the miner.
fn eip1559(at: &str, chain_id: u64, to: &str, data: &[u8]) -> EthereumSignTxEIP1559 {
    let mut request = EthereumSignTxEIP1559::new();
    request.address_n = path(at);
    request.set_nonce(minimal(1));
    request.set_max_gas_fee(minimal(30_000_000_000));
    request.set_max_priority_fee(minimal(1_000_000_000));
    request.set_gas_limit(minimal(100_000));
    request.set_to(to.to_owned());
    request.set_value(Vec::new());
    request.set_data_initial_chunk(data[..data.len().min(1024)].to_vec());
    request.set_data_length(u32::try_from(data.len()).unwrap());
    request.set_chain_id(chain_id);
    request
}

/// 100,000 gas at 5 gwei, and one ether to pay.
fn legacy(at: &str, chain_id: u64, to: &str) -> EthereumSignTx {
    let mut request = EthereumSignTx::new();
    request.address_n = path(at);
    request.set_nonce(minimal(1));
    request.set_gas_price(minimal(5_000_000_000));
    request.set_gas_limit(minimal(100_000));
    request.set_to(to.to_owned());
    request.set_value(minimal(1_000_000_000_000_000_000));
    request.set_chain_id(chain_id);
    request
}

/// Calldata of an ERC-20 transfer to [`PAYEE`].
fn transfer(amount: u128) -> Vec<u8> {
    let mut data = vec![0xa9, 0x05, 0x9c, 0xbb];
    data.resize(16, 0);
    data.resize(36, 0x22);
    data.resize(52, 0);
    data.extend_from_slice(&amount.to_be_bytes());
    data
}

/// Sends the data that is asked for until the signature comes; the sizes asked for come along.
fn finish(host: &Host, answer: Raw, data: &[u8]) -> (EthereumTxRequest, Vec<u32>) {
    let mut answer: EthereumTxRequest = answer.expect(TX_REQUEST);
    let mut sent = 1024;
    let mut asked = Vec::new();
    while let Some(length) = answer.data_length {
        asked.push(length);
        let next = sent + length as usize;
        let mut ack = EthereumTxAck::new();
        ack.set_data_chunk(data[sent..next].to_vec());
        sent = next;
        answer = host.call(TX_ACK, &ack).expect(TX_REQUEST);
    }
    (answer, asked)
}
