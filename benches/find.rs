//! Finding alone: ranges of logs, our own match, rows in Postgres; nothing is read again, nothing is
//! verified. No mode of the daemon, which credits nothing that a range has shown; it says what of the
//! verified job is spent on finding. Beside it the plain way, as one would write it in an afternoon.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy::primitives::{Address, B256, U256};
use alloy::rpc::types::Log as AlloyLog;
use amanatd::db::{Database, DbError};
use amanatd::deposit::Watched;
use amanatd::devkit::workload::{Kind, Sighting};
use amanatd::scan::store::{self, NewBlock};
use amanatd::scan::{Position, Transfer, tip::Link};
use amanatd::settings;
use amanatd::units::{Asset, BlockNumber, BlockRef, ChainId};
use serde::Deserialize;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::bare::{Bare, Plan};

/// Blocks of one commit.
const COMMIT_BLOCKS: usize = 500;

/// A log, as far as a first look needs it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogText<'a> {
    #[serde(borrow)]
    address: &'a str,
    topics: Vec<&'a str>,
    data: &'a str,
    block_number: &'a str,
    transaction_hash: &'a str,
    log_index: &'a str,
}

#[derive(Deserialize)]
struct HeaderText<'a> {
    number: &'a str,
    #[serde(borrow)]
    hash: &'a str,
    #[serde(rename = "parentHash")]
    parent_hash: &'a str,
    timestamp: &'a str,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: T,
}

/// A hit, with the height of its block.
type Hit = (u64, Transfer);

/// Finds all token transfers to us in blocks 1 to the head and commits them.
pub(crate) async fn ranges(
    bare: &Bare,
    database: &Database,
    chain: ChainId,
    token: Address,
    headers: Plan,
    logs: Plan,
    now: OffsetDateTime,
) {
    let watched = Arc::new(watched(database).await);
    let blocks = read_headers(bare, headers).await;
    let bodies = Arc::new(bare.bodies(logs));
    let next = Arc::new(AtomicUsize::new(0));
    let (send, mut ready) = mpsc::channel(bodies.len());
    for _ in 0..logs.in_flight {
        let (bare, bodies, next, watched, send) = (bare.clone(), bodies.clone(), next.clone(), watched.clone(), send.clone());
        tokio::spawn(async move {
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                // Ends with the bodies.
                let Some(body) = bodies.get(place) else { break };
                let text = bare.post(body.clone()).await.bytes().await.expect("a body");
                send.send((place, hits(&text, token, &watched))).await.expect("somebody who commits");
            }
        });
    }
    drop(send);
    // Ranges arrive as they are done and are committed in order.
    let mut waiting: BTreeMap<usize, Vec<Hit>> = BTreeMap::new();
    let (mut next, mut from, mut done) = (0, None, 0);
    let (mut hits, mut upto) = (Vec::new(), 0);
    while let Some((place, some)) = ready.recv().await {
        waiting.insert(place, some);
        while let Some(some) = waiting.remove(&next) {
            next += 1;
            hits.extend(some);
            upto = blocks.len().min(upto + usize::try_from(logs.blocks).expect("small"));
        }
        if upto - done >= COMMIT_BLOCKS || upto == blocks.len() && done < upto {
            from = Some(commit(database, chain, from, &blocks[done..upto], std::mem::take(&mut hits), now).await);
            done = upto;
        }
    }
    assert_eq!(done, blocks.len(), "a range was not read");
}

async fn watched(database: &Database) -> Watched {
    let set = Watched::default();
    set.refresh(database).await.expect("rows");
    set
}

async fn read_headers(bare: &Bare, plan: Plan) -> Vec<NewBlock> {
    let mut blocks = Vec::new();
    for body in bare.bodies(plan) {
        let text = bare.post(body).await.bytes().await.expect("a body");
        let headers: Vec<Answer<HeaderText<'_>>> = serde_json::from_slice(&text).expect("headers");
        blocks.extend(headers.iter().map(|answer| {
            let header = &answer.result;
            let block = BlockRef { number: BlockNumber(number(header.number)), hash: word(header.hash) };
            let time = OffsetDateTime::from_unix_timestamp(number(header.timestamp).cast_signed()).expect("a date");
            NewBlock { link: Link { block, parent_hash: word(header.parent_hash) }, time, internal_read: false }
        }));
    }
    blocks.sort_unstable_by_key(|block| block.link.block.number);
    blocks
}

