//! Statements: the ledger as somebody outside reads it, of a payment, an account or a period; and balances as they
//! were at an instant. Pure: which rows, and how a row is written as CSV and JSON.
//!
//! Read a page at a time, so that ten million rows are never in memory at once.

pub mod store;
mod worker;

pub use worker::{BalanceLines, StatementLines};

use alloy::primitives::U256;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::entry::AccountKey;
use super::store::PostedEntry;
use crate::units::{AssetId, LedgerAccountId, PaymentId, format_units};

/// What a statement is of. All that is given must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub payment: Option<PaymentId>,
    pub account: Option<LedgerAccountId>,
    /// Entries posted at or after it. An entry's time is that at which its transaction began.
    pub from: Option<OffsetDateTime>,
    /// Entries posted before it.
    pub until: Option<OffsetDateTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Csv,
    Json,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is neither csv nor json")),
        }
    }
}

/// An account and what was in it at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalanceLine {
    pub account: LedgerAccountId,
    pub asset: AssetId,
    pub key: AccountKey,
    pub units: U256,
    /// The entries that touched it by then.
    pub entries: u64,
}

/// How an account is named: its kind, and whose or where it is.
pub fn account_name(key: AccountKey) -> String {
    let kind = key.kind().name();
    match (key.address(), key.payment()) {
        (Some(address), _) => format!("{kind}:{address}"),
        (None, Some(payment)) => format!("{kind}:{payment}"),
        (None, None) => kind.to_owned(),
    }
}

/// A row of named cells. Values are text: amounts are longer than numbers of other programs.
#[derive(Clone, Debug)]
pub struct Line<const N: usize> {
    pub names: [&'static str; N],
    pub cells: [Option<String>; N],
}

pub const ENTRY_COLUMNS: [&str; 16] = [
    "id",
    "created_at",
    "entry_type",
    "payment_id",
    "chain_id",
    "asset",
    "debit_account",
    "credit_account",
    "amount",
    "amount_units",
    "debited_units",
    "credited_units",
    "balance_units",
    "reverses",
    "key",
    "memo",
];

/// The side of an entry on which an account is, in the account's own statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    pub debited: bool,
    /// What was in the account after it, in base units: the opening balance and all lines so far.
    pub balance: String,
}

/// An entry as a line.
pub fn entry_line(posted: &PostedEntry, side: Option<&Side>) -> Line<16> {
    let entry = &posted.entry;
    let units = entry.amount.units.to_string();
    let of = |wanted: bool| side.filter(|side| side.debited == wanted).map(|_| units.clone());
    Line {
        names: ENTRY_COLUMNS,
        cells: [
            Some(posted.id.to_string()),
            Some(instant(posted.created_at)),
            Some(entry.entry_type.name().to_owned()),
            entry.payment.map(|payment| payment.to_string()),
            Some(entry.amount.asset.chain.to_string()),
            Some(entry.amount.asset.asset.to_string()),
            Some(account_name(entry.debit)),
            Some(account_name(entry.credit)),
            Some(format_units(entry.amount.units, entry.decimals)),
            Some(units.clone()),
            of(true),
            of(false),
            side.map(|side| side.balance.clone()),
            entry.reverses.map(|reversed| reversed.to_string()),
            Some(entry.key.clone()),
            Some(entry.memo.clone()),
        ],
    }
}

pub const BALANCE_COLUMNS: [&str; 7] = ["account_id", "account", "kind", "chain_id", "asset", "balance_units", "entries"];

pub fn balance_line(line: &BalanceLine) -> Line<7> {
    Line {
        names: BALANCE_COLUMNS,
        cells: [
            Some(line.account.to_string()),
            Some(account_name(line.key)),
            Some(line.key.kind().name().to_owned()),
            Some(line.asset.chain.to_string()),
            Some(line.asset.asset.to_string()),
            Some(line.units.to_string()),
            Some(line.entries.to_string()),
        ],
    }
}

fn instant(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.unix_timestamp().to_string())
}

impl<const N: usize> Line<N> {
    /// RFC 4180, every cell in quotes.
    pub fn csv(&self) -> String {
        csv_row(self.cells.iter().map(|cell| cell.as_deref().unwrap_or_default()))
    }

