//! The oracle at work: asks what is due, keeps the latest of each source, runs a round of every pair, and
//! quotes. What it has heard is in memory; what it must not forget over a restart is in the database.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy::primitives::{Address, Bytes, I256};
use futures_util::future::join_all;
use secrecy::SecretString;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::board::Board;
use super::decide::{Asked, Decision, Fx, Memory, PairInput, Quote, Round, decide, round, sources};
use super::depeg::DepegState;
use super::evidence::Evidence;
use super::limits::LimitBook;
use super::observation::{Invalid, Observation};
use super::refusal::{Refusal, SourceVerdict};
use super::source::chainlink::{self, FeedAnswer, FeedFacts, RoundData};
use super::source::http::{VenueClient, VenueLimits};
use super::source::{self, PriceSource};
use super::{QuoteError, store};
use crate::chains::{ChainBook, ChainSpec, FeedSpec, PairKind, PairSpec, VenueSpec};
use crate::db::{Database, DbError};
use crate::rpc::{Fault, Node, RpcError};
use crate::units::{BlockRef, ChainId, Currency, Progress, Toward, UsdRate};

/// What the configuration says about one venue.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Whether it is asked; `None`: as `chains.toml` says.
    pub enabled: Option<bool>,
    pub key: Option<SecretString>,
    /// Another place where it answers.
    pub url: Option<String>,
    pub requests_per_minute: Option<u32>,
}

/// Between two rounds, and between two looks at the feeds of a chain.
const ROUND_S: i64 = 15;
/// How long it is believed what a feed is.
const FACTS_S: i64 = 86_400;

/// A venue that is asked.
#[derive(Debug)]
struct Venue {
    /// Its place in the book.
    place: usize,
    spec: VenueSpec,
    source: &'static dyn PriceSource,
    client: VenueClient,
}

/// Asks sources and quotes.
#[derive(Debug)]
pub struct Oracle {
    book: Arc<ChainBook>,
    nodes: Arc<BTreeMap<ChainId, Arc<Node>>>,
    venues: Vec<Venue>,
    board: Mutex<Board>,
    facts: Mutex<BTreeMap<(ChainId, Address), (FeedFacts, i64)>>,
    schedule: Mutex<Schedule>,
    tally: Mutex<Tally>,
    samples: Mutex<BTreeMap<String, VecDeque<Sample>>>,
}

/// When each was last asked.
#[derive(Debug, Default)]
struct Schedule {
    venues: BTreeMap<usize, i64>,
    feeds: BTreeMap<ChainId, i64>,
    round_s: Option<i64>,
}

/// What happened since the start, for metrics.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By source and reason.
    pub rejected: BTreeMap<(String, &'static str), u64>,
    /// By the refusal's code.
    pub refused: BTreeMap<&'static str, u64>,
    /// By token and where it stood.
    pub quoted: BTreeMap<(String, &'static str), u64>,
    /// The last round of each pair.
    pub rounds: BTreeMap<String, RoundReport>,
    /// What quotes took since the last look.
    pub durations: Vec<Duration>,
}

/// How many durations are kept between two looks.
const DURATIONS_MAX: usize = 10_000;

/// A round of a pair as the console draws it: one for each minute of the last day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub at_s: i64,
    /// `None` where the sources made no price.
    pub price: Option<UsdRate>,
    pub deviation_bps: Option<i32>,
    pub dispersion_bps: Option<u32>,
    /// Of a pair with a peg.
    pub state: Option<&'static str>,
    /// The code of the refusal that a quote would have met.
    pub refused: Option<&'static str>,
}

/// A day of minutes.
const SAMPLES_MAX: usize = 1_440;
const SAMPLE_S: i64 = 60;

