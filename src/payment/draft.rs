//! From a request to a payment that can be stored: every field checked, all faults named at once.

use std::fmt;

use alloy::primitives::{Address, U256};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::account;
use crate::chains::{ChainBook, ChainSpec, TokenSpec};
use crate::quote::{Asked, Quote};
use crate::units::{ChainId, Currency, Decimal18, PriceError, TokenAmount, UserId, parse_address, parse_units};

/// What the marketplace attaches to: a thing of its own by id, or a template by reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefTriple {
    Entity(Uuid),
    Template(String),
}

/// A payment as asked for, nothing checked yet.
#[derive(Clone, Debug, Default)]
pub struct PaymentDraft {
    pub amount: String,
    pub currency: String,
    pub chain_id: u64,
    pub token: String,
    pub seller_address: String,
    pub buyer_id: Option<UserId>,
    pub seller_id: Option<UserId>,
    pub purchase_request_id: Option<Uuid>,
    pub purchase_request_external_ref: Option<String>,
    pub expires_in_seconds: Option<u32>,
}

/// A payment that can be stored.
#[derive(Clone, Debug)]
pub struct NewPayment {
    /// As asked, in units of the currency: at most 20 whole digits and 18 decimals.
    pub amount: String,
    pub currency: Currency,
    pub due: TokenAmount,
    pub token: TokenSpec,
    pub seller_address: Address,
    pub buyer_id: Option<UserId>,
    pub seller_id: Option<UserId>,
    pub purchase_request: Option<RefTriple>,
    pub expires_at: OffsetDateTime,
}

/// A field that cannot be accepted, with its value and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub field: &'static str,
    pub value: String,
    pub problem: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

const EXPIRY_SECONDS_DEFAULT: u32 = 3_600;
const EXPIRY_SECONDS_MIN: u32 = 60;
const EXPIRY_SECONDS_MAX: u32 = 30 * 24 * 3_600;
/// What numeric(38,18) keeps of an amount in a currency.
const CURRENCY_DECIMALS: u8 = 18;
/// numeric(38,18) holds 20 whole digits.
const WHOLE_DIGITS_MAX: usize = 20;

/// A payment that is good in every field, and of which only the amount of the token is not known yet.
#[derive(Clone, Debug)]
pub struct PricedDraft {
    /// Its due is nothing until it is quoted.
    payment: NewPayment,
    amount: Decimal18,
}

impl PricedDraft {
    /// What to ask a quote for.
    pub fn asked(&self) -> Asked {
        let NewPayment { currency, due, token, .. } = &self.payment;
        Asked { amount: self.amount, currency: *currency, chain: due.asset.chain, token: token.symbol.clone(), decimals: token.decimals }
    }

    /// The payment of a quote: due is its amount, and a block is in time until its end and its grace.
    pub fn quoted(&self, quote: &Quote) -> NewPayment {
        let due = TokenAmount::new(self.payment.due.asset, quote.settled.settle_units);
        NewPayment { due, expires_at: quote.payable_until(), ..self.payment.clone() }
    }
}

impl PaymentDraft {
    /// Whether it is priced in another currency than the token, so that it needs a quote.
    pub fn is_priced(&self) -> bool {
        self.currency.parse::<Currency>().is_ok_and(|currency| currency.code() != self.token)
    }

    /// Checks every field against the chain book and the chains that are watched.
    pub fn check(self, book: &ChainBook, watched: &[ChainId], now: OffsetDateTime) -> Result<NewPayment, Vec<FieldError>> {
        self.check_as(false, book, watched, now)
    }

    /// As [`PaymentDraft::check`], for a payment in another currency than its token. How long it lives is its
    /// quote's to say.
    pub fn check_priced(self, book: &ChainBook, watched: &[ChainId], now: OffsetDateTime) -> Result<PricedDraft, Vec<FieldError>> {
        let payment = self.check_as(true, book, watched, now)?;
        let amount = payment.amount.parse().map_err(|error: PriceError| vec![fault("amount", &payment.amount, error.to_string())])?;
        Ok(PricedDraft { payment, amount })
    }

