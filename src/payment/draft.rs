//! From a request to a payment that can be stored: every field checked, all faults named at once.

use std::fmt;

use alloy::primitives::{Address, U256};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::terms::{FeeRate, Terms};
use crate::account;
use crate::chains::{ChainBook, ChainSpec, TokenSpec};
use crate::quote::{Asked, Quote};
use crate::settings::{PaymentDefault, PaymentDefaults};
use crate::units::{ChainId, Currency, Decimal18, PriceError, TokenAmount, UserId, parse_address, parse_units};

/// `payment_provider`, the marketplace's values: who watches for the money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "payment_provider")]
pub enum Provider {
    #[sqlx(rename = "request.network")]
    RequestNetwork,
    /// This daemon.
    #[sqlx(rename = "amn.scanner")]
    AmnScanner,
    #[sqlx(rename = "shkeeper")]
    Shkeeper,
    #[sqlx(rename = "other")]
    Other,
}

impl Provider {
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestNetwork => "request.network",
            Self::AmnScanner => "amn.scanner",
            Self::Shkeeper => "shkeeper",
            Self::Other => "other",
        }
    }
}

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
    pub seller_offer_id: Option<Uuid>,
    pub seller_offer_external_ref: Option<String>,
    pub expires_in_seconds: Option<u32>,
    pub tolerance_bps: Option<u32>,
    pub late_window_seconds: Option<u32>,
    pub platform_fee: FeeDraft,
    pub provider_fee: FeeDraft,
    /// What counts where the fields above say nothing.
    pub defaults: PaymentDefaults,
}

/// A fee as asked for; absent parts come from the defaults.
#[derive(Clone, Debug, Default)]
pub struct FeeDraft {
    pub bps: Option<u32>,
    /// In units of the token.
    pub min: Option<String>,
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
    pub seller_offer: Option<RefTriple>,
    pub expires_at: OffsetDateTime,
    pub terms: Terms,
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
const ONLY_FEES: &str = "is no more than its fees; nothing would be left for the seller";
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

    /// The payment of a quote: due is its amount, and a block is in time until its end and its grace. Refused where
    /// fees would leave the seller nothing.
    pub fn quoted(&self, quote: &Quote) -> Result<NewPayment, Vec<FieldError>> {
        let units = quote.settled.settle_units;
        if self.payment.terms.fees_of_whole(units).total() >= units {
            return Err(vec![fault("amount", &self.payment.amount, ONLY_FEES.to_owned())]);
        }
        let due = TokenAmount::new(self.payment.due.asset, units);
        Ok(NewPayment { due, expires_at: quote.payable_until(), ..self.payment.clone() })
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
        let terms = self.check_terms(token.map(|(_, token)| token.decimals), due.filter(|_| !priced).map(|due| due.units), &mut faults);
        let mut reference = |fields: [&'static str; 2], id, external| {
            check_reference(fields, id, external).unwrap_or_else(|found| {
                faults.push(found);
                None
            })
        };
        let purchase_request = reference(
            ["purchase_request_id", "purchase_request_external_ref"],
            self.purchase_request_id,
            self.purchase_request_external_ref,
        );
        let seller_offer =
            reference(["seller_offer_id", "seller_offer_external_ref"], self.seller_offer_id, self.seller_offer_external_ref);
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
                seller_offer,
                terms,
                expires_at: now + Duration::seconds(i64::from(seconds)),
            }),
            _ => Err(faults),
        }
    }
}

