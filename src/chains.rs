//! The chain book: facts about chains and tokens, read from `chains.toml` once at start.
//!
//! Pure. RPC URLs are configuration and not here; thresholds in force are `settings`, the number in
//! this book is only the value before anybody set one. What the price oracle knows is in [`prices`].

pub mod planning;
pub mod prices;

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::Address;
use serde::Deserialize;

pub use planning::{PlanningSpec, ReleasePath};
use planning::{RawPlanning, sweep_defaults};
pub use prices::{FeedSpec, MarketSpec, PairKind, PairSpec, PriceBook, VenueSpec, base_of};
use prices::{RawFeed, RawPair, RawVenue};

use crate::units::{Asset, AssetId, ChainId, Confirmations, ParseAssetError, parse_address};

/// All chains this installation may watch, by id.
#[derive(Clone, Debug)]
pub struct ChainBook {
    chains: BTreeMap<ChainId, ChainSpec>,
    prices: PriceBook,
}

#[derive(Clone, Debug)]
pub struct ChainSpec {
    pub id: ChainId,
    pub name: String,
    pub native: NativeSpec,
    pub block_time_ms: u32,
    pub finality: Finality,
    pub confirmation_threshold: Confirmations,
    /// Blocks until credited money may leave, where the node names no final block. Not below the above.
    pub release_threshold: Confirmations,
    /// How many stored blocks are compared with the node's when looking for a common ancestor.
    pub reorg_window: u32,
    /// The most that a transaction of this chain may pay per gas, in wei; the configuration's maximum alone
    /// where there is none.
    pub max_fee_per_gas_max: Option<u128>,
    /// What a transaction pays besides its gas.
    pub l1_fee: L1Fee,
    /// What outflows are planned by before anybody set it.
    pub planning: PlanningSpec,
    /// Where the chain's sanctions oracle answers `isSanctioned(address)`.
    pub sanctions_oracle: Option<Address>,
    pub tokens: Vec<TokenSpec>,
    pub feeds: Vec<FeedSpec>,
    /// Says whether a rollup's sequencer is up, and since when.
    pub sequencer: Option<Address>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativeSpec {
    pub symbol: String,
    pub decimals: u8,
    /// The pair that prices it; without one it is not offered for prices in another currency.
    pub price: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finality {
    /// The node's block tag `finalized`.
    Finalized,
    /// The node's block tag `safe`: on a rollup, the data is on the chain below.
    Safe,
    /// Only a number of blocks says how final a block is.
    Depth,
}

impl Finality {
    /// The tag by which the node names its final block.
    pub const fn tag(self) -> Option<&'static str> {
        match self {
            Self::Finalized => Some("finalized"),
            Self::Safe => Some("safe"),
            Self::Depth => None,
        }
    }
}

/// How a chain charges for its data on the chain below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum L1Fee {
    /// Nothing, or nothing apart: it has no chain below, or, as Arbitrum, counts the data in gas, of which its
    /// node's estimate knows.
    #[default]
    InGas,
    /// On top of gas, out of the sender's balance; the gas oracle at the predeployed address says how much.
    OpStack,
}

#[derive(Clone, Debug)]
pub struct TokenSpec {
    pub symbol: String,
    pub contract: Address,
    pub decimals: u8,
    /// Less than this is not worth a sweep, where no price says so.
    pub sweep_min_millionths: u64,
    /// From this amount on a deposit is swept without waiting for others; 0: none is.
    pub sweep_now_millionths: u64,
    /// How the contract says that its issuer has frozen an address; `None` where it cannot.
    pub freeze_check: Option<FreezeCheck>,
    /// The pair whose sources price this very token. A bridged token has its own or none: the original's
    /// price is not its price.
    pub price: Option<String>,
}

/// The function by which a token's contract tells whether its issuer has frozen an address. All take the
/// address and return a bool; issuers have not agreed on a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum FreezeCheck {
    /// Tether's first contract on Ethereum, where it is a public mapping.
    #[serde(rename = "isBlackListed")]
    IsBlackListed,
    /// The same contract's function of the same meaning.
    #[serde(rename = "getBlackListStatus")]
    GetBlackListStatus,
    /// Circle's FiatToken.
    #[serde(rename = "isBlacklisted")]
    IsBlacklisted,
    /// Tether's later contracts, USDT0 among them.
    #[serde(rename = "isBlocked")]
    IsBlocked,
}

impl FreezeCheck {
    /// What the four bytes of the call are the hash of.
    pub const fn signature(self) -> &'static str {
        match self {
            Self::IsBlackListed => "isBlackListed(address)",
            Self::GetBlackListStatus => "getBlackListStatus(address)",
            Self::IsBlacklisted => "isBlacklisted(address)",
            Self::IsBlocked => "isBlocked(address)",
        }
    }
}

