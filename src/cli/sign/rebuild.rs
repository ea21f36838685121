//! An intent built again from what the daemon sent, and every check that needs no daemon.
//!
//! Pure. What is shown, sent to the device and compared with its signature comes from here; the daemon's
//! own texts (amount, symbol) are not read at all.

use alloy::primitives::U256;
use anyhow::{Context, bail};
use uuid::Uuid;

use crate::account::{AccountXpub, DerivationPath, DerivedAddress, Deriver, Purpose};
use crate::api::wire::IntentView;
use crate::chains::{ChainBook, ChainSpec};
use crate::intent::digest::digest_of;
use crate::intent::{FeeTerms, Intent, IntentKind, IntentState};
use crate::signing::{TransactionRequest, request_for};
use crate::units::{Asset, AssetId, ChainId, TokenAmount, TrezorAccountId, format_units, parse_address, parse_base_units, parse_units};

/// What one station allows.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) book: ChainBook,
    /// The most that one transaction's fees may come to, in a chain's own coin.
    pub(super) max_fee: String,
}

/// An intent that passed every check here.
#[derive(Debug)]
pub(super) struct Rebuilt<'r> {
    pub(super) intent: Intent,
    pub(super) request: TransactionRequest,
    pub(super) spec: &'r ChainSpec,
    /// Where the recipient sits on this account, if it had to be one of ours.
    pub(super) to: Option<(DerivationPath, Purpose)>,
}

/// The intent of a view, if the view's digest is its digest.
pub(in crate::cli) fn intent_of(view: &IntentView) -> anyhow::Result<Intent> {
    let kind = IntentKind::ALL
        .into_iter()
        .find(|kind| kind.name() == view.kind)
        .with_context(|| format!("kind {:?} is not known here", view.kind))?;
    let state = IntentState::ALL.into_iter().find(|state| state.name() == view.state);
    let path: DerivationPath = view.from_path.parse()?;
    let chain = ChainId::new(view.chain_id).context("chain id 0")?;
    let asset = if view.asset == "native" { Asset::Native } else { Asset::Token(parse_address(&view.asset)?) };
    let intent = Intent {
        id: view.id,
        kind,
        state: state.with_context(|| format!("state {:?} is not known here", view.state))?,
        state_version: view.state_version,
        revision: view.revision,
        // The rows' ids stay with the daemon; the digest names the place by its path.
        from: DerivedAddress {
            id: Uuid::nil(),
            account: TrezorAccountId(Uuid::nil()),
            path,
            address: view.from_address,
            purpose: Purpose::at(path).with_context(|| format!("none of our addresses is at {path}"))?,
        },
        to: view.to_address,
        amount: TokenAmount::new(AssetId { chain, asset }, parse_base_units(&view.amount_units)?),
        nonce: view.nonce,
        fees: FeeTerms {
            gas_limit: view.gas_limit,
            max_fee_per_gas: view.max_fee_per_gas.parse().context("max_fee_per_gas")?,
            max_priority_fee_per_gas: view.max_priority_fee_per_gas.parse().context("max_priority_fee_per_gas")?,
        },
        payment: view.payment_id,
        destination: view.destination_id,
        digest: view.digest,
        approvals_required: view.approvals_required,
        approvals_expire_minutes: view.approvals_expire_minutes,
        policy: None,
        requested_by: String::new(),
        revised_by: None,
        signed_revision: None,
        cancels: view.cancels,
        station: None,
    };
    let computed = digest_of(&intent);
    if computed != view.digest {
        bail!("the digest of these fields is {computed}, not {}: they are not what was approved", view.digest);
    }
    Ok(intent)
}

/// Whether the sender is an address of this account.
pub(super) fn is_sender_of(xpub: &AccountXpub, view: &IntentView) -> bool {
    let Ok(path) = view.from_path.parse::<DerivationPath>() else { return false };
    path.account == xpub.account() && derive(xpub, path).is_ok_and(|own| own == view.from_address)
}

impl Rules {
    /// Reads the limit for every chain, so that a slip shows before there is anything to sign.
    pub(super) fn check(self) -> anyhow::Result<Self> {
        for spec in self.book.iter() {
            self.fee_max(spec)?;
        }
        Ok(self)
    }

    fn fee_max(&self, spec: &ChainSpec) -> anyhow::Result<U256> {
        parse_units(&self.max_fee, spec.native.decimals).with_context(|| format!("--max-fee on chain {}", spec.name))
    }

