//! What was signed is what was approved.
//!
//! Pure. [`SignedTx`] is made here and nowhere else, from the device's answer or from raw bytes a
//! signing station sent. Either way every field is compared with the request and the signer is
//! recovered over *our* hash, so neither a confused device nor a lying station gets other bytes
//! stored. A second program speaking to the device at the same time has produced a wrong signature
//! before; this is where it ends.

use std::fmt;

use alloy::consensus::transaction::{RlpEcdsaDecodableTx, RlpEcdsaEncodableTx};
use alloy::consensus::{SignableTransaction, TxEip1559};
use alloy::primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256, uint};

use super::request::{CallError, FeeCaps, TransactionRequest, Transfer};
use crate::units::ChainId;

const EIP1559: u8 = 2;
/// Order of secp256k1's group; r and s are below it.
const ORDER: U256 = uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);
/// A signature with s above half the order is the same signature written differently: never ours.
const HALF_ORDER: U256 = uint!(0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0_U256);

/// The signature fields as they came over the wire.
#[derive(Clone, Copy, Debug)]
pub struct WireSignature<'a> {
    pub v: u32,
    pub r: &'a [u8],
    pub s: &'a [u8],
}

/// A signed transaction that is exactly its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTx {
    request: TransactionRequest,
    raw: Bytes,
    hash: B256,
}

impl SignedTx {
    /// Puts the device's signature on the request, if it is a signature of the request.
    pub fn from_signature(request: TransactionRequest, wire: WireSignature<'_>) -> Result<Self, CheckError> {
        // 27/28 or 37/38 mean that somebody did a legacy transaction's arithmetic on it.
        let parity = match wire.v {
            0 => false,
            1 => true,
            found => return Err(CheckError::V { found }),
        };
        let signature = Signature::new(scalar(SignatureField::R, wire.r)?, scalar(SignatureField::S, wire.s)?, parity);
        let mut raw = Vec::new();
        request.to_unsigned().eip2718_encode(&signature, &mut raw);
        // Asserted twice: the bytes about to be stored are read back and compared from the start.
        Self::from_raw(request, &raw)
    }

    /// Takes bytes from outside, if they are the canonical form of the request and its signature.
    pub fn from_raw(request: TransactionRequest, raw: &[u8]) -> Result<Self, CheckError> {
        let (transaction, signature) = decode(raw)?;
        let TxKind::Call(to) = transaction.to else {
            return Err(CheckError::Creation);
        };
        let transfer = Transfer::from_call(to, transaction.value, &transaction.input).map_err(CheckError::Call)?;
        compare(&request.to_unsigned(), &transaction)?;
        if transfer != request.transfer() {
            return Err(mismatch(TxField::Data, format!("{:?}", request.transfer()), format!("{transfer:?}")));
        }
        check_scalars(&signature)?;
        let signer = signature
            .recover_address_from_prehash(&request.signing_hash())
            .map_err(|_| CheckError::Unrecoverable { expected: request.sender() })?;
        if signer != request.sender() {
            return Err(CheckError::Signer { expected: request.sender(), found: signer });
        }
        Ok(Self { request, raw: Bytes::copy_from_slice(raw), hash: keccak256(raw) })
    }

    /// What was approved, and so what was signed.
    pub fn request(&self) -> &TransactionRequest {
        &self.request
    }

    /// The EIP-2718 bytes, as `eth_sendRawTransaction` takes them.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The transaction's hash on its chain.
    pub fn hash(&self) -> B256 {
        self.hash
    }
}

/// A signed transfer as its bytes say it, with nothing approved to compare it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedTransfer {
    pub chain: ChainId,
    /// Recovered from the signature.
    pub sender: Address,
    pub nonce: u64,
    pub transfer: Transfer,
    pub fees: FeeCaps,
    pub hash: B256,
}

impl SignedTransfer {
    /// Reads bytes that are a canonical EIP-1559 transfer; everything else is refused by name.
    pub fn read(raw: &[u8]) -> Result<Self, CheckError> {
        let (transaction, signature) = decode(raw)?;
        let TxKind::Call(to) = transaction.to else {
            return Err(CheckError::Creation);
        };
        let transfer = Transfer::from_call(to, transaction.value, &transaction.input).map_err(CheckError::Call)?;
        check_scalars(&signature)?;
        let sender = signature.recover_address_from_prehash(&transaction.signature_hash()).map_err(|_| CheckError::NoSigner)?;
        let chain = ChainId::new(transaction.chain_id).ok_or(CheckError::NoChain)?;
        let fees = FeeCaps {
            gas_limit: transaction.gas_limit,
            max_fee_per_gas: transaction.max_fee_per_gas,
            max_priority_fee_per_gas: transaction.max_priority_fee_per_gas,
        };
        Ok(Self { chain, sender, nonce: transaction.nonce, transfer, fees, hash: keccak256(raw) })
    }
}