/// The last round of a pair.
#[derive(Clone, Debug)]
pub struct RoundReport {
    pub at_s: i64,
    pub price: Option<UsdRate>,
    /// Why a quote would be refused now.
    pub refusal: Option<Refusal>,
    pub min_sources: u32,
    /// The limit that the dispersion has in this state.
    pub dispersion_max_bps: u32,
    /// Where the machine enters and halts, for a pair with a peg.
    pub bands_bps: Option<(u32, u32)>,
    /// Each source with what became of it; official ones are not among them.
    pub verdicts: Vec<SourceVerdict>,
    pub families: u32,
    pub dispersion_bps: Option<u32>,
    pub deviation_bps: Option<i32>,
    /// Of a pair with a peg.
    pub state: Option<&'static str>,
    pub accepted_s: Option<i64>,
    /// Source, chain, and age in seconds.
    pub sources: Vec<(String, Option<ChainId>, i64)>,
}

/// A decision with what it rests on.
#[derive(Clone, Debug)]
pub struct Quoted {
    pub decision: Decision,
    pub token: PairInput,
    pub fx: Fx,
    pub settings_head: i64,
}

impl Quoted {
    pub fn evidence(&self) -> Evidence {
        Evidence::new(self.token.clone(), self.fx.clone(), &self.decision, self.settings_head)
    }
}

/// What the database remembers.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    pub memories: BTreeMap<String, Memory>,
    pub limits: LimitBook,
}

impl Remembered {
    pub async fn read(connection: &mut PgConnection) -> Result<Self, QuoteError> {
        let memories = store::list_memories(connection).await?;
        Ok(Self { memories, limits: store::get_limits(connection).await? })
    }
}

impl Oracle {
    /// Nothing is asked yet. `options` are by the venue's name.
    pub fn new(
        book: Arc<ChainBook>,
        nodes: Arc<BTreeMap<ChainId, Arc<Node>>>,
        options: &BTreeMap<String, SourceOptions>,
    ) -> Result<Self, QuoteError> {
        let known = |name: &String| book.prices().venues().iter().any(|venue| venue.name == *name);
        if let Some(unknown) = options.keys().find(|name| !known(name)) {
            return Err(QuoteError::UnknownSource(unknown.clone()));
        }
        let mut venues = Vec::new();
        for (place, spec) in book.prices().venues().iter().enumerate() {
            let own = options.get(&spec.name).cloned().unwrap_or_default();
            if !own.enabled.unwrap_or(spec.enabled) || (spec.keyed && own.key.is_none()) {
                continue;
            }
            let source = source::find(&spec.name).ok_or_else(|| QuoteError::UnknownSource(spec.name.clone()))?;
            let limits = VenueLimits::per_minute(own.requests_per_minute.unwrap_or(spec.requests_per_minute));
            let client = VenueClient::new(own.url.as_deref().unwrap_or(&spec.url), own.key, limits).map_err(QuoteError::Client)?;
            venues.push(Venue { place, spec: spec.clone(), source, client });
        }
        let (board, facts, schedule, tally, samples) = Default::default();
        Ok(Self { book, nodes, venues, board, facts, schedule, tally, samples })
    }

    /// What would leave a token without enough families or with thresholds that do not fit together; empty
    /// when all is well.
    pub fn lint(&self, limits: &LimitBook, now: OffsetDateTime) -> Vec<String> {
        let feeds = |pair: &str| {
            self.nodes.keys().filter_map(|chain| self.book.get(*chain)).flat_map(|spec| &spec.feeds).any(|feed| feed.pair == pair)
        };
        let mut found = Vec::new();
        for pair in self.offered() {
            let mut families: std::collections::BTreeSet<&str> = self
                .venues
                .iter()
                .filter(|venue| !venue.spec.sanity && venue.spec.markets.iter().any(|market| market.pair == pair.name))
                .map(|venue| venue.spec.family.as_str())
                .collect();
            if feeds(&pair.name) {
                families.insert("chainlink");
            }
            let own = limits.limits(pair.base(), now);
            let min_sources = own.min_sources;
            found.extend(own.check().err().map(|error| format!("{}: {error}", pair.base())));
            if families.len() < usize::try_from(min_sources).unwrap_or(usize::MAX) {
                let names: Vec<&str> = families.into_iter().collect();
                found.push(format!("{} has {} of {min_sources} families ({})", pair.name, names.len(), names.join(", ")));
            }
        }
        found
    }

