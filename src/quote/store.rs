//! SQL of `payment_quotes` and `oracle_states`, and the history of the thresholds of quoting.
//!
//! A quote is inserted and read, and never changed: which one is live follows from which one is replaced.

use std::collections::BTreeMap;

use alloy::primitives::U256;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::decide::{Asked, Memory, Quote, QuoteKind};
use super::depeg::DepegState;
use super::evidence::Evidence;
use super::formula::{PegRule, PegState, Policy, Settled, Terms};
use super::jump::{Heard, JumpMemory, Mark};
use super::limits::{LimitBook, SPECS};
use crate::db::codec::{chain_from_sql, units_from_sql, units_to_sql};
use crate::db::{DbError, expect_one};
use crate::settings;
use crate::units::{Currency, PaymentId, UsdRate};

/// A row of `payment_quotes`.
#[derive(Clone, Debug)]
pub struct StoredQuote {
    pub id: Uuid,
    pub payment: PaymentId,
    pub supersedes: Option<Uuid>,
    /// Absent for an imported row.
    pub quote: Option<Quote>,
    pub required_units: U256,
    pub evidence: Option<Evidence>,
    /// Why the row cannot be read as a quote, if it cannot.
    pub unreadable: Option<String>,
}

/// What is stored with a quote.
#[derive(Clone, Copy, Debug)]
pub struct NewQuote<'a> {
    pub id: Uuid,
    pub payment: PaymentId,
    pub supersedes: Option<Uuid>,
    pub quote: &'a Quote,
    pub required_units: U256,
    pub evidence: Option<&'a Evidence>,
}

pub async fn insert(connection: &mut PgConnection, new: &NewQuote<'_>) -> Result<(), DbError> {
    let Quote { kind, asked, terms, settled, machine, quoted_at, expires_at, grace_s } = new.quote;
    let evidence = new.evidence.map(serde_json::to_value).transpose().map_err(|error| DbError::Corrupt {
        column: "payment_quotes.evidence",
        found: error.to_string(),
        wanted: "JSON",
    })?;
    let rule = terms.peg;
    let bps = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let rows = sqlx::query!(
        "insert into payment_quotes (
             id, payment_id, supersedes_id, kind, amount, currency, chain_id, token, token_decimals, fx_rate, token_price_usd,
             effective_price_usd, peg_usd, policy, band_bps, halt_bps, premium_bps, depeg_adjustment_bps, machine_state, peg_state, step,
             settle_amount, settle_units, required_units, quoted_at, expires_at, inclusion_grace_s, settings_head, evidence
         ) values (
             $1, $2, $3, $4, $5::text::numeric, $6, $7::bigint, $8, $9, $10::text::numeric, $11::text::numeric,
             $12::text::numeric, $13::text::numeric, $14, $15, $16, $17, $18, $19, $20, $21,
             $22::text::numeric, $23::text::numeric, $24::text::numeric, $25, $26, $27, $28, $29
         )",
        new.id,
        new.payment.0,
        new.supersedes,
        *kind as QuoteKind,
        asked.amount.to_string(),
        asked.currency as Currency,
        asked.chain.as_i64(),
        asked.token,
        i16::from(asked.decimals),
        terms.fx_rate.to_string(),
        terms.token_price.to_string(),
        settled.effective_price.to_string(),
        rule.map(|rule| rule.peg.to_string()),
        rule.map(|rule| rule.policy) as Option<Policy>,
        rule.map(|rule| bps(rule.band_bps)),
        rule.map(|rule| bps(rule.halt_bps)),
        bps(terms.premium_bps),
        settled.depeg_adjustment_bps,
        machine,
        settled.peg_state as PegState,
        i16::from(terms.step),
        settled.settle_amount.to_string(),
        units_to_sql(settled.settle_units),
        units_to_sql(new.required_units),
        quoted_at,
        expires_at,
        bps(*grace_s),
        new.evidence.map(|evidence| evidence.settings_head),
        evidence
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a quote")
}

struct Row {
    id: Uuid,
    payment_id: Uuid,
    supersedes_id: Option<Uuid>,
    kind: QuoteKind,
    amount: Option<String>,
    currency: Option<Currency>,
    chain_id: i64,
    token: String,
    token_decimals: Option<i16>,
    fx_rate: String,
    token_price_usd: String,
    effective_price_usd: Option<String>,
    peg_usd: Option<String>,
    policy: Option<Policy>,
    band_bps: Option<i32>,
    halt_bps: Option<i32>,
    premium_bps: Option<i32>,
    depeg_adjustment_bps: i32,
    machine_state: Option<String>,
    peg_state: Option<PegState>,
    step: Option<i16>,
    settle_amount: String,
    settle_units: Option<String>,
    required_units: Option<String>,
    quoted_at: Option<OffsetDateTime>,
    expires_at: OffsetDateTime,
    inclusion_grace_s: Option<i32>,
    evidence: Option<serde_json::Value>,
}

