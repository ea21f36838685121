//! A transaction as the device holds it: fields as they came, its hash, and who is paid.

use alloy::primitives::{Address, B256, U256, hex, keccak256};
use trezor_client::protos::ethereum_sign_tx_eip1559::EthereumAccessList;
use trezor_client::protos::{EthereumSignTx, EthereumSignTxEIP1559};

use super::message::{Failure, fits};
use super::{rlp, screen};

/// The largest chain id for which v = 35 + 2 · chain + parity fits the reply's u32.
const CHAIN_ID_FOLDED_MAX: u64 = 2_147_483_629;

/// Where RLP would need another length byte, with room to spare.
const DATA_BYTES_MAX: usize = 16_000_000;

/// What one chunk of data may hold, the first included.
pub(super) const CHUNK_BYTES_MAX: usize = 1024;

const NUMBER_BYTES_MAX: usize = 32;

/// Price and limit are multiplied on the screen; together they must not overflow.
const FEE_BYTES_MAX: usize = 30;

/// `transfer(address,uint256)` and the zeros in front of an address.
const TRANSFER: [u8; 16] = [0xa9, 0x05, 0x9c, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const TRANSFER_BYTES: usize = 68;

/// What is paid for gas, as bytes from the wire.
#[derive(Debug, Clone)]
pub(super) enum Fee {
    Legacy { gas_price: Vec<u8> },
    Eip1559 { max: Vec<u8>, priority: Vec<u8> },
}

/// Who is paid, as far as the device can tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Payment {
    /// The value goes to the recipient, perhaps with data.
    Native,
    /// A token transfer that is whole in the first chunk.
    Token { amount: U256, to: Address },
}

#[derive(Debug, Clone)]
pub(super) struct Transaction {
    pub(super) chain_id: u64,
    nonce: Vec<u8>,
    pub(super) gas_limit: Vec<u8>,
    pub(super) fee: Fee,
    /// `None` creates a contract.
    pub(super) to: Option<Address>,
    pub(super) value: Vec<u8>,
    /// What has arrived of the data.
    pub(super) data: Vec<u8>,
    /// How long the data will be.
    pub(super) data_length: usize,
    /// Wanchain's type: one more item in front of the nonce.
    tx_type: Option<u32>,
    access_list: Vec<(Address, Vec<Vec<u8>>)>,
}

impl Transaction {
    pub(super) fn legacy(request: &EthereumSignTx) -> Result<Self, Failure> {
        Ok(Self {
            chain_id: request.chain_id(),
            nonce: integer(request.nonce())?,
            gas_limit: integer(request.gas_limit())?,
            fee: Fee::Legacy { gas_price: integer(request.gas_price())? },
            to: recipient(request.to()),
            value: integer(request.value())?,
            data: chunk(request.data_initial_chunk())?,
            data_length: length(request.data_length()),
            tx_type: request.tx_type,
            access_list: Vec::new(),
        })
    }

    pub(super) fn eip1559(request: &EthereumSignTxEIP1559) -> Result<Self, Failure> {
        Ok(Self {
            chain_id: request.chain_id(),
            nonce: integer(request.nonce())?,
            gas_limit: integer(request.gas_limit())?,
            fee: Fee::Eip1559 { max: integer(request.max_gas_fee())?, priority: integer(request.max_priority_fee())? },
            to: recipient(request.to()),
            value: integer(request.value())?,
            data: chunk(request.data_initial_chunk())?,
            data_length: length(request.data_length()),
            tx_type: None,
            access_list: request.access_list.iter().map(access).collect::<Result<_, _>>()?,
        })
    }