    /// The transaction from the approved fields, by this station's own facts and the device's own key.
    pub(super) fn rebuild(&self, xpub: &AccountXpub, view: &IntentView) -> anyhow::Result<Rebuilt<'_>> {
        let intent = intent_of(view)?;
        let chain = intent.chain();
        let spec = self.book.get(chain).with_context(|| format!("chain {chain} is not in this station's chains.toml"))?;
        let from = intent.from;
        let sender = derive(xpub, from.path)?;
        if from.path.account != xpub.account() || sender != from.address {
            bail!("{} is {sender} on this account, not {}", from.path, from.address);
        }
        let to = stays_ours(xpub, &intent, view.to_path.as_deref())?;
        let request = request_for(&intent, spec)?;
        if request.is_cancel() != (intent.kind == IntentKind::Cancel) {
            bail!("a {} to {}: only a cancel pays its own sender, and it pays nobody else", intent.kind.name(), intent.to);
        }
        let (ceiling, max) = (request.fees().ceiling(), self.fee_max(spec)?);
        if ceiling > max {
            let coin = &spec.native;
            let [ceiling, max] = [ceiling, max].map(|units| format!("{} {}", format_units(units, coin.decimals), coin.symbol));
            bail!("its fees may come to {ceiling}, more than the {max} this station allows; --max-fee sets that");
        }
        Ok(Rebuilt { intent, request, spec, to })
    }
}

/// Sweeps and fuel stay inside the account, at fixed places: both ends are derived here, from the device's
/// own key, so that a daemon gone bad cannot pass a theft off as a sweep.
fn stays_ours(xpub: &AccountXpub, intent: &Intent, to_path: Option<&str>) -> anyhow::Result<Option<(DerivationPath, Purpose)>> {
    let kind = intent.kind.name();
    let (from, to) = match intent.kind {
        IntentKind::Sweep => (Purpose::Deposit, Purpose::Treasury),
        IntentKind::Fuel => (Purpose::Gas, Purpose::Deposit),
        IntentKind::Release | IntentKind::Refund | IntentKind::Cancel => return Ok(None),
    };
    if intent.from.purpose != from {
        bail!("a {kind} from {}, which is no {} address", intent.from.path, from.name());
    }
    if intent.kind == IntentKind::Fuel && intent.amount.asset.asset != Asset::Native {
        bail!("fuel is the chain's own coin, not {}", intent.amount.asset);
    }
    let path: DerivationPath = to_path.with_context(|| format!("a {kind} to an address that is not ours"))?.parse()?;
    let own = derive(xpub, path)?;
    if path.account != xpub.account() || own != intent.to {
        bail!("a {kind} to {}, but {path} of this account is {own}", intent.to);
    }
    if Purpose::at(path) != Some(to) {
        bail!("a {kind} to {path}, which is no {} address", to.name());
    }
    Ok(Some((path, to)))
}

fn derive(xpub: &AccountXpub, path: DerivationPath) -> anyhow::Result<alloy::primitives::Address> {
    Ok(Deriver::new(xpub, path.branch)?.address(path.index)?)
}

impl Rebuilt<'_> {
    /// What the officer reads before looking at the device.
    pub(super) fn lines(&self) -> Vec<String> {
        let (intent, spec) = (&self.intent, self.spec);
        let coin = |units| format!("{} {}", format_units(units, spec.native.decimals), spec.native.symbol);
        let transfer = self.request.transfer();
        let (amount, asset) = match transfer.asset {
            Asset::Native => (coin(transfer.amount), "the chain's own coin".to_owned()),
            Asset::Token(contract) => match spec.tokens.iter().find(|token| token.contract == contract) {
                Some(token) => (format!("{} {}", format_units(transfer.amount, token.decimals), token.symbol), contract.to_string()),
                None => ("?".to_owned(), contract.to_string()),
            },
        };
        let to = match self.to {
            Some((path, purpose)) => format!("{}  {path} ({}, derived here)", transfer.to, purpose.name()),
            None if self.request.is_cancel() => format!("{}  (itself)", transfer.to),
            None => format!("{}  (as approved; not derived here)", transfer.to),
        };
        let fees = self.request.fees();
        let per_gas = format!("{} wei, of which priority {} wei", fees.max_fee_per_gas, fees.max_priority_fee_per_gas);
        let rows = [
            ("amount", format!("{amount} ({} base units)", transfer.amount)),
            ("asset", asset),
            ("chain", format!("{} ({})", spec.name, spec.id)),
            ("from", format!("{}  {} ({})", self.request.sender(), self.request.from(), intent.from.purpose.name())),
            ("to", to),
            ("nonce", self.request.nonce().to_string()),
            ("gas limit", fees.gas_limit.to_string()),
            ("max fee per gas", per_gas),
            ("max total fee", coin(fees.ceiling())),
            ("payment", intent.payment.map_or_else(|| "-".to_owned(), |payment| payment.to_string())),
            ("cancels", intent.cancels.map_or_else(|| "-".to_owned(), |cancelled| cancelled.to_string())),
            ("revision", intent.revision.to_string()),
            ("digest", format!("{}  (computed here)", intent.digest)),
        ];
        let head = format!("{} {}", intent.kind.name(), intent.id);
        std::iter::once(head).chain(rows.iter().map(|(name, value)| format!("  {name:<16} {value}"))).collect()
    }
}

#[cfg(test)]
mod tests;
