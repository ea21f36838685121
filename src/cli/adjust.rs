//! `adjust list`, `adjust attribute`, `adjust own`, `adjust lost`, `adjust cover` and `adjust confirm`: money that came for
//! nobody, and losses. Two officers, each with a token of their own.

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::console::{legible, say, table};
use super::{Remote, policy};
use crate::api::wire::AdjustmentAsked;
use crate::units::{ChainId, PaymentId, ProposalId};

#[derive(Debug, Subcommand)]
pub enum AdjustCommand {
    /// Money at addresses of ours that came for nobody and waits to be decided about.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Propose that it is a payment's. It waits in the payment's suspense: accept it, or refund it to whoever sent it.
    Attribute {
        #[command(flatten)]
        credit: Credit,
        /// The payment that it is of.
        #[arg(long)]
        payment: PaymentId,
    },
    /// Propose that it is the operator's own.
    Own {
        #[command(flatten)]
        credit: Credit,
    },
    /// Propose to book a loss: an address of ours has less than the books say, and no transaction of ours took it.
    Lost {
        #[command(flatten)]
        loss: Loss,
        /// The address that it is gone from.
        #[arg(long)]
        address: String,
    },
    /// Propose that the operator's float bears a loss.
    Cover {
        #[command(flatten)]
        loss: Loss,
    },
    /// Confirm what another officer proposed.
    Confirm {
        #[command(flatten)]
        remote: Remote,
        /// The proposal.
        id: ProposalId,
        /// Confirm without asking.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub struct Credit {
    #[command(flatten)]
    remote: Remote,
    /// The entry, by its number in `adjust list`.
    entry: i64,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
pub struct Loss {
    #[command(flatten)]
    remote: Remote,
    /// The chain.
    #[arg(long, value_name = "CHAIN_ID")]
    chain: ChainId,
    /// The symbol of the coin or token.
    #[arg(long, value_name = "SYMBOL")]
    asset: String,
    /// How much, in units of the asset such as 12.5.
    #[arg(long)]
    amount: String,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
}

pub(super) async fn run(command: AdjustCommand) -> anyhow::Result<()> {
    match command {
        AdjustCommand::List { remote } => list(&remote).await,
        AdjustCommand::Attribute { credit, payment } => {
            propose(&credit.remote, of_credit("attribute", credit.entry, Some(payment), &credit.reason)).await
        }
        AdjustCommand::Own { credit } => propose(&credit.remote, of_credit("own", credit.entry, None, &credit.reason)).await,
        AdjustCommand::Lost { loss, address } => propose(&loss.remote, of_loss("lost", &loss, Some(address))).await,
        AdjustCommand::Cover { loss } => propose(&loss.remote, of_loss("cover", &loss, None)).await,
        AdjustCommand::Confirm { remote, id, yes } => policy::confirm(&remote, id, yes).await,
    }
}

fn of_credit(act: &str, entry: i64, payment: Option<PaymentId>, reason: &str) -> AdjustmentAsked {
    AdjustmentAsked {
        act: act.to_owned(),
        entry: Some(entry),
        payment_id: payment,
        reason: reason.to_owned(),
        ..AdjustmentAsked::default()
    }
}

fn of_loss(act: &str, loss: &Loss, address: Option<String>) -> AdjustmentAsked {
    AdjustmentAsked {
        act: act.to_owned(),
        chain_id: Some(loss.chain.get()),
        asset: Some(loss.asset.clone()),
        amount: Some(loss.amount.clone()),
        address,
        reason: loss.reason.clone(),
        ..AdjustmentAsked::default()
    }
}

async fn propose(remote: &Remote, asked: AdjustmentAsked) -> anyhow::Result<()> {
    policy::proposed(&remote.client()?.adjust(&asked, &Uuid::new_v4().to_string()).await?);
    Ok(())
}

async fn list(remote: &Remote) -> anyhow::Result<()> {
    let client = remote.client()?;
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = client.suspended(cursor.as_deref()).await?;
        rows.extend(page.suspended.iter().map(|view| {
            vec![
                view.entry.to_string(),
                view.chain_id.to_string(),
                format!("{} {}", view.amount, legible(&view.symbol)),
                view.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
                view.proposal.map_or_else(|| "-".to_owned(), |proposal| proposal.to_string()),
                legible(&view.memo),
            ]
        }));
        cursor = page.next_cursor;
        // Ends: each page begins after the last one.
        if cursor.is_none() {
            break;
        }
    }
    if rows.is_empty() {
        say("nothing came for nobody");
    } else {
        table(&["entry", "chain", "amount", "at", "proposal", "memo"], &rows, &[0, 1]);
    }
    Ok(())
}
