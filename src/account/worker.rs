//! Rebuilding the address table from public keys: page by page, so that no statement and no transaction
//! is long, however many addresses there are.

use super::rebuild::{Comparison, Difference, issued};
use super::{AccountError, AddressIndex, Branch, DeriveError, Purpose, TrezorAccount, TwoDerivers, store};
use crate::db::Database;

/// Indices compared, or filled in, at once.
const PAGE: u32 = 2_048;
/// Rows beyond the counters that are looked at: the first tells enough.
const BEYOND_MAX: i64 = 10_000;

/// Compares every address of an account with its key. Nothing is written. `progress` is told how many
/// indices are done.
///
/// Issuing may go on meanwhile: what is issued later is not looked at.
pub async fn compare(db: &Database, account: &TrezorAccount, mut progress: impl FnMut(u64)) -> Result<Comparison, AccountError> {
    let mut total = Comparison::default();
    if account.fingerprint != account.xpub.fingerprint() {
        total.note(Difference::Fingerprint);
    }
    for (branch, indices) in issued(account.next_deposit_index) {
        let derivers = TwoDerivers::new(&account.xpub, branch)?;
        for start in indices.clone().step_by(PAGE as usize) {
            let page = start..indices.end.min(start + PAGE);
            let rows = store::list_range(&mut *db.connection().await?, account.id, branch, page.clone()).await?;
            total.compare(&derivers, page.clone(), &rows)?;
            progress(u64::from(page.end - page.start));
        }
    }
    for (branch, stored) in store::list_beyond(&mut *db.connection().await?, account.id, BEYOND_MAX).await? {
        total.note_beyond(&TwoDerivers::new(&account.xpub, branch)?, stored);
    }
    Ok(total)
}

/// Inserts the rows that are missing, each derived by both implementations, and none that is there. Gives
/// back how many.
///
/// `issued_below`: every deposit index below it counts as issued, also where the database has forgotten
/// it, as after the restore of an older backup: its rows come back, and it is never handed out again.
/// A row that differs from the key is an error, and its page is not written.
pub async fn insert_missing(
    db: &Database,
    account: &TrezorAccount,
    issued_below: u32,
    mut progress: impl FnMut(u64),
) -> Result<u64, AccountError> {
    let mut inserted = 0;
    for (branch, indices) in issued(account.next_deposit_index.max(issued_below)) {
        for start in indices.clone().step_by(PAGE as usize) {
            let page = start..indices.end.min(start + PAGE);
            let (account, pages) = (account.clone(), page.clone());
            inserted += db.unit::<_, AccountError, _>(move |connection| Box::pin(fill(connection, account, branch, pages))).await?;
            progress(u64::from(page.end - page.start));
        }
    }
    Ok(inserted)
}

/// One page in one transaction, under the account row's lock: rows and counter move together.
async fn fill(
    connection: &mut sqlx::PgConnection,
    account: TrezorAccount,
    branch: Branch,
    page: std::ops::Range<u32>,
) -> Result<u64, AccountError> {
    let next = if branch == Branch::Deposit { page.end } else { 0 };
    store::raise_counter(connection, account.id, next).await?;
    let derivers = TwoDerivers::new(&account.xpub, branch)?;
    let rows = store::list_range(connection, account.id, branch, page.clone()).await?;
    let mut found = Comparison::default();
    let missing: Vec<AddressIndex> = found.compare(&derivers, page, &rows)?;
    if let Some(what) = found.first_changed {
        return Err(AccountError::Differs { label: account.label, what });
    }
    let mut inserted = 0;
    for index in missing {
        let Some(purpose) = Purpose::at(derivers.path(index)) else { continue };
        match store::insert_address(connection, account.id, &derivers, index, purpose).await {
            Ok(_) => inserted += 1,
            Err(AccountError::Derive(DeriveError::Invalid { path })) => store::append_skipped(connection, path).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(inserted)
}
