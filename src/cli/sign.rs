//! `sign`: the signing station. It owns one device, trusts nobody, and holds no key.
//!
//! It takes approved intents from the daemon, builds each transaction again from the fields an officer
//! approved and from its own chains.toml, derives the sender from the device's account, shows what the
//! device will show, has the device sign, checks the signature, and hands the bytes back.

pub(super) mod desk;

use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::U256;
use anyhow::Context;
use clap::Args;

use self::desk::Desk;
use super::Remote;
use super::console::say;
use super::intents::describe;
use crate::account::{AccountXpub, DerivationPath, Deriver};
use crate::api::Client;
use crate::api::wire::{AccountView, ClaimIntent, DeclineIntent, IntentView, SigningQueue};
use crate::chains::{ChainBook, ChainSpec};
use crate::signing::{
    Definitions, DeviceAddress, DeviceError, ExpectedScreens, FeeCaps, OpenAccount, TransactionDraft, TransactionRequest, Transfer,
};
use crate::units::{Asset, ChainId, Disposition, parse_address, parse_base_units};

#[derive(Debug, Args)]
pub struct SignArgs {
    #[command(flatten)]
    remote: Remote,
    /// usb, or usb:BUS:ADDRESS.
    #[arg(long, default_value = "usb")]
    device: DeviceAddress,
    /// A name for this station, for the record.
    #[arg(long, default_value = "station")]
    station: String,
    /// This station's own copy of the chain facts.
    #[arg(long, default_value = "/etc/amanatd/chains.toml", env = "AMANATD_CHAINS")]
    chains: PathBuf,
    /// Definitions signed by the vendor, so that the device names chain and token (eth/chain-id/…).
    #[arg(long)]
    definitions: Option<PathBuf>,
    /// Take intents over from a station that is gone for good.
    #[arg(long)]
    take_over: bool,
    /// Sign what waits now, then end.
    #[arg(long)]
    once: bool,
}

/// Pause between two looks at an empty queue.
const QUEUE_PAUSE: Duration = Duration::from_secs(2);

/// What became of one intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Signed,
    /// Back to approved, or left as it is for another session.
    Left,
}

struct Station {
    client: Client,
    name: String,
    book: ChainBook,
    definitions: Option<PathBuf>,
    take_over: bool,
}

