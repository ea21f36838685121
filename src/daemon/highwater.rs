//! How far the database had come, kept in a file beside the daemon: a failover to a replica that is behind, a restore
//! to an earlier point and an old data directory that was copied back are found by it at the next start.
//!
//! What was found freezes the outflow of every chain until an officer reconciles it. Deposit indices that may have been
//! issued and forgotten count as issued from then on: the file says not how far issuing had come but how far it may come
//! before the file is written again, and no daemon issues beyond its own file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::measure::Pace;
use super::now;
use super::supervise::{Workers, chain_of};
use crate::account::{self, AddressIndex, IssueLimit, TrezorAccount};
use crate::db::continuity::{self, Identity, NewLoss};
use crate::db::{Database, DbError};
use crate::event::{self, Event};
use crate::metrics::Metrics;
use crate::scan;
use crate::units::{ChainId, Disposition, Progress, TrezorAccountId};

/// Between two marks.
const EVERY: Duration = Duration::from_secs(1);
/// How many deposit addresses may be issued between two marks, by all daemons together. After a loss as many indices
/// are skipped at most.
const AHEAD: u32 = 1_000;
const VERSION: u32 = 1;
/// The topic of `/readyz` that says whether the database takes writes.
const TOPIC: &str = "database";

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    version: u32,
    /// This installation, in `high_water_marks`.
    installation: Uuid,
    system: Option<String>,
    timeline: u32,
    /// Bytes of log that were on the database's disk.
    flushed: u64,
    /// What was written last, and acknowledged.
    number: i64,
    token: Uuid,
    /// By account (number and fingerprint): no deposit index from here on was issued.
    issued_below: BTreeMap<String, u32>,
    /// By chain: the last block that was stored.
    scanned: BTreeMap<String, u64>,
}

/// How the database differs from the mark.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Same,
    OtherSystem,
    /// Another timeline. `behind`: something that was acknowledged is missing.
    Failover {
        behind: bool,
    },
    /// The same timeline, and less than there was.
    SetBack,
}

impl Mark {
    fn compare(&self, identity: &Identity, written: Option<(i64, Uuid)>) -> Found {
        if let (Some(before), Some(now)) = (&self.system, &identity.system)
            && before != now
        {
            return Found::OtherSystem;
        }
        // The row may be one ahead: it commits before the file is written.
        let behind = match written {
            None => true,
            Some((number, token)) => number < self.number || (number == self.number && token != self.token),
        };
        if identity.timeline != self.timeline {
            Found::Failover { behind }
        } else if behind || identity.flushed < self.flushed {
            Found::SetBack
        } else {
            Found::Same
        }
    }

    /// Told to an officer.
    fn tell(&self, found: &Found, identity: &Identity, written: Option<(i64, Uuid)>) -> (&'static str, String) {
        let lost = match written {
            None => format!("mark {} of this daemon is missing", self.number),
            Some((number, _)) => format!("of this daemon's marks it has {number}, and {} was acknowledged", self.number),
        };
        match found {
            Found::Same => ("set_back", "nothing".to_owned()),
            Found::OtherSystem => {
                let system = |system: &Option<String>| system.clone().unwrap_or_else(|| "unknown".to_owned());
                ("other_system", format!("system {} in place of {}", system(&identity.system), system(&self.system)))
            }
            Found::Failover { behind: false } => {
                ("failover", format!("timeline {} in place of {}; what this daemon wrote last is there", identity.timeline, self.timeline))
            }
            Found::Failover { behind: true } => {
                ("failover", format!("timeline {} in place of {}, and it is behind: {lost}", identity.timeline, self.timeline))
            }
            Found::SetBack => (
                "set_back",
                format!("an earlier state of timeline {}: {} bytes of log after {}, {lost}", self.timeline, identity.flushed, self.flushed),
            ),
        }
    }
}

/// Whether a database of another system is taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adopt {
    /// It is refused: nobody said that it is meant.
    Never,
    /// An officer says that it is meant; it is treated as a loss.
    OtherSystem,
}