    /// The device's checks of the fields; they come after path and passphrase.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let fee_bytes = match &self.fee {
            Fee::Legacy { gas_price } => gas_price.len(),
            Fee::Eip1559 { max, priority } => max.len().max(priority.len()),
        };
        let complaint = if self.chain_id == 0 {
            "Chain ID out of bounds"
        } else if !matches!(self.tx_type, None | Some(1 | 6)) {
            "Txtype out of bounds"
        } else if self.data_length > 0 && self.data.is_empty() {
            "Data length provided, but no initial chunk"
        } else if self.data_length > DATA_BYTES_MAX {
            "Data length exceeds limit"
        } else if self.data.len() > self.data_length {
            "Invalid size of initial chunk"
        } else if self.to.is_none() && self.data_length == 0 {
            "Contract without data"
        } else if fee_bytes + self.gas_limit.len() > FEE_BYTES_MAX {
            "Fee out of bounds"
        } else {
            return Ok(());
        };
        Err(Failure::data(complaint))
    }

    pub(super) fn payment(&self) -> Payment {
        let is_transfer = self.to.is_some()
            && self.value.is_empty()
            && self.data_length == TRANSFER_BYTES
            && self.data.len() == TRANSFER_BYTES
            && self.data.starts_with(&TRANSFER);
        if !is_transfer {
            return Payment::Native;
        }
        Payment::Token { to: Address::from_slice(&self.data[16..36]), amount: screen::number(&self.data[36..]) }
    }

    /// How much of the data has not arrived.
    pub(super) fn data_left(&self) -> usize {
        self.data_length - self.data.len()
    }

    /// What is signed.
    pub(super) fn hash(&self) -> B256 {
        let chain_id = self.chain_id.to_be_bytes();
        let chain_id = minimal(&chain_id);
        let to = self.to.as_ref().map_or(&[][..], |to| to.as_slice());
        let mut items = Vec::new();
        let mut out = Vec::new();
        match &self.fee {
            Fee::Legacy { gas_price } => {
                if let Some(tx_type) = self.tx_type {
                    rlp::string(&mut items, minimal(&tx_type.to_be_bytes()));
                }
                let fields = [&self.nonce[..], gas_price, &self.gas_limit, to, &self.value, &self.data, chain_id, &[], &[]];
                fields.iter().for_each(|field| rlp::string(&mut items, field));
            }
            Fee::Eip1559 { max, priority } => {
                let fields = [chain_id, &self.nonce, priority, max, &self.gas_limit, to, &self.value, &self.data];
                fields.iter().for_each(|field| rlp::string(&mut items, field));
                rlp::list(&mut items, &self.access_items());
                out.push(0x02);
            }
        }
        rlp::list(&mut out, &items);
        keccak256(out)
    }

    /// The reply's v: one bit, folded with the chain id for legacy while that fits.
    pub(super) fn wire_v(&self, odd: bool) -> u32 {
        match self.fee {
            Fee::Legacy { .. } if self.chain_id <= CHAIN_ID_FOLDED_MAX => self.folded_v(odd),
            Fee::Legacy { .. } | Fee::Eip1559 { .. } => u32::from(odd),
        }
    }

    /// For a fault: the v of the next chain, or one that EIP-1559 does not have.
    pub(super) fn foreign_v(&self, odd: bool) -> u32 {
        match self.fee {
            Fee::Legacy { .. } => self.wire_v(odd).wrapping_add(2),
            Fee::Eip1559 { .. } => self.folded_v(odd),
        }
    }

    /// For a fault: the same transaction with the next nonce.
    pub(super) fn with_next_nonce(&self) -> Self {
        let next: [u8; 32] = screen::number(&self.nonce).wrapping_add(U256::from(1)).to_be_bytes();
        Self { nonce: minimal(&next).to_vec(), ..self.clone() }
    }

    fn folded_v(&self, odd: bool) -> u32 {
        let v = u128::from(self.chain_id) * 2 + 35 + u128::from(odd);
        u32::try_from(v).unwrap_or(u32::MAX)
    }

    fn access_items(&self) -> Vec<u8> {
        let mut entries = Vec::new();
        for (address, keys) in &self.access_list {
            let mut key_items = Vec::new();
            keys.iter().for_each(|key| rlp::string(&mut key_items, key));
            let mut entry = Vec::new();
            rlp::string(&mut entry, address.as_slice());
            rlp::list(&mut entry, &key_items);
            rlp::list(&mut entries, &entry);
        }
        entries
    }
}

/// An address from its text. Whatever is no address is *no recipient*: the device then creates a
/// contract, as observed with a text of 42 characters that are not all hex.
pub(super) fn recipient(text: &str) -> Option<Address> {
    let digits = match text.len() {
        40 => text,
        42 => text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?,
        _ => return None,
    };
    let mut address = Address::ZERO;
    hex::decode_to_slice(digits, address.as_mut_slice()).ok().map(|()| address)
}

fn access(entry: &EthereumAccessList) -> Result<(Address, Vec<Vec<u8>>), Failure> {
    let address = recipient(entry.address()).ok_or(Failure::data("Malformed address"))?;
    for key in &entry.storage_keys {
        fits(Some(key), 32)?;
    }
    Ok((address, entry.storage_keys.clone()))
}

fn integer(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    fits(Some(bytes), NUMBER_BYTES_MAX)?;
    Ok(bytes.to_vec())
}

fn chunk(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    fits(Some(bytes), CHUNK_BYTES_MAX)?;
    Ok(bytes.to_vec())
}

fn length(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn minimal(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]
}
