//! What the officer is about to read on the device.
//!
//! Pure. No screen of a Trezor One shows the chain's name, the token's contract or the nonce, and
//! an unknown token's amount is a bare integer. So the console shows these lines beside the request,
//! says what the device leaves out, and the officer compares before pressing. Other models show the
//! same facts on other pages.

use alloy::primitives::{Address, U256};

use super::definitions::Definitions;
use super::known;
use super::request::{TransactionRequest, Transfer};
use crate::chains::ChainSpec;
use crate::units::{Asset, format_units, group_thousands};

/// Native amounts below 10^9 wei are shown in wei, without the coin.
const NATIVE_MIN: u64 = 1_000_000_000;
const NATIVE_DECIMALS: u8 = 18;
const UNKNOWN: &str = "UNKN";

/// One page on the device, and one press.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedScreen {
    pub lines: Vec<String>,
}

/// What a Trezor One shows for a request, in order, and what it does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedScreens {
    pub screens: Vec<ExpectedScreen>,
    /// Sentences for the officer: what to know that no screen says.
    pub notes: Vec<String>,
}

impl ExpectedScreens {
    pub fn of(request: &TransactionRequest, spec: &ChainSpec, definitions: &Definitions) -> Self {
        let shown = Shown::to_device(request, spec, definitions);
        let transfer = request.transfer();
        let fees = request.fees();
        let fee = |title: &str, amount: U256| screen(["Confirm fee", title, &shown.native(amount)]);
        let screens = vec![
            screen(["Send", &shown.amount(transfer), &format!("to {}?", transfer.to)]),
            fee("Maximum fee per gas", U256::from(fees.max_fee_per_gas)),
            fee("Priority fee per gas", U256::from(fees.max_priority_fee_per_gas)),
            fee("Maximum fee", fees.ceiling()),
        ];
        let mut notes = vec![place(request, spec)];
        notes.extend(shown.warning(request, spec));
        notes.extend(definitions.missing().iter().map(ToString::to_string));
        Self { screens, notes }
    }
}

fn screen(lines: [&str; 3]) -> ExpectedScreen {
    ExpectedScreen { lines: lines.map(str::to_owned).into() }
}

/// The names the device has for this request's coin and token.
struct Shown {
    coin: Option<String>,
    token: Option<(String, u8)>,
}

impl Shown {
    fn to_device(request: &TransactionRequest, spec: &ChainSpec, definitions: &Definitions) -> Self {
        let built_in = known::network(request.chain()).map(str::to_owned);
        let coin = built_in.or_else(|| definitions.network_for(request).map(|_| spec.native.symbol.clone()));
        let token = match request.transfer().asset {
            Asset::Native => None,
            Asset::Token(contract) => token_name(request, spec, definitions, contract, coin.is_some()),
        };
        Self { coin, token }
    }

    fn amount(&self, transfer: Transfer) -> String {
        match (transfer.asset, &self.token) {
            (Asset::Native, _) if transfer.amount.is_zero() => "message".to_owned(),
            (Asset::Native, _) => self.native(transfer.amount),
            (Asset::Token(_), Some((symbol, decimals))) => format!("{} {symbol}", decimal(transfer.amount, *decimals)),
            (Asset::Token(_), None) => format!("{} Wei {UNKNOWN}", group_thousands(transfer.amount)),
        }
    }

    fn native(&self, amount: U256) -> String {
        if amount < U256::from(NATIVE_MIN) {
            return format!("{} Wei", group_thousands(amount));
        }
        format!("{} {}", decimal(amount, NATIVE_DECIMALS), self.coin.as_deref().unwrap_or(UNKNOWN))
    }

    fn warning(&self, request: &TransactionRequest, spec: &ChainSpec) -> Option<String> {
        let Transfer { asset, amount, .. } = request.transfer();
        match asset {
            Asset::Token(contract) if self.token.is_none() => {
                let facts = spec.tokens.iter().find(|token| token.contract == contract)?;
                Some(format!(
                    "The device does not know this token and shows {} as a whole number of its smallest unit: it means {} {}.",
                    group_thousands(amount),
                    decimal(amount, facts.decimals),
                    facts.symbol,
                ))
            }
            Asset::Native | Asset::Token(_) if self.coin.is_none() => {
                Some(format!("The device does not know this chain and writes {UNKNOWN} where it means {}.", spec.native.symbol))
            }
            Asset::Native if request.is_cancel() => {
                Some("This cancels another transaction: it moves nothing and the device shows no amount.".to_owned())
            }
            Asset::Native | Asset::Token(_) => None,
        }
    }
}

/// A built-in token wins over a definition; a definition counts only on a chain the device knows.
fn token_name(
    request: &TransactionRequest,
    spec: &ChainSpec,
    definitions: &Definitions,
    contract: Address,
    chain_known: bool,
) -> Option<(String, u8)> {
    if let Some((symbol, decimals)) = known::token(request.chain(), contract) {
        return Some((symbol.to_owned(), decimals));
    }
    definitions.token_for(request).filter(|_| chain_known)?;
    spec.tokens.iter().find(|token| token.contract == contract).map(|token| (token.symbol.clone(), token.decimals))
}