    /// Pairs of the tokens of configured chains.
    fn offered(&self) -> Vec<&PairSpec> {
        let chains: Vec<&ChainSpec> = self.nodes.keys().filter_map(|chain| self.book.get(*chain)).collect();
        let named =
            |pair: &PairSpec| chains.iter().any(|chain| chain.tokens.iter().any(|token| token.price.as_deref() == Some(&pair.name)));
        self.book.prices().pairs().filter(|pair| named(pair)).collect()
    }

    /// The names of the venues that are asked.
    pub fn sources(&self) -> Vec<&str> {
        self.venues.iter().map(|venue| venue.spec.name.as_str()).collect()
    }

    /// What happened since the start. Durations are given once.
    pub fn tally(&self) -> Tally {
        let mut tally = locked(&self.tally);
        let durations = std::mem::take(&mut tally.durations);
        Tally { durations, ..tally.clone() }
    }

    /// What happened since the start, without what is given once.
    pub fn standing(&self) -> Tally {
        let tally = locked(&self.tally);
        Tally {
            rejected: tally.rejected.clone(),
            refused: tally.refused.clone(),
            quoted: tally.quoted.clone(),
            rounds: tally.rounds.clone(),
            durations: Vec::new(),
        }
    }

    /// The last day of a pair, oldest first; since the start, if that is less.
    pub fn samples(&self, pair: &str) -> Vec<Sample> {
        locked(&self.samples).get(pair).map(|samples| samples.iter().copied().collect()).unwrap_or_default()
    }

    /// Notes what a quote took.
    pub fn note_duration(&self, took: Duration) {
        let mut tally = locked(&self.tally);
        if tally.durations.len() < DURATIONS_MAX {
            tally.durations.push(took);
        }
    }

    // === rounds ===

    /// Asks what is due and, once every so often, runs a round of every pair.
    pub async fn tick(&self, db: &Database, now: OffsetDateTime) -> Result<Progress, QuoteError> {
        let now_s = now.unix_timestamp();
        let asked = self.fetch(now, false).await?;
        let due = locked(&self.schedule).round_s.is_none_or(|last_s| elapsed(last_s, now_s) >= ROUND_S);
        if !due {
            return Ok(Progress::of(asked));
        }
        let remembered = Remembered::read(&mut *db.connection().await?).await?;
        let rounds = self.rounds(&remembered, now);
        let kept: Vec<(String, Memory)> = rounds.into_iter().map(|(pair, round)| (pair, round.memory)).collect();
        db.unit::<_, QuoteError, _>(move |connection| {
            Box::pin(async move {
                for (pair, memory) in &kept {
                    store::put_memory(connection, pair, memory).await?;
                }
                Ok(())
            })
        })
        .await?;
        locked(&self.schedule).round_s = Some(now_s);
        Ok(Progress::Worked)
    }

    /// One round of every pair that has a source. Nothing is stored.
    pub fn rounds(&self, remembered: &Remembered, now: OffsetDateTime) -> BTreeMap<String, Round> {
        let mut rounds = BTreeMap::new();
        for pair in self.book.prices().pairs() {
            let input = self.input(pair, toward(pair.kind), remembered, now);
            if input.observations.is_empty() {
                continue;
            }
            let done = round(&input, now);
            self.report(&input, &done, now);
            rounds.insert(pair.name.clone(), done);
        }
        rounds
    }

