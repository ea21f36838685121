//! The ledger: what each asset stands at, and entries, newest first.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{PAGE, given, number};
use crate::chains::ChainBook;
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::{self, Moment, filters};
use crate::console::store::{EntryFilter, EntryRow};
use crate::console::{Console, store};
use crate::ledger::{self, AccountKind};
use crate::units::PaymentId;

#[derive(Debug, Deserialize)]
pub(in crate::console) struct Asked {
    #[serde(default)]
    payment: Option<String>,
    #[serde(default)]
    account: Option<String>,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "books.html")]
struct BooksPage {
    frame: Frame,
    totals: Vec<Total>,
    kinds: Vec<(&'static str, bool)>,
    payment: String,
    address: String,
    account: String,
    filtered: bool,
    rows: Vec<Line>,
    older: Option<i64>,
}

struct Total {
    asset: String,
    chain: String,
    kind: String,
    value: &'static str,
    side: &'static str,
    amount: String,
}

/// An entry as it is read.
pub(in crate::console) struct Line {
    pub id: i64,
    pub entry_type: String,
    pub payment: Option<String>,
    pub amount: String,
    pub chain: String,
    pub debit: Side,
    pub credit: Side,
    pub memo: String,
    pub at: Moment,
}

/// An account, and the address or the payment that it is of.
pub(in crate::console) struct Side {
    pub kind: String,
    pub whose: Option<String>,
}

impl Line {
    pub(in crate::console) fn of(row: EntryRow, now: OffsetDateTime, book: &ChainBook) -> Self {
        let side = |(kind, whose): (AccountKind, Option<String>)| Side { kind: kind.name().replace('_', " "), whose };
        Self {
            id: row.id,
            entry_type: row.entry_type.replace('_', " "),
            payment: row.payment.map(|payment| payment.to_string()),
            amount: show::amount(row.units, row.asset, book),
            chain: show::chain_name(row.asset.chain, book),
            debit: side(row.debit),
            credit: side(row.credit),
            memo: row.memo,
            at: Moment::of(row.created_at, now),
        }
    }
}

const KINDS: [AccountKind; 11] = [
    AccountKind::Custody,
    AccountKind::NetworkFee,
    AccountKind::Shortfall,
    AccountKind::Received,
    AccountKind::Held,
    AccountKind::Disputed,
    AccountKind::Payable,
    AccountKind::Suspense,
    AccountKind::PlatformFee,
    AccountKind::ProviderFee,
    AccountKind::Operator,
];

pub(in crate::console) async fn get(
    State(console): State<Console>,
    officer: Officer,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let now = console.now();
    let book = &console.api.book;
    let (payment, account, address) = (given(asked.payment), given(asked.account), given(asked.address));
    let bad = |what: &str| Refusal::Field(format!("{what} cannot be read."));
    let kind =
        account.as_deref().map(|name| KINDS.into_iter().find(|kind| kind.name() == name).ok_or_else(|| bad("The account"))).transpose()?;
    let filter = EntryFilter {
        payment: payment.as_deref().map(|text| text.parse::<PaymentId>().map_err(|_| bad("The payment's id"))).transpose()?,
        kind,
        address: address.as_deref().map(|text| text.parse().map_err(|_| bad("The address"))).transpose()?,
        before: number(asked.before.as_deref())?,
    };
    let mut connection = console.api.db.connection().await?;
    let found = store::list_entries(&mut connection, &filter, PAGE).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == PAGE);
    let older = found.last().filter(|_| full).map(|row| row.id);
    let totals = ledger::store::list_totals(&mut connection)
        .await?
        .into_iter()
        .map(|total| Total {
            asset: book.asset(total.total.asset).map_or_else(|| total.total.asset.asset.to_string(), |facts| facts.symbol.to_owned()),
            chain: show::chain_name(total.total.asset.chain, book),
            kind: total.kind.name().replace('_', " "),
            value: total.kind.name(),
            side: if total.kind.is_debit_normal() { "where it is" } else { "whose it is" },
            amount: show::amount(total.total.units, total.total.asset, book),
        })
        .collect();
    html(&BooksPage {
        frame: Frame::of("Ledger", "ledger", &console, &officer),
        totals,
        kinds: KINDS.map(|known| (known.name(), Some(known) == kind)).into(),
        filtered: payment.is_some() || address.is_some() || kind.is_some(),
        payment: payment.unwrap_or_default(),
        address: address.unwrap_or_default(),
        account: account.unwrap_or_default(),
        rows: found.into_iter().map(|row| Line::of(row, now, book)).collect(),
        older,
    })
}