impl From<Row> for StoredQuote {
    fn from(row: Row) -> Self {
        let (id, payment, supersedes, kind) = (row.id, PaymentId(row.payment_id), row.supersedes_id, row.kind);
        let required_units = row.required_units.as_deref().and_then(|units| units_from_sql(units).ok()).unwrap_or_default();
        let evidence = row.evidence.clone().map(serde_json::from_value::<Evidence>).transpose();
        let quote = if kind == QuoteKind::Imported { Ok(None) } else { row.read().map(Some) };
        let unreadable = match (&quote, &evidence) {
            (Err(what), _) => Some((*what).to_owned()),
            (_, Err(error)) => Some(format!("evidence: {error}")),
            (Ok(_), Ok(_)) => None,
        };
        Self {
            id,
            payment,
            supersedes,
            quote: quote.unwrap_or_default(),
            required_units,
            evidence: evidence.unwrap_or_default(),
            unreadable,
        }
    }
}

impl Row {
    /// The quote of a complete row, or the column that is not as it must be.
    fn read(self) -> Result<Quote, &'static str> {
        let rate = |column: &'static str, text: Option<String>| -> Result<UsdRate, &'static str> {
            text.ok_or(column)?.parse().map_err(|_| column)
        };
        let small = |column: &'static str, value: Option<i16>| value.and_then(|value| u8::try_from(value).ok()).ok_or(column);
        let count = |column: &'static str, value: Option<i32>| value.and_then(|value| u32::try_from(value).ok()).ok_or(column);
        let asked = Asked {
            amount: self.amount.ok_or("amount")?.parse().map_err(|_| "amount")?,
            currency: self.currency.ok_or("currency")?,
            chain: chain_from_sql(self.chain_id).map_err(|_| "chain_id")?,
            token: self.token,
            decimals: small("token_decimals", self.token_decimals)?,
        };
        let peg = match self.peg_usd {
            None => None,
            Some(peg) => Some(PegRule {
                peg: rate("peg_usd", Some(peg))?,
                policy: self.policy.ok_or("policy")?,
                band_bps: count("band_bps", self.band_bps)?,
                halt_bps: count("halt_bps", self.halt_bps)?,
            }),
        };
        let terms = Terms {
            amount: asked.amount,
            fx_rate: rate("fx_rate", Some(self.fx_rate))?,
            token_price: rate("token_price_usd", Some(self.token_price_usd))?,
            peg,
            premium_bps: count("premium_bps", self.premium_bps)?,
            step: small("step", self.step)?,
            decimals: asked.decimals,
        };
        let settled = Settled {
            settle_amount: self.settle_amount.parse().map_err(|_| "settle_amount")?,
            settle_units: units_from_sql(&self.settle_units.ok_or("settle_units")?).map_err(|_| "settle_units")?,
            effective_price: rate("effective_price_usd", self.effective_price_usd)?,
            depeg_adjustment_bps: self.depeg_adjustment_bps,
            peg_state: self.peg_state.ok_or("peg_state")?,
        };
        let states = [DepegState::Par, DepegState::Adjusted { calm_since_s: None }, DepegState::Halted { calm_since_s: None }];
        let machine = states.into_iter().map(DepegState::name).find(|name| self.machine_state.as_deref() == Some(name));
        Ok(Quote {
            kind: self.kind,
            asked,
            terms,
            settled,
            machine: machine.ok_or("machine_state")?,
            quoted_at: self.quoted_at.ok_or("quoted_at")?,
            expires_at: self.expires_at,
            grace_s: count("inclusion_grace_s", self.inclusion_grace_s)?,
        })
    }
}

/// Quotes with an id above `after`, in the order of their ids; or those of one payment, oldest first.
pub async fn list(
    connection: &mut PgConnection,
    payment: Option<PaymentId>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<StoredQuote>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select id, payment_id, supersedes_id, kind as "kind: QuoteKind", amount::text, currency as "currency: Currency",
               chain_id as "chain_id!: i64", token, token_decimals, fx_rate::text as "fx_rate!", token_price_usd::text as "token_price_usd!",
               effective_price_usd::text, peg_usd::text, policy as "policy: Policy", band_bps, halt_bps, premium_bps, depeg_adjustment_bps,
               machine_state, peg_state as "peg_state: PegState", step, settle_amount::text as "settle_amount!", settle_units::text,
               required_units::text, quoted_at, expires_at, inclusion_grace_s, evidence
        from payment_quotes
        where ($1::uuid is null or payment_id = $1) and ($2::uuid is null or id > $2)
        order by case when $1::uuid is null then id end, created_at, id limit $3
        "#,
        payment.map(|payment| payment.0),
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(StoredQuote::from).collect())
}

