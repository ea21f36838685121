//! `nonce`: used nonces of our addresses that nothing here is signed for, and what officers do about them.

use alloy::primitives::{B256, Bytes};
use clap::Subcommand;
use uuid::Uuid;

use super::Remote;
use super::console::{legible, say, table};
use super::policy::proposed;
use super::threshold::second;
use crate::api::wire::{AdoptTransaction, ProposeBaseline};
use crate::units::{ChainId, parse_address};

#[derive(Debug, Subcommand)]
pub enum NonceCommand {
    /// Nonces that the chain has used and that nothing here is signed for. Nothing is planned from their addresses.
    Foreign {
        #[command(flatten)]
        remote: Remote,
    },
    /// Take in a transaction that the Trezor signed and this database has forgotten, as after a restore. It settles
    /// as what it is, so its order is not paid again.
    Adopt {
        #[command(flatten)]
        remote: Remote,
        #[arg(long, value_name = "CHAIN_ID")]
        chain: ChainId,
        /// The transaction's hash, as an explorer shows it for the address and nonce.
        #[arg(long, value_name = "HASH")]
        tx: B256,
        /// Its signed bytes, where the node does not give them.
        #[arg(long, value_name = "HEX")]
        raw: Option<Bytes>,
        /// The order that it paid, where several pay the same to the same.
        #[arg(long, value_name = "ID")]
        payout: Option<Uuid>,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
    /// Propose that an address's nonces below one are past: used before it was enrolled, or looked into and accounted
    /// for. Another officer confirms it with `amanatd proposal confirm`.
    Baseline {
        #[command(flatten)]
        remote: Remote,
        #[arg(long, value_name = "CHAIN_ID")]
        chain: ChainId,
        /// The address.
        address: String,
        /// The first nonce that needs a transaction of ours.
        #[arg(long)]
        nonce: u64,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(command: NonceCommand) -> anyhow::Result<()> {
    match command {
        NonceCommand::Foreign { remote } => {
            let rows = remote.client()?.foreign_nonces().await?;
            if rows.is_empty() {
                say("every used nonce is ours");
                return Ok(());
            }
            let rows: Vec<Vec<String>> = rows
                .into_iter()
                .map(|row| {
                    let (chain, nonce, baseline) = (row.chain_id.to_string(), row.nonce.to_string(), row.baseline.to_string());
                    vec![chain, row.address.to_string(), nonce, baseline, second(row.seen_at)]
                })
                .collect();
            table(&["chain", "address", "nonce", "baseline", "seen"], &rows, &[0, 2, 3]);
            say("look each up on an explorer; `amanatd nonce adopt` takes in what the Trezor signed");
            say("if nobody here signed one, the key is in other hands: move what the account holds, and enrol another");
        }
        NonceCommand::Adopt { remote, chain, tx, raw, payout, reason } => {
            let asked = AdoptTransaction { chain_id: chain.get(), tx_hash: tx, raw, payout_id: payout, reason };
            let intent = remote.client()?.adopt(&asked).await?;
            say(format!(
                "adopted as {} {}: {} {} to {}, nonce {}",
                legible(&intent.kind),
                intent.id,
                intent.amount,
                intent.symbol,
                intent.to_address,
                intent.nonce
            ));
            say("it settles once its block is deep enough");
        }
        NonceCommand::Baseline { remote, chain, address, nonce, reason } => {
            let address = parse_address(&address)?.to_string();
            let asked = ProposeBaseline { chain_id: chain.get(), address, nonce, reason };
            proposed(&remote.client()?.propose_baseline(&asked).await?);
        }
    }
    Ok(())
}