/// Compares the database with the file before anything else is done with it, and freezes outflow where it is not what
/// it was. Then a first mark is written. Gives back what was found, for people.
pub(crate) async fn meet(db: &Database, path: &Path, holder: &str, limit: &IssueLimit, adopt: Adopt) -> anyhow::Result<Option<String>> {
    let before = read(path)?;
    let found = match &before {
        None => {
            tracing::info!(path = %path.display(), "nothing is known of this database yet; from now on it is");
            None
        }
        Some(mark) => judge(db, path, mark, holder, adopt).await?,
    };
    let installation = before.as_ref().map_or_else(Uuid::new_v4, |mark| mark.installation);
    // It goes by what is there now; what may have been issued stays in it.
    let (mark, below) = next(db, before.as_ref(), installation).await?;
    write(path, &mark)?;
    limit.set(below);
    Ok(found)
}

async fn judge(db: &Database, path: &Path, mark: &Mark, holder: &str, adopt: Adopt) -> anyhow::Result<Option<String>> {
    let mut connection = db.connection().await?;
    let identity = continuity::get_identity(&mut connection).await?;
    let written = continuity::find_mark(&mut connection, mark.installation).await?;
    drop(connection);
    let found = mark.compare(&identity, written);
    if found == Found::Same {
        return Ok(None);
    }
    let (cause, detail) = mark.tell(&found, &identity, written);
    if found == Found::OtherSystem && adopt == Adopt::Never {
        anyhow::bail!(
            "this is another database than the one of {}: {detail}; if that is meant, an officer says so with `amanatd failover adopt`",
            path.display()
        );
    }
    let mut read_again = BTreeMap::new();
    for (chain, block) in &mark.scanned {
        let chain: ChainId = chain.parse().with_context(|| format!("{}: a chain id", path.display()))?;
        read_again.insert(chain, *block);
    }
    let loss = NewLoss { found_at: now(), found_by: holder.to_owned(), cause, detail: detail.clone(), read_again };
    freeze(db, loss).await?;
    count_as_issued(db, mark).await?;
    tracing::error!(
        cause,
        "the database is not what it was: {detail}; nothing leaves any chain until an officer reconciles it (`amanatd failover status`)"
    );
    Ok(Some(detail))
}

/// Notes the loss and halts every chain, in one transaction.
async fn freeze(db: &Database, loss: NewLoss) -> Result<(), DbError> {
    db.unit(move |connection| {
        Box::pin(async move {
            if continuity::insert_loss(connection, &loss).await? {
                let detail = serde_json::json!({ "cause": loss.cause, "detail": loss.detail, "found_by": loss.found_by });
                let event = Event { kind: "database.loss_found", payment: None, intent: None, chain: None, detail };
                event::store::append(connection, &event).await?;
            }
            let reason = format!("the database is not what it was: {}", loss.detail);
            for (chain, ..) in scan::store::list_tips(connection).await? {
                scan::store::halt_outflow(connection, chain, &reason, loss.found_at).await?;
            }
            Ok::<(), DbError>(())
        })
    })
    .await
}

/// Every deposit index that may have been issued counts as issued, and its address is watched.
async fn count_as_issued(db: &Database, mark: &Mark) -> anyhow::Result<()> {
    let accounts = account::store::list(&mut *db.connection().await?).await?;
    for account in &accounts {
        let Some(below) = mark.issued_below.get(&name_of(account)).copied() else { continue };
        let before = account.next_deposit_index;
        if before < below {
            let below = below.min(AddressIndex::MAX + 1);
            let inserted = account::worker::insert_missing(db, account, below, |_| {}).await?;
            tracing::warn!(
                account = account.label,
                "deposit indices {before} to {} count as issued; {inserted} addresses are watched again",
                below - 1
            );
        }
    }
    for (name, below) in mark.issued_below.iter().filter(|(name, _)| !accounts.iter().any(|account| name_of(account) == **name)) {
        tracing::error!("account {name} is not in this database, and may have issued addresses below {below}; enrol it again, and restart");
    }
    Ok(())
}

/// As people know an account: its number and its key's fingerprint.
fn name_of(account: &TrezorAccount) -> String {
    format!("{} {}", account.xpub.account(), account.fingerprint)
}