impl PaymentDraft {
    /// The terms, where nothing is said from the defaults. Faults are added to those there are.
    fn check_terms(&self, decimals: Option<u8>, due_units: Option<U256>, faults: &mut Vec<FieldError>) -> Terms {
        let mut figure = |field: &'static str, asked: Option<u32>, which: PaymentDefault| {
            let value = asked.map_or_else(|| self.defaults.get(which), i64::from);
            if !(0..=which.largest()).contains(&value) {
                faults.push(fault(field, value, format!("must be 0 to {}", which.largest())));
            }
            value
        };
        let tolerance = figure("tolerance_bps", self.tolerance_bps, PaymentDefault::ToleranceBps);
        let late_window = figure("late_window_seconds", self.late_window_seconds, PaymentDefault::LateWindowSeconds);
        let platform = figure("platform_fee_bps", self.platform_fee.bps, PaymentDefault::PlatformFeeBps);
        let provider = figure("provider_fee_bps", self.provider_fee.bps, PaymentDefault::ProviderFeeBps);
        let mut minimum = |field: &'static str, asked: Option<&String>, which: PaymentDefault| {
            let Some(decimals) = decimals else { return U256::ZERO };
            match asked.map(|text| parse_units(text, decimals)) {
                None => millionths(self.defaults.get(which), decimals),
                Some(Ok(units)) => units,
                Some(Err(problem)) => {
                    faults.push(fault(field, asked.map_or("", String::as_str), problem.to_string()));
                    U256::ZERO
                }
            }
        };
        let platform_min = minimum("platform_fee_min", self.platform_fee.min.as_ref(), PaymentDefault::PlatformFeeMinMillionths);
        let provider_min = minimum("provider_fee_min", self.provider_fee.min.as_ref(), PaymentDefault::ProviderFeeMinMillionths);
        // A value out of its bounds is a fault already, and nothing is made of it.
        let bps = |value: i64| u16::try_from(value).unwrap_or(0);
        let terms = Terms {
            tolerance_bps: bps(tolerance),
            late_window: Duration::seconds(late_window),
            platform_fee: FeeRate { bps: bps(platform), min_units: platform_min },
            provider_fee: FeeRate { bps: bps(provider), min_units: provider_min },
        };
        if let Some(due_units) = due_units
            && terms.fees_of_whole(due_units).total() >= due_units
        {
            faults.push(fault("amount", &self.amount, ONLY_FEES.to_owned()));
        }
        terms
    }

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

/// Millionths of a whole token in its base units: rounded up, so that a minimum stays one.
fn millionths(value: i64, decimals: u8) -> U256 {
    let million = U256::from(1_000_000);
    (U256::from(value.unsigned_abs()) * U256::from(10).pow(U256::from(decimals))).div_ceil(million)
}

fn check_reference(fields: [&'static str; 2], id: Option<Uuid>, external: Option<String>) -> Result<Option<RefTriple>, FieldError> {
    let [id_field, external_field] = fields;
    match (id, external) {
        (None, None) => Ok(None),
        (Some(id), None) => Ok(Some(RefTriple::Entity(id))),
        (None, Some(reference)) if (1..=200).contains(&reference.chars().count()) => Ok(Some(RefTriple::Template(reference))),
        (None, Some(reference)) => Err(fault(external_field, &reference, "must have 1 to 200 characters".to_owned())),
        (Some(id), Some(_)) => Err(fault(id_field, id, format!("excludes {external_field}; give one"))),
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
        let min = |min: &str| FeeDraft { bps: None, min: Some(min.to_owned()) };
        let bps = |bps| FeeDraft { bps: Some(bps), min: None };
        let cases: [(&str, PaymentDraft); 23] = [
            ("tolerance_bps", PaymentDraft { tolerance_bps: Some(1_001), ..draft() }),
            ("late_window_seconds", PaymentDraft { late_window_seconds: Some(90 * 24 * 3_600 + 1), ..draft() }),
            ("platform_fee_bps", PaymentDraft { platform_fee: bps(5_001), ..draft() }),
            ("provider_fee_min", PaymentDraft { provider_fee: min("0.0000001"), ..draft() }),
            ("amount", PaymentDraft { provider_fee: min("100.5"), ..draft() }),
            ("seller_offer_external_ref", PaymentDraft { seller_offer_external_ref: Some(String::new()), ..draft() }),
            (
                "seller_offer_id",
                PaymentDraft { seller_offer_id: Some(Uuid::nil()), seller_offer_external_ref: Some("o".to_owned()), ..draft() },
            ),
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
    fn terms_come_from_the_draft_and_else_from_the_defaults() {
        let defaults = PaymentDefaults::default()
            .with(PaymentDefault::ToleranceBps, 10)
            .with(PaymentDefault::PlatformFeeBps, 250)
            .with(PaymentDefault::PlatformFeeMinMillionths, 500_000);
        let terms = check(PaymentDraft { defaults, ..draft() }).unwrap().terms;
        assert_eq!(terms.tolerance_bps, 10);
        assert_eq!(terms.platform_fee, FeeRate { bps: 250, min_units: U256::from(500_000) });
        assert_eq!((terms.provider_fee, terms.late_window), (FeeRate::default(), Duration::DAY));
        let own = FeeDraft { bps: Some(0), min: Some("1".to_owned()) };
        let terms = check(PaymentDraft { defaults, platform_fee: own, late_window_seconds: Some(0), ..draft() }).unwrap().terms;
        assert_eq!(terms.platform_fee, FeeRate { bps: 0, min_units: U256::from(1_000_000) });
        assert_eq!(terms.late_window, Duration::ZERO);
        assert_eq!(millionths(1, 2), U256::from(1), "a minimum is never rounded away");
        assert_eq!(millionths(1_500_000, 18), U256::from(1_500_000_000_000_000_000_u64));
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
