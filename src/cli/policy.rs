//! `policy`, `proposal` and `destination`: what may leave, and the acts that take two officers.
//!
//! All of it goes over the API with the officer's own token: two officers are two tokens of two people.

use std::path::PathBuf;

use alloy::primitives::Address;
use anyhow::Context;
use clap::{Args, Subcommand};
use time::OffsetDateTime;

use super::Remote;
use super::console::{legible, say, table};
use super::threshold::{instant, second};
use crate::api::wire::{CheckPolicy, OutflowAsked, ProposalView, ProposeDestination, ProposePolicy, VerdictView};
use crate::units::{ChainId, IntentId, ProposalId, parse_address};

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// The policy in force, and what is due and may not leave under it.
    Show {
        #[command(flatten)]
        remote: Remote,
        /// Every policy there was, and those that are coming.
        #[arg(long)]
        history: bool,
    },
    /// What a policy would do to an outflow, and to the newest intents. Nothing changes.
    Check(CheckArgs),
    /// Propose a policy; another officer confirms it with `amanatd proposal confirm`.
    Propose {
        #[command(flatten)]
        remote: Remote,
        /// The policy, in TOML.
        file: PathBuf,
        /// When it takes effect, such as 2027-03-01T00:00:00Z; once confirmed without it.
        #[arg(long, value_name = "RFC3339")]
        effective_at: Option<String>,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
    /// Which rules an intent is under, and why it takes what it takes.
    Explain {
        #[command(flatten)]
        remote: Remote,
        /// The intent.
        id: IntentId,
    },
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    remote: Remote,
    /// The policy, in TOML.
    file: PathBuf,
    /// sweep, release, refund, fuel or cancel.
    #[arg(long, requires_all = ["chain", "asset", "amount", "to"])]
    kind: Option<String>,
    #[arg(long, value_name = "CHAIN_ID", requires = "kind")]
    chain: Option<ChainId>,
    /// The symbol of the coin or token.
    #[arg(long, value_name = "SYMBOL", requires = "kind")]
    asset: Option<String>,
    /// In units of the asset, such as 1000 or 0.5.
    #[arg(long, requires = "kind")]
    amount: Option<String>,
    /// Where it would go.
    #[arg(long, value_name = "ADDRESS", requires = "kind")]
    to: Option<String>,
    /// Try it on so many of the newest intents, too: 0 to 1000.
    #[arg(long, default_value_t = 100)]
    last: u32,
}