fn place(request: &TransactionRequest, spec: &ChainSpec) -> String {
    let asset = match request.transfer().asset {
        Asset::Native => format!("its coin {}", spec.native.symbol),
        Asset::Token(contract) => {
            let symbol = spec.tokens.iter().find(|token| token.contract == contract).map_or(UNKNOWN, |token| &token.symbol);
            format!("token {symbol} at contract {contract}")
        }
    };
    format!(
        "No screen says so, but this is chain {} ({}), {asset}, nonce {}, from {} at {}.",
        spec.name,
        spec.id,
        request.nonce(),
        request.sender(),
        request.from(),
    )
}

/// A decimal number as the device writes it: commas between thousands, no zeros at the end.
fn decimal(units: U256, decimals: u8) -> String {
    let text = format_units(units, decimals);
    match text.split_once('.') {
        None => group_thousands(units / U256::from(10).pow(U256::from(decimals))),
        Some((_, fraction)) => format!("{}.{fraction}", group_thousands(units / U256::from(10).pow(U256::from(decimals)))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::definitions::tests::attached;
    use super::super::request::TransactionDraft;
    use super::super::request::tests::{spec, usdt_draft};
    use super::*;

    fn on(chain: u64, symbol: &str) -> (TransactionRequest, ChainSpec) {
        let spec = spec(chain);
        let asset = match spec.token(symbol) {
            Some(token) => Asset::Token(token.contract),
            None => Asset::Native,
        };
        let transfer = Transfer { asset, ..usdt_draft().transfer };
        (TransactionRequest::check(TransactionDraft { chain: spec.id, transfer, ..usdt_draft() }, &spec).unwrap(), spec)
    }

    fn lines(screens: &ExpectedScreens) -> Vec<String> {
        screens.screens.iter().map(|screen| screen.lines.join(" | ")).collect()
    }

    #[test]
    fn a_known_token_is_named() {
        let (request, spec) = on(1, "USDT");
        let screens = ExpectedScreens::of(&request, &spec, &Definitions::load(None, &spec, request.transfer().asset));
        assert_eq!(
            lines(&screens),
            [
                "Send | 123.456789 USDT | to 0x2222222222222222222222222222222222222222?",
                "Confirm fee | Maximum fee per gas | 0.00000003 ETH",
                "Confirm fee | Priority fee per gas | 0.000000001 ETH",
                "Confirm fee | Maximum fee | 0.00195 ETH",
            ]
        );
        assert_eq!(screens.notes.len(), 1);
        assert!(
            screens.notes[0].contains("chain Ethereum (1), token USDT at contract 0xdAC17F958D2ee523a2206206994597C13D831ec7, nonce 0")
        );
    }

    #[test]
    fn an_unknown_token_reads_as_a_whole_number_and_is_explained() {
        let (request, spec) = on(137, "USDC");
        let screens = ExpectedScreens::of(&request, &spec, &Definitions::load(None, &spec, request.transfer().asset));
        assert_eq!(lines(&screens)[0], "Send | 123,456,789 Wei UNKN | to 0x2222222222222222222222222222222222222222?");
        assert_eq!(lines(&screens)[3], "Confirm fee | Maximum fee | 0.00195 POL");
        assert!(screens.notes[0].contains("Polygon (137)") && screens.notes[0].contains("0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359"));
        assert!(screens.notes[1].contains("123.456789 USDC"));
        assert!(screens.notes[2].contains("no directory"));
    }

    #[test]
    fn an_unknown_chain_needs_both_definitions() {
        let (request, spec) = on(31_337, "USDC");
        let asset = request.transfer().asset;
        let first =
            |network, token| lines(&ExpectedScreens::of(&request, &spec, &attached(&spec, asset, network, token)))[..2].join(" || ");
        assert!(first(false, false).contains("123,456,789 Wei UNKN") && first(false, false).contains("0.00000003 UNKN"));
        assert!(first(false, true).contains("123,456,789 Wei UNKN"), "a token definition alone is ignored");
        assert!(first(true, false).contains("123,456,789 Wei UNKN") && first(true, false).contains("0.00000003 ETH"));
        assert!(first(true, true).contains("123.456789 USDC"));
    }

    #[test]
    fn small_native_amounts_read_in_wei_and_a_cancel_reads_message() {
        let (request, spec) = on(1, "native");
        let none = Definitions::load(None, &spec, Asset::Native);
        assert!(lines(&ExpectedScreens::of(&request, &spec, &none))[0].starts_with("Send | 123,456,789 Wei | to"));
        let transfer = Transfer { asset: Asset::Native, to: request.sender(), amount: U256::ZERO };
        let cancel = TransactionRequest::check(TransactionDraft { transfer, ..request.draft() }, &spec).unwrap();
        let screens = ExpectedScreens::of(&cancel, &spec, &none);
        assert!(lines(&screens)[0].starts_with("Send | message | to 0xf2252f414e"));
        assert!(screens.notes[1].contains("cancels"));
        assert_eq!(decimal(U256::from(1_234_500_000_u64), 6), "1,234.5");
        assert_eq!(decimal(U256::from(1_234_000_000_u64), 6), "1,234");
    }
}
