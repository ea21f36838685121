//! `plan` and `planning`: what the queue takes, and the numbers that outflows are planned by.

use clap::{Args, Subcommand};

use super::Remote;
use super::console::{legible, say, table};
use super::policy::proposed;
use super::threshold::{instant, second};
use crate::api::wire::{PlanView, PlanningNumberView, ProposePlanning, TallyView};
use crate::units::ChainId;

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    remote: Remote,
    /// One chain; all watched ones without it.
    #[arg(long, value_name = "CHAIN_ID")]
    chain: Option<ChainId>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub enum PlanningCommand {
    /// Every number in force, and whether chains.toml says it or officers set it.
    Show {
        #[command(flatten)]
        remote: Remote,
        #[arg(long, value_name = "CHAIN_ID")]
        chain: ChainId,
    },
    /// Every change there was, newest first.
    History {
        #[command(flatten)]
        remote: Remote,
        #[arg(long, value_name = "CHAIN_ID")]
        chain: ChainId,
    },
    /// Propose a number; another officer confirms it with `amanatd proposal confirm`.
    Propose {
        #[command(flatten)]
        remote: Remote,
        #[arg(long, value_name = "CHAIN_ID")]
        chain: ChainId,
        /// Such as release_path; `amanatd planning show` lists them.
        name: String,
        /// auto, direct or treasury; an amount of the asset; or a whole number.
        value: String,
        /// The symbol, for a number of an asset.
        #[arg(long, value_name = "SYMBOL")]
        asset: Option<String>,
        /// When it takes effect, such as 2027-03-01T00:00:00Z; once confirmed without it.
        #[arg(long, value_name = "RFC3339")]
        effective_at: Option<String>,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(args: PlanArgs) -> anyhow::Result<()> {
    let plans = args.remote.client()?.plan(args.chain).await?;
    if args.json {
        say(serde_json::to_string_pretty(&plans)?);
        return Ok(());
    }
    for (place, plan) in plans.iter().enumerate() {
        if place > 0 {
            say("");
        }
        print(plan);
    }
    Ok(())
}

fn print(plan: &PlanView) {
    let (name, symbol) = (legible(&plan.name), legible(&plan.native_symbol));
    say(format!("{name} ({}), at {} wei per gas", plan.chain_id, plan.gas_price_wei));
    let left = format!("{} wait for others, {} are not worth a sweep", plan.waiting, plan.dust);
    if plan.payments == 0 && plan.standing.confirmations == 0 {
        say(format!("nothing to do now: no payment waits for a sweep, and no order is open; {left}"));
        return;
    }
    say(format!("{} payments with something to do, {} orders among them; {left}", plan.payments, plan.orders));
    if plan.standing.confirmations > 0 {
        say(format!(
            "{} planned intents wait for their signatures as they are, at up to {} {symbol} of fees",
            plan.standing.confirmations,
            legible(&plan.standing.fee)
        ));
    }
    let row = |name: &str, tally: &TallyView| {
        let number = |number: u32| number.to_string();
        let mut cells = vec![name.to_owned(), number(tally.confirmations), number(tally.presses), number(tally.transactions)];
        cells.extend([tally.gas.to_string(), tally.fee.clone(), tally.fee_units.clone(), tally.fuel.clone()]);
        cells
    };
    let rows: Vec<Vec<String>> = plan.ways.iter().map(|way| row(&way.name, &way.tally)).collect();
    let (fee, fuel) = (format!("fee {symbol}"), format!("fuel {symbol}"));
    table(&["way", "confirmations", "presses", "transactions", "gas", &fee, "fee wei", &fuel], &rows, &[1, 2, 3, 4, 5, 6, 7]);
}

pub(super) async fn run_planning(command: PlanningCommand) -> anyhow::Result<()> {
    match command {
        PlanningCommand::Show { remote, chain } => {
            let rows = remote.client()?.planning(chain, false).await?;
            let rows: Vec<Vec<String>> = rows.into_iter().map(|number| shown(number, true)).collect();
            table(&["number", "asset", "value", "since", "by", "what it is"], &rows, &[2]);
        }
        PlanningCommand::History { remote, chain } => {
            let rows = remote.client()?.planning(chain, true).await?;
            if rows.is_empty() {
                say("nobody has set a number; chains.toml says them all");
                return Ok(());
            }
            let rows: Vec<Vec<String>> = rows.into_iter().map(|number| shown(number, false)).collect();
            table(&["number", "asset", "value", "from", "by", "reason"], &rows, &[2]);
        }
        PlanningCommand::Propose { remote, chain, name, value, asset, effective_at, reason } => {
            let effective_at = effective_at.as_deref().map(instant).transpose()?;
            let asked = ProposePlanning { name, asset, value, effective_at, reason };
            proposed(&remote.client()?.propose_planning(chain, &asked).await?);
        }
    }
    Ok(())
}

fn shown(number: PlanningNumberView, help: bool) -> Vec<String> {
    let PlanningNumberView { name, asset, value, effective_at, changed_by, reason, help: about, .. } = number;
    let since = effective_at.map_or_else(|| "chains.toml".to_owned(), second);
    let last = if help { about } else { reason.unwrap_or_default() };
    vec![name, asset.unwrap_or_default(), value, since, changed_by.unwrap_or_default(), last]
}
