//! `intent list` and `intent approve`: an officer's view from a terminal.

use anyhow::Context;
use clap::Subcommand;

use super::Remote;
use super::console::{legible, say, table};
use super::sign::rebuild;
use crate::api::wire::{CancelIntent, IntentView, ReplaceIntent};
use crate::policy::officers;
use crate::units::IntentId;

#[derive(Debug, Subcommand)]
pub enum IntentCommand {
    /// List intents that still want something done.
    List {
        #[command(flatten)]
        remote: Remote,
        /// States, comma-separated; all open ones without it.
        #[arg(long)]
        state: Option<String>,
    },
    /// Show one intent in full and approve it.
    Approve {
        #[command(flatten)]
        remote: Remote,
        /// The intent.
        id: IntentId,
        /// Approve without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Give an intent up that no station has had: its nonce and what it reserved are free again.
    Void {
        #[command(flatten)]
        remote: Remote,
        /// The intent.
        id: IntentId,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
    /// Ask for higher fees for a signed transaction that is stuck: the same transfer, approved and signed again.
    Replace {
        #[command(flatten)]
        remote: Remote,
        /// The intent.
        id: IntentId,
        #[command(flatten)]
        fees: Fees,
    },
    /// Ask for a cancel: nothing, sent to itself, in the place of an intent that may be signed. Either may win.
    Cancel {
        #[command(flatten)]
        remote: Remote,
        /// The intent.
        id: IntentId,
        #[command(flatten)]
        fees: Fees,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
}

/// Fees of a replacement; without them, an eighth more than before, or what the market asks for if that is more.
#[derive(Debug, clap::Args)]
pub struct Fees {
    /// In wei per gas.
    #[arg(long, value_name = "WEI", requires = "max_priority_fee")]
    max_fee: Option<String>,
    /// In wei per gas.
    #[arg(long, value_name = "WEI", requires = "max_fee")]
    max_priority_fee: Option<String>,
}

pub(super) async fn run(command: IntentCommand) -> anyhow::Result<()> {
    match command {
        IntentCommand::List { remote, state } => {
            let intents = remote.client()?.intents(state.as_deref()).await?;
            if intents.is_empty() {
                say("nothing waits");
                return Ok(());
            }
            let rows: Vec<Vec<String>> = intents.iter().map(row).collect();
            table(&["intent", "kind", "state", "approvals", "chain", "amount", "to"], &rows, &[4]);
        }
        IntentCommand::Approve { remote, id, yes } => {
            let client = remote.client()?;
            let intent = client.intent(id).await?;
            // An approval binds to the digest, so the digest must be of what is shown.
            rebuild::intent_of(&intent).with_context(|| format!("intent {id} cannot be approved"))?;
            describe(&intent);
            if !yes && !confirmed("Approve exactly this? Type yes:")? {
                say("not approved");
                return Ok(());
            }
            let intent = client.approve(id, intent.digest).await?;
            say(format!("approved: {} of {}, state {}", intent.approvals, intent.approvals_required, legible(&intent.state)));
        }
        IntentCommand::Replace { remote, id, fees } => {
            let asked = ReplaceIntent { max_fee_per_gas: fees.max_fee, max_priority_fee_per_gas: fees.max_priority_fee };
            let intent = remote.client()?.replace(id, &asked).await?;
            describe(&intent);
            say(format!("revision {} takes {} to approve, not you", intent.revision, officers(intent.approvals_required)));
        }
        IntentCommand::Cancel { remote, id, fees, reason } => {
            let asked = CancelIntent { reason, max_fee_per_gas: fees.max_fee, max_priority_fee_per_gas: fees.max_priority_fee };
            let cancel = remote.client()?.cancel_intent(id, &asked).await?;
            describe(&cancel);
            say(format!("cancel {} takes {} to approve, not you", cancel.id, officers(cancel.approvals_required)));
        }
        IntentCommand::Void { remote, id, reason } => {
            let intent = remote.client()?.void(id, &reason).await?;
            say(format!("{} {id} is {}", intent.kind, intent.state));
        }
    }
    Ok(())
}

fn row(intent: &IntentView) -> Vec<String> {
    vec![
        intent.id.to_string(),
        intent.kind.clone(),
        intent.state.clone(),
        format!("{}/{}", intent.approvals, intent.approvals_required),
        intent.chain_id.to_string(),
        format!("{} {}", intent.amount, intent.symbol),
        intent.to_address.to_string(),
    ]
}

/// Everything the approval binds to. The amount in units of the asset is the daemon's reading; the base
/// units are what the digest is of.
fn describe(intent: &IntentView) {
    say(format!("{} {}", legible(&intent.kind), intent.id));
    let rows = [
        ("amount", format!("{} {} ({} base units)", intent.amount, intent.symbol, intent.amount_units)),
        ("asset", intent.asset.clone()),
        ("chain", intent.chain_id.to_string()),
        ("from", format!("{}  {}", intent.from_address, intent.from_path)),
        ("to", format!("{}  {}", intent.to_address, intent.to_path.as_deref().unwrap_or("(outside)"))),
        ("nonce", intent.nonce.to_string()),
        ("gas limit", intent.gas_limit.to_string()),
        ("max fee per gas", format!("{} wei, of which priority {} wei", intent.max_fee_per_gas, intent.max_priority_fee_per_gas)),
        ("payment", intent.payment_id.map_or_else(|| "-".to_owned(), |payment| payment.to_string())),
        ("revision", intent.revision.to_string()),
        ("digest", intent.digest.to_string()),
        ("cancels", intent.cancels.map_or_else(|| "-".to_owned(), |cancelled| cancelled.to_string())),
        (
            "approvals",
            format!("{} of {}, each counts {} minutes", intent.approvals, intent.approvals_required, intent.approvals_expire_minutes),
        ),
    ];
    for (name, value) in rows {
        say(format!("  {name:<16} {}", legible(&value)));
    }
}

pub(super) fn confirmed(question: &str) -> anyhow::Result<bool> {
    say(question);
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}
