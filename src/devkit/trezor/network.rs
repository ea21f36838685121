//! The networks and tokens that the firmware knows without being told.
//!
//! A small part of the 24 built-in tokens: those that the project's tests and demo move, and
//! whose facts are beyond doubt. Any other token is shown as unknown, which is what the officer
//! sees for most tokens on the real device as well.

use alloy::primitives::{Address, address};

/// A network the device can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) chain_id: u64,
    pub(super) symbol: String,
    /// The coin type registered for it: which key paths it may use.
    pub(super) slip44: u32,
}

/// A token the device can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) symbol: String,
    pub(super) decimals: u32,
}

const NETWORKS: [(u64, u32, &str); 9] = [
    (1, 60, "ETH"),
    (10, 614, "ETH"),
    (56, 714, "BNB"),
    (61, 61, "ETC"),
    (137, 966, "POL"),
    (8453, 8453, "ETH"),
    (42161, 9001, "ETH"),
    (560_048, 1, "tHOD"),
    (11_155_111, 1, "tSEP"),
];

const TOKENS: [(u64, Address, u32, &str); 6] = [
    (1, address!("dAC17F958D2ee523a2206206994597C13D831ec7"), 6, "USDT"),
    (1, address!("A0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"), 6, "USDC"),
    (1, address!("6B175474E89094C44Da98b954EedeAC495271d0F"), 18, "DAI"),
    (1, address!("4Fabb145d64652a948d72533023f6E7A623C7C53"), 18, "BUSD"),
    (1, address!("853d955aCEf822Db058eb8505911ED77F175b99e"), 18, "FRAX"),
    (56, address!("0Eb3a705fc54725037CC9e008bDede697f62F335"), 18, "ATOM"),
];

/// The built-in network of this chain.
pub(super) fn by_chain_id(chain_id: u64) -> Option<Network> {
    built_in(|(chain, _, _)| *chain == chain_id)
}

/// The first built-in network of this coin type, for messages that carry no chain id.
pub(super) fn by_slip44(slip44: u32) -> Option<Network> {
    built_in(|(_, coin_type, _)| *coin_type == slip44)
}

/// The built-in token at this address.
pub(super) fn token(chain_id: u64, address: Address) -> Option<Token> {
    TOKENS
        .iter()
        .find(|(chain, contract, ..)| (*chain, *contract) == (chain_id, address))
        .map(|&(_, _, decimals, symbol)| Token { symbol: symbol.to_owned(), decimals })
}

fn built_in(is_it: impl Fn(&&(u64, u32, &str)) -> bool) -> Option<Network> {
    NETWORKS.iter().find(is_it).map(|&(chain_id, slip44, symbol)| Network { chain_id, symbol: symbol.to_owned(), slip44 })
}