    fn check_as(self, priced: bool, book: &ChainBook, watched: &[ChainId], now: OffsetDateTime) -> Result<NewPayment, Vec<FieldError>> {
        let mut faults = self.secrets();
        if !faults.is_empty() {
            return Err(faults);
        }
        let chain = ChainId::new(self.chain_id).filter(|chain| watched.contains(chain)).and_then(|chain| book.get(chain));
        if chain.is_none() {
            let known: Vec<String> = watched.iter().map(ChainId::to_string).collect();
            faults.push(fault("chain_id", self.chain_id, format!("is not a watched chain; watched are {}", known.join(", "))));
        }
        let token = chain.and_then(|chain| {
            let token = chain.token(&self.token);
            if token.is_none() {
                let listed: Vec<&str> = chain.tokens.iter().map(|token| token.symbol.as_str()).collect();
                faults.push(fault("token", &self.token, format!("is not listed on {}; listed are {}", chain.name, listed.join(", "))));
            }
            token.map(|token| (chain, token))
        });
        let currency = self.currency.parse::<Currency>();
        match currency {
            Err(()) => faults.push(fault("currency", &self.currency, "is none of USD, EUR, IRR, USDT, USDC, TRY".to_owned())),
            Ok(currency) if !priced && currency.code() != self.token => faults.push(fault(
                "currency",
                &self.currency,
                format!(
                    "differs from token {}, which needs an oracle quote, and quoting is not enabled (ORACLE_QUOTING_ENABLED)",
                    self.token
                ),
            )),
            Ok(_) => {}
        }
        // In another currency the amount has that currency's decimals, and no base units yet.
        let decimals = |token: &TokenSpec| if priced { CURRENCY_DECIMALS } else { token.decimals };
        let due = token.and_then(|(chain, token)| match check_amount(&self.amount, decimals(token)) {
            Ok(units) => Some(TokenAmount::new(chain.token_asset(token), if priced { U256::ZERO } else { units })),
            Err(problem) => {
                faults.push(fault("amount", &self.amount, problem));
                None
            }
        });
        let seller_address = check_seller(&self.seller_address, chain).map_err(|problem| {
            faults.push(fault("seller_address", &self.seller_address, problem));
        });
        let seconds = self.expires_in_seconds.unwrap_or(EXPIRY_SECONDS_DEFAULT);
        if !(EXPIRY_SECONDS_MIN..=EXPIRY_SECONDS_MAX).contains(&seconds) {
            faults.push(fault("expires_in_seconds", seconds, format!("must be from {EXPIRY_SECONDS_MIN} to {EXPIRY_SECONDS_MAX}")));
        }
        let purchase_request = check_reference(self.purchase_request_id, self.purchase_request_external_ref).unwrap_or_else(|found| {
            faults.push(found);
            None
        });
        match (faults.is_empty(), currency, token, due, seller_address) {
            (true, Ok(currency), Some((_, token)), Some(due), Ok(seller_address)) => Ok(NewPayment {
                amount: self.amount,
                currency,
                due,
                token: token.clone(),
                seller_address,
                buyer_id: self.buyer_id,
                seller_id: self.seller_id,
                purchase_request,
                expires_at: now + Duration::seconds(i64::from(seconds)),
            }),
            _ => Err(faults),
        }
    }
}

impl PaymentDraft {
    /// Fields that hold something that could spend; it is not repeated.
    fn secrets(&self) -> Vec<FieldError> {
        let fields =
            [("amount", &self.amount), ("currency", &self.currency), ("token", &self.token), ("seller_address", &self.seller_address)];
        let hidden = |(field, _)| FieldError {
            field,
            value: "(hidden)".to_owned(),
            problem: "looks like a private key or recovery words; it was not stored; move what it protects".to_owned(),
        };
        fields.into_iter().filter(|(_, text)| account::is_secret(text)).map(hidden).collect()
    }
}

fn check_amount(text: &str, decimals: u8) -> Result<U256, String> {
    let units = parse_units(text, decimals).map_err(|error| error.to_string())?;
    if units.is_zero() {
        return Err("must be more than zero".to_owned());
    }
    if text.split('.').next().is_some_and(|whole| whole.len() > WHOLE_DIGITS_MAX) {
        return Err(format!("has more than {WHOLE_DIGITS_MAX} digits before the point"));
    }
    Ok(units)
}

fn check_seller(text: &str, chain: Option<&ChainSpec>) -> Result<Address, String> {
    let address = parse_address(text).map_err(|error| error.to_string())?;
    chain.map_or(Ok(()), |chain| chain.check_recipient(address)).map_err(|error| error.to_string())?;
    Ok(address)
}

fn check_reference(id: Option<Uuid>, external: Option<String>) -> Result<Option<RefTriple>, FieldError> {
    match (id, external) {
        (None, None) => Ok(None),
        (Some(id), None) => Ok(Some(RefTriple::Entity(id))),
        (None, Some(reference)) if (1..=200).contains(&reference.chars().count()) => Ok(Some(RefTriple::Template(reference))),
        (None, Some(reference)) => Err(fault("purchase_request_external_ref", &reference, "must have 1 to 200 characters".to_owned())),
        (Some(id), Some(_)) => Err(fault("purchase_request_id", id, "excludes purchase_request_external_ref; give one".to_owned())),
    }
}

