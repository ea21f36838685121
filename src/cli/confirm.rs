//! `confirm explain`, and the replay of every stored verdict for `verify`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::Context;
use clap::Subcommand;
use sqlx::PgConnection;

use super::console::{legible, say};
use super::database;
use crate::config::Config;
use crate::confirm::explain::{Known, explain};
use crate::confirm::store::{ChainState, Page};
use crate::confirm::{self, Replay, StoredVerdict};
use crate::daemon::now;
use crate::deposit;
use crate::payment;
use crate::units::{ChainId, PaymentId};

#[derive(Debug, Subcommand)]
pub enum ConfirmCommand {
    /// Say why each transfer of a payment counts or may leave, or what it waits for; and decide every stored
    /// verdict again. Fails if one does not follow from the history.
    Explain {
        /// The payment.
        payment: PaymentId,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How many verdicts one page of a replay holds.
const PAGE: i64 = 1_000;

pub(super) async fn run(command: ConfirmCommand, config: &Config) -> anyhow::Result<()> {
    let ConfirmCommand::Explain { payment, json } = command;
    let db = database::open(config).await?;
    let mut connection = db.connection().await?;
    if payment::store::find(&mut connection, payment).await?.is_none() {
        anyhow::bail!("no payment {payment}; `GET /v1/payments` lists them");
    }
    let destination = deposit::store::get_by_payment(&mut connection, payment).await?;
    let progress = confirm::store::get_progress(&mut connection, destination.derived_address).await?;
    let verdicts = pages(&mut connection, Some(destination.derived_address)).await?;
    let mut chains = BTreeMap::new();
    for chain in progress.iter().map(|seen| seen.chain) {
        chain_of(&mut connection, chain, &mut chains).await?;
    }
    drop(connection);
    let explanation = explain(&progress, &verdicts, &Known { book: &config.book, chains: &chains, now: now() });
    if json {
        say(serde_json::to_string_pretty(&explanation).context("write the explanation as JSON")?);
    } else {
        explanation.text().lines().for_each(|line| say(legible(line)));
    }
    if explanation.differing > 0 {
        anyhow::bail!("{} stored verdicts do not follow from the history", explanation.differing);
    }
    Ok(())
}

/// Replays every verdict there is, and names those that do not follow from the history (W3).
pub(super) async fn replay_all(connection: &mut PgConnection) -> anyhow::Result<(usize, usize)> {
    let (mut replayed, mut differing, mut after) = (0, 0, 0);
    let mut chains = BTreeMap::new();
    // Ends with the last verdict: each page begins after the one before.
    loop {
        let page = confirm::store::list_verdicts(connection, None, Page { after, limit: PAGE }).await?;
        let Some(last) = page.last() else { return Ok((replayed, differing)) };
        after = last.id;
        replayed += page.len();
        for verdict in page {
            let chain = chain_of(connection, verdict.chain, &mut chains).await?;
            if verdict.replay(chain.history(verdict.gate)) != Replay::Agrees {
                say(format!("verdict {} ({}) does not follow from the history", verdict.id, verdict.gate));
                differing += 1;
            }
        }
    }
}

async fn pages(connection: &mut PgConnection, address: Option<uuid::Uuid>) -> anyhow::Result<Vec<StoredVerdict>> {
    let (mut found, mut after) = (Vec::new(), 0);
    // Ends with the last verdict: each page begins after the one before.
    loop {
        let page = confirm::store::list_verdicts(connection, address, Page { after, limit: PAGE }).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = last.id;
        found.extend(page);
    }
}

async fn chain_of<'a>(
    connection: &mut PgConnection,
    chain: ChainId,
    known: &'a mut BTreeMap<ChainId, ChainState>,
) -> anyhow::Result<&'a ChainState> {
    Ok(match known.entry(chain) {
        Entry::Occupied(read) => read.into_mut(),
        Entry::Vacant(unread) => unread.insert(confirm::store::get_chain(connection, chain).await?),
    })
}
