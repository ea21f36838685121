//! Definitions: signed facts about networks and tokens that a host attaches to a request.
//!
//! Read as the device reads them: magic, type, data version against the firmware's minimum,
//! length, protobuf, Merkle proof, signature. One thing differs: the signature is a seal of the
//! devkit, not two of three vendor keys. The seal proves that [`Definition::encode`] made the
//! blob and that nobody altered it since; it proves no origin, because anyone can make one. So a
//! blob of the vendor's service is refused here, as a device refuses one signed with test keys.

use alloy::primitives::Address;
use sha2::{Digest, Sha256};
use trezor_client::protos::{EthereumNetworkInfo, EthereumTokenInfo};

use super::message::{Failure, fits, read};
use super::network::{self, Network, Token};

/// The oldest data that firmware 1.14.1 accepts: 10 January 2026.
pub const DATA_VERSION_MIN: u32 = 1_768_042_093;

/// The longest blob that a Trezor One takes.
const BLOB_BYTES_MAX: usize = 1024;

const MAGIC: &[u8] = b"trzd1";
const NETWORK: u8 = 0;
const TOKEN: u8 = 1;
const INVALID: Failure = Failure::data("Invalid definition");

/// A definition to attach in tests and the demo, where the vendor's service is out of reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Definition {
    /// Names a chain's coin.
    Network {
        /// The chain.
        chain_id: u64,
        /// What its coin is called on the screen.
        symbol: String,
        /// The registered coin type.
        slip44: u32,
        /// The chain's name, which no screen shows.
        name: String,
    },
    /// Names a token.
    Token {
        /// The chain the token is on.
        chain_id: u64,
        /// The token's contract.
        address: Address,
        /// What it is called on the screen.
        symbol: String,
        /// How many of the integer's digits are decimals.
        decimals: u32,
        /// The token's name, which no screen shows.
        name: String,
    },
}

impl Definition {
    /// The blob as the vendor's service would deliver it, with the devkit's seal and a Merkle
    /// proof of one neighbour.
    #[must_use]
    pub fn encode(&self, data_version: u32) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Network { chain_id, symbol, slip44, name } => {
                let mut info = EthereumNetworkInfo::new();
                info.set_chain_id(*chain_id);
                info.set_symbol(symbol.clone());
                info.set_slip44(*slip44);
                info.set_name(name.clone());
                (NETWORK, protobuf::Message::write_to_bytes(&info))
            }
            Self::Token { chain_id, address, symbol, decimals, name } => {
                let mut info = EthereumTokenInfo::new();
                info.set_address(address.to_vec());
                info.set_chain_id(*chain_id);
                info.set_symbol(symbol.clone());
                info.set_decimals(*decimals);
                info.set_name(name.clone());
                (TOKEN, protobuf::Message::write_to_bytes(&info))
            }
        };
        let body = body.expect("every required field is set");
        let mut blob = MAGIC.to_vec();
        blob.push(kind);
        blob.extend_from_slice(&data_version.to_le_bytes());
        blob.extend_from_slice(&u16::try_from(body.len()).expect("names are short").to_le_bytes());
        blob.extend_from_slice(&body);
        let neighbour = leaf(b"the other leaf of a tree of two");
        let root = parent(leaf(&blob), neighbour);
        blob.push(1);
        blob.extend_from_slice(&neighbour);
        blob.push(0b011);
        blob.extend_from_slice(&seal(root));
        blob
    }

    /// Where a directory of definitions keeps this one, in the layout of the vendor's service.
    #[must_use]
    pub fn file(&self) -> String {
        match self {
            Self::Network { chain_id, .. } => format!("eth/chain-id/{chain_id}/network.dat"),
            Self::Token { chain_id, address, .. } => format!("eth/chain-id/{chain_id}/token-{address:x}.dat").replace("token-0x", "token-"),
        }
    }
}

/// What the device knows about a request's network and token.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) network: Option<Network>,
    pub(super) token: Option<Token>,
}

/// The blobs of a request.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Blobs<'a> {
    pub(super) network: Option<&'a [u8]>,
    pub(super) token: Option<&'a [u8]>,
}

