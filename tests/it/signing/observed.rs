//! What a real Trezor One signed and asked, the signing room reproduces; and what the simulated one
//! shows is what the room said it would.

use alloy::consensus::transaction::SignerRecoverable;
use alloy::consensus::{Transaction as _, TxEnvelope};
use alloy::eips::eip2718::Decodable2718;
use alloy::primitives::{U256, hex};
use amanatd::account::{AccountIndex, DerivationPath};
use amanatd::chains::{ChainBook, ChainSpec};
use amanatd::devkit::trezor::{DATA_VERSION_MIN, Definition, SimulatorOptions};
use amanatd::signing::{
    DefinitionKind, Definitions, Device, DeviceError, ExpectedScreens, FeeCaps, MissingReason, SignedTx, TransactionDraft,
    TransactionRequest, Transfer, WireSignature,
};
use amanatd::units::{Asset, ChainId};
use serde_json::Value;

use super::{open, patient, spec, start, within};

/// The shipped book, with the local chain's USDC at the address the observation used.
fn book() -> ChainBook {
    let shipped = include_str!("../../../chains.toml");
    let observed = shipped.replace("0x5FbDB2315678afecb367f032d93F642f64180aa3", "0xdAC17F958D2ee523a2206206994597C13D831ec7");
    ChainBook::parse(&observed).unwrap()
}

fn text<'a>(transaction: &'a Value, field: &str) -> &'a str {
    transaction[field].as_str().unwrap_or_else(|| panic!("{field} of {}", transaction["name"]))
}

/// The request behind an observed transaction, if a request can say it.
fn request(transaction: &Value, book: &ChainBook) -> Option<TransactionRequest> {
    if transaction["kind"] != "eip1559" {
        return None;
    }
    let data = hex::decode(text(transaction, "data")).unwrap();
    let value: U256 = text(transaction, "value").parse().unwrap();
    let chain = ChainId::new(transaction["chain_id"].as_u64().unwrap())?;
    let draft = TransactionDraft {
        chain,
        from: text(transaction, "path").parse().unwrap(),
        sender: text(transaction, "signer").parse().unwrap(),
        nonce: transaction["nonce"].as_u64().unwrap(),
        transfer: Transfer::from_call(text(transaction, "to").parse().unwrap(), value, &data).ok()?,
        fees: FeeCaps {
            gas_limit: transaction["gas_limit"].as_u64().unwrap(),
            max_fee_per_gas: text(transaction, "max_fee_per_gas").parse().unwrap(),
            max_priority_fee_per_gas: text(transaction, "max_priority_fee_per_gas").parse().unwrap(),
        },
    };
    Some(TransactionRequest::check(draft, book.get(chain)?).unwrap())
}

async fn sign(device: &Device, request: TransactionRequest, definitions: Definitions) -> Result<SignedTx, DeviceError> {
    within(async {
        let xpub = device.account_xpub(request.from().account).await?;
        device.open_account(xpub).await?.sign(request, definitions).await
    })
    .await
}

fn expected(request: &TransactionRequest, spec: &ChainSpec, definitions: &Definitions) -> Vec<Vec<String>> {
    ExpectedScreens::of(request, spec, definitions).screens.into_iter().map(|screen| screen.lines).collect()
}

#[tokio::test]
async fn s3_observed_transactions_are_signed_byte_for_byte() {
    let observed: Value = serde_json::from_str(include_str!("../../data/trezor/observed.json")).unwrap();
    let book = book();
    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    let mut equal = 0;
    for transaction in observed["transactions"].as_array().unwrap() {
        let Some(request) = request(transaction, &book) else { continue };
        let name = text(transaction, "name");
        assert_eq!(request.signing_hash().to_string(), text(transaction, "signing_hash"), "{name}");
        let v = u32::try_from(transaction["wire_v"].as_u64().unwrap()).unwrap();
        let (r, s) = (hex::decode(text(transaction, "r")).unwrap(), hex::decode(text(transaction, "s")).unwrap());
        let real = SignedTx::from_signature(request, WireSignature { v, r: &r, s: &s }).unwrap();

        let spec = book.get(request.chain()).unwrap();
        let definitions = Definitions::load(None, spec, request.transfer().asset);
        let expected = expected(&request, spec, &definitions);
        let before = trezor.screens().len();
        assert_eq!(sign(&device, request, definitions).await.unwrap(), real, "{name}");
        let shown = &trezor.screens()[before..];
        let codes: Vec<u64> = shown.iter().filter_map(|screen| screen.button()).map(u64::from).collect();
        let observed_codes: Vec<u64> = transaction["button_codes"].as_array().unwrap().iter().map(|code| code.as_u64().unwrap()).collect();
        assert_eq!(codes, observed_codes, "{name}");
        let shown: Vec<Vec<String>> = shown.iter().map(|screen| screen.lines.clone()).collect();
        assert_eq!(shown, expected, "{name}");
        equal += 1;
    }
    assert_eq!(equal, 13, "six chains, token and native, and the highest index");
}

