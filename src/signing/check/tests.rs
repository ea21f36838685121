//! S3 and S10: a signature or bytes that differ from the request in any one thing are refused.

use alloy::consensus::{TxEip2930, TxEip7702, TxLegacy};
use alloy::eips::eip2930::{AccessList, AccessListItem};
use alloy::primitives::hex;
use proptest::prelude::*;

use super::super::request::tests::{spec, usdt_draft};
use super::super::request::{TransactionDraft, TransactionRequest};
use super::*;
use crate::units::ChainId;

/// As Trezor One firmware 1.14.1 signed it (`erc20_transfer_1` of `observed.json`).
const R: [u8; 32] = hex!("e74b97f038f45b6f70fa19e1f6de11a9468f37b3c974d06b1ba1e4600545e191");
const S: [u8; 32] = hex!("1ed3b9710e349bebf4b37263b7856c5aa8e33cd0f5b0385e61989d5341643dfa");

fn request() -> TransactionRequest {
    TransactionRequest::check(usdt_draft(), &spec(1)).unwrap()
}

fn signature() -> Signature {
    Signature::new(U256::from_be_bytes(R), U256::from_be_bytes(S), false)
}

fn encode(transaction: &TxEip1559, signature: &Signature) -> Vec<u8> {
    let mut raw = Vec::new();
    transaction.eip2718_encode(signature, &mut raw);
    raw
}

/// The approved transaction with one field changed and the approved signature kept.
fn altered(edit: impl FnOnce(&mut TxEip1559)) -> CheckError {
    let mut transaction = request().to_unsigned();
    edit(&mut transaction);
    SignedTx::from_raw(request(), &encode(&transaction, &signature())).unwrap_err()
}

fn wire(v: u32, r: &[u8], s: &[u8]) -> Result<SignedTx, CheckError> {
    SignedTx::from_signature(request(), WireSignature { v, r, s })
}

#[test]
fn s3_the_devices_signature_is_accepted_and_reads_back_equal() {
    let signed = wire(0, &R, &S).unwrap();
    assert_eq!(signed.hash(), keccak256(signed.raw()));
    assert_eq!(signed.raw()[0], 2);
    assert_eq!(SignedTx::from_raw(request(), signed.raw()), Ok(signed.clone()));
    assert_eq!(signed.request(), &request());
}

#[test]
fn s3_each_altered_field_is_named_with_both_values() {
    let field = |error: CheckError| match error {
        CheckError::Mismatch { field, approved, found } => {
            assert_ne!(approved, found);
            field
        }
        other => panic!("expected a mismatch, got {other}"),
    };
    assert_eq!(field(altered(|tx| tx.chain_id = 56)), TxField::ChainId);
    assert_eq!(field(altered(|tx| tx.chain_id = 0)), TxField::ChainId);
    assert_eq!(field(altered(|tx| tx.nonce = 1)), TxField::Nonce);
    assert_eq!(field(altered(|tx| tx.to = TxKind::Call(Address::repeat_byte(9)))), TxField::To);
    assert_eq!(field(altered(|tx| tx.gas_limit += 1)), TxField::GasLimit);
    assert_eq!(field(altered(|tx| tx.max_fee_per_gas += 1)), TxField::MaxFee);
    assert_eq!(field(altered(|tx| tx.max_priority_fee_per_gas += 1)), TxField::PriorityFee);
    let flip = |position: usize| {
        move |tx: &mut TxEip1559| {
            let mut input = tx.input.to_vec();
            input[position] ^= 1;
            tx.input = input.into();
        }
    };
    assert_eq!(field(altered(flip(20))), TxField::Data, "recipient");
    assert_eq!(field(altered(flip(67))), TxField::Data, "amount");
    let item = AccessListItem { address: Address::repeat_byte(1), storage_keys: vec![] };
    assert_eq!(field(altered(|tx| tx.access_list = AccessList(vec![item]))), TxField::AccessList);
}

#[test]
fn s3_an_altered_value_is_refused() {
    assert_eq!(altered(|tx| tx.value = U256::from(1)), CheckError::Call(CallError::ValueWithCall { value: U256::from(1) }));
    let native = TransactionDraft { transfer: Transfer { asset: crate::units::Asset::Native, ..usdt_draft().transfer }, ..usdt_draft() };
    let native = TransactionRequest::check(native, &spec(1)).unwrap();
    let mut transaction = native.to_unsigned();
    transaction.value += U256::from(1);
    let error = SignedTx::from_raw(native, &encode(&transaction, &signature())).unwrap_err();
    assert!(matches!(error, CheckError::Mismatch { field: TxField::Value, .. }), "{error}");
    transaction.value -= U256::from(1);
    transaction.input = request().to_unsigned().input;
    transaction.value = U256::ZERO;
    let error = SignedTx::from_raw(native, &encode(&transaction, &signature())).unwrap_err();
    assert!(matches!(error, CheckError::Mismatch { field: TxField::Value, .. }), "{error}");
}

#[test]
fn s3_bad_signature_fields_are_refused_by_name() {
    for v in [2, 27, 28, 37, 38, u32::MAX] {
        assert_eq!(wire(v, &R, &S).unwrap_err(), CheckError::V { found: v });
    }
    assert_eq!(wire(0, &R[1..], &S).unwrap_err(), CheckError::ScalarLength { field: SignatureField::R, found: 31 });
    assert_eq!(wire(0, &R, &[]).unwrap_err(), CheckError::ScalarLength { field: SignatureField::S, found: 0 });
    let range = |field, found| CheckError::ScalarRange { field, found };
    assert_eq!(wire(0, &[0; 32], &S).unwrap_err(), range(SignatureField::R, U256::ZERO));
    assert_eq!(wire(0, &R, &[0; 32]).unwrap_err(), range(SignatureField::S, U256::ZERO));
    assert_eq!(wire(0, &ORDER.to_be_bytes::<32>(), &S).unwrap_err(), range(SignatureField::R, ORDER));
    let high = ORDER - U256::from_be_bytes(S);
    assert_eq!(wire(1, &R, &high.to_be_bytes::<32>()).unwrap_err(), CheckError::HighS { found: high });
    assert_eq!(HALF_ORDER, ORDER >> 1);
}

