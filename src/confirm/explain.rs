//! Why a transfer counts, why it may leave, or what it waits for: in words, from what is stored. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::rule::{Replay, Rule, StoredVerdict};
use super::store::{ChainState, TransferProgress};
use super::verdict::Bar;
use crate::chains::{ChainBook, Finality};
use crate::settings::{Gate, History, Reached, Threshold, ThresholdKey};
use crate::units::{AssetId, BlockNumber, BlockRef, ChainId, depth_of, format_units};

/// Every sighting of a payment's address, oldest first.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub sightings: Vec<SightingReport>,
    /// Stored verdicts that the history does not give.
    pub differing: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct SightingReport {
    pub chain_id: u64,
    pub tx_hash: String,
    pub position: String,
    pub amount: String,
    pub block_number: u64,
    pub block_hash: String,
    /// Blocks on it now, its own being the first; absent for one that is gone.
    pub depth: Option<u64>,
    /// When a reorg took its block away.
    #[serde(with = "time::serde::rfc3339::option")]
    pub orphaned_at: Option<OffsetDateTime>,
    /// Sent by an address of ours: it passes no gate.
    pub internal: bool,
    pub gates: Vec<GateReport>,
    /// Of both gates, live and revoked.
    pub verdicts: Vec<VerdictReport>,
}

#[derive(Clone, Debug, Serialize)]
pub struct GateReport {
    pub gate: &'static str,
    pub seen: Vec<RowReport>,
    pub now: Vec<RowReport>,
    pub required_blocks: u32,
    /// How it judges: by blocks, or by the block that the node calls final.
    pub judged_by: String,
    /// passed, or what it waits for.
    pub state: String,
}

/// A history row that applied.
#[derive(Clone, Debug, Serialize)]
pub struct RowReport {
    pub history_id: i64,
    pub about: String,
    pub blocks: u32,
    pub changed_by: String,
    pub reason: String,
    #[serde(with = "time::serde::rfc3339")]
    pub effective_at: OffsetDateTime,
}

#[derive(Clone, Debug, Serialize)]
pub struct VerdictReport {
    pub id: i64,
    pub gate: &'static str,
    pub head_number: u64,
    pub head_hash: String,
    pub depth: u64,
    pub threshold: u32,
    pub final_number: Option<u64>,
    #[serde(with = "time::serde::rfc3339")]
    pub confirmed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// Whether it follows from the history as it was.
    pub agrees: bool,
}

/// What an explanation is made from.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub book: &'a ChainBook,
    pub chains: &'a BTreeMap<ChainId, ChainState>,
    pub now: OffsetDateTime,
}

pub fn explain(progress: &[TransferProgress], verdicts: &[StoredVerdict], known: &Known<'_>) -> Explanation {
    let sightings: Vec<SightingReport> = progress.iter().filter_map(|seen| sighting(seen, verdicts, known)).collect();
    let differing = sightings.iter().flat_map(|sighting| &sighting.verdicts).filter(|verdict| !verdict.agrees).count();
    Explanation { sightings, differing }
}

fn sighting(seen: &TransferProgress, verdicts: &[StoredVerdict], known: &Known<'_>) -> Option<SightingReport> {
    let chain = known.chains.get(&seen.chain)?;
    let gates = if seen.internal || seen.orphaned_at.is_some() {
        Vec::new()
    } else {
        Gate::ALL.into_iter().filter_map(|gate| gate_report(gate, seen, chain, known)).collect()
    };
    let verdicts = verdicts
        .iter()
        .filter(|verdict| verdict.observation == seen.observation)
        .map(|verdict| VerdictReport {
            id: verdict.id,
            gate: verdict.gate.name(),
            head_number: verdict.head.number.0,
            head_hash: verdict.head.hash.to_string(),
            depth: verdict.depth.0,
            threshold: verdict.threshold.get(),
            final_number: verdict.final_block.map(|block| block.number.0),
            confirmed_at: verdict.confirmed_at,
            revoked_at: verdict.revoked_at,
            agrees: verdict.replay(chain.history(verdict.gate)) == Replay::Agrees,
        })
        .collect();
    let asset = AssetId { chain: seen.chain, asset: seen.asset };
    let amount = match known.book.asset(asset) {
        Some(facts) => format!("{} {}", format_units(seen.amount, facts.decimals), facts.symbol),
        None => format!("{} raw units of {}", seen.amount, seen.asset),
    };
    Some(SightingReport {
        chain_id: seen.chain.get(),
        tx_hash: seen.tx_hash.to_string(),
        position: seen.position.to_string(),
        amount,
        block_number: seen.block.number.0,
        block_hash: seen.block.hash.to_string(),
        depth: seen.have.map(|depth| depth.0),
        orphaned_at: seen.orphaned_at,
        internal: seen.internal,
        gates,
        verdicts,
    })
}