    /// A JSON object; absent cells are null.
    pub fn json(&self) -> String {
        let object: serde_json::Map<String, serde_json::Value> =
            self.names.iter().zip(&self.cells).map(|(name, cell)| ((*name).to_owned(), serde_json::json!(cell))).collect();
        serde_json::Value::Object(object).to_string()
    }
}

/// One row with its line end. A cell that a spreadsheet would take for a formula begins with an apostrophe.
pub fn csv_row<'c>(cells: impl Iterator<Item = &'c str>) -> String {
    let mut row = String::new();
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            row.push(',');
        }
        row.push('"');
        if is_formula(cell) {
            row.push('\'');
        }
        for character in cell.chars() {
            match character {
                '"' => row.push_str("\"\""),
                other => row.push(other),
            }
        }
        row.push('"');
    }
    row.push_str("\r\n");
    row
}

/// What programs evaluate on opening a file, also behind blanks, and in the full-width forms that they fold.
fn is_formula(cell: &str) -> bool {
    let first = cell.trim_start().chars().next();
    let folded = matches!(first, Some('＝' | '＋' | '－' | '＠'));
    folded || matches!(first, Some('=' | '+' | '-' | '@' | '|' | '%')) || cell.starts_with(['\t', '\r', '\n', '\0'])
}

/// Wraps lines into one document: what comes before the first, between two, and after the last.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    format: Format,
    begun: bool,
}

impl Frame {
    pub const fn new(format: Format) -> Self {
        Self { format, begun: false }
    }

    pub fn open(&self, names: &[&str]) -> String {
        match self.format {
            Format::Csv => csv_row(names.iter().copied()),
            Format::Json => "[".to_owned(),
        }
    }

    pub fn line<const N: usize>(&mut self, line: &Line<N>) -> String {
        let begun = std::mem::replace(&mut self.begun, true);
        match self.format {
            Format::Csv => line.csv(),
            Format::Json => format!("{}{}", if begun { ",\n" } else { "\n" }, line.json()),
        }
    }

    pub fn close(&self) -> &'static str {
        match self.format {
            Format::Csv => "",
            Format::Json => "\n]\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ex_a_cell_is_never_a_formula() {
        let row = |cell: &str| csv_row([cell, "end"].into_iter());
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =cmd|' /C calc'!A0", "\r=1", "\n+1", "＝1", "|x", "%1", "\0=1"] {
            assert_eq!(row(formula), format!("\"'{formula}\",\"end\"\r\n"), "{formula:?}");
        }
        for plain in ["", "deposit confirmed, tx 0xab", "0x=1", "12.5", "a=b", "'quoted"] {
            assert_eq!(row(plain), format!("\"{plain}\",\"end\"\r\n"));
        }
        assert_eq!(row("say \"hi\"\nthere"), "\"say \"\"hi\"\"\nthere\",\"end\"\r\n");
        assert_eq!(row("=\"a\""), "\"'=\"\"a\"\"\",\"end\"\r\n");
    }

    #[test]
    fn ex_lines_make_one_document() {
        let line = |memo: &str| Line { names: ["id", "memo"], cells: [Some("1".to_owned()), Some(memo.to_owned())] };
        let document = |format| {
            let mut frame = Frame::new(format);
            let mut text = frame.open(&["id", "memo"]);
            text.push_str(&frame.line(&line("=1")));
            text.push_str(&frame.line(&Line { names: ["id", "memo"], cells: [Some("2".to_owned()), None] }));
            text.push_str(frame.close());
            text
        };
        assert_eq!(document(Format::Csv), "\"id\",\"memo\"\r\n\"1\",\"'=1\"\r\n\"2\",\"\"\r\n");
        let json: serde_json::Value = serde_json::from_str(&document(Format::Json)).unwrap();
        assert_eq!(json, serde_json::json!([{ "id": "1", "memo": "=1" }, { "id": "2", "memo": null }]));
        let none = Frame::new(Format::Json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&(none.open(&[]) + none.close())).unwrap(), serde_json::json!([]));
    }
}