    fn report(&self, input: &PairInput, done: &Round, now: OffsetDateTime) {
        let before = input.memory.depeg.name();
        let after = done.memory.depeg.name();
        if input.peg.is_some() && before != after {
            tracing::warn!(pair = input.pair, deviation_bps = done.deviation_bps, "{before} is now {after}");
        }
        let mut tally = locked(&self.tally);
        for (seen, verdict) in input.observations.iter().zip(&done.verdicts) {
            let reason = verdict.name();
            if reason != "used" && reason != "same_family" {
                *tally.rejected.entry((seen.source.clone(), reason)).or_default() += 1;
            }
        }
        let (limits, at_s) = (&input.limits, now.unix_timestamp());
        let calm = input.kind != PairKind::Stable || done.memory.depeg == DepegState::Par;
        let sample = Sample {
            at_s,
            price: done.price,
            deviation_bps: done.deviation_bps,
            dispersion_bps: done.dispersion_bps,
            state: input.peg.map(|_| after),
            refused: done.outcome.as_ref().err().map(Refusal::code),
        };
        self.keep(&input.pair, sample);
        let report = RoundReport {
            at_s,
            price: done.price,
            refusal: done.outcome.as_ref().err().cloned(),
            min_sources: limits.min_sources,
            dispersion_max_bps: if calm { limits.dispersion_normal_bps } else { limits.dispersion_stressed_bps },
            bands_bps: input.peg.map(|_| (limits.depeg_enter_bps, limits.depeg_halt_bps)),
            verdicts: sources(&input.observations, &done.verdicts, now),
            families: done.used,
            dispersion_bps: done.dispersion_bps,
            deviation_bps: done.deviation_bps,
            state: input.peg.map(|_| after),
            accepted_s: done.memory.jump.accepted.map(|mark| mark.at_s),
            sources: input.observations.iter().map(|seen| (seen.source.clone(), seen.chain, seen.age_s(at_s))).collect(),
        };
        tally.rounds.insert(input.pair.clone(), report);
    }

    /// One sample for each minute: a later round of the same minute takes the place of the one before.
    fn keep(&self, pair: &str, sample: Sample) {
        let mut all = locked(&self.samples);
        let samples = all.entry(pair.to_owned()).or_default();
        if samples.back().is_some_and(|last| last.at_s.div_euclid(SAMPLE_S) == sample.at_s.div_euclid(SAMPLE_S)) {
            samples.pop_back();
        }
        samples.push_back(sample);
        if samples.len() > SAMPLES_MAX {
            samples.pop_front();
        }
    }

    fn input(&self, pair: &PairSpec, toward: Toward, remembered: &Remembered, now: OffsetDateTime) -> PairInput {
        let asked: Vec<usize> = self.venues.iter().map(|venue| venue.place).collect();
        let (observations, sanity) = locked(&self.board).observations(self.book.prices(), pair, &asked, now.unix_timestamp());
        PairInput {
            pair: pair.name.clone(),
            kind: pair.kind,
            peg: pair.peg,
            forex: pair.forex,
            toward,
            observations,
            sanity,
            needs_bound: pair.kind == PairKind::Fx,
            memory: remembered.memories.get(&pair.name).cloned().unwrap_or_default(),
            limits: remembered.limits.limits(pair.base(), now),
        }
    }

    // === quotes ===

    /// Quotes from what is known now. The memory is that of the last round; nothing is asked and nothing
    /// is stored, so this may run inside of somebody's transaction.
    pub fn quote(&self, asked: &Asked, remembered: &Remembered, now: OffsetDateTime) -> Result<Quoted, Refusal> {
        let quoted = self.quoted(asked, remembered, now);
        let refusal = match &quoted {
            Ok(quoted) => quoted.decision.outcome.as_ref().err(),
            Err(refusal) => Some(refusal),
        };
        let mut tally = locked(&self.tally);
        match (refusal, &quoted) {
            (Some(refusal), _) => *tally.refused.entry(refusal.code()).or_default() += 1,
            (None, Ok(Quoted { decision: Decision { outcome: Ok(quote), .. }, .. })) => {
                let key = (asked.token.clone(), quote.settled.peg_state.name());
                *tally.quoted.entry(key).or_default() += 1;
            }
            (None, _) => {}
        }
        quoted
    }

