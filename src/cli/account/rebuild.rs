//! `account rebuild`: the address table against what the public keys say it must be.
//!
//! An account has up to a million addresses, twenty seconds of arithmetic; a bar on standard error shows
//! how far it is, where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use super::super::console::{say, table};
use crate::account::{self, Branch, Comparison, TrezorAccount};
use crate::db::Database;

/// Compares all accounts, or the one with this label. `fill`: first inserts what is missing, with every
/// deposit index below this number counting as issued.
pub(super) async fn run(db: &Database, label: Option<&str>, fill: Option<u32>) -> anyhow::Result<()> {
    let accounts = find(db, label).await?;
    if let Some(issued_below) = fill {
        for account in &accounts {
            let bar = bar(account, account.next_deposit_index.max(issued_below), "inserting what is missing");
            let inserted = account::worker::insert_missing(db, account, issued_below, |done| bar.inc(done)).await;
            bar.finish_and_clear();
            say(format!("{}: {} missing rows inserted", account.label, inserted?));
        }
        say("");
    }
    // Counters have moved on, by filling or by issuing.
    let accounts = find(db, label).await?;
    let mut total = Comparison::default();
    let mut rows = Vec::new();
    for account in &accounts {
        let bar = bar(account, account.next_deposit_index, "comparing");
        let found = account::worker::compare(db, account, |done| bar.inc(done)).await;
        bar.finish_and_clear();
        let found = found?;
        let counts = [found.checked, found.differing, found.missing, found.skipped].map(|count| count.to_string());
        rows.push([vec![account.label.clone()], counts.to_vec()].concat());
        if let Some(first) = found.first {
            say(format!("{}: first difference: {first}", account.label));
        }
        total.add(found);
    }
    table(&["account", "checked", "differing", "of them missing", "skipped"], &rows, &[1, 2, 3, 4]);
    match total.differing {
        0 => Ok(()),
        differing => anyhow::bail!(
            "{differing} of {} rows differ from the public keys{}",
            total.checked,
            if total.first_changed.is_some() {
                "; somebody wrote to the database past the daemon, or it was restored in part: halt outflow, and do not fill in before it is understood"
            } else {
                "; all of them are missing: `amanatd account rebuild --missing` inserts them"
            }
        ),
    }
}

async fn find(db: &Database, label: Option<&str>) -> anyhow::Result<Vec<TrezorAccount>> {
    let mut connection = db.connection().await?;
    let accounts = match label {
        Some(label) => vec![account::store::get_by_label(&mut connection, label).await?],
        None => account::store::list(&mut connection).await?,
    };
    anyhow::ensure!(!accounts.is_empty(), "no account is enrolled");
    Ok(accounts)
}

/// Hidden where standard error is no terminal.
fn bar(account: &TrezorAccount, deposits: u32, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(u64::from(deposits) + u64::from(Branch::OPERATOR_INDICES));
    let style = ProgressStyle::with_template("{prefix}: {msg} {wide_bar} {human_pos} of {human_len}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(super::super::console::legible(&account.label));
    bar.set_message(what);
    bar
}
