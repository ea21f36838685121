//! Reads a statement page by page and hands out pieces of one document.

use time::OffsetDateTime;

use super::store;
use super::{BALANCE_COLUMNS, ENTRY_COLUMNS, Filter, Format, Frame, balance_line, entry_line};
use crate::db::{Database, DbError};
use crate::units::LedgerAccountId;

const ENTRIES_PER_PAGE: i64 = 1_000;
/// Past balances are summed up from entries, so these pages are smaller.
const ACCOUNTS_PER_PAGE: i64 = 200;

/// Where a document stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Lines,
    Done,
}

/// The document of a statement. What is posted while it is read is not in it.
#[derive(Debug)]
pub struct StatementLines {
    db: Database,
    filter: Filter,
    frame: Frame,
    stage: Stage,
    /// Ids after which to go on, and up to which to go.
    bounds: (i64, i64),
    balance: String,
}

impl StatementLines {
    pub fn new(db: Database, filter: Filter, format: Format) -> Self {
        Self { db, filter, frame: Frame::new(format), stage: Stage::Begin, bounds: (0, 0), balance: "0".to_owned() }
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<String>, DbError> {
        match self.stage {
            Stage::Begin => self.begin().await.map(Some),
            Stage::Lines => self.page().await.map(Some),
            Stage::Done => Ok(None),
        }
    }

    async fn begin(&mut self) -> Result<String, DbError> {
        let mut connection = self.db.connection().await?;
        if let Some(account) = self.filter.account {
            self.balance = store::get_opening(&mut connection, account, self.filter.from).await?;
        }
        let (first, last) = store::find_bounds(&mut connection, self.filter.from, self.filter.until).await?.unwrap_or((1, 0));
        self.bounds = (first - 1, last);
        self.stage = Stage::Lines;
        Ok(self.frame.open(&ENTRY_COLUMNS))
    }

    async fn page(&mut self) -> Result<String, DbError> {
        let mut connection = self.db.connection().await?;
        let mut text = String::new();
        let mut read = 0;
        match self.filter.account {
            Some(account) => {
                let found =
                    store::list_account_entries(&mut connection, &self.filter, account, self.bounds, &self.balance, ENTRIES_PER_PAGE)
                        .await?;
                for (posted, side) in &found {
                    text.push_str(&self.frame.line(&entry_line(posted, Some(side))));
                    self.bounds.0 = posted.id.0;
                    read += 1;
                }
                if let Some((_, side)) = found.into_iter().next_back() {
                    self.balance = side.balance;
                }
            }
            None => {
                for posted in store::list_entries(&mut connection, &self.filter, self.bounds, ENTRIES_PER_PAGE).await? {
                    text.push_str(&self.frame.line(&entry_line(&posted, None)));
                    self.bounds.0 = posted.id.0;
                    read += 1;
                }
            }
        }
        if read < ENTRIES_PER_PAGE {
            text.push_str(self.frame.close());
            self.stage = Stage::Done;
        }
        Ok(text)
    }
}

/// The document of all balances, now or at an instant.
#[derive(Debug)]
pub struct BalanceLines {
    db: Database,
    at: Option<OffsetDateTime>,
    frame: Frame,
    stage: Stage,
    after: LedgerAccountId,
}

impl BalanceLines {
    pub fn new(db: Database, at: Option<OffsetDateTime>, format: Format) -> Self {
        Self { db, at, frame: Frame::new(format), stage: Stage::Begin, after: LedgerAccountId(0) }
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<String>, DbError> {
        match self.stage {
            Stage::Begin => {
                self.stage = Stage::Lines;
                Ok(Some(self.frame.open(&BALANCE_COLUMNS)))
            }
            Stage::Lines => self.page().await.map(Some),
            Stage::Done => Ok(None),
        }
    }

    async fn page(&mut self) -> Result<String, DbError> {
        let mut connection = self.db.connection().await?;
        let lines = store::list_balances(&mut connection, self.at, self.after, ACCOUNTS_PER_PAGE).await?;
        let mut text = String::new();
        for line in &lines {
            // An account that nothing had reached by then was not there.
            if line.entries > 0 {
                text.push_str(&self.frame.line(&balance_line(line)));
            }
            self.after = line.account;
        }
        if i64::try_from(lines.len()).is_ok_and(|read| read < ACCOUNTS_PER_PAGE) {
            text.push_str(self.frame.close());
            self.stage = Stage::Done;
        }
        Ok(text)
    }
}
