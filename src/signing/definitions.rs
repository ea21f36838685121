//! Definitions: the vendor's signed facts that let the device name a chain's coin or a token.
//!
//! They come from a local directory in the layout of the vendor's service. A definition is attached
//! only when it says exactly what `chains.toml` says: the device ignores one for another token
//! silently, so this check is the only guard. A missing one is no error. The officer is told what
//! the screen will read instead, and decides.

use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;

use alloy::primitives::Address;
use protobuf::Message as _;
use trezor_client::protos::{EthereumNetworkInfo, EthereumTokenInfo};

use super::known;
use super::request::TransactionRequest;
use crate::chains::{ChainSpec, TokenSpec};
use crate::units::{Asset, ChainId};

/// The longest blob a Trezor One takes.
const BLOB_LEN_MAX: usize = 1024;
const MAGIC: &[u8; 5] = b"trzd1";
const NETWORK: u8 = 0;
const TOKEN: u8 = 1;
/// What firmware 1.14.1 calls outdated is older than this: 10 January 2026, in Unix time.
const DATA_VERSION_MIN: u32 = 1_768_042_093;
const PROOF_LEN: usize = 32;
const SIGNATURE_LEN: usize = 64;

/// The definitions to attach to requests for one asset of one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definitions {
    chain: ChainId,
    asset: Asset,
    network: Option<Vec<u8>>,
    token: Option<Vec<u8>>,
    missing: Vec<MissingDefinition>,
}

impl Definitions {
    /// Looks for what the device needs to name this asset; `directory` holds `eth/chain-id/…`.
    /// Reads two small files, so call it off the device's thread.
    pub fn load(directory: Option<&Path>, spec: &ChainSpec, asset: Asset) -> Self {
        let read = |path: String, needed: bool| match (needed, directory) {
            (false, _) => None,
            (true, None) => Some(Err(MissingReason::NoDirectory)),
            (true, Some(directory)) => Some(read_blob(directory, &path)),
        };
        let chain = spec.id;
        let network = read(format!("eth/chain-id/{chain}/network.dat"), known::network(chain).is_none())
            .map(|blob| blob.and_then(|blob| check_network(&blob, spec).map(|()| blob)));
        let token = match asset {
            Asset::Native => None,
            Asset::Token(contract) => read(token_file(chain, contract), known::token(chain, contract).is_none()).map(|blob| {
                let listed = spec.tokens.iter().find(|token| token.contract == contract).ok_or(MissingReason::Unlisted)?;
                blob.and_then(|blob| check_token(&blob, chain, listed).map(|()| blob))
            }),
        };
        let mut missing = Vec::new();
        let mut keep = |what: DefinitionKind, blob: Option<Result<Vec<u8>, MissingReason>>| match blob {
            Some(Ok(blob)) => Some(blob),
            Some(Err(reason)) => {
                missing.push(MissingDefinition { what, reason });
                None
            }
            None => None,
        };
        let network = keep(DefinitionKind::Network, network);
        let token = keep(DefinitionKind::Token, token);
        Self { chain, asset, network, token, missing }
    }

    /// What the device will not be told, and why. The officer sees it before signing.
    pub fn missing(&self) -> &[MissingDefinition] {
        &self.missing
    }

    /// The network blob, for a request on this chain.
    pub(super) fn network_for(&self, request: &TransactionRequest) -> Option<&[u8]> {
        self.network.as_deref().filter(|_| request.chain() == self.chain)
    }

    /// The token blob, for a request for this asset.
    pub(super) fn token_for(&self, request: &TransactionRequest) -> Option<&[u8]> {
        self.token.as_deref().filter(|_| request.chain() == self.chain && request.transfer().asset == self.asset)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingDefinition {
    pub what: DefinitionKind,
    pub reason: MissingReason,
}

impl fmt::Display for MissingDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            DefinitionKind::Network => "network",
            DefinitionKind::Token => "token",
        };
        write!(f, "no {what} definition is sent to the device: {}", self.reason)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefinitionKind {
    Network,
    Token,
}

/// Why a definition was not attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingReason {
    #[error("no directory of definitions is configured")]
    NoDirectory,
    #[error("file {0} is not in the directory of definitions")]
    NoFile(String),
    #[error("file {path} cannot be read ({kind})")]
    Unreadable { path: String, kind: io::ErrorKind },
    #[error("the file is longer than the 1024 bytes a device takes")]
    TooLong,
    #[error("the file is not a definition of this kind")]
    Form,
    #[error("its data is of version {found}, the firmware needs {DATA_VERSION_MIN}; fetch it again")]
    Outdated { found: u32 },
    #[error("it says {field} {found:?}, chains.toml says {expected:?}")]
    Differs { field: &'static str, found: String, expected: String },
    #[error("the token is not listed in chains.toml")]
    Unlisted,
}

fn token_file(chain: ChainId, contract: Address) -> String {
    format!("eth/chain-id/{chain}/token-{}.dat", alloy::hex::encode(contract))
}

fn read_blob(directory: &Path, path: &str) -> Result<Vec<u8>, MissingReason> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => MissingReason::NoFile(path.to_owned()),
        kind => MissingReason::Unreadable { path: path.to_owned(), kind },
    };
    let file = std::fs::File::open(directory.join(path)).map_err(unreadable)?;
    let mut blob = Vec::new();
    file.take(BLOB_LEN_MAX as u64 + 1).read_to_end(&mut blob).map_err(unreadable)?;
    if blob.len() > BLOB_LEN_MAX { Err(MissingReason::TooLong) } else { Ok(blob) }
}

