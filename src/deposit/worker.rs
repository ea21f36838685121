//! The watched set that the scanners of all chains share, and how it keeps up with the rows.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Mutex;

use super::WatchedSet;
use super::watched::BranchOfAccount;
use crate::account::store::{get_xpub, list_counters, list_range};
use crate::account::{AccountError, AddressIndex, Counter, DeriveError, StoredAddress, TwoDerivers};
use crate::db::Database;

/// Rows read at once: what loading holds in memory beside the set itself.
const PAGE: u32 = 8_192;

/// The set, and a turn for whoever reads rows into it.
#[derive(Debug, Default)]
pub struct Watched {
    set: RwLock<WatchedSet>,
    /// One reader of rows at a time; the others wait and then find little left to do.
    turn: Mutex<()>,
}

impl Watched {
    /// The set as it is now. Not to be held across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, WatchedSet> {
        self.set.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, WatchedSet> {
        self.set.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the set up to what is committed now. It asks one row of each account, and then for the rows
    /// that were issued since.
    ///
    /// A row that is missing below a counter is an error, and stays one until it is back: an address that
    /// was issued would not be watched.
    pub async fn refresh(&self, database: &Database) -> Result<(), AccountError> {
        let _turn = self.turn.lock().await;
        let mut connection = database.connection().await?;
        // The counters first: every row below them is committed and will be seen.
        let counters = list_counters(&mut connection).await?;
        let unread = self.read().unread(&counters);
        let total: u64 = unread.iter().map(|(_, indices)| u64::from(indices.end - indices.start)).sum();
        if total == 0 {
            return Ok(());
        }
        self.write().reserve(total);
        for (branch, indices) in unread {
            let (account, side) = branch;
            for start in indices.clone().step_by(PAGE as usize) {
                let page = start..indices.end.min(start + PAGE);
                let rows = list_range(&mut connection, account, side, page.clone()).await?;
                for missing in missing(page.clone(), &rows) {
                    let xpub = get_xpub(&mut connection, account).await?;
                    let derivers = TwoDerivers::new(&xpub, side)?;
                    skipped_or_lost(&counters, branch, &derivers, missing)?;
                }
                self.write().read(branch, page.end, rows.into_iter().map(|row| row.address));
            }
        }
        Ok(())
    }
}

/// The indices of a page that have no row; `rows` are ascending and inside it.
fn missing(page: std::ops::Range<u32>, rows: &[StoredAddress]) -> impl Iterator<Item = AddressIndex> {
    let mut rows = rows.iter().map(|row| row.index).peekable();
    page.filter_map(AddressIndex::new).filter(move |index| rows.next_if_eq(index).is_none())
}

/// An index without a valid key has no row by right; any other row is lost.
fn skipped_or_lost(
    counters: &[Counter],
    (account, _): BranchOfAccount,
    derivers: &TwoDerivers,
    index: AddressIndex,
) -> Result<(), AccountError> {
    match derivers.address(index) {
        Err(DeriveError::Invalid { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => {
            let label = counters.iter().find(|counter| counter.id == account).map(|counter| counter.label.clone()).unwrap_or_default();
            Err(AccountError::RowMissing { label, path: derivers.path(index) })
        }
    }
}