#[test]
fn s3_another_signer_is_refused() {
    assert!(matches!(wire(1, &R, &S).unwrap_err(), CheckError::Signer { .. }), "flipped v");
    let mut other = S;
    other[31] ^= 1;
    assert!(matches!(wire(0, &R, &other).unwrap_err(), CheckError::Signer { .. }));
    let sender = Address::repeat_byte(7);
    let claimed = TransactionRequest::check(TransactionDraft { sender, ..usdt_draft() }, &spec(1)).unwrap();
    let error = SignedTx::from_signature(claimed, WireSignature { v: 0, r: &R, s: &S }).unwrap_err();
    assert_eq!(error, CheckError::Signer { expected: sender, found: usdt_draft().sender });
    // A signature over another nonce or chain recovers to somebody else.
    let next = TransactionRequest::check(TransactionDraft { nonce: 1, ..usdt_draft() }, &spec(1)).unwrap();
    let error = SignedTx::from_signature(next, WireSignature { v: 0, r: &R, s: &S }).unwrap_err();
    assert!(matches!(error, CheckError::Signer { .. }), "{error}");
}

#[test]
fn s10_other_transaction_types_are_refused() {
    let unsigned = request().to_unsigned();
    let mut legacy = Vec::new();
    let plain = TxLegacy {
        chain_id: Some(1),
        nonce: 0,
        gas_price: 1,
        gas_limit: 65_000,
        to: unsigned.to,
        value: U256::ZERO,
        input: unsigned.input.clone(),
    };
    plain.eip2718_encode(&signature(), &mut legacy);
    assert_eq!(SignedTx::from_raw(request(), &legacy).unwrap_err(), CheckError::Type { found: 0 });

    let mut listed = Vec::new();
    let one =
        TxEip2930 { chain_id: 1, gas_price: 1, gas_limit: 65_000, to: unsigned.to, input: unsigned.input.clone(), ..Default::default() };
    one.eip2718_encode(&signature(), &mut listed);
    assert_eq!(SignedTx::from_raw(request(), &listed).unwrap_err(), CheckError::Type { found: 1 });

    let mut delegating = Vec::new();
    let four = TxEip7702 { chain_id: 1, gas_limit: 65_000, input: unsigned.input.clone(), ..Default::default() };
    four.eip2718_encode(&signature(), &mut delegating);
    assert_eq!(SignedTx::from_raw(request(), &delegating).unwrap_err(), CheckError::Type { found: 4 });
    assert_eq!(SignedTx::from_raw(request(), &[3, 0xc0]).unwrap_err(), CheckError::Type { found: 3 });
    assert_eq!(SignedTx::from_raw(request(), &[]).unwrap_err(), CheckError::Empty);
}

#[test]
fn s10_contract_creation_and_other_calls_are_refused() {
    assert_eq!(altered(|tx| tx.to = TxKind::Create), CheckError::Creation);
    for (selector, name) in
        [(hex!("095ea7b3"), "approve"), (hex!("d505accf"), "permit"), (hex!("13af4035"), "setOwner"), (hex!("01020304"), "an unknown call")]
    {
        let error = altered(|tx| tx.input = [selector.as_slice(), &tx.input[4..]].concat().into());
        assert_eq!(error, CheckError::Call(CallError::Selector { found: selector, name }));
    }
}

#[test]
fn s3_encodings_that_are_not_canonical_are_refused() {
    let raw = encode(&request().to_unsigned(), &signature());
    let trailing = [raw.as_slice(), &[0]].concat();
    assert_eq!(SignedTx::from_raw(request(), &trailing).unwrap_err(), CheckError::NotCanonical);
    for length in 1..raw.len() {
        assert!(SignedTx::from_raw(request(), &raw[..length]).is_err(), "cut to {length} bytes");
    }
    // The network form wraps the same bytes in an RLP string.
    let wrapped = [&[0xb8, u8::try_from(raw.len()).unwrap()], raw.as_slice()].concat();
    assert_eq!(SignedTx::from_raw(request(), &wrapped).unwrap_err(), CheckError::Type { found: 0xb8 });
}

#[test]
fn s10_chain_id_zero_has_no_request() {
    assert_eq!(ChainId::new(0), None);
}

proptest! {
    #[test]
    fn s3_any_changed_byte_is_refused(position in 0_usize..180, flip in 1_u8..=255) {
        let mut raw = encode(&request().to_unsigned(), &signature());
        let position = position % raw.len();
        raw[position] ^= flip;
        prop_assert!(SignedTx::from_raw(request(), &raw).is_err());
    }

    #[test]
    fn s10_any_other_calldata_is_refused(input in proptest::collection::vec(any::<u8>(), 0..140)) {
        prop_assume!(input != request().to_unsigned().input.to_vec());
        let mut transaction = request().to_unsigned();
        transaction.input = input.into();
        prop_assert!(SignedTx::from_raw(request(), &encode(&transaction, &signature())).is_err());
    }

    #[test]
    fn s3_any_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(SignedTx::from_raw(request(), &raw).is_err());
    }
}