/// Decodes strictly: type 2, one list, nothing after it, and every number in its shortest form.
fn decode(raw: &[u8]) -> Result<(TxEip1559, Signature), CheckError> {
    let (kind, mut body) = match raw.split_first() {
        None => return Err(CheckError::Empty),
        // A legacy transaction has no type byte; it starts with its list.
        Some((0xc0.., _)) => return Err(CheckError::Type { found: 0 }),
        Some((kind, body)) => (*kind, body),
    };
    if kind != EIP1559 {
        return Err(CheckError::Type { found: kind });
    }
    let (transaction, signature) = TxEip1559::rlp_decode_with_signature(&mut body).map_err(CheckError::Malformed)?;
    let mut again = Vec::with_capacity(raw.len());
    transaction.eip2718_encode(&signature, &mut again);
    if again != raw {
        return Err(CheckError::NotCanonical);
    }
    Ok((transaction, signature))
}

fn compare(approved: &TxEip1559, found: &TxEip1559) -> Result<(), CheckError> {
    let fields: [(TxField, &dyn fmt::Debug, &dyn fmt::Debug, bool); 9] = [
        (TxField::ChainId, &approved.chain_id, &found.chain_id, approved.chain_id == found.chain_id),
        (TxField::Nonce, &approved.nonce, &found.nonce, approved.nonce == found.nonce),
        (TxField::To, &approved.to, &found.to, approved.to == found.to),
        (TxField::Value, &approved.value, &found.value, approved.value == found.value),
        (TxField::Data, &approved.input, &found.input, approved.input == found.input),
        (TxField::GasLimit, &approved.gas_limit, &found.gas_limit, approved.gas_limit == found.gas_limit),
        (TxField::MaxFee, &approved.max_fee_per_gas, &found.max_fee_per_gas, approved.max_fee_per_gas == found.max_fee_per_gas),
        (
            TxField::PriorityFee,
            &approved.max_priority_fee_per_gas,
            &found.max_priority_fee_per_gas,
            approved.max_priority_fee_per_gas == found.max_priority_fee_per_gas,
        ),
        (TxField::AccessList, &approved.access_list, &found.access_list, approved.access_list == found.access_list),
    ];
    match fields.into_iter().find(|(_, _, _, equal)| !equal) {
        Some((field, approved, found, _)) => Err(mismatch(field, format!("{approved:?}"), format!("{found:?}"))),
        None => Ok(()),
    }
}

fn mismatch(field: TxField, approved: String, found: String) -> CheckError {
    CheckError::Mismatch { field, approved, found }
}

/// The device sends r and s as 32 bytes each; anything shorter was cut somewhere.
fn scalar(field: SignatureField, bytes: &[u8]) -> Result<U256, CheckError> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| CheckError::ScalarLength { field, found: bytes.len() })?;
    Ok(U256::from_be_bytes(bytes))
}

fn check_scalars(signature: &Signature) -> Result<(), CheckError> {
    for (field, value) in [(SignatureField::R, signature.r()), (SignatureField::S, signature.s())] {
        if value.is_zero() || value >= ORDER {
            return Err(CheckError::ScalarRange { field, found: value });
        }
    }
    if signature.s() > HALF_ORDER {
        return Err(CheckError::HighS { found: signature.s() });
    }
    Ok(())
}

/// A field of an EIP-1559 transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxField {
    ChainId,
    Nonce,
    To,
    Value,
    Data,
    GasLimit,
    MaxFee,
    PriorityFee,
    AccessList,
}

impl fmt::Display for TxField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChainId => "chain_id",
            Self::Nonce => "nonce",
            Self::To => "to",
            Self::Value => "value",
            Self::Data => "data",
            Self::GasLimit => "gas_limit",
            Self::MaxFee => "max_fee_per_gas",
            Self::PriorityFee => "max_priority_fee_per_gas",
            Self::AccessList => "access_list",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureField {
    R,
    S,
}

impl fmt::Display for SignatureField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::R => "r",
            Self::S => "s",
        })
    }
}

/// Why a signature or signed bytes are not of the approved request. Any of these means that a key
/// of ours may have signed something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("the signed transaction is empty")]
    Empty,
    #[error("type: {found}, approved was 2")]
    Type { found: u8 },
    #[error("the signed transaction cannot be decoded")]
    Malformed(#[source] alloy::rlp::Error),
    #[error("the signed transaction is not in its shortest encoding, or bytes follow it")]
    NotCanonical,
    #[error("to: empty, which creates a contract")]
    Creation,
    #[error(transparent)]
    Call(CallError),
    #[error("{field}: {found}, approved was {approved}")]
    Mismatch { field: TxField, approved: String, found: String },
    #[error("v: {found}, expected 0 or 1")]
    V { found: u32 },
    #[error("{field}: {found} bytes, expected 32")]
    ScalarLength { field: SignatureField, found: usize },
    #[error("{field}: {found} is zero or not below the order of the curve")]
    ScalarRange { field: SignatureField, found: U256 },
    #[error("s: {found} is above half the order of the curve")]
    HighS { found: U256 },
    #[error("the signature belongs to no key; expected {expected}")]
    Unrecoverable { expected: Address },
    #[error("the signature belongs to no key")]
    NoSigner,
    #[error("chain: 0 names none")]
    NoChain,
    #[error("signer: {found}, expected {expected}")]
    Signer { expected: Address, found: Address },
}

#[cfg(test)]
mod tests;