/// What is there now, as the next mark.
async fn next(db: &Database, before: Option<&Mark>, installation: Uuid) -> Result<(Mark, BTreeMap<TrezorAccountId, u32>), DbError> {
    let token = Uuid::new_v4();
    let now = now();
    let number = db
        .unit::<_, DbError, _>(move |connection| Box::pin(async move { continuity::put_mark(connection, installation, token, now).await }))
        .await?;
    let mut connection = db.connection().await?;
    let identity = continuity::get_identity(&mut connection).await?;
    let mut issued_below = before.map(|mark| mark.issued_below.clone()).unwrap_or_default();
    let mut limits = BTreeMap::new();
    for account in account::store::list(&mut connection).await? {
        let below = issued_below.entry(name_of(&account)).or_default();
        *below = (*below).max(account.next_deposit_index.saturating_add(AHEAD));
        limits.insert(account.id, *below);
    }
    let scanned =
        scan::store::list_tips(&mut connection).await?.into_iter().map(|(chain, number, _)| (chain.to_string(), number.0)).collect();
    let Identity { system, timeline, flushed } = identity;
    Ok((Mark { version: VERSION, installation, system, timeline, flushed, number, token, issued_below, scanned }, limits))
}

// === the worker ===

#[derive(Debug, thiserror::Error)]
enum MarkError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("how far the database has come cannot be noted outside of it: {0:#}")]
    File(anyhow::Error),
    #[error("the database is on timeline {now} and was on {before} while we were connected; starting anew, to compare it first")]
    Changed { before: u32, now: u32 },
}

impl MarkError {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::File(_) => Disposition::Retry,
            Self::Changed { .. } => Disposition::Stop,
        }
    }
}

/// Writes a mark every second; by it `/readyz` tells whether the database takes writes. Without a file only that.
pub(super) fn keep(workers: &mut Workers, db: &Database, path: Option<PathBuf>, limit: &IssueLimit, metrics: &Metrics) {
    let (db, limit, metrics, pace) = (db.clone(), limit.clone(), metrics.clone(), Pace::new(EVERY));
    let last: Arc<Mutex<Option<Mark>>> = Arc::default();
    workers.tick("high_water", None, MarkError::disposition, move || {
        let (db, limit, metrics, pace) = (db.clone(), limit.clone(), metrics.clone(), Arc::clone(&pace));
        let (last, path) = (Arc::clone(&last), path.clone());
        async move {
            if !pace.is_due() {
                return Ok(Progress::Idle);
            }
            match note(&db, path.as_deref(), &mut *last.lock().await).await {
                Ok(below) => {
                    metrics.ready_as_to(TOPIC);
                    metrics.operations.high_water_noted(now().unix_timestamp());
                    if path.is_some() {
                        limit.set(below);
                    }
                }
                Err(error) => {
                    let what = if matches!(error, MarkError::File(_)) { "" } else { "it takes no writes: " };
                    metrics.not_ready(TOPIC, format!("{what}{}", chain_of(&error)));
                    return Err(error);
                }
            }
            let open = continuity::list_open_losses(&mut *db.connection().await?).await?;
            metrics.operations.losses_seen(open.len());
            pace.done();
            Ok(Progress::Idle)
        }
    });
}

/// One mark: into the database, then into the file.
async fn note(db: &Database, path: Option<&Path>, last: &mut Option<Mark>) -> Result<BTreeMap<TrezorAccountId, u32>, MarkError> {
    let before = match (last.take(), path) {
        (Some(mark), _) => Some(mark),
        (None, Some(path)) => read(path).map_err(MarkError::File)?,
        (None, None) => None,
    };
    let installation = before.as_ref().map_or_else(|| if path.is_some() { Uuid::new_v4() } else { Uuid::nil() }, |mark| mark.installation);
    let (mark, below) = match next(db, before.as_ref(), installation).await {
        Ok(made) => made,
        Err(error) => {
            *last = before;
            return Err(error.into());
        }
    };
    if let Some(before) = before.filter(|before| before.timeline != mark.timeline || before.system != mark.system) {
        return Err(MarkError::Changed { before: before.timeline, now: mark.timeline });
    }
    if let Some(path) = path {
        write(path, &mark).map_err(MarkError::File)?;
    }
    *last = Some(mark);
    Ok(below)
}

