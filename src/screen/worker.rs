//! Screens what was credited, what was screened by an older policy, and what a screener owes an answer about.
//!
//! The screeners are asked outside of any transaction; a standing is stored only where its row is as it was
//! read, so that a resolver's word in between is never lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy::primitives::{Address, B256};
use time::OffsetDateTime;

use super::list::{FILE_BYTES_MAX, FormError};
use super::oracle::Oracle;
use super::policy::{ListVersion, Policy, ScreenerKind, Waiver, retry_after};
use super::recipient::{self, Recipient};
use super::store::{self, NewStanding, NewVerdict, Place, Screened};
use super::{Answer, ListError, Provider, SanctionsList, ScreenError, Screener, Subject, decide};
use crate::chains::ChainSpec;
use crate::db::{Database, DbError};
use crate::rpc::Node;
use crate::units::{Asset, Progress};

/// How many transfers one round asks about.
const PAGE: i64 = 100;
/// How many rows the walk over older standings reads at once; most are of payments that are finished.
const WALK_PAGE: i64 = 500;

/// The list of a file, read again when the file has changed. Shared by the workers of all chains.
#[derive(Debug)]
pub struct ListFile {
    path: PathBuf,
    current: Mutex<Arc<SanctionsList>>,
}

impl ListFile {
    /// Reads the file for the first time; without a good list there is no start.
    pub fn open(path: &Path) -> Result<Self, ListError> {
        let named = || path.display().to_string();
        let read = |source| ListError::Read { path: named(), source };
        let size = std::fs::metadata(path).map_err(read)?.len();
        let bytes = if size > FILE_BYTES_MAX { Err(FormError::TooLarge { found: size }) } else { Ok(std::fs::read(path).map_err(read)?) };
        let list = bytes.and_then(|bytes| SanctionsList::parse(&bytes)).map_err(|source| ListError::Form { path: named(), source })?;
        tracing::info!(path = %path.display(), entries = list.entries(), sha256 = %list.sha256(), "sanctions list read");
        Ok(Self { path: path.to_owned(), current: Mutex::new(Arc::new(list)) })
    }

    pub fn current(&self) -> Arc<SanctionsList> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks whether the file has another digest, and takes it over if it is a good list. Else the list that
    /// is there stays in force.
    async fn refresh(&self) -> Result<(), ListError> {
        let named = || self.path.display().to_string();
        let read = |source| ListError::Read { path: named(), source };
        let form = |source| ListError::Form { path: named(), source };
        let size = tokio::fs::metadata(&self.path).await.map_err(read)?.len();
        if size > FILE_BYTES_MAX {
            return Err(form(FormError::TooLarge { found: size }));
        }
        let bytes = tokio::fs::read(&self.path).await.map_err(read)?;
        if SanctionsList::digest(&bytes) == self.current().sha256() {
            return Ok(());
        }
        let list = SanctionsList::parse(&bytes).map_err(form)?;
        tracing::warn!(path = %self.path.display(), entries = list.entries(), sha256 = %list.sha256(), "the sanctions list has changed; open money is screened again");
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
        Ok(())
    }
}

/// What a chain is screened by. With nothing of it, transfers are noted as not screened and pass.
#[derive(Clone, Debug, Default)]
pub struct ScreenOptions {
    pub list: Option<Arc<ListFile>>,
    /// Whether the sanctions oracle of chains.toml is asked, where a chain has one.
    pub oracle: bool,
    pub provider: Option<Arc<Provider>>,
    pub waiver: Waiver,
    /// From one look at the list's file to the next.
    pub every: Duration,
}

/// Screens one chain.
#[derive(Debug)]
pub struct ScreenWorker {
    db: Database,
    node: Arc<Node>,
    spec: Arc<ChainSpec>,
    options: ScreenOptions,
    memory: Mutex<Memory>,
}

#[derive(Clone, Debug, Default)]
struct Memory {
    /// When the list's file was looked at last.
    looked_at: Option<OffsetDateTime>,
    /// The policy in force, once it is known.
    policy: Option<(i64, Policy)>,
    /// The walk over older standings; `None` when it is done.
    walk: Option<Walk>,
}

#[derive(Clone, Copy, Debug)]
struct Walk {
    after: Place,
    /// Whether it has met money that may still leave. Then it is walked once more: a row that a resolver
    /// changed meanwhile was passed by.
    met: bool,
}

const BEGINNING: Walk = Walk { after: Place { policy: 0, observation: 0 }, met: false };

impl ScreenWorker {
    pub fn new(db: Database, node: Arc<Node>, spec: Arc<ChainSpec>, options: ScreenOptions) -> Self {
        Self { db, node, spec, options, memory: Mutex::default() }
    }