#[derive(Debug, Subcommand)]
pub enum ProposalCommand {
    /// Proposals that wait for another officer.
    List {
        #[command(flatten)]
        remote: Remote,
        /// Those that are decided or dead, too.
        #[arg(long)]
        all: bool,
    },
    /// Show a proposal in full and confirm it. Not your own.
    Confirm {
        #[command(flatten)]
        remote: Remote,
        /// The proposal.
        id: ProposalId,
        /// Confirm without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Take a proposal back.
    Withdraw {
        #[command(flatten)]
        remote: Remote,
        /// The proposal.
        id: ProposalId,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum DestinationCommand {
    /// Listed destinations, and when they have cooled.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Propose a destination, or another label of one; its cooling begins when another officer confirms it.
    Add {
        #[command(flatten)]
        remote: Remote,
        #[arg(long, value_name = "CHAIN_ID")]
        chain: ChainId,
        /// The address.
        address: String,
        /// Whose it is.
        #[arg(long)]
        label: String,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
    /// Take a destination off the list, at once.
    Remove {
        #[command(flatten)]
        remote: Remote,
        #[arg(long, value_name = "CHAIN_ID")]
        chain: ChainId,
        /// The address.
        address: String,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(command: PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::Show { remote, history } => show(&remote, history).await,
        PolicyCommand::Check(args) => check(args).await,
        PolicyCommand::Propose { remote, file, effective_at, reason } => {
            let document = read(&file)?;
            let effective_at = effective_at.as_deref().map(instant).transpose()?;
            let proposal = remote.client()?.propose_policy(&ProposePolicy { document, effective_at, reason }).await?;
            proposed(&proposal);
            Ok(())
        }
        PolicyCommand::Explain { remote, id } => {
            let explained = remote.client()?.explain_policy(id).await?;
            for line in &explained.lines {
                say(legible(line));
            }
            if let Some(verdict) = &explained.verdict {
                say_verdict(verdict);
            }
            Ok(())
        }
    }
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("policy {}", file.display()))
}

async fn show(remote: &Remote, history: bool) -> anyhow::Result<()> {
    let client = remote.client()?;
    let policies = client.policies().await?;
    if policies.iter().all(|policy| policy.state != "in force") {
        say("no policy is in force: every intent takes as many officers as planning.approvals_required says");
    }
    for policy in policies.iter().filter(|policy| history || policy.state != "past") {
        say(format!(
            "policy {}, {} since {}, proposed by {}, confirmed by {}: {}",
            policy.id,
            legible(&policy.state),
            second(policy.effective_at),
            policy.proposed_by,
            policy.confirmed_by,
            legible(&policy.reason)
        ));
        for line in &policy.lines {
            say(format!("  {}", legible(line)));
        }
    }
    let refusals = client.refusals().await?;
    if !refusals.is_empty() {
        let rows: Vec<Vec<String>> = refusals
            .into_iter()
            .map(|row| {
                let since = second(row.first_seen_at);
                vec![row.kind, row.payment_id.to_string(), row.amount, row.to_address.to_string(), since, row.reasons]
            })
            .collect();
        say("due, and refused:");
        table(&["kind", "payment", "amount", "to", "since", "why"], &rows, &[]);
    }
    Ok(())
}

async fn check(args: CheckArgs) -> anyhow::Result<()> {
    let outflow = match (args.kind, args.chain, args.asset, args.amount, args.to) {
        (Some(kind), Some(chain), Some(asset), Some(amount), Some(to_address)) => {
            Some(OutflowAsked { kind, chain_id: chain.get(), asset, amount, to_address })
        }
        _ => None,
    };
    let document = read(&args.file)?;
    let checked = args.remote.client()?.check_policy(&CheckPolicy { document, outflow, last: args.last }).await?;
    for line in &checked.lines {
        say(legible(line));
    }
    if let Some(verdict) = &checked.outflow {
        say("");
        say_verdict(verdict);
    }
    let changed: Vec<Vec<String>> = checked
        .replayed
        .iter()
        .filter(|row| row.approvals != Some(row.approvals_required))
        .map(|row| {
            let would = row.approvals.map_or_else(|| "refused".to_owned(), |approvals| approvals.to_string());
            let took = row.approvals_required.to_string();
            vec![row.intent_id.to_string(), row.kind.clone(), row.amount.clone(), took, would, row.reasons.join("; ")]
        })
        .collect();
    if args.last > 0 {
        say("");
        say(format!("of the newest {} intents it would have treated {} otherwise", checked.replayed.len(), changed.len()));
    }
    if !changed.is_empty() {
        table(&["intent", "kind", "amount", "officers", "would be", "why"], &changed, &[3]);
    }
    Ok(())
}

fn say_verdict(verdict: &VerdictView) {
    for line in &verdict.lines {
        say(legible(line));
    }
}

pub(super) async fn run_proposal(command: ProposalCommand) -> anyhow::Result<()> {
    match command {
        ProposalCommand::List { remote, all } => {
            let proposals = remote.client()?.proposals(all).await?;
            if proposals.is_empty() {
                say("nothing waits for another officer");
                return Ok(());
            }
            let rows: Vec<Vec<String>> = proposals
                .into_iter()
                .map(|row| {
                    vec![row.id.to_string(), row.subject, row.state, row.proposed_by.to_string(), second(row.created_at), row.reason]
                })
                .collect();
            table(&["proposal", "about", "state", "by", "at", "reason"], &rows, &[0]);
        }
        ProposalCommand::Confirm { remote, id, yes } => confirm(&remote, id, yes).await?,
        ProposalCommand::Withdraw { remote, id, reason } => {
            let proposal = remote.client()?.withdraw(id, &reason).await?;
            say(format!("proposal {} is {}", proposal.id, legible(&proposal.state)));
        }
    }
    Ok(())
}

pub(super) async fn confirm(remote: &Remote, id: ProposalId, yes: bool) -> anyhow::Result<()> {
    let client = remote.client()?;
    let proposal = client.proposal(id).await?;
    // What is confirmed is the digest, so it must be of the text that is shown.
    let digest = crate::officer::proposal::digest_of(&proposal.body);
    anyhow::ensure!(digest == proposal.digest, "the digest of this text is {digest}, not {}; nothing is confirmed", proposal.digest);
    describe(&proposal);
    if !yes && !super::intents::confirmed("Confirm exactly this? Type yes:")? {
        say("not confirmed");
        return Ok(());
    }
    let confirmed = client.confirm(id, digest).await?;
    say(format!("proposal {} is {}", confirmed.id, legible(&confirmed.state)));
    Ok(())
}

fn describe(proposal: &ProposalView) {
    say(format!(
        "proposal {} about a {}, by {}: {}",
        proposal.id,
        legible(&proposal.subject),
        proposal.proposed_by,
        legible(&proposal.reason)
    ));
    for line in &proposal.lines {
        say(format!("  {}", legible(line)));
    }
    let when = |at: OffsetDateTime| format!("not before {}", second(at));
    say(format!("  effect: {}", proposal.effective_at.map_or_else(|| "once confirmed".to_owned(), when)));
    say(format!("  text:   {}", legible(&proposal.body)));
    say(format!("  digest: {}  (computed here)", proposal.digest));
}

/// What the proposer reads.
pub(super) fn proposed(proposal: &ProposalView) {
    describe(proposal);
    say(format!("another officer confirms it within seven days: amanatd proposal confirm {}", proposal.id));
}

pub(super) async fn run_destination(command: DestinationCommand) -> anyhow::Result<()> {
    match command {
        DestinationCommand::List { remote } => {
            let rows: Vec<Vec<String>> = remote
                .client()?
                .destinations()
                .await?
                .into_iter()
                .map(|row| {
                    let cools = row.cools_until.map_or_else(|| "-".to_owned(), second);
                    vec![row.chain_id.to_string(), row.address.to_string(), row.label, second(row.since), cools]
                })
                .collect();
            if rows.is_empty() {
                say("no destination is listed");
                return Ok(());
            }
            table(&["chain", "address", "label", "listed", "cool until"], &rows, &[0]);
        }
        DestinationCommand::Add { remote, chain, address, label, reason } => {
            let asked = ProposeDestination { chain_id: chain.get(), address, label, reason };
            proposed(&remote.client()?.propose_destination(&asked).await?);
        }
        DestinationCommand::Remove { remote, chain, address, reason } => {
            let address: Address = parse_address(&address).with_context(|| format!("address {address:?}"))?;
            remote.client()?.remove_destination(chain, address, &reason).await?;
            say(format!("{address} is off the list of chain {chain}"));
        }
    }
    Ok(())
}
