//! `sign`: the signing station. It owns one device and holds no key.
//!
//! What it checks itself, for each intent: the digest is of the fields it was sent; chain, token and
//! decimals are those of its own chains.toml; the sender, and the recipient of a sweep or of fuel, are
//! derived from the device's account and sit where they must; the fees stay below its own limit; the
//! signature is of the request it built. What the officer reads comes from these, never from the daemon.
//!
//! What it takes on the daemon's word: that officers approved the digest (an approval carries nothing that
//! could be checked here), that a release or a refund goes to whom and is as much as it should, and that
//! the nonce is free. For these the last check is the officer at the device. What a chain charges on top
//! of gas (a rollup's share of its base chain) is in no transaction and below no limit.

mod delivery;
pub(super) mod desk;
pub(super) mod rebuild;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::B256;
use anyhow::Context;
use clap::Args;

use self::desk::Desk;
use self::rebuild::{Rebuilt, Rules, is_sender_of};
use super::Remote;
use super::console::{legible, say};
use crate::account::AccountXpub;
use crate::api::wire::{ClaimIntent, IntentView, SigningQueue};
use crate::api::{Client, ClientError};
use crate::chains::ChainBook;
use crate::signing::{Definitions, DeviceAddress, DeviceError, ExpectedScreens, OpenAccount};
use crate::units::{Disposition, IntentId};

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
    /// The most that one transaction's fees may come to, in the chain's own coin.
    #[arg(long, default_value = "0.05", value_name = "COIN")]
    max_fee: String,
    /// Sign what waits now, then end: with 0 unless something was refused here or by the device, or could
    /// not be finished. What other devices or sessions will sign is left, and no failure.
    #[arg(long)]
    once: bool,
}

/// Pauses between two rounds that signed nothing.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// What was said is remembered, so that a round repeats nothing; past this it is forgotten and said again.
const REMEMBERED_MAX: usize = 10_000;

/// What became of one intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Signed,
    /// Another session, another device or a later hour may sign it.
    Left,
    /// Not brought to its end; the next round takes it up again.
    Unfinished,
    /// Refused here or on the device; this station does not ask again.
    Refused,
}

/// What ends a round before its end.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Daemon(#[from] ClientError),
    #[error(transparent)]
    Device(#[from] DeviceError),
}

#[derive(Debug, Default)]
struct Tally {
    signed: usize,
    unfinished: usize,
    refused: usize,
}

/// What a station remembers from round to round.
#[derive(Debug, Default)]
struct Memory {
    refused: BTreeMap<IntentId, B256>,
    said: BTreeSet<String>,
}

struct Station {
    client: Client,
    name: String,
    rules: Rules,
    definitions: Option<PathBuf>,
    take_over: bool,
}

pub(super) async fn run(args: SignArgs) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.chains).with_context(|| format!("chain facts {}", args.chains.display()))?;
    let rules = Rules { book: ChainBook::parse(&text)?, max_fee: args.max_fee }.check()?;
    let station =
        Station { client: args.remote.client()?, name: args.station, rules, definitions: args.definitions, take_over: args.take_over };
    let desk = Desk::open(args.device).await?;
    for warning in desk.device().features().await?.warnings() {
        say(format!("note: {}", legible(warning)));
    }
    notify(sd_notify::NotifyState::Ready);
    tokio::select! {
        outcome = station.work(&desk, args.once) => outcome,
        never = feed_watchdog() => match never {},
    }
}