#[tokio::test]
async fn definitions_name_a_token_of_an_unknown_chain() {
    let local = spec(31_337);
    let usdc = local.token("USDC").unwrap();
    let network = Definition::Network { chain_id: 31_337, symbol: "ETH".to_owned(), slip44: 60, name: "Local".to_owned() };
    let token =
        Definition::Token { chain_id: 31_337, address: usdc.contract, symbol: "USDC".to_owned(), decimals: 6, name: "USD Coin".to_owned() };
    let directory = std::env::temp_dir().join(format!("amanatd-it-definitions-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("eth/chain-id/31337")).unwrap();
    let draft = TransactionDraft {
        chain: local.id,
        transfer: Transfer { asset: Asset::Token(usdc.contract), ..super::usdt().transfer() },
        ..super::usdt().draft()
    };
    let request = TransactionRequest::check(draft, &local).unwrap();
    let load = || Definitions::load(Some(&directory), &local, request.transfer().asset);

    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;

    // One after the other: none, the token's alone (which the device ignores), both.
    let mut first_lines = Vec::new();
    for files in [vec![], vec![&token], vec![&network, &token]] {
        for definition in files {
            std::fs::write(directory.join(definition.file()), definition.encode(DATA_VERSION_MIN)).unwrap();
        }
        let definitions = load();
        let expected = expected(&request, &local, &definitions);
        let before = trezor.screens().len();
        sign(&device, request, definitions).await.unwrap();
        let shown: Vec<Vec<String>> = trezor.screens()[before..].iter().map(|screen| screen.lines.clone()).collect();
        assert_eq!(shown, expected);
        first_lines.push(shown[0][1].clone());
    }
    assert_eq!(first_lines, ["123,456,789 Wei UNKN", "123,456,789 Wei UNKN", "123.456789 USDC"]);
    assert_eq!(load().missing(), []);

    // A blob that says the right things, but that nobody signed: refused before any page.
    let mut forged = token.encode(DATA_VERSION_MIN);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    std::fs::write(directory.join(token.file()), forged).unwrap();
    let pages = super::signing_pages(&trezor);
    let error = sign(&device, request, load()).await.unwrap_err();
    assert!(matches!(error, DeviceError::Data { .. }) && !error.may_have_signed(), "{error}");
    assert_eq!(super::signing_pages(&trezor), pages);

    // A blob about another token is never attached.
    let other = Definition::Token { chain_id: 31_337, address: usdc.contract, symbol: "USDT".to_owned(), decimals: 6, name: String::new() };
    std::fs::write(directory.join(other.file()), other.encode(DATA_VERSION_MIN)).unwrap();
    let missing = load().missing().to_vec();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].what, DefinitionKind::Token);
    assert!(matches!(missing[0].reason, MissingReason::Differs { field: "symbol", .. }));
    sign(&device, request, load()).await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn d2_addresses_shown_by_the_device_equal_the_derived_ones() {
    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    let table = include_str!("../../data/trezor/addresses.csv");
    let mut equal = 0;
    for line in table.lines().skip(1).step_by(60) {
        let columns: Vec<&str> = line.split(',').collect();
        let path: DerivationPath = columns[3].parse().unwrap();
        assert_eq!(within(device.show_address(path)).await.unwrap().to_checksum(None), columns[4]);
        let shown = trezor.screens().last().unwrap().text();
        assert!(shown.contains(columns[4]), "{shown}");
        equal += 1;
    }
    assert_eq!(equal, 10);
    let one = within(device.account_xpub(AccountIndex::new(1).unwrap())).await.unwrap();
    assert_eq!(one.fingerprint().to_string(), "5fc3f0e4");
}

#[tokio::test]
async fn s3_signatures_recover_to_the_sender_on_every_chain() {
    let book = book();
    let trezor = start(SimulatorOptions::default());
    trezor.officer().confirm_all();
    let device = open(&trezor, patient()).await;
    let observed: Value = serde_json::from_str(include_str!("../../data/trezor/observed.json")).unwrap();
    let first = request(&observed["transactions"][0], &book).unwrap().draft();
    let mut recovered = Vec::new();
    for id in [1, 56, 137, 8_453, 42_161, 31_337] {
        let spec = book.get(ChainId::new(id).unwrap()).unwrap();
        for asset in [Asset::Native, Asset::Token(spec.tokens[0].contract)] {
            let transfer = Transfer { asset, ..first.transfer };
            let request = TransactionRequest::check(TransactionDraft { chain: spec.id, transfer, ..first }, spec).unwrap();
            let definitions = Definitions::load(None, spec, asset);
            let signed = sign(&device, request, definitions).await.unwrap();
            // Read back by code that knows nothing of ours.
            let envelope = TxEnvelope::decode_2718(&mut signed.raw().as_ref()).unwrap();
            assert_eq!((envelope.chain_id(), envelope.recover_signer().unwrap()), (Some(id), first.sender), "chain {id}");
            recovered.push(id);
        }
    }
    println!("signatures that recover to their sender: {} of 12, on 6 chains", recovered.len());
    assert_eq!(recovered.len(), 12);
}