/// The quote of a payment that nothing replaces.
pub async fn find_live(connection: &mut PgConnection, payment: PaymentId) -> Result<Option<StoredQuote>, DbError> {
    let all = list(connection, Some(payment), None, QUOTES_MAX).await?;
    let replaced: Vec<Uuid> = all.iter().filter_map(|quote| quote.supersedes).collect();
    Ok(all.into_iter().find(|quote| !replaced.contains(&quote.id)))
}

/// How often a payment may be quoted anew.
pub const QUOTES_MAX: i64 = 100;

// === what the oracle remembers ===

/// The memory of every pair that has one.
pub async fn list_memories(connection: &mut PgConnection) -> Result<BTreeMap<String, Memory>, DbError> {
    let rows = sqlx::query!(
        r#"select pair, depeg_state, calm_since, last_price_at, accepted_price::text, accepted_at, candidate_price::text, candidate_at,
                  heard_at, heard_prices::text[] as "heard_prices!: Vec<String>"
           from oracle_states"#
    )
    .fetch_all(connection)
    .await?;
    let mut memories = BTreeMap::new();
    for row in rows {
        let corrupt =
            |column: &'static str, found: &str| DbError::Corrupt { column, found: found.to_owned(), wanted: "what the oracle wrote" };
        let calm_since_s = row.calm_since.map(OffsetDateTime::unix_timestamp);
        let depeg = match row.depeg_state.as_str() {
            "par" => DepegState::Par,
            "adjusted" => DepegState::Adjusted { calm_since_s },
            "halted" => DepegState::Halted { calm_since_s },
            other => return Err(corrupt("oracle_states.depeg_state", other)),
        };
        let mark = |price: Option<String>, at: Option<OffsetDateTime>| -> Result<Option<Mark>, DbError> {
            let Some((price, at)) = price.zip(at) else { return Ok(None) };
            let rate = price.parse().map_err(|_| corrupt("oracle_states.accepted_price", &price))?;
            Ok(Some(Mark { price: rate, at_s: at.unix_timestamp() }))
        };
        let told = row.heard_prices.iter().map(|price| price.parse::<UsdRate>().map_err(|_| corrupt("oracle_states.heard_prices", price)));
        let prices = told.collect::<Result<Vec<UsdRate>, DbError>>()?;
        let jump = JumpMemory {
            accepted: mark(row.accepted_price, row.accepted_at)?,
            candidate: mark(row.candidate_price, row.candidate_at)?,
            heard: row.heard_at.map(|at| Heard { at_s: at.unix_timestamp(), prices }),
        };
        memories.insert(row.pair, Memory { depeg, last_price_s: row.last_price_at.map(OffsetDateTime::unix_timestamp), jump });
    }
    Ok(memories)
}

/// Keeps what a round left behind.
pub async fn put_memory(connection: &mut PgConnection, pair: &str, memory: &Memory) -> Result<(), DbError> {
    let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).ok();
    let calm_since = match memory.depeg {
        DepegState::Par => None,
        DepegState::Adjusted { calm_since_s } | DepegState::Halted { calm_since_s } => calm_since_s.and_then(at),
    };
    let heard = memory.jump.heard.as_ref();
    let told: Vec<String> = heard.into_iter().flat_map(|heard| heard.prices.iter()).map(UsdRate::to_string).collect();
    let rows = sqlx::query!(
        "insert into oracle_states (
             pair, depeg_state, calm_since, last_price_at, accepted_price, accepted_at, candidate_price, candidate_at, heard_at, heard_prices
         ) values ($1, $2, $3, $4, $5::text::numeric, $6, $7::text::numeric, $8, $9, $10::text[]::numeric[])
         on conflict (pair) do update set
             depeg_state = excluded.depeg_state, calm_since = excluded.calm_since, last_price_at = excluded.last_price_at,
             accepted_price = excluded.accepted_price, accepted_at = excluded.accepted_at,
             candidate_price = excluded.candidate_price, candidate_at = excluded.candidate_at,
             heard_at = excluded.heard_at, heard_prices = excluded.heard_prices, updated_at = now()",
        pair,
        memory.depeg.name(),
        calm_since,
        memory.last_price_s.and_then(at),
        memory.jump.accepted.map(|mark| mark.price.to_string()),
        memory.jump.accepted.and_then(|mark| at(mark.at_s)),
        memory.jump.candidate.map(|mark| mark.price.to_string()),
        memory.jump.candidate.and_then(|mark| at(mark.at_s)),
        heard.and_then(|heard| at(heard.at_s)),
        &told[..]
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "what the oracle remembers of a pair")
}

/// The thresholds of quoting with their history.
pub async fn get_limits(connection: &mut PgConnection) -> Result<LimitBook, DbError> {
    let words: Vec<String> = SPECS.iter().map(|spec| spec.name.to_owned()).collect();
    Ok(LimitBook::new(settings::store::list_numbers(connection, &words).await?))
}