    /// A quote with its evidence, by what the database remembers now; or why there is none.
    pub async fn fresh(
        &self,
        connection: &mut PgConnection,
        asked: &Asked,
        now: OffsetDateTime,
    ) -> Result<Result<(Quote, Evidence), Refusal>, DbError> {
        let memories = store::list_memories(connection).await?;
        let remembered = Remembered { memories, limits: store::get_limits(connection).await? };
        Ok(self.quote(asked, &remembered, now).and_then(|quoted| {
            let evidence = quoted.evidence();
            quoted.decision.outcome.map(|quote| (quote, evidence))
        }))
    }

    fn quoted(&self, asked: &Asked, remembered: &Remembered, now: OffsetDateTime) -> Result<Quoted, Refusal> {
        let prices = self.book.prices();
        let pair = self.price_of(asked)?;
        let mut token = self.input(pair, Toward::Down, remembered, now);
        looking(&mut token.memory);
        token.limits.inclusion_grace_s = remembered.limits.limits(&asked.chain.to_string(), now).inclusion_grace_s;
        let fx = match asked.currency {
            Currency::Usd => Fx::Dollar,
            other => {
                let pair = prices.pair(&format!("{other}/USD")).ok_or_else(|| Refusal::UnknownCurrency(other.to_string()))?;
                let mut input = self.input(pair, Toward::Up, remembered, now);
                looking(&mut input.memory);
                Fx::Pair(Box::new(input))
            }
        };
        let decision = decide(asked, &token, &fx, now);
        Ok(Quoted { decision, token, fx, settings_head: remembered.limits.head_id() })
    }

    fn price_of(&self, asked: &Asked) -> Result<&PairSpec, Refusal> {
        let not_offered = || Refusal::TokenNotOffered { token: asked.token.clone(), chain: asked.chain };
        let chain = self.book.get(asked.chain).ok_or_else(not_offered)?;
        let named = if chain.native.symbol == asked.token {
            chain.native.price.as_ref()
        } else {
            chain.token(&asked.token).and_then(|token| token.price.as_ref())
        };
        named.and_then(|name| self.book.prices().pair(name)).ok_or_else(not_offered)
    }

    // === asking ===