impl ChainBook {
    /// Reads and checks the whole text; the error names the chain, the field and the value.
    pub fn parse(text: &str) -> Result<Self, ChainBookError> {
        let raw: RawBook = toml::from_str(text).map_err(|source| ChainBookError::Form(Box::new(source)))?;
        let prices = PriceBook::check(raw.pair, raw.venue)?;
        let mut chains = BTreeMap::new();
        for chain in raw.chain {
            let spec = ChainSpec::check(chain, &prices)?;
            if let Some(twice) = chains.insert(spec.id, spec) {
                return Err(ChainBookError::Twice { chain: twice.id.get(), what: format!("chain {}", twice.id) });
            }
        }
        if chains.is_empty() {
            return Err(ChainBookError::Empty);
        }
        Ok(Self { chains, prices })
    }

    pub fn get(&self, id: ChainId) -> Option<&ChainSpec> {
        self.chains.get(&id)
    }

    /// What prices are made of.
    pub fn prices(&self) -> &PriceBook {
        &self.prices
    }

    pub fn iter(&self) -> impl Iterator<Item = &ChainSpec> {
        self.chains.values()
    }

    /// Symbol and decimals of an asset, if it is listed.
    pub fn asset(&self, id: AssetId) -> Option<AssetFacts<'_>> {
        let chain = self.get(id.chain)?;
        match id.asset {
            Asset::Native => Some(AssetFacts { symbol: &chain.native.symbol, decimals: chain.native.decimals }),
            Asset::Token(contract) => chain
                .tokens
                .iter()
                .find(|token| token.contract == contract)
                .map(|token| AssetFacts { symbol: &token.symbol, decimals: token.decimals }),
        }
    }
}

/// What a person needs to read an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssetFacts<'a> {
    pub symbol: &'a str,
    pub decimals: u8,
}

impl ChainSpec {
    pub fn token(&self, symbol: &str) -> Option<&TokenSpec> {
        self.tokens.iter().find(|token| token.symbol == symbol)
    }

    /// The coin or token of a symbol, which means something on this chain only.
    pub fn find_asset(&self, symbol: &str) -> Option<(AssetId, AssetFacts<'_>)> {
        if symbol == self.native.symbol {
            return Some((self.native_asset(), AssetFacts { symbol: &self.native.symbol, decimals: self.native.decimals }));
        }
        let token = self.token(symbol)?;
        Some((self.token_asset(token), AssetFacts { symbol: &token.symbol, decimals: token.decimals }))
    }

    /// The most that a transaction may pay per gas, in wei: the lower of this chain's cap and everybody's.
    pub fn fee_cap(&self, for_all: u128) -> u128 {
        self.max_fee_per_gas_max.map_or(for_all, |own| own.min(for_all))
    }

    /// Every listed symbol, the chain's own coin first.
    pub fn symbols(&self) -> Vec<&str> {
        std::iter::once(self.native.symbol.as_str()).chain(self.tokens.iter().map(|token| token.symbol.as_str())).collect()
    }

    pub fn native_asset(&self) -> AssetId {
        AssetId { chain: self.id, asset: Asset::Native }
    }

    pub fn token_asset(&self, token: &TokenSpec) -> AssetId {
        AssetId { chain: self.id, asset: Asset::Token(token.contract) }
    }

    /// Refuses recipients from which money does not come back, whatever the asset.
    pub fn check_recipient(&self, to: Address) -> Result<(), RecipientError> {
        if to.is_zero() {
            return Err(RecipientError::Zero);
        }
        let reserved = to.0[..18].iter().all(|byte| *byte == 0);
        if reserved || to == Asset::NATIVE_MARKER {
            return Err(RecipientError::Reserved);
        }
        match self.tokens.iter().find(|token| token.contract == to) {
            Some(token) => Err(RecipientError::TokenContract { symbol: token.symbol.clone() }),
            None => Ok(()),
        }
    }

