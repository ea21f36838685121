//! What a Trezor One knows about chains and tokens without being told.
//!
//! Pure. For these the device ignores a definition; everything else reads `UNKN` unless one is
//! attached. Only tokens are listed whose place in the firmware is certain: a token left out here
//! makes the console warn about an unknown token that the device would have named, never the reverse.

use alloy::primitives::{Address, address};

use crate::units::ChainId;

/// Chain id and the unit its fees are shown in.
const NETWORKS: [(u64, &str); 9] = [
    (1, "ETH"),
    (10, "ETH"),
    (56, "BNB"),
    (61, "ETC"),
    (137, "POL"),
    (8453, "ETH"),
    (42161, "ETH"),
    (560_048, "tHOD"),
    (11_155_111, "tSEP"),
];

/// Chain id, contract, symbol, decimals.
const TOKENS: [(u64, Address, &str, u8); 3] = [
    (1, address!("0xdAC17F958D2ee523a2206206994597C13D831ec7"), "USDT", 6),
    (1, address!("0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"), "USDC", 6),
    (1, address!("0x6B175474E89094C44Da98b954EedeAC495271d0F"), "DAI", 18),
];

pub(super) fn network(chain: ChainId) -> Option<&'static str> {
    NETWORKS.iter().find(|(id, _)| *id == chain.get()).map(|(_, symbol)| *symbol)
}

pub(super) fn token(chain: ChainId, contract: Address) -> Option<(&'static str, u8)> {
    TOKENS.iter().find(|(id, address, ..)| *id == chain.get() && *address == contract).map(|(.., symbol, decimals)| (*symbol, *decimals))
}