/// What a transaction's chain and recipient are, built in or defined by the host. A built-in one
/// wins, and the blob for it is not even read.
pub(super) fn for_transaction(chain_id: u64, to: Option<Address>, blobs: Blobs<'_>) -> Result<Known, Failure> {
    fits(blobs.network, BLOB_BYTES_MAX)?;
    fits(blobs.token, BLOB_BYTES_MAX)?;
    let network = match (network::by_chain_id(chain_id), blobs.network) {
        (Some(network), _) => Some(network),
        (None, None) => None,
        (None, Some(blob)) => Some(read_network(blob)?),
    };
    if network.as_ref().is_some_and(|network| network.chain_id != chain_id) {
        return Err(Failure::data("Network definition mismatch"));
    }
    let token = match (to, &network, blobs.token) {
        (None, _, _) => None,
        (Some(to), Some(_), Some(blob)) if network::token(chain_id, to).is_none() => {
            read_token(blob)?.filter(|(chain, address, _)| (*chain, *address) == (chain_id, to)).map(|(.., token)| token)
        }
        (Some(to), _, _) => network::token(chain_id, to),
    };
    Ok(Known { network, token })
}

/// The network of a message without a chain id, by the coin type of its path.
pub(super) fn for_path(path: &[u32], blob: Option<&[u8]>) -> Result<Option<Network>, Failure> {
    fits(blob, BLOB_BYTES_MAX)?;
    let coin_type = path.get(1).map(|step| step & !(1 << 31));
    let Some(coin_type) = coin_type else { return Ok(None) };
    match (network::by_slip44(coin_type), blob) {
        (Some(network), _) => Ok(Some(network)),
        (None, None) => Ok(None),
        (None, Some(blob)) => match read_network(blob)? {
            network if network.slip44 == coin_type => Ok(Some(network)),
            _ => Err(Failure::data("Network definition mismatch")),
        },
    }
}

fn read_network(blob: &[u8]) -> Result<Network, Failure> {
    let info: EthereumNetworkInfo = read(open(blob, NETWORK)?).map_err(|_| INVALID)?;
    Ok(Network { chain_id: info.chain_id(), symbol: info.symbol().to_owned(), slip44: info.slip44() })
}

/// `None` is a sound blob about something that is no address.
fn read_token(blob: &[u8]) -> Result<Option<(u64, Address, Token)>, Failure> {
    let info: EthereumTokenInfo = read(open(blob, TOKEN)?).map_err(|_| INVALID)?;
    let token = Token { symbol: info.symbol().to_owned(), decimals: info.decimals() };
    let address = Address::try_from(info.address()).ok();
    Ok(address.map(|address| (info.chain_id(), address, token)))
}

/// The protobuf inside a blob, if everything around it holds.
fn open(blob: &[u8], kind: u8) -> Result<&[u8], Failure> {
    let mut rest = blob;
    if take(&mut rest, MAGIC.len())? != MAGIC || take(&mut rest, 1)? != [kind] {
        return Err(INVALID);
    }
    let version = u32::from_le_bytes(array(take(&mut rest, 4)?));
    let length = u16::from_le_bytes(array(take(&mut rest, 2)?));
    let body = take(&mut rest, usize::from(length))?;
    let mut root = leaf(&blob[..blob.len() - rest.len()]);
    let proofs = take(&mut rest, 1)?[0];
    for _ in 0..proofs {
        root = parent(root, array(take(&mut rest, 32)?));
    }
    let _mask = take(&mut rest, 1)?;
    if take(&mut rest, 64)? != seal(root) || !rest.is_empty() {
        return Err(INVALID);
    }
    if version < DATA_VERSION_MIN {
        return Err(Failure::data("Definition is outdated"));
    }
    Ok(body)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Failure> {
    let (taken, left) = rest.split_at_checked(length).ok_or(INVALID)?;
    *rest = left;
    Ok(taken)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("as many bytes were taken as the array holds")
}

fn leaf(data: &[u8]) -> [u8; 32] {
    Sha256::new_with_prefix([0]).chain_update(data).finalize().into()
}

/// A tree of the vendor's kind: the smaller hash stands left, so a proof needs no directions.
fn parent(one: [u8; 32], other: [u8; 32]) -> [u8; 32] {
    let (left, right) = if one <= other { (one, other) } else { (other, one) };
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

fn seal(root: [u8; 32]) -> [u8; 64] {
    let stamp =
        |bytes: [u8; 32]| -> [u8; 32] { Sha256::new_with_prefix(b"amanatd devkit definition").chain_update(bytes).finalize().into() };
    let first = stamp(root);
    let mut seal = [0; 64];
    seal[..32].copy_from_slice(&first);
    seal[32..].copy_from_slice(&stamp(first));
    seal
}
