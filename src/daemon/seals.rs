//! The heads of new seals, on their way out of the database: a line in the journal and one in a file.
//!
//! What was exported last is read from the file itself, so that a daemon that died between the two goes on
//! where it stopped. A line is written whole and synced before the next.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;

use super::now;
use super::supervise::Workers;
use crate::db::{Database, DbError};
use crate::ledger::LedgerError;
use crate::ledger::seal::{self, Head, HeadError, Sealer};
use crate::metrics::Metrics;
use crate::units::{Disposition, Progress};

const HEADS_PER_TICK: i64 = 100;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SealExportError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("seal heads cannot be written to {path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}, line {line}: {source}; keep this file for an inquiry, and name another one in ledger.seal_heads_file")]
    Line { path: PathBuf, line: usize, source: HeadError },
}

impl SealExportError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Ledger(error) => error.disposition(),
            Self::Db(error) => error.disposition(),
            Self::File { .. } => Disposition::Retry,
            Self::Line { .. } => Disposition::Officer,
        }
    }
}

/// Seals what was posted and exports the heads.
pub(super) fn seal(workers: &mut Workers, db: &Database, metrics: &Metrics, file: Option<PathBuf>) {
    let sealer = Arc::new(Sealer::new(db.clone()));
    let export = Arc::new(Mutex::new(Export { file, exported: None }));
    let (db, metrics) = (db.clone(), metrics.clone());
    workers.tick("seals", None, SealExportError::disposition, move || {
        let (sealer, export, db, metrics) = (Arc::clone(&sealer), Arc::clone(&export), db.clone(), metrics.clone());
        async move {
            let sealed = sealer.tick(now()).await;
            // What is sealed goes out, also when sealing more fails.
            let exported = export.lock().await.tick(&db, &metrics).await?;
            Ok::<Progress, SealExportError>(sealed?.or(exported))
        }
    });
}

struct Export {
    file: Option<PathBuf>,
    /// Number of the last seal whose head is out; unknown at the start.
    exported: Option<i64>,
}

impl Export {
    async fn tick(&mut self, db: &Database, metrics: &Metrics) -> Result<Progress, SealExportError> {
        let mut connection = db.connection().await?;
        let exported = match (self.exported, &self.file) {
            (Some(exported), _) => exported,
            (None, Some(path)) => heads_in(path)?.last().map_or(0, |head| head.number),
            // The journal has those from before the start.
            (None, None) => seal::store::get_last_number(&mut connection).await?,
        };
        if self.exported.replace(exported).is_none() {
            // What was exported before the start counts too.
            for last in
                seal::store::list(&mut connection, exported.saturating_sub(1), 1).await?.iter().filter(|last| last.head.number == exported)
            {
                metrics.seal_exported(exported, last.head.sealed_at.unix_timestamp());
            }
        }
        let seals = seal::store::list(&mut connection, exported, HEADS_PER_TICK).await?;
        drop(connection);
        for seal in &seals {
            let line = seal.head.line();
            if let Some(path) = &self.file {
                append(path, &line)?;
            }
            tracing::info!(seal.number = seal.head.number, seal.hash = %seal.hash, seal.entries = seal.head.entries_total, "sealed: {line}");
            self.exported = Some(seal.head.number);
            metrics.seal_exported(seal.head.number, seal.head.sealed_at.unix_timestamp());
        }
        Ok(Progress::of(!seals.is_empty()))
    }
}

/// The heads in a file, oldest first; none where there is no file. A last line that was cut off is taken away.
fn heads_in(path: &Path) -> Result<Vec<Head>, SealExportError> {
    let failed = |source| SealExportError::File { path: path.to_owned(), source };
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        tracing::warn!(path = %path.display(), "the last head was not written whole; it is written again");
        file.set_len(whole as u64).map_err(failed)?;
    }
    read_heads(path, &text[..whole])
}