fn gate_report(gate: Gate, seen: &TransferProgress, chain: &ChainState, known: &Known<'_>) -> Option<GateReport> {
    let spec = known.book.get(seen.chain);
    let finality = spec.map_or(Finality::Depth, |spec| spec.finality);
    let bar = Bar::of(gate, finality, chain.cursor.final_block);
    let history = chain.history(gate).clone();
    let rule = Rule { present: history.present(known.now), history, bar };
    let (at_first, now) = (rule.seen(&seen.sighting)?, rule.now(&seen.sighting)?);
    let case = rule.case(&seen.sighting, chain.cursor.tip)?;
    let passed = match gate {
        Gate::Credit => matches!(seen.state, super::store::ProgressState::Confirmed { .. }),
        Gate::Release => seen.release.is_some(),
    };
    let judged_by = match (bar, finality.tag().filter(|_| gate == Gate::Release)) {
        (Bar::Final(block), Some(tag)) => format!("the node's {tag} block, now {}", block.number),
        (Bar::Depth, Some(tag)) => format!("blocks: the node has named no {tag} block"),
        (_, None) => "blocks".to_owned(),
    };
    let state = if passed {
        "passed".to_owned()
    } else {
        let missing = missing(seen.block.number, &case.bar, case.required().get(), chain.cursor.tip);
        waits(missing, bar, spec.map(|spec| spec.block_time_ms))
    };
    let rows = |reached: &Reached| rows(reached, &rule.history, known.book);
    Some(GateReport { gate: gate.name(), seen: rows(&at_first), now: rows(&now), required_blocks: case.required().get(), judged_by, state })
}

/// How many blocks are missing.
fn missing(block: BlockNumber, bar: &Bar, required: u32, tip: BlockRef) -> u64 {
    match bar {
        Bar::Depth => u64::from(required).saturating_sub(depth_of(block, tip.number).map_or(0, |depth| depth.0)),
        Bar::Final(named) => block.0.saturating_sub(named.number.0),
    }
}

fn waits(missing: u64, bar: Bar, block_time_ms: Option<u32>) -> String {
    if missing == 0 {
        return "reached; the daemon asks the node once more and then stores the verdict".to_owned();
    }
    let seconds = block_time_ms.map(|ms| missing.saturating_mul(ms.into()).div_ceil(1_000));
    let about = seconds.map_or_else(String::new, |seconds| format!(", about {}", duration(seconds)));
    match bar {
        Bar::Depth => format!("waits for {missing} more blocks{about}"),
        Bar::Final(_) => format!("waits until the final block has moved up by {missing} blocks{about} or more: it moves in steps"),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3_600)),
    }
}

fn rows(reached: &Reached, history: &History, book: &ChainBook) -> Vec<RowReport> {
    let base = (ThresholdKey::base(history.gate, history.chain), reached.base);
    std::iter::once(&base).chain(&reached.tiers).filter_map(|(key, threshold)| row(key, *threshold, history, book)).collect()
}

fn row(key: &ThresholdKey, threshold: Threshold, history: &History, book: &ChainBook) -> Option<RowReport> {
    let change = history.find(threshold.history_id)?;
    let about = match key.tier {
        None => "any amount".to_owned(),
        Some(tier) => match book.asset(AssetId { chain: key.chain, asset: tier.asset }) {
            Some(facts) => format!("{} {} and more", format_units(tier.from_units(), facts.decimals), facts.symbol),
            None => format!("{} raw units and more", tier.from_units()),
        },
    };
    Some(RowReport {
        history_id: change.id,
        about,
        blocks: threshold.value.get(),
        changed_by: change.changed_by.clone(),
        reason: change.reason.clone(),
        effective_at: change.effective_at,
    })
}

// === in words ===