    /// One page of what is new, of what an older policy screened, and of what is due again. Safe to repeat.
    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, ScreenError> {
        self.node.set_clock(now);
        let listed = self.look(now).await;
        let list = self.options.list.as_ref().map(|file| file.current());
        let policy = self.policy(list.as_deref()).await?;
        let new = self.screen_new(&policy, list.as_deref(), now).await?;
        let walked = if policy.1.is_required() { self.walk(&policy, list.as_deref(), now).await? } else { Progress::Idle };
        let due = store::list_retries(&mut *self.db.connection().await?, self.spec.id, now, PAGE).await?;
        let again = self.screen(&due, &policy, list.as_deref(), now).await?;
        let recipients = self.screen_recipients(&policy, list.as_deref(), now).await?;
        self.quarantine_again().await?;
        // A list that could not be taken over is told of, after the one in force has done its work.
        listed?;
        Ok(new.or(walked).or(again).or(recipients))
    }

    fn remember(&self, change: impl FnOnce(&mut Memory)) -> Memory {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut memory);
        memory.clone()
    }

    /// Looks at the list's file, if it is time.
    async fn look(&self, now: OffsetDateTime) -> Result<(), ScreenError> {
        let Some(file) = &self.options.list else { return Ok(()) };
        let fresh = self.remember(|_| {}).looked_at.is_some_and(|last| (now - last).unsigned_abs() < self.options.every);
        if fresh {
            return Ok(());
        }
        self.remember(|memory| memory.looked_at = Some(now));
        Ok(file.refresh().await?)
    }

    /// The policy that the options make, in force. From the commit of its row on, nothing leaves that was
    /// screened by another.
    async fn policy(&self, list: Option<&SanctionsList>) -> Result<(i64, Policy), ScreenError> {
        let version =
            |list: &SanctionsList| ListVersion { sha256: list.sha256(), entries: u32::try_from(list.entries()).unwrap_or(u32::MAX) };
        let policy = Policy {
            list: list.map(version),
            oracle: self.spec.sanctions_oracle.filter(|_| self.options.oracle),
            provider: self.options.provider.as_ref().map(|provider| provider.identity()),
        };
        let known = self.remember(|_| {}).policy;
        if let Some((id, in_force)) = known.filter(|(_, known)| *known == policy) {
            return Ok((id, in_force));
        }
        let (chain, wanted) = (self.spec.id, policy.clone());
        let id = self
            .db
            .unit::<_, DbError, _>(move |connection| {
                Box::pin(async move {
                    match store::find_policy(connection, chain).await? {
                        Some((id, in_force)) if in_force == wanted => Ok(id),
                        Some(_) | None => store::insert_policy(connection, chain, &wanted).await,
                    }
                })
            })
            .await?;
        tracing::info!(chain.id = chain.get(), policy = id, required = policy.is_required(), "screening policy in force");
        self.remember(|memory| {
            memory.policy = Some((id, policy.clone()));
            memory.walk = Some(BEGINNING);
        });
        Ok((id, policy))
    }

    async fn screen_new(&self, policy: &(i64, Policy), list: Option<&SanctionsList>, now: OffsetDateTime) -> Result<Progress, ScreenError> {
        let (chain, id) = (self.spec.id, policy.0);
        let mut connection = self.db.connection().await?;
        if !policy.1.is_required() {
            if store::list_new(&mut connection, chain, 1).await?.is_empty() {
                return Ok(Progress::Idle);
            }
            drop(connection);
            let noted = self
                .db
                .unit::<_, DbError, _>(move |connection| {
                    Box::pin(async move { store::set_not_screened(connection, chain, id, 10 * PAGE).await })
                })
                .await?;
            return Ok(Progress::of(noted > 0));
        }
        let mut new = store::list_new(&mut connection, chain, PAGE).await?;
        // What was credited there earlier may belong to a payment that was finished when the policy changed.
        new.extend(store::list_stale_beside(&mut connection, chain, id, &new.clone()).await?);
        drop(connection);
        self.screen(&new, policy, list, now).await
    }

    /// The next page of what an older policy screened, as far as its money is still here.
    async fn walk(&self, policy: &(i64, Policy), list: Option<&SanctionsList>, now: OffsetDateTime) -> Result<Progress, ScreenError> {
        let Some(Walk { after, met }) = self.remember(|_| {}).walk else { return Ok(Progress::Idle) };
        let page = store::list_stale(&mut *self.db.connection().await?, self.spec.id, policy.0, after, WALK_PAGE).await?;
        let open: Vec<i64> = page.iter().filter(|(_, open)| *open).map(|(place, _)| place.observation).collect();
        for part in open.chunks(usize::try_from(PAGE).unwrap_or(1)) {
            self.screen(part, policy, list, now).await?;
        }
        let full = i64::try_from(page.len()).is_ok_and(|rows| rows >= WALK_PAGE);
        let met = met || !open.is_empty();
        let next = page.last().filter(|_| full).map(|(place, _)| Walk { after: *place, met });
        // Ends: what was screened is older no more, so that a later walk meets less.
        self.remember(|memory| memory.walk = next.or(met.then_some(BEGINNING)));
        Ok(Progress::of(met || full))
    }

    /// Asks everybody about these, and stores what they say.
    async fn screen(
        &self,
        ids: &[i64],
        policy: &(i64, Policy),
        list: Option<&SanctionsList>,
        now: OffsetDateTime,
    ) -> Result<Progress, ScreenError> {
        if ids.is_empty() {
            return Ok(Progress::Idle);
        }
        let mut connection = self.db.connection().await?;
        let mut rows = store::list_rows(&mut connection, ids).await?;
        let answered = match &policy.1.provider {
            Some(provider) => store::list_answered(&mut connection, ids, provider).await?,
            None => BTreeSet::new(),
        };
        drop(connection);
        if policy.1.is_required() {
            self.find_origins(&mut rows).await?;
        }
        let mut answers: BTreeMap<i64, Vec<(ScreenerKind, Answer)>> = BTreeMap::new();
        let oracle = self.oracle(policy);
        for screener in self.screeners(list, oracle.as_ref()) {
            // A provider costs money and has its own memory: what it has answered about stands.
            let asked = |row: &&Screened| screener.kind() != ScreenerKind::Provider || !answered.contains(&row.observation);
            let (asked, subjects): (Vec<i64>, Vec<Subject>) = rows.iter().filter(asked).map(|row| (row.observation, row.subject)).unzip();
            for (observation, answer) in asked.into_iter().zip(screener.screen(&subjects).await) {
                answers.entry(observation).or_default().push((screener.kind(), answer));
            }
        }
        self.store_all(rows, answers, policy, now).await
    }

    fn oracle(&self, policy: &(i64, Policy)) -> Option<Oracle> {
        policy.1.oracle.map(|contract| Oracle { node: Arc::clone(&self.node), contract })
    }

    fn screeners<'s>(&'s self, list: Option<&'s SanctionsList>, oracle: Option<&'s Oracle>) -> Vec<&'s dyn Screener> {
        let mut screeners: Vec<&dyn Screener> = Vec::new();
        screeners.extend(list.map(|list| list as &dyn Screener));
        screeners.extend(oracle.map(|oracle| oracle as &dyn Screener));
        screeners.extend(self.options.provider.as_deref().map(|provider| provider as &dyn Screener));
        screeners
    }

    /// A page of those whom money would go to and who are due.
    async fn screen_recipients(
        &self,
        policy: &(i64, Policy),
        list: Option<&SanctionsList>,
        now: OffsetDateTime,
    ) -> Result<Progress, ScreenError> {
        let rows = recipient::store::list_due(&mut *self.db.connection().await?, self.spec.id, policy.0, now, PAGE).await?;
        if rows.is_empty() {
            return Ok(Progress::Idle);
        }
        let mut answers: Vec<Vec<(ScreenerKind, Answer)>> = vec![Vec::new(); rows.len()];
        if policy.1.is_required() {
            let subjects: Vec<Subject> = rows.iter().map(Recipient::subject).collect();
            let oracle = self.oracle(policy);
            for screener in self.screeners(list, oracle.as_ref()) {
                for (answers, answer) in answers.iter_mut().zip(screener.screen(&subjects).await) {
                    answers.push((screener.kind(), answer));
                }
            }
        }
        for (row, answers) in rows.into_iter().zip(answers) {
            let policy = policy.clone();
            self.db
                .unit::<_, ScreenError, _>(move |connection| {
                    Box::pin(async move { recipient::take_answers(connection, &row, &answers, &policy, now).await })
                })
                .await?;
        }
        Ok(Progress::Worked)
    }

    /// Fills in who signed each transaction. A transfer that is the transaction itself says so.
    async fn find_origins(&self, rows: &mut [Screened]) -> Result<(), ScreenError> {
        for row in rows.iter_mut().filter(|row| row.is_top) {
            row.subject.origin = Some(row.subject.sender);
        }
        let unknown: BTreeSet<B256> = rows.iter().filter(|row| row.subject.origin.is_none()).map(|row| row.subject.tx_hash).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let hashes: Vec<B256> = unknown.into_iter().collect();
        let found: BTreeMap<B256, Option<Address>> = hashes.iter().copied().zip(self.node.senders(&hashes).await?).collect();
        for row in rows.iter_mut().filter(|row| row.subject.origin.is_none()) {
            row.subject.origin = found.get(&row.subject.tx_hash).copied().flatten();
        }
        Ok(())
    }

    /// What passes is stored together; what does not, each in a unit of its own, because more follows from it.
    async fn store_all(
        &self,
        rows: Vec<Screened>,
        mut answers: BTreeMap<i64, Vec<(ScreenerKind, Answer)>>,
        policy: &(i64, Policy),
        now: OffsetDateTime,
    ) -> Result<Progress, ScreenError> {
        let mut plain = Vec::new();
        let mut others = Vec::new();
        for row in rows {
            let answers = answers.remove(&row.observation).unwrap_or_default();
            let change = self.change(row, answers, policy, now);
            if change.row.passes && change.new.standing.passes() { plain.push(change) } else { others.push(change) }
        }
        if !plain.is_empty() {
            self.db
                .unit::<_, ScreenError, _>(move |connection| {
                    Box::pin(async move {
                        for change in &plain {
                            change.store(connection, now).await?;
                        }
                        Ok(())
                    })
                })
                .await?;
        }
        for change in others {
            self.db
                .unit::<_, ScreenError, _>(move |connection| {
                    Box::pin(async move {
                        if !change.store(connection, now).await? {
                            return Ok(());
                        }
                        if change.new.standing.passes() {
                            decide::free(connection, &change.row, "every screener has answered").await
                        } else {
                            decide::hold(connection, &change.row, &change.new.standing).await
                        }
                    })
                })
                .await?;
        }
        Ok(Progress::Worked)
    }

    fn change(&self, row: Screened, answers: Vec<(ScreenerKind, Answer)>, policy: &(i64, Policy), now: OffsetDateTime) -> Change {
        let amount = row.subject.amount;
        let decimals = match amount.asset.asset {
            Asset::Native => self.spec.native.decimals,
            Asset::Token(contract) => self.spec.tokens.iter().find(|token| token.contract == contract).map_or(0, |token| token.decimals),
        };
        let waived = self.options.waiver.waives(amount, decimals);
        let standing = row.standing.after(&answers, policy.1.is_required(), row.subject.origin.is_some(), waived);
        let attempts = if standing.missing.is_empty() { 0 } else { row.attempts.saturating_add(1) };
        let next_at = (!standing.missing.is_empty()).then(|| now + retry_after(attempts));
        // Of screeners that do not answer, the first and the last silence are worth a row, not each.
        let news = |answer: &Answer| !matches!(answer, Answer::Unavailable { .. }) || row.attempts == 0 || row.policy != Some(policy.0);
        let verdicts = answers
            .into_iter()
            .filter(|(_, answer)| news(answer))
            .map(|(screener, answer)| NewVerdict { observation: row.observation, policy: policy.0, screener, answer })
            .collect();
        let new = NewStanding { policy: policy.0, origin: row.subject.origin, standing, attempts, next_at };
        Change { row, new, verdicts }
    }

    /// A hit whose destination came back from a sweep that was given up, or that somebody took out.
    async fn quarantine_again(&self) -> Result<(), ScreenError> {
        let chain = self.spec.id;
        let ids = store::list_unquarantined(&mut *self.db.connection().await?, chain, PAGE).await?;
        for id in ids {
            self.db
                .unit::<_, ScreenError, _>(move |connection| {
                    Box::pin(async move {
                        match store::lock(connection, id).await? {
                            Some(row) if !row.passes => decide::quarantine(connection, &row).await,
                            Some(_) | None => Ok(()),
                        }
                    })
                })
                .await?;
        }
        let recipients = recipient::store::list_unquarantined(&mut *self.db.connection().await?, chain, PAGE).await?;
        for id in recipients {
            self.db
                .unit::<_, ScreenError, _>(move |connection| {
                    Box::pin(async move {
                        match recipient::store::lock_held(connection, id).await? {
                            Some(row) => recipient::quarantine(connection, &row).await,
                            None => Ok(()),
                        }
                    })
                })
                .await?;
        }
        Ok(())
    }
}

/// One row's new standing, and the answers behind it.
struct Change {
    row: Screened,
    new: NewStanding,
    verdicts: Vec<NewVerdict>,
}

impl Change {
    /// `false` if the row has changed since it was read; it is read again at the next tick.
    async fn store(&self, connection: &mut sqlx::PgConnection, now: OffsetDateTime) -> Result<bool, DbError> {
        if !store::set_standing(connection, &self.row, &self.new).await? {
            return Ok(false);
        }
        for verdict in &self.verdicts {
            store::append_verdict(connection, verdict, now).await?;
        }
        Ok(true)
    }
}