    /// Asks every source whose turn it is, or all of them. `true` when any was asked.
    pub async fn fetch(&self, now: OffsetDateTime, all: bool) -> Result<bool, QuoteError> {
        let now_s = now.unix_timestamp();
        let (venues, chains) = self.due(now_s, all);
        let heard = join_all(venues.iter().map(|venue| self.ask(venue))).await;
        {
            let mut board = locked(&self.board);
            for (venue, readings) in venues.iter().zip(heard) {
                readings.into_iter().for_each(|reading| board.note(venue.place, reading, now_s));
            }
        }
        let read = join_all(chains.iter().map(|(spec, node)| self.read_feeds(spec, node, now))).await;
        for (pair, seen) in read.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
            locked(&self.board).note_feed(&pair, seen);
        }
        Ok(!venues.is_empty() || !chains.is_empty())
    }

    /// Whose turn it is; their next turn is counted from now.
    fn due(&self, now_s: i64, all: bool) -> (Vec<&Venue>, Vec<(&ChainSpec, &Arc<Node>)>) {
        let mut schedule = locked(&self.schedule);
        let waited = |last_s: Option<&i64>, every_s: i64| all || last_s.is_none_or(|last_s| elapsed(*last_s, now_s) >= every_s);
        let venues: Vec<&Venue> =
            self.venues.iter().filter(|venue| waited(schedule.venues.get(&venue.place), i64::from(venue.spec.every_s))).collect();
        let chains: Vec<(&ChainSpec, &Arc<Node>)> = self
            .nodes
            .iter()
            .filter_map(|(chain, node)| Some((self.book.get(*chain)?, node)))
            .filter(|(spec, _)| !spec.feeds.is_empty() && waited(schedule.feeds.get(&spec.id), ROUND_S))
            .collect();
        schedule.venues.extend(venues.iter().map(|venue| (venue.place, now_s)));
        schedule.feeds.extend(chains.iter().map(|(spec, _)| (spec.id, now_s)));
        (venues, chains)
    }

    async fn ask(&self, venue: &Venue) -> Vec<source::Reading> {
        let mut readings = Vec::new();
        for ask in venue.source.asks(&venue.spec.markets) {
            readings.extend(match venue.client.get(&ask).await {
                Ok(body) => venue.source.read(&venue.spec.markets, &ask, &body),
                Err(reason) => ask.every(reason),
            });
        }
        readings
    }

    /// All feeds of a chain, and its sequencer, at one block.
    async fn read_feeds(&self, spec: &ChainSpec, node: &Node, now: OffsetDateTime) -> Result<Vec<(String, Observation)>, QuoteError> {
        node.set_clock(now);
        let at = match node.head().await {
            Ok(header) => header.block,
            Err(error) => {
                tracing::debug!(chain.id = spec.id.get(), %error, "no block to read the feeds at");
                return Ok(Vec::new());
            }
        };
        let sequencer = match spec.sequencer {
            None => Ok(None),
            Some(uptime) => round_data(node, uptime, at).await.map(Some),
        };
        let mut seen = Vec::new();
        for feed in &spec.feeds {
            seen.extend(self.read_feed(spec.id, node, feed, at, sequencer, now).await?.map(|observation| (feed.pair.clone(), observation)));
        }
        Ok(seen)
    }

    #[allow(clippy::too_many_arguments, reason = "one read of one feed at one block")]
    async fn read_feed(
        &self,
        chain: ChainId,
        node: &Node,
        feed: &FeedSpec,
        at: BlockRef,
        sequencer: Result<Option<RoundData>, Invalid>,
        now: OffsetDateTime,
    ) -> Result<Option<Observation>, QuoteError> {
        let now_s = now.unix_timestamp();
        let spoilt = |reason: Invalid| Observation {
            chain: Some(chain),
            invalid: Some(reason),
            fetched_s: now_s,
            max_age_s: i64::from(feed.max_age_s),
            ..Observation::new(chainlink::source_name(chain), "chainlink", crate::units::Price::ZERO, now_s)
        };
        let facts = match self.facts(chain, node, feed, at, now_s).await? {
            Ok(facts) => facts,
            // The node is away: what was read before grows old by itself.
            Err(Invalid::Unreachable) => return Ok(None),
            Err(reason) => return Ok(Some(spoilt(reason))),
        };
        let answered = async { Ok((sequencer?, round_data(node, feed.proxy, at).await?)) };
        Ok(match answered.await {
            Ok((sequencer, data)) => Some(FeedAnswer { spec: feed, facts: &facts, data, sequencer }.observe(chain, at, now_s)),
            Err(Invalid::Unreachable) => None,
            Err(reason) => Some(spoilt(reason)),
        })
    }

    /// What a feed is: read at the first look, where a difference from `chains.toml` ends the process, and
    /// once a day, where it takes the feed out.
    async fn facts(
        &self,
        chain: ChainId,
        node: &Node,
        feed: &FeedSpec,
        at: BlockRef,
        now_s: i64,
    ) -> Result<Result<FeedFacts, Invalid>, QuoteError> {
        let known = locked(&self.facts).get(&(chain, feed.proxy)).cloned();
        if let Some((facts, read_s)) = &known
            && elapsed(*read_s, now_s) < FACTS_S
        {
            return Ok(Ok(facts.clone()));
        }
        let facts = match read_facts(node, feed.proxy, at).await {
            Ok(facts) => facts,
            Err(Invalid::Unreachable) => return Ok(known.map(|(facts, _)| facts).ok_or(Invalid::Unreachable)),
            Err(reason) => return Ok(Err(reason)),
        };
        let differs = facts.decimals != feed.decimals || facts.description != feed.description;
        if differs && known.is_none() {
            return Err(QuoteError::Feed {
                chain,
                pair: feed.pair.clone(),
                found: format!("{:?} with {} decimals", facts.description, facts.decimals),
                listed: format!("{:?} with {} decimals", feed.description, feed.decimals),
            });
        }
        if differs {
            tracing::error!(chain.id = chain.get(), pair = feed.pair, found = facts.description, "a feed changed; it is not used");
        }
        locked(&self.facts).insert((chain, feed.proxy), (facts.clone(), now_s));
        Ok(Ok(facts))
    }
}