fn check_network(blob: &[u8], spec: &ChainSpec) -> Result<(), MissingReason> {
    let info = EthereumNetworkInfo::parse_from_bytes(body(blob, NETWORK)?).map_err(|_| MissingReason::Form)?;
    same("chain id", &info.chain_id(), &spec.id.get())?;
    same("symbol", &info.symbol(), &spec.native.symbol.as_str())
}

fn check_token(blob: &[u8], chain: ChainId, token: &TokenSpec) -> Result<(), MissingReason> {
    let info = EthereumTokenInfo::parse_from_bytes(body(blob, TOKEN)?).map_err(|_| MissingReason::Form)?;
    let address = Address::try_from(info.address()).map_err(|_| MissingReason::Form)?;
    same("chain id", &info.chain_id(), &chain.get())?;
    same("address", &address, &token.contract)?;
    same("symbol", &info.symbol(), &token.symbol.as_str())?;
    same("decimals", &info.decimals(), &u32::from(token.decimals))
}

fn same<T: PartialEq + fmt::Display>(field: &'static str, found: &T, expected: &T) -> Result<(), MissingReason> {
    if found == expected {
        return Ok(());
    }
    Err(MissingReason::Differs { field, found: found.to_string(), expected: expected.to_string() })
}

/// The protobuf inside a blob. The proof and the signatures are for the device to verify; here only
/// their length is, so that nothing is attached that cannot be a definition.
fn body(blob: &[u8], kind: u8) -> Result<&[u8], MissingReason> {
    let take = |rest: &mut &[u8], length: usize| -> Option<()> {
        *rest = rest.get(length..)?;
        Some(())
    };
    let parse = || {
        let (head, rest) = blob.split_first_chunk::<12>()?;
        let [.., v0, v1, v2, v3, l0, l1] = *head;
        if head[..5] != *MAGIC || head[5] != kind {
            return None;
        }
        let (body, mut rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([l0, l1])))?;
        let proofs = usize::from(*rest.first()?);
        take(&mut rest, 1 + proofs * PROOF_LEN)?;
        (rest.len() == 1 + SIGNATURE_LEN).then_some((body, u32::from_le_bytes([v0, v1, v2, v3])))
    };
    match parse() {
        None => Err(MissingReason::Form),
        Some((_, version)) if version < DATA_VERSION_MIN => Err(MissingReason::Outdated { found: version }),
        Some((body, _)) => Ok(body),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::request::tests::spec;
    use super::*;

    /// A blob in the vendor's layout, with nobody's signature.
    pub(in crate::signing) fn blob(kind: u8, version: u32, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_le_bytes();
        [MAGIC.as_slice(), &[kind], &version.to_le_bytes(), &length, body, &[1], &[7; PROOF_LEN], &[3], &[9; SIGNATURE_LEN]].concat()
    }

    fn network(chain: u64, symbol: &str) -> Vec<u8> {
        let mut info = EthereumNetworkInfo::new();
        info.set_chain_id(chain);
        info.set_symbol(symbol.to_owned());
        info.set_slip44(60);
        info.set_name("Local".to_owned());
        blob(NETWORK, DATA_VERSION_MIN, &info.write_to_bytes().unwrap())
    }

    fn token(chain: u64, contract: Address, symbol: &str, decimals: u32) -> Vec<u8> {
        let mut info = EthereumTokenInfo::new();
        info.set_address(contract.to_vec());
        info.set_chain_id(chain);
        info.set_symbol(symbol.to_owned());
        info.set_decimals(decimals);
        info.set_name("USD Coin".to_owned());
        blob(TOKEN, DATA_VERSION_MIN, &info.write_to_bytes().unwrap())
    }

    /// Definitions as if they had been loaded and had passed.
    pub(in crate::signing) fn attached(spec: &ChainSpec, asset: Asset, with_network: bool, with_token: bool) -> Definitions {
        Definitions {
            chain: spec.id,
            asset,
            network: with_network.then(|| network(spec.id.get(), &spec.native.symbol)),
            token: with_token.then(Vec::new),
            missing: vec![],
        }
    }

    #[test]
    fn a_definition_must_say_what_the_chain_book_says() {
        let local = spec(31_337);
        let usdc = local.token("USDC").unwrap();
        assert_eq!(check_network(&network(31_337, "ETH"), &local), Ok(()));
        assert_eq!(check_token(&token(31_337, usdc.contract, "USDC", 6), local.id, usdc), Ok(()));
        let field = |result: Result<(), MissingReason>| match result {
            Err(MissingReason::Differs { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(check_network(&network(1, "ETH"), &local)), "chain id");
        assert_eq!(field(check_network(&network(31_337, "ETc"), &local)), "symbol");
        assert_eq!(field(check_token(&token(1, usdc.contract, "USDC", 6), local.id, usdc)), "chain id");
        assert_eq!(field(check_token(&token(31_337, Address::repeat_byte(1), "USDC", 6), local.id, usdc)), "address");
        assert_eq!(field(check_token(&token(31_337, usdc.contract, "USDT", 6), local.id, usdc)), "symbol");
        assert_eq!(field(check_token(&token(31_337, usdc.contract, "USDC", 18), local.id, usdc)), "decimals");
    }

    #[test]
    fn blobs_of_another_form_are_refused() {
        let local = spec(31_337);
        let good = network(31_337, "ETH");
        for length in 0..good.len() {
            assert_eq!(check_network(&good[..length], &local), Err(MissingReason::Form), "cut to {length}");
        }
        assert_eq!(check_network(&[good.as_slice(), &[0]].concat(), &local), Err(MissingReason::Form));
        assert_eq!(check_network(&token(31_337, Address::ZERO, "ETH", 18), &local), Err(MissingReason::Form), "a token is no network");
        let old = [&good[..6], &(DATA_VERSION_MIN - 1).to_le_bytes(), &good[10..]].concat();
        assert_eq!(check_network(&old, &local), Err(MissingReason::Outdated { found: DATA_VERSION_MIN - 1 }));
    }

    #[test]
    fn what_the_device_knows_is_not_looked_for() {
        let ethereum = spec(1);
        let usdt = Asset::Token(ethereum.token("USDT").unwrap().contract);
        assert_eq!(Definitions::load(None, &ethereum, usdt).missing(), []);
        let bsc = spec(56);
        let usdt = Asset::Token(bsc.token("USDT").unwrap().contract);
        let missing = MissingDefinition { what: DefinitionKind::Token, reason: MissingReason::NoDirectory };
        assert_eq!(Definitions::load(None, &bsc, usdt).missing(), [missing]);
        assert_eq!(Definitions::load(None, &bsc, Asset::Native).missing(), []);
    }

    #[test]
    fn files_are_found_in_the_vendors_layout() {
        let local = spec(31_337);
        let usdc = local.token("USDC").unwrap();
        let directory = std::env::temp_dir().join(format!("amanatd-definitions-{}", std::process::id()));
        let folder = directory.join("eth/chain-id/31337");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("network.dat"), network(31_337, "ETH")).unwrap();
        std::fs::write(folder.join("token-5fbdb2315678afecb367f032d93f642f64180aa3.dat"), token(31_337, usdc.contract, "USDC", 6)).unwrap();
        std::fs::write(folder.join("token-e7f1725e7734ce288f8367e1bb143e90bb3f0512.dat"), vec![0; 1025]).unwrap();
        let found = Definitions::load(Some(&directory), &local, Asset::Token(usdc.contract));
        assert_eq!(found.missing(), []);
        assert!(found.network.is_some() && found.token.is_some());
        let usdt = Definitions::load(Some(&directory), &local, Asset::Token(local.token("USDT").unwrap().contract));
        assert_eq!(usdt.missing(), [MissingDefinition { what: DefinitionKind::Token, reason: MissingReason::TooLong }]);
        std::fs::remove_dir_all(&directory).unwrap();
        let gone = Definitions::load(Some(&directory), &local, Asset::Token(usdc.contract));
        assert!(matches!(gone.missing()[1].reason, MissingReason::NoFile(_)));
    }
}