fn hits(text: &[u8], token: Address, watched: &Watched) -> Vec<Hit> {
    let watched = watched.read();
    let answer: Answer<Vec<LogText<'_>>> = serde_json::from_slice(text).expect("logs");
    let mut hits = Vec::new();
    // In this chain all logs of a transaction are in the answer, so the first one's index gives the place
    // of the others in their receipt. Elsewhere only the receipt tells.
    let (mut transaction, mut first) = ("", 0);
    for log in answer.result {
        if log.transaction_hash != transaction {
            (transaction, first) = (log.transaction_hash, number(log.log_index));
        }
        let Some(recipient) = log.topics.get(2).map(|topic| account(topic)) else { continue };
        if !watched.contains(recipient) {
            continue;
        }
        if log.topics.len() != 3 || log.data.len() != 66 || log.address.parse() != Ok(token) {
            continue;
        }
        let sender = account(log.topics[1]);
        let ordinal = u32::try_from(number(log.log_index) - first).expect("small");
        let transfer = Transfer {
            tx_hash: word(log.transaction_hash),
            position: Position::Log(ordinal),
            asset: Asset::Token(token),
            sender,
            recipient,
            amount: U256::from_be_bytes(word(log.data).0),
            internal: watched.contains(sender),
        };
        hits.push((number(log.block_number), transfer));
    }
    hits
}

async fn commit(
    database: &Database,
    chain: ChainId,
    from: Option<BlockRef>,
    range: &[NewBlock],
    hits: Vec<Hit>,
    now: OffsetDateTime,
) -> BlockRef {
    let blocks = range.to_vec();
    let tip = blocks[blocks.len() - 1].link.block;
    let lowest = blocks[0].link.block.number.0;
    let at = |height: u64| blocks[usize::try_from(height - lowest).expect("small")].link.block;
    let seen: Vec<(BlockRef, Transfer)> = hits.into_iter().map(|(height, transfer)| (at(height), transfer)).collect();
    let outcome = database.unit::<_, DbError, _>(move |connection| {
        Box::pin(async move {
            let threshold = settings::store::get_threshold(connection, chain).await?;
            store::insert_blocks(connection, chain, &blocks, threshold.history_id).await?;
            store::insert_observations(connection, chain, &seen).await?;
            match from {
                Some(from) => store::advance_cursor(connection, chain, from, tip, now).await,
                None => store::insert_cursor(connection, chain, tip).await,
            }
        })
    });
    outcome.await.expect("a commit");
    tip
}

/// One request at a time, the usual library's type, a standard set, a thin table, one commit for each range.
pub(crate) async fn naive(bare: &Bare, url: &str, watched: &HashSet<Address>, logs: Plan) -> Vec<Sighting> {
    let mut database = PgConnection::connect(url).await.expect("a connection");
    let create = "create table naive (tx_hash bytea, log_index bigint, block bigint, recipient bytea, amount numeric, \
                  primary key (tx_hash, log_index))";
    sqlx::query(create).execute(&mut database).await.expect("a table");
    let mut found = Vec::new();
    for body in bare.bodies(logs) {
        let text = bare.post(body).await.bytes().await.expect("a body");
        let answer: Answer<Vec<AlloyLog>> = serde_json::from_slice(&text).expect("logs");
        let ours: Vec<(&AlloyLog, Sighting)> = answer.result.iter().filter_map(|log| Some((log, sighting(log, watched)?))).collect();
        let insert = sqlx::query(
            "insert into naive select t, l, b, r, a::numeric from unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[], $5::text[]) \
             as n (t, l, b, r, a)",
        );
        let column = |value: fn(&AlloyLog) -> Vec<u8>| ours.iter().map(|(log, _)| value(log)).collect::<Vec<_>>();
        insert
            .bind(column(|log| log.transaction_hash.expect("mined").to_vec()))
            .bind(ours.iter().map(|(log, _)| log.log_index.expect("mined").cast_signed()).collect::<Vec<_>>())
            .bind(ours.iter().map(|(_, sighting)| sighting.block.cast_signed()).collect::<Vec<_>>())
            .bind(ours.iter().map(|(_, sighting)| sighting.recipient.to_vec()).collect::<Vec<_>>())
            .bind(ours.iter().map(|(_, sighting)| sighting.value.to_string()).collect::<Vec<_>>())
            .execute(&mut database)
            .await
            .expect("rows");
        found.extend(ours.into_iter().map(|(_, sighting)| sighting));
    }
    found.sort_unstable();
    found
}

fn sighting(log: &AlloyLog, watched: &HashSet<Address>) -> Option<Sighting> {
    let recipient = Address::from_word(*log.topics().get(2)?);
    let value = U256::try_from_be_slice(&log.inner.data.data)?;
    watched.contains(&recipient).then_some(Sighting { block: log.block_number?, kind: Kind::Token, recipient, value })
}

// === text ===

fn number(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number")
}

fn word(text: &str) -> B256 {
    text.parse().expect("32 bytes")
}

fn account(topic: &str) -> Address {
    topic[26..].parse().expect("20 bytes")
}