/// A quote looks at what the last round heard, so it is no second round that could confirm a candidate.
fn looking(memory: &mut Memory) {
    memory.jump = std::mem::take(&mut memory.jump).without_rounds();
}

/// Tokens are rounded down and currencies up: both favour who is paid.
const fn toward(kind: PairKind) -> Toward {
    match kind {
        PairKind::Stable | PairKind::Coin => Toward::Down,
        PairKind::Fx => Toward::Up,
    }
}

/// A clock that went back counts as a long time: what is due is asked again.
const fn elapsed(last_s: i64, now_s: i64) -> i64 {
    if now_s < last_s { i64::MAX } else { now_s - last_s }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === calls ===

async fn call(node: &Node, to: Address, data: &Bytes, at: BlockRef) -> Result<Bytes, Invalid> {
    node.call_at(to, data, at).await.map_err(|error| reason_of(&error))
}

fn reason_of(error: &RpcError) -> Invalid {
    match &error.fault {
        Fault::Disagreement { .. } => Invalid::RpcDisagrees,
        Fault::Reverted { .. } => Invalid::NoAnswer,
        _ => Invalid::Unreachable,
    }
}

async fn round_data(node: &Node, feed: Address, at: BlockRef) -> Result<RoundData, Invalid> {
    chainlink::read_round(&call(node, feed, &chainlink::LATEST_ROUND_DATA, at).await?)
}

async fn read_facts(node: &Node, feed: Address, at: BlockRef) -> Result<FeedFacts, Invalid> {
    let decimals = chainlink::read_word(&call(node, feed, &chainlink::DECIMALS, at).await?)?;
    let decimals = u8::try_from(decimals).map_err(|_| Invalid::Decode)?;
    let description = chainlink::read_string(&call(node, feed, &chainlink::DESCRIPTION, at).await?)?;
    Ok(FeedFacts { decimals, description, bounds: read_bounds(node, feed, at).await? })
}

/// The bounds of the contract behind the proxy; most have none that matter, some no such function.
async fn read_bounds(node: &Node, feed: Address, at: BlockRef) -> Result<Option<(I256, I256)>, Invalid> {
    let optional = |answer: Result<Bytes, Invalid>| match answer {
        Ok(bytes) if bytes.len() == 32 => Ok(Some(bytes)),
        Ok(_) | Err(Invalid::NoAnswer) => Ok(None),
        Err(reason) => Err(reason),
    };
    let Some(aggregator) = optional(call(node, feed, &chainlink::AGGREGATOR, at).await)? else { return Ok(None) };
    let aggregator = Address::from_slice(&aggregator[12..]);
    let min = optional(call(node, aggregator, &chainlink::MIN_ANSWER, at).await)?;
    let max = optional(call(node, aggregator, &chainlink::MAX_ANSWER, at).await)?;
    let signed = |bytes: Bytes| I256::try_from_be_slice(&bytes);
    Ok(min.and_then(signed).zip(max.and_then(signed)))
}