fn fault(field: &'static str, value: impl ToString, problem: String) -> FieldError {
    FieldError { field, value: value.to_string().chars().take(100).collect(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELLER: &str = "0x2222222222222222222222222222222222222222";

    fn book() -> ChainBook {
        ChainBook::parse(include_str!("../../chains.toml")).unwrap()
    }

    fn draft() -> PaymentDraft {
        PaymentDraft {
            amount: "100.5".to_owned(),
            currency: "USDC".to_owned(),
            chain_id: 31_337,
            token: "USDC".to_owned(),
            seller_address: SELLER.to_owned(),
            ..PaymentDraft::default()
        }
    }

    fn check(draft: PaymentDraft) -> Result<NewPayment, Vec<FieldError>> {
        draft.check(&book(), &[ChainId::new(31_337).unwrap()], OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn a_good_draft_becomes_base_units() {
        let payment = check(draft()).unwrap();
        assert_eq!(payment.due.units.to_string(), "100500000");
        assert_eq!(payment.expires_at, OffsetDateTime::UNIX_EPOCH + Duration::hours(1));
    }

    #[test]
    fn xn_every_bad_field_is_named() {
        let cases: [(&str, PaymentDraft); 16] = [
            ("amount", PaymentDraft { amount: "NaN".to_owned(), ..draft() }),
            ("amount", PaymentDraft { amount: "-1".to_owned(), ..draft() }),
            ("amount", PaymentDraft { amount: "0".to_owned(), ..draft() }),
            ("amount", PaymentDraft { amount: "1.0000001".to_owned(), ..draft() }),
            ("amount", PaymentDraft { amount: "1e6".to_owned(), ..draft() }),
            ("amount", PaymentDraft { amount: "100000000000000000000".to_owned() + "0", ..draft() }),
            ("currency", PaymentDraft { currency: "USD".to_owned(), ..draft() }),
            ("currency", PaymentDraft { currency: "usdc".to_owned(), ..draft() }),
            ("token", PaymentDraft { token: "DAI".to_owned(), currency: "DAI".to_owned(), ..draft() }),
            ("chain_id", PaymentDraft { chain_id: 1, ..draft() }),
            ("chain_id", PaymentDraft { chain_id: 0, ..draft() }),
            ("seller_address", PaymentDraft { seller_address: "0x5FbDB2315678afecb367f032d93F642f64180aa3".to_owned(), ..draft() }),
            ("seller_address", PaymentDraft { seller_address: format!("0x{:040x}", 9), ..draft() }),
            ("seller_address", PaymentDraft { seller_address: crate::units::Asset::NATIVE_MARKER.to_string(), ..draft() }),
            ("seller_address", PaymentDraft { seller_address: "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512".to_owned(), ..draft() }),
            ("expires_in_seconds", PaymentDraft { expires_in_seconds: Some(59), ..draft() }),
        ];
        for (field, draft) in cases {
            let shown = format!("{draft:?}");
            let faults = check(draft).unwrap_err();
            assert!(faults.iter().any(|fault| fault.field == field), "{field} not named for {shown}: {faults:?}");
        }
    }

    #[test]
    fn q5_a_priced_draft_lives_as_long_as_its_quote_and_its_grace() {
        let priced = |amount: &str, currency: &str| PaymentDraft { amount: amount.to_owned(), currency: currency.to_owned(), ..draft() };
        assert!(priced("100", "USD").is_priced() && priced("100", "USDT").is_priced());
        assert!(!draft().is_priced() && !priced("100", "usd").is_priced());
        let check = |draft: PaymentDraft| draft.check_priced(&book(), &[ChainId::new(31_337).unwrap()], OffsetDateTime::UNIX_EPOCH);
        let asked = check(priced("50000000.000000000000000001", "IRR")).unwrap().asked();
        assert_eq!((asked.amount.to_string().as_str(), asked.token.as_str(), asked.decimals), ("50000000.000000000000000001", "USDC", 6));
        for bad in ["0", "-1", "NaN", "1e3", "1.0000000000000000001", "100000000000000000000"] {
            assert_eq!(check(priced(bad, "USD")).unwrap_err()[0].field, "amount", "{bad}");
        }
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let bad = PaymentDraft { amount: "x".to_owned(), seller_address: "y".to_owned(), expires_in_seconds: Some(0), ..draft() };
        let fields: Vec<&str> = check(bad).unwrap_err().iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["amount", "seller_address", "expires_in_seconds"]);
    }
}