impl Explanation {
    /// For people, line by line. Words of the history are repeated as they are.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for sighting in &self.sightings {
            sighting.write(&mut text);
        }
        if self.sightings.is_empty() {
            text.push_str("no transfer to this payment's address has been seen\n");
        }
        text
    }
}

impl SightingReport {
    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "{} in tx {} {}", self.amount, self.tx_hash, self.position);
        let _ = writeln!(text, "  block {} ({}) of chain {}", self.block_number, self.block_hash, self.chain_id);
        match (self.orphaned_at, self.depth) {
            (Some(at), _) => drop(writeln!(text, "  a reorg took this block away at {}", second(at))),
            (None, Some(depth)) => drop(writeln!(text, "  depth now: {depth}")),
            (None, None) => {}
        }
        if self.internal {
            text.push_str("  sent by one of our own addresses: booked by its settlement, it passes no gate\n");
        }
        for gate in &self.gates {
            let _ = writeln!(text, "  {} gate: {}", gate.gate, gate.state);
            let _ = writeln!(text, "    judged by {}; {} blocks required", gate.judged_by, gate.required_blocks);
            for (when, rows) in [("at first sight", &gate.seen), ("now", &gate.now)] {
                for row in rows {
                    let at = second(row.effective_at);
                    let _ = writeln!(
                        text,
                        "    {when}: {} blocks for {}, row {} in force since {at}, by {}: {}",
                        row.blocks, row.about, row.history_id, row.changed_by, row.reason
                    );
                }
            }
        }
        for verdict in &self.verdicts {
            let under = match verdict.final_number {
                Some(number) => format!("final block {number}"),
                None => format!("{} of {} blocks", verdict.depth, verdict.threshold),
            };
            let revoked = verdict.revoked_at.map_or_else(String::new, |at| format!(", revoked at {}", second(at)));
            let replay = if verdict.agrees { "agrees" } else { "DOES NOT AGREE" };
            let _ = writeln!(
                text,
                "  verdict {} ({}): {under} under head {} ({}) at {}{revoked}; replayed from history: {replay}",
                verdict.id,
                verdict.gate,
                verdict.head_number,
                verdict.head_hash,
                second(verdict.confirmed_at)
            );
        }
    }
}