/// Reads exported heads.
pub(crate) fn read_heads(path: &Path, text: &str) -> Result<Vec<Head>, SealExportError> {
    let parse = |(place, line): (usize, &str)| {
        Head::parse(line).map_err(|source| SealExportError::Line { path: path.to_owned(), line: place + 1, source })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect()
}

fn append(path: &Path, line: &str) -> Result<(), SealExportError> {
    let failed = |source| SealExportError::File { path: path.to_owned(), source };
    let mut file: File = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    file.write_all(format!("{line}\n").as_bytes()).map_err(failed)?;
    file.sync_data().map_err(failed)
}

#[cfg(test)]
#[cfg(feature = "devkit")]
mod tests {
    use super::*;
    use crate::db::DatabaseLimits;
    use crate::devkit::postgres::APP;
    use crate::devkit::schema::FreshDatabase;

    /// Seals of one made-up entry each, as the store would write them.
    async fn sealed(base: &FreshDatabase, numbers: std::ops::RangeInclusive<i64>) -> Database {
        let db = Database::connect(&base.url(APP), DatabaseLimits { connections_max: 2, ..DatabaseLimits::default() })
            .await
            .expect("the test's own database");
        for number in numbers {
            let previous = seal::store::list(&mut db.connection().await.expect("the test's own database"), number - 2, 1)
                .await
                .expect("the test's own database");
            let root = alloy::primitives::B256::repeat_byte(number.to_le_bytes()[0]);
            let head = Head {
                number,
                previous: previous.first().map_or(alloy::primitives::B256::ZERO, |seal| seal.hash),
                entries: 1,
                entries_total: number.unsigned_abs(),
                root,
                derivation: "m/44'/60'/0' 01020304 9".to_owned(),
                sealed_at: time::OffsetDateTime::UNIX_EPOCH,
            };
            let entries = vec![crate::units::LedgerEntryId(number)];
            let seal = seal::store::Seal { hash: head.hash(), head, entries, leaves: vec![root] };
            seal::store::insert(&mut db.connection().await.expect("the test's own database"), &seal)
                .await
                .expect("the test's own database");
        }
        db
    }

    #[tokio::test]
    async fn l5_each_head_is_exported_once_also_after_a_crash_in_the_middle_of_a_line() {
        let base = FreshDatabase::create().unwrap();
        let db = sealed(&base, 1..=2).await;
        let path = std::env::temp_dir().join(format!("amanatd-heads-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let metrics = Metrics::new();
        let start = || Export { file: Some(path.clone()), exported: None };
        let mut export = start();
        assert_eq!(export.tick(&db, &metrics).await.unwrap(), Progress::Worked);
        assert_eq!(export.tick(&db, &metrics).await.unwrap(), Progress::Idle);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(read_heads(&path, &text).unwrap().iter().map(|head| head.number).collect::<Vec<_>>(), [1, 2]);
        // The process died while it wrote the second line.
        std::fs::write(&path, &text[..text.len() - 20]).unwrap();
        sealed(&base, 3..=3).await;
        assert_eq!(start().tick(&db, &metrics).await.unwrap(), Progress::Worked);
        let again = std::fs::read_to_string(&path).unwrap();
        assert!(again.starts_with(&text), "{again}");
        assert_eq!(read_heads(&path, &again).unwrap().iter().map(|head| head.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(metrics.render().contains("amanatd_ledger_seal_number 3"));
        // A line that somebody changed stops the export, and an officer is told.
        std::fs::write(&path, again.replacen("\"total\":2", "\"total\":9", 1)).unwrap();
        let error = start().tick(&db, &metrics).await.unwrap_err();
        assert!(matches!(error, SealExportError::Line { line: 2, .. }) && error.disposition() == Disposition::Officer, "{error}");
        std::fs::remove_file(&path).unwrap();
        // Without a file the journal alone has them, and a start does not repeat it.
        let mut journal = Export { file: None, exported: None };
        assert_eq!(journal.tick(&db, &metrics).await.unwrap(), Progress::Idle);
    }
}