    fn check(raw: RawChain, prices: &PriceBook) -> Result<Self, ChainBookError> {
        let bad = |field: &'static str, value: String, remedy: &'static str| ChainBookError::Field { chain: raw.id, field, value, remedy };
        let id = ChainId::new(raw.id).ok_or_else(|| bad("id", raw.id.to_string(), "use the EIP-155 chain id"))?;
        if raw.native.decimals > DECIMALS_MAX {
            return Err(bad("native.decimals", raw.native.decimals.to_string(), "use 0 to 18"));
        }
        if raw.block_time_ms == 0 {
            return Err(bad("block_time_ms", "0".to_owned(), "use the chain's mean block time in milliseconds"));
        }
        let confirmation_threshold = Confirmations::new(raw.confirmation_threshold)
            .map_err(|_| bad("confirmation_threshold", raw.confirmation_threshold.to_string(), "use 1 to 10000"))?;
        let release_threshold = Confirmations::new(raw.release_threshold)
            .map_err(|_| bad("release_threshold", raw.release_threshold.to_string(), "use 1 to 10000"))?;
        if release_threshold < confirmation_threshold {
            let remedy = "use at least confirmation_threshold: what is not credited cannot be released";
            return Err(bad("release_threshold", raw.release_threshold.to_string(), remedy));
        }
        if raw.reorg_window < 1 || raw.reorg_window > 100_000 {
            return Err(bad("reorg_window", raw.reorg_window.to_string(), "use 1 to 100000"));
        }
        if raw.max_fee_per_gas_gwei == Some(0) {
            return Err(bad("max_fee_per_gas_gwei", "0".to_owned(), "use at least 1, or leave it out"));
        }
        let mut contracts = BTreeSet::new();
        let mut symbols = BTreeSet::new();
        let mut tokens = Vec::with_capacity(raw.token.len());
        for token in raw.token {
            let contract = parse_address(&token.contract).map_err(|source| ChainBookError::Contract {
                chain: raw.id,
                symbol: token.symbol.clone(),
                source,
            })?;
            if token.decimals > DECIMALS_MAX {
                return Err(bad("token.decimals", token.decimals.to_string(), "use 0 to 18: money columns hold 18 decimals"));
            }
            if !contracts.insert(contract) || !symbols.insert(token.symbol.clone()) {
                return Err(ChainBookError::Twice { chain: raw.id, what: format!("token {} at {contract}", token.symbol) });
            }
            if let Some(pair) = &token.price {
                prices.require("token.price", pair)?;
            }
            let (sweep_min_millionths, sweep_now_millionths) = sweep_defaults(token.sweep_min.as_deref(), token.sweep_now.as_deref())
                .map_err(|(field, value)| bad(field, value, "use an amount of the token with at most 6 decimals, in quotes"))?;
            tokens.push(TokenSpec {
                symbol: token.symbol,
                contract,
                decimals: token.decimals,
                sweep_min_millionths,
                sweep_now_millionths,
                freeze_check: token.freeze_check,
                price: token.price,
            });
        }
        if let Some(pair) = &raw.native.price {
            prices.require("native.price", pair)?;
        }
        let planning = PlanningSpec::check(raw.planning.clone()).map_err(|(field, value, remedy)| bad(field, value, remedy))?;
        let feeds = raw.feed.into_iter().map(|feed| feed.check(prices)).collect::<Result<Vec<_>, _>>()?;
        let sequencer = match &raw.sequencer {
            None => None,
            Some(text) => Some(parse_address(text).map_err(|_| bad("sequencer", text.clone(), "use the uptime feed's address"))?),
        };
        let oracle = raw.sanctions_oracle.as_deref().map(parse_address).transpose();
        let sanctions_oracle = oracle.map_err(|_| {
            let value = raw.sanctions_oracle.clone().unwrap_or_default();
            bad("sanctions_oracle", value, "use the oracle's address with its EIP-55 checksum, or leave it out")
        })?;
        Ok(Self {
            id,
            name: raw.name,
            native: raw.native,
            block_time_ms: raw.block_time_ms,
            finality: raw.finality,
            confirmation_threshold,
            release_threshold,
            reorg_window: raw.reorg_window,
            max_fee_per_gas_max: raw.max_fee_per_gas_gwei.map(|gwei| u128::from(gwei) * WEI_PER_GWEI),
            l1_fee: raw.l1_fee,
            planning,
            sanctions_oracle,
            tokens,
            feeds,
            sequencer,
        })
    }
}

/// A recipient that would swallow the money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    #[error("is the zero address; money sent there is lost")]
    Zero,
    #[error("is reserved (a precompiled contract, or the marker of the native coin); money sent there is lost")]
    Reserved,
    #[error("is the contract of {symbol} itself; tokens sent there are lost")]
    TokenContract { symbol: String },
}