// === the file ===

fn read(path: &Path) -> anyhow::Result<Option<Mark>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    let mark: Mark = serde_json::from_str(&text).with_context(|| {
        format!("{} is not what a daemon wrote: keep it for an inquiry, and say with `amanatd account rebuild --issued-below` how far issuing had come", path.display())
    })?;
    anyhow::ensure!(mark.version == VERSION, "{} was written by another version of amanatd", path.display());
    Ok(Some(mark))
}

/// Whole or not at all, and on the disk when this returns.
fn write(path: &Path, mark: &Mark) -> anyhow::Result<()> {
    let draft = path.with_extension("new");
    let mut text = serde_json::to_vec_pretty(mark).context("write the mark as JSON")?;
    text.push(b'\n');
    let written = File::create(&draft).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&draft, path)).with_context(|| format!("{} cannot be written", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| format!("{} cannot be synced", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark {
            version: VERSION,
            installation: Uuid::from_u128(1),
            system: Some("7".to_owned()),
            timeline: 2,
            flushed: 1_000,
            number: 10,
            token: Uuid::from_u128(5),
            issued_below: BTreeMap::from([("0 069b8dd0".to_owned(), 1_003)]),
            scanned: BTreeMap::from([("1".to_owned(), 77)]),
        }
    }

    #[test]
    fn y9_f9_what_is_not_what_it_was_is_told_apart() {
        let same = Identity { system: Some("7".to_owned()), timeline: 2, flushed: 1_000 };
        let is = |system: &str, timeline, flushed| Identity { system: Some(system.to_owned()), timeline, flushed };
        let token = Some((10, Uuid::from_u128(5)));
        let older = Some((9, Uuid::from_u128(4)));
        let cases = [
            ("nothing changed", same.clone(), token, Found::Same),
            ("it has grown", is("7", 2, 2_000), token, Found::Same),
            ("the file was not written after the last commit", is("7", 2, 2_000), Some((11, Uuid::from_u128(6))), Found::Same),
            ("the server does not tell its system", Identity { system: None, ..same.clone() }, token, Found::Same),
            ("another cluster", is("8", 2, 2_000), token, Found::OtherSystem),
            ("a promoted replica that had everything", is("7", 3, 1_000), token, Found::Failover { behind: false }),
            ("a promoted replica that was behind", is("7", 3, 900), older, Found::Failover { behind: true }),
            ("behind, and written to since", is("7", 3, 9_000), older, Found::Failover { behind: true }),
            (
                "behind, and another history with the same number",
                is("7", 3, 9_000),
                Some((10, Uuid::from_u128(6))),
                Found::Failover { behind: true },
            ),
            ("a restore from before this daemon's time", is("7", 3, 900), None, Found::Failover { behind: true }),
            ("the old primary came back", is("7", 1, 9_000), older, Found::Failover { behind: true }),
            ("an old data directory", is("7", 2, 900), older, Found::SetBack),
            ("an old data directory that others wrote to since", is("7", 2, 9_000), older, Found::SetBack),
            ("a shorter log alone", is("7", 2, 900), token, Found::SetBack),
        ];
        for (what, identity, written, found) in cases {
            assert_eq!(mark().compare(&identity, written), found, "{what}");
            if found != Found::Same {
                assert!(!mark().tell(&found, &identity, written).1.is_empty());
            }
        }
    }

    #[test]
    fn y9_the_file_is_whole_or_not_there() {
        let folder = std::env::temp_dir().join(format!("amanatd-highwater-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("high-water.json");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, &mark()).unwrap();
        assert_eq!(read(&path).unwrap(), Some(mark()));
        for bad in ["", "{", "{}", "{\"version\":2}"] {
            fs::write(&path, bad).unwrap();
            assert!(read(&path).is_err(), "{bad:?}");
        }
        write(&path, &Mark { version: 9, ..mark() }).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("another version"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