fn second(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256, U256};
    use time::macros::datetime;

    use super::super::rule::Sighting;
    use super::super::store::ProgressState;
    use super::*;
    use crate::scan::{Cursor, Position};
    use crate::settings::{Change, Tier};
    use crate::units::{Confirmations, Depth, TransferId};

    const T0: OffsetDateTime = datetime!(2027-01-01 00:00 UTC);
    const CHAIN: ChainId = ChainId::new(1).unwrap();

    fn at(number: u64) -> BlockRef {
        BlockRef { number: BlockNumber(number), hash: B256::left_padding_from(&number.to_be_bytes()) }
    }

    fn history(gate: Gate, rows: &[(i64, Option<Tier>, i64, i64)]) -> History {
        let changes = rows.iter().map(|(id, tier, blocks, minutes)| Change {
            id: *id,
            key: ThresholdKey { gate, chain: CHAIN, tier: *tier },
            old_blocks: None,
            blocks: Confirmations::new(*blocks).ok(),
            effective_at: T0 + time::Duration::minutes(*minutes),
            created_at: T0 + time::Duration::minutes(*minutes),
            changed_by: "officer".to_owned(),
            reason: format!("reason {id}"),
        });
        History::new(gate, CHAIN, changes.collect(), T0)
    }

    /// A credited deposit of 1,500 USDT that waits for its release, and what a reorg left of an earlier one.
    #[test]
    fn w3_an_explanation_says_all_that_a_verdict_rests_on() {
        let book = ChainBook::parse(include_str!("../../chains.toml")).unwrap();
        let spec = book.get(CHAIN).unwrap();
        let asset = spec.token_asset(spec.token("USDT").unwrap()).asset;
        let tier = Tier::new(asset, U256::from(1_000_000_000_u64)).ok();
        let credit = history(Gate::Credit, &[(1, None, 12, 0), (3, tier, 20, 5), (4, None, 6, 60)]);
        let release = history(Gate::Release, &[(2, None, 96, 0)]);
        let cursor = Cursor { start: BlockNumber(1), tip: at(130), final_block: Some(at(90)), outflow_halted: None };
        let chains = BTreeMap::from([(CHAIN, ChainState { cursor, histories: [credit, release] })]);
        let sighting = Sighting {
            asset,
            units: U256::from(1_500_000_000_u64),
            block: at(100),
            first_seen_at: T0 + time::Duration::minutes(10),
            recorded_history_id: 1,
        };
        let seen = TransferProgress {
            transfer: TransferId(1),
            observation: 2,
            chain: CHAIN,
            tx_hash: B256::repeat_byte(7),
            position: Position::Log(0),
            asset,
            amount: sighting.units,
            sender: Address::repeat_byte(9),
            block: at(100),
            block_time: T0,
            sighting,
            internal: false,
            have: Some(Depth(31)),
            need: Confirmations::new(20).unwrap(),
            state: ProgressState::Confirmed { verdict: 1, at: T0 },
            release: None,
            orphaned_at: None,
        };
        let gone = TransferProgress {
            observation: 1,
            have: None,
            state: ProgressState::Orphaned { reversal_due: false },
            orphaned_at: Some(T0 + time::Duration::minutes(9)),
            ..seen.clone()
        };
        let verdict = StoredVerdict {
            id: 1,
            gate: Gate::Credit,
            chain: CHAIN,
            transfer: TransferId(1),
            observation: 2,
            sighting,
            head: at(119),
            depth: Depth(20),
            threshold: Confirmations::new(20).unwrap(),
            seen_history_id: 3,
            now_history_id: 3,
            final_block: None,
            judged: Some((T0 + time::Duration::minutes(14), 3)),
            confirmed_at: T0 + time::Duration::minutes(14),
            revoked_at: None,
        };
        let forged = StoredVerdict {
            id: 9,
            observation: 1,
            depth: Depth(12),
            head: at(111),
            threshold: Confirmations::new(12).unwrap(),
            seen_history_id: 1,
            now_history_id: 1,
            revoked_at: Some(T0 + time::Duration::minutes(11)),
            ..verdict
        };
        let known = Known { book: &book, chains: &chains, now: T0 + time::Duration::minutes(61) };
        let explanation = explain(&[gone, seen], &[verdict, forged], &known);
        assert_eq!(explanation.differing, 1);
        insta::assert_snapshot!(explanation.text(), @r"
        1500 USDT in tx 0x0707070707070707070707070707070707070707070707070707070707070707 log:0
          block 100 (0x0000000000000000000000000000000000000000000000000000000000000064) of chain 1
          a reorg took this block away at 2027-01-01T00:09:00Z
          verdict 9 (credit): 12 of 12 blocks under head 111 (0x000000000000000000000000000000000000000000000000000000000000006f) at 2027-01-01T00:14:00Z, revoked at 2027-01-01T00:11:00Z; replayed from history: DOES NOT AGREE
        1500 USDT in tx 0x0707070707070707070707070707070707070707070707070707070707070707 log:0
          block 100 (0x0000000000000000000000000000000000000000000000000000000000000064) of chain 1
          depth now: 31
          credit gate: passed
            judged by blocks; 20 blocks required
            at first sight: 12 blocks for any amount, row 1 in force since 2027-01-01T00:00:00Z, by officer: reason 1
            at first sight: 20 blocks for 1000 USDT and more, row 3 in force since 2027-01-01T00:05:00Z, by officer: reason 3
            now: 6 blocks for any amount, row 4 in force since 2027-01-01T01:00:00Z, by officer: reason 4
            now: 20 blocks for 1000 USDT and more, row 3 in force since 2027-01-01T00:05:00Z, by officer: reason 3
          release gate: waits until the final block has moved up by 10 blocks, about 2 min or more: it moves in steps
            judged by the node's finalized block, now 90; 96 blocks required
            at first sight: 96 blocks for any amount, row 2 in force since 2027-01-01T00:00:00Z, by officer: reason 2
            now: 96 blocks for any amount, row 2 in force since 2027-01-01T00:00:00Z, by officer: reason 2
          verdict 1 (credit): 20 of 20 blocks under head 119 (0x0000000000000000000000000000000000000000000000000000000000000077) at 2027-01-01T00:14:00Z; replayed from history: agrees
        ");
        assert!(explain(&[], &[], &known).text().contains("no transfer"));
    }
}