pub(super) async fn run(args: SignArgs) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.chains).with_context(|| format!("chain facts {}", args.chains.display()))?;
    let station = Station {
        client: args.remote.client()?,
        name: args.station,
        book: ChainBook::parse(&text)?,
        definitions: args.definitions,
        take_over: args.take_over,
    };
    let desk = Desk::open(args.device).await?;
    for warning in desk.device().features().await?.warnings() {
        say(format!("note: {warning}"));
    }
    // Without --once it ends on a signal, or when the device or the daemon is gone for good.
    loop {
        let queue = match station.client.signing_queue().await {
            Ok(queue) => queue,
            Err(error) if error.is_retryable() && !args.once => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the daemon does not answer; trying again");
                tokio::time::sleep(QUEUE_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let signed = station.session(&desk, &queue).await?;
        if args.once {
            let left = queue.intents.len() - signed;
            say(format!("{signed} signed, {left} left"));
            return Ok(());
        }
        if signed == 0 {
            tokio::time::sleep(QUEUE_PAUSE).await;
        }
    }
}

impl Station {
    /// Signs what the device's accounts can sign. Returns how many.
    async fn session(&self, desk: &Desk, queue: &SigningQueue) -> anyhow::Result<usize> {
        let mut signed = 0;
        let total = queue.intents.len();
        for account in &queue.accounts {
            let xpub: AccountXpub = account.xpub.parse().with_context(|| format!("account {:?} of the daemon", account.label))?;
            let own: Vec<&IntentView> = queue.intents.iter().filter(|intent| belongs(intent, account)).collect();
            if own.is_empty() {
                continue;
            }
            let open = match desk.attend(desk.device().open_account(xpub)).await {
                Ok(open) => open,
                Err(error @ DeviceError::OtherAccount { .. }) => {
                    say(format!("account {:?}: {error}; its {} intents are left", account.label, own.len()));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for intent in own {
                say(format!("\n[{} of {total}]", signed + 1));
                if self.one(desk, &open, intent).await? == Outcome::Signed {
                    signed += 1;
                }
            }
        }
        Ok(signed)
    }

    async fn one(&self, desk: &Desk, open: &OpenAccount<'_>, intent: &IntentView) -> anyhow::Result<Outcome> {
        describe(intent);
        let (request, spec) = match self.rebuild(open.xpub(), intent) {
            Ok(rebuilt) => rebuilt,
            Err(error) => {
                say(format!("refused here, nothing was signed: {error:#}"));
                return Ok(Outcome::Left);
            }
        };
        let definitions = Definitions::load(self.definitions.as_deref(), spec, request.transfer().asset);
        let expected = ExpectedScreens::of(&request, spec, &definitions);
        say("The device will show:");
        for (step, screen) in expected.screens.iter().enumerate() {
            say(format!("  {}. {}", step + 1, screen.lines.join(" | ")));
        }
        for note in &expected.notes {
            say(format!("  note: {note}"));
        }
        let claim = ClaimIntent { station: self.name.clone(), take_over: self.take_over };
        let claimed = self.client.claim(intent.id, &claim).await?;
        if claimed.digest != intent.digest {
            say("refused here: the intent changed after it was read");
            return Ok(Outcome::Left);
        }
        match desk.attend(open.sign(request, definitions)).await {
            Ok(signed) => {
                let done = self.client.submit_signature(intent.id, signed.raw().clone()).await?;
                say(format!("signed: {} is {}, tx {}", done.kind, done.state, signed.hash()));
                Ok(Outcome::Signed)
            }
            Err(error) if error.may_have_signed() => {
                say(format!("{error}. A signature may exist: the intent stays with this station; run it again to finish it"));
                give_up_on(error)
            }
            Err(error) => {
                let decline = DeclineIntent { station: self.name.clone(), reason: error.to_string() };
                self.client.decline(intent.id, &decline).await?;
                say(format!("{error}. Nothing was signed; the intent is back in the queue"));
                give_up_on(error)
            }
        }
    }

    /// The transaction from the approved fields, by this station's own facts and the device's own key.
    fn rebuild<'b>(&'b self, xpub: &AccountXpub, intent: &IntentView) -> anyhow::Result<(TransactionRequest, &'b ChainSpec)> {
        let chain = ChainId::new(intent.chain_id).context("chain id 0")?;
        let spec = self.book.get(chain).with_context(|| format!("chain {chain} is not in this station's chains.toml"))?;
        let from: DerivationPath = intent.from_path.parse()?;
        let sender = Deriver::new(xpub, from.branch)?.address(from.index)?;
        if sender != intent.from_address {
            anyhow::bail!("{from} is {sender} on this account, not {}", intent.from_address);
        }
        stays_ours(xpub, intent)?;
        let asset = if intent.asset == "native" { Asset::Native } else { Asset::Token(parse_address(&intent.asset)?) };
        let amount: U256 = parse_base_units(&intent.amount_units)?;
        let draft = TransactionDraft {
            chain,
            from,
            sender,
            nonce: intent.nonce,
            transfer: Transfer { asset, to: intent.to_address, amount },
            fees: FeeCaps {
                gas_limit: intent.gas_limit,
                max_fee_per_gas: intent.max_fee_per_gas.parse().context("max_fee_per_gas")?,
                max_priority_fee_per_gas: intent.max_priority_fee_per_gas.parse().context("max_priority_fee_per_gas")?,
            },
        };
        Ok((TransactionRequest::check(draft, spec)?, spec))
    }
}

/// Sweeps and fuel stay inside the account: their recipient is derived here, from the device's own key,
/// so that a daemon gone bad cannot pass a theft off as a sweep.
fn stays_ours(xpub: &AccountXpub, intent: &IntentView) -> anyhow::Result<()> {
    if !matches!(intent.kind.as_str(), "sweep" | "fuel") {
        return Ok(());
    }
    let path: DerivationPath =
        intent.to_path.as_deref().with_context(|| format!("a {} to an address that is not ours", intent.kind))?.parse()?;
    let own = Deriver::new(xpub, path.branch)?.address(path.index)?;
    if path.account != xpub.account() || own != intent.to_address {
        anyhow::bail!("a {} to {}, but {path} of this account is {own}", intent.kind, intent.to_address);
    }
    Ok(())
}

fn belongs(intent: &IntentView, account: &AccountView) -> bool {
    intent.from_path.strip_prefix(&account.path).is_some_and(|rest| rest.starts_with('/'))
}

/// One intent's failure is that intent's; a device that cannot go on ends the session.
fn give_up_on(error: DeviceError) -> anyhow::Result<Outcome> {
    match error.disposition() {
        Disposition::Stop => Err(error.into()),
        Disposition::Retry | Disposition::Skip | Disposition::Officer => Ok(Outcome::Left),
    }
}