/// numeric(38,18) keeps 18 decimals, so an asset with more could not be stored exactly.
const DECIMALS_MAX: u8 = 18;
const WEI_PER_GWEI: u128 = 1_000_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBook {
    #[serde(default)]
    chain: Vec<RawChain>,
    #[serde(default)]
    pair: Vec<RawPair>,
    #[serde(default)]
    venue: Vec<RawVenue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChain {
    id: u64,
    name: String,
    native: NativeSpec,
    block_time_ms: u32,
    finality: Finality,
    confirmation_threshold: i64,
    release_threshold: i64,
    reorg_window: u32,
    max_fee_per_gas_gwei: Option<u32>,
    #[serde(default)]
    l1_fee: L1Fee,
    #[serde(default)]
    planning: RawPlanning,
    sanctions_oracle: Option<String>,
    sequencer: Option<String>,
    #[serde(default)]
    token: Vec<RawToken>,
    #[serde(default)]
    feed: Vec<RawFeed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToken {
    symbol: String,
    contract: String,
    decimals: u8,
    sweep_min: Option<String>,
    sweep_now: Option<String>,
    freeze_check: Option<FreezeCheck>,
    price: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ChainBookError {
    #[error("chains.toml cannot be read")]
    Form(#[source] Box<toml::de::Error>),
    #[error("chains.toml lists no chain")]
    Empty,
    #[error("chains.toml: chain {chain}: {field} = {value}; {remedy}")]
    Field { chain: u64, field: &'static str, value: String, remedy: &'static str },
    #[error("chains.toml: {field} = {value}; {remedy}")]
    Prices { field: &'static str, value: String, remedy: &'static str },
    #[error("chains.toml: chain {chain}: contract of token {symbol}")]
    Contract { chain: u64, symbol: String, source: ParseAssetError },
    #[error("chains.toml: chain {chain}: {what} is listed twice")]
    Twice { chain: u64, what: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../chains.toml");

    #[test]
    fn the_shipped_book_is_valid_and_holds_six_chains() {
        let book = ChainBook::parse(SHIPPED).unwrap();
        let ids: Vec<u64> = book.iter().map(|chain| chain.id.get()).collect();
        assert_eq!(ids, [1, 56, 137, 8453, 31_337, 42_161]);
        for chain in book.iter() {
            assert_eq!(chain.tokens.len(), 2, "{} should list USDT and USDC", chain.name);
        }
    }

    #[test]
    fn t09_bnb_chain_stablecoins_have_18_decimals() {
        let book = ChainBook::parse(SHIPPED).unwrap();
        let bsc = book.get(ChainId::new(56).unwrap()).unwrap();
        assert!(bsc.tokens.iter().all(|token| token.decimals == 18));
        let ethereum = book.get(ChainId::new(1).unwrap()).unwrap();
        assert!(ethereum.tokens.iter().all(|token| token.decimals == 6));
    }

    #[test]
    fn n9_the_lower_of_both_fee_caps_counts() {
        let book = ChainBook::parse(SHIPPED).unwrap();
        let gwei =
            |chain: u64, for_all: u128| book.get(ChainId::new(chain).unwrap()).unwrap().fee_cap(for_all * WEI_PER_GWEI) / WEI_PER_GWEI;
        assert_eq!((gwei(1, 500), gwei(1, 100), gwei(8453, 500)), (300, 100, 20));
        assert_eq!(gwei(31_337, 500), 500, "without its own, everybody's");
    }

    #[test]
    fn bad_books_are_refused_and_the_field_is_named() {
        let edit = |from: &str, to: &str| ChainBook::parse(&SHIPPED.replacen(from, to, 1)).unwrap_err();
        let chain_of = |error: &ChainBookError| error.to_string();
        assert!(chain_of(&edit("confirmation_threshold = 12", "confirmation_threshold = 0")).contains("confirmation_threshold = 0"));
        assert!(chain_of(&edit("confirmation_threshold = 12", "confirmation_threshold = 10001")).contains("10001"));
        assert!(chain_of(&edit("release_threshold = 96", "release_threshold = 11")).contains("release_threshold = 11; use at least"));
        assert!(chain_of(&edit("release_threshold = 96", "release_threshold = 10001")).contains("release_threshold = 10001"));
        assert!(matches!(edit("release_threshold = 96\n", ""), ChainBookError::Form(_)));
        assert!(chain_of(&edit("id = 1\n", "id = 0\n")).contains("id = 0"));
        assert!(matches!(edit("id = 56", "id = 1"), ChainBookError::Twice { chain: 1, .. }));
        assert!(matches!(edit("831ec7", "831eC7"), ChainBookError::Contract { chain: 1, .. }));
        assert!(matches!(edit("finality = \"finalized\"", "finality = \"soon\""), ChainBookError::Form(_)));
        assert!(matches!(edit("name = \"Ethereum\"", "name = \"Ethereum\"\ncolour = 1"), ChainBookError::Form(_)));
        assert!(matches!(edit("decimals = 6", "decimals = 19"), ChainBookError::Field { field: "token.decimals", .. }));
        assert!(chain_of(&edit("max_fee_per_gas_gwei = 300", "max_fee_per_gas_gwei = 0")).contains("max_fee_per_gas_gwei = 0"));
        assert!(chain_of(&edit("sanctions_oracle = \"0x40C5", "sanctions_oracle = \"0x40c5")).contains("sanctions_oracle = 0x40c5"));
        assert!(matches!(edit("freeze_check = \"isBlackListed\"", "freeze_check = \"isFrozen\""), ChainBookError::Form(_)));
        assert!(matches!(ChainBook::parse(""), Err(ChainBookError::Empty)));
    }
}