impl Station {
    /// Round after round. Without `once` it ends on a signal, or when the device or the right to ask the
    /// daemon is gone.
    async fn work(&self, desk: &Desk, once: bool) -> anyhow::Result<()> {
        let mut memory = Memory::default();
        let mut pause = PAUSE_MIN;
        loop {
            let mut tally = Tally::default();
            let outcome = self.round(desk, &mut memory, &mut tally, once).await;
            if once {
                outcome?;
                return tally.verdict();
            }
            match outcome {
                Ok(()) => {}
                Err(RoundError::Daemon(error)) if error.is_retryable() => {
                    tracing::warn!("the daemon does not answer; trying again: {}", legible(&error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
            if tally.signed > 0 {
                pause = PAUSE_MIN;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    async fn round(&self, desk: &Desk, memory: &mut Memory, tally: &mut Tally, once: bool) -> Result<(), RoundError> {
        let queue = self.client.signing_queue().await?;
        let outcome = self.session(desk, &queue, memory, tally).await;
        if once {
            say(format!("{} signed, {} left", tally.signed, queue.intents.len().saturating_sub(tally.signed)));
        }
        outcome
    }

    /// Signs what the device's accounts can sign.
    async fn session(&self, desk: &Desk, queue: &SigningQueue, memory: &mut Memory, tally: &mut Tally) -> Result<(), RoundError> {
        let mut unclaimed: Vec<&IntentView> = queue.intents.iter().filter(|intent| !memory.has_refused(intent)).collect();
        for account in &queue.accounts {
            let xpub: AccountXpub = match account.xpub.parse() {
                Ok(xpub) => xpub,
                Err(error) => {
                    memory.say_once(format!("account {:?} of the daemon: {error}; nothing of it is signed", account.label));
                    continue;
                }
            };
            let (own, others) = unclaimed.into_iter().partition(|intent| is_sender_of(&xpub, intent));
            unclaimed = others;
            let own: Vec<&IntentView> = own;
            if own.is_empty() {
                continue;
            }
            let open = match desk.attend(desk.device().open_account(xpub)).await {
                Ok(open) => open,
                Err(error @ DeviceError::OtherAccount { .. }) => {
                    memory.say_once(format!("account {:?}: {error}; its intents are left", account.label));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for intent in own {
                let outcome = self.one(desk, &open, intent, memory).await?;
                tally.count(outcome);
                if outcome == Outcome::Refused {
                    memory.refused.insert(intent.id, intent.digest);
                }
            }
        }
        for intent in unclaimed {
            let from = legible(&intent.from_path);
            memory.say_once(format!("intent {}: refused here, no account has {} at {from}", intent.id, intent.from_address));
            memory.refused.insert(intent.id, intent.digest);
            tally.count(Outcome::Refused);
        }
        Ok(())
    }

    async fn one(&self, desk: &Desk, open: &OpenAccount<'_>, view: &IntentView, memory: &mut Memory) -> Result<Outcome, RoundError> {
        let rebuilt = match self.rules.rebuild(open.xpub(), view) {
            Ok(rebuilt) => rebuilt,
            Err(error) => {
                say(format!("intent {}: refused here, nothing was signed: {}", view.id, legible(&format!("{error:#}"))));
                return Ok(Outcome::Refused);
            }
        };
        let claim = ClaimIntent { station: self.name.clone(), take_over: self.take_over };
        match self.client.claim(view.id, &claim).await {
            Ok(claimed) if claimed.digest == view.digest => {}
            Ok(_) => {
                say(format!("intent {}: it changed after it was read; it is left until it is read again", view.id));
                return Ok(Outcome::Unfinished);
            }
            Err(ClientError::Refused(problem)) => {
                memory.say_once(format!("intent {}: the daemon keeps it: {}; it is left", view.id, legible(&problem.detail)));
                return Ok(Outcome::Left);
            }
            Err(error) => return Err(error.into()),
        }
        let definitions = self.show(&rebuilt);
        match desk.attend(open.sign(rebuilt.request, definitions)).await {
            Ok(signed) => Ok(self.deliver(&rebuilt.intent, &signed).await),
            Err(error) => self.not_signed(view.id, error).await,
        }
    }

    /// What the officer compares with the device.
    fn show(&self, rebuilt: &Rebuilt<'_>) -> Definitions {
        let request = &rebuilt.request;
        let definitions = Definitions::load(self.definitions.as_deref(), rebuilt.spec, request.transfer().asset);
        let expected = ExpectedScreens::of(request, rebuilt.spec, &definitions);
        say("");
        for line in rebuilt.lines() {
            say(line);
        }
        say("The device will show:");
        for (step, screen) in expected.screens.iter().enumerate() {
            say(format!("  {}. {}", step + 1, screen.lines.join(" | ")));
        }
        for note in &expected.notes {
            say(format!("  note: {note}"));
        }
        definitions
    }
}

impl Tally {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Signed => self.signed += 1,
            Outcome::Left => {}
            Outcome::Unfinished => self.unfinished += 1,
            Outcome::Refused => self.refused += 1,
        }
    }

    /// What is left to other devices and sessions is no failure; what should have been signed here is.
    fn verdict(&self) -> anyhow::Result<()> {
        if self.refused == 0 && self.unfinished == 0 {
            return Ok(());
        }
        anyhow::bail!("{} refused here or by the device, {} not finished; the lines above say why", self.refused, self.unfinished)
    }
}

impl Memory {
    fn has_refused(&self, intent: &IntentView) -> bool {
        self.refused.get(&intent.id) == Some(&intent.digest)
    }

    fn say_once(&mut self, line: String) {
        if self.said.len() >= REMEMBERED_MAX {
            self.said.clear();
        }
        if !self.said.contains(&line) {
            say(&line);
            self.said.insert(line);
        }
    }
}

/// One intent's failure is that intent's; a device that cannot go on ends the session.
fn is_over(error: &DeviceError) -> bool {
    match error.disposition() {
        Disposition::Stop => true,
        Disposition::Retry | Disposition::Skip | Disposition::Officer => false,
    }
}

/// Feeds systemd's watchdog beside the work, in the same task: while a person thinks the work waits and
/// this turns, and work that blocks its thread stops this too.
async fn feed_watchdog() -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        notify(sd_notify::NotifyState::Watchdog);
        tokio::time::sleep(limit / 3).await;
    }
}

/// Tells systemd; without a notify socket this does nothing.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not told");
    }
}
