//! What is decided about money outside of a payment's life: whose it is that came for nobody, and what was lost.
//!
//! Two officers, always: one proposes, another confirms exactly that, and the entry is posted in the transaction of
//! the confirmation. The database takes no such entry without both. Money that is attributed to a payment waits there
//! in suspense: it is accepted or refunded like any other, and a refund is the way back to whoever sent it.

use alloy::primitives::{Address, U256};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{EscrowError, store};
use crate::account;
use crate::chains::ChainBook;
use crate::confirm;
use crate::confirm::store::Page;
use crate::event::{self, Event};
use crate::ledger::store::PostedEntry;
use crate::ledger::{self, AccountKey, Entry, EntryType, posting};
use crate::officer::Caller;
use crate::officer::proposal::{self, NewProposal, Proposal, Subject};
use crate::payment::{self, ExceptionKind};
use crate::screen;
use crate::units::{Asset, AssetId, ChainId, LedgerEntryId, PaymentId, ProposalId, TokenAmount, parse_base_units};

/// What two officers decide. The text of it is what they confirm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case", deny_unknown_fields)]
pub enum Adjustment {
    /// What came for nobody is a payment's.
    Attribute { entry: LedgerEntryId, payment: PaymentId },
    /// What came for nobody is the operator's own.
    Own { entry: LedgerEntryId },
    /// Money is gone from an address of ours, and no transaction of ours took it: an issuer destroyed it.
    Lost { chain: ChainId, asset: Address, units: String, address: Address },
    /// The operator's float bears a loss.
    Cover { chain: ChainId, asset: Address, units: String },
}

impl Adjustment {
    pub const fn act(&self) -> &'static str {
        match self {
            Self::Attribute { .. } => "attribute",
            Self::Own { .. } => "own",
            Self::Lost { .. } => "lost",
            Self::Cover { .. } => "cover",
        }
    }

    /// The credit that it is about.
    pub const fn entry(&self) -> Option<LedgerEntryId> {
        match self {
            Self::Attribute { entry, .. } | Self::Own { entry } => Some(*entry),
            Self::Lost { .. } | Self::Cover { .. } => None,
        }
    }

    pub fn canonical(&self) -> String {
        serde_json::json!(self).to_string()
    }

    pub fn from_canonical(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Proposes an adjustment. What cannot be posted as things stand is refused here already.
pub async fn propose(
    connection: &mut PgConnection,
    adjustment: &Adjustment,
    reason: String,
    caller: &Caller,
    book: &ChainBook,
) -> Result<Proposal, EscrowError> {
    entry_of(connection, adjustment, ProposalId(0), book).await?;
    let new = NewProposal { subject: Subject::Adjustment, body: adjustment.canonical(), effective_at: None, reason };
    Ok(proposal::store::propose(connection, &new, caller).await?)
}

/// Another officer confirms it: it is posted at once.
pub async fn confirm(
    connection: &mut PgConnection,
    id: ProposalId,
    digest: alloy::primitives::B256,
    caller: &Caller,
    book: &ChainBook,
) -> Result<Adjustment, EscrowError> {
    let confirmed = proposal::store::confirm(connection, id, Subject::Adjustment, digest, caller).await?;
    let adjustment = Adjustment::from_canonical(&confirmed.body).ok_or(EscrowError::Adjustment(id))?;
    if let Adjustment::Attribute { payment, .. } = adjustment {
        payment::store::lock(connection, payment).await?;
    }
    let entry = entry_of(connection, &adjustment, id, book).await?;
    store::insert_adjustment(connection, id, &adjustment).await?;
    ledger::store::append(connection, std::slice::from_ref(&entry)).await?;
    if let Adjustment::Attribute { entry: credit, payment } = adjustment {
        let detail = format!("{} base units of {} attributed, entry {credit}", entry.amount.units, entry.amount.asset);
        payment::store::open_exception(connection, payment, ExceptionKind::Held, &detail).await?;
    }
    let detail = serde_json::json!({
        "proposal": id, "act": adjustment.act(), "entry": adjustment.entry(), "units": entry.amount.units.to_string(),
        "asset": entry.amount.asset.asset.to_string(), "by": caller.name(),
    });
    let event = Event { kind: "ledger.adjusted", payment: entry.payment, intent: None, chain: Some(entry.amount.asset.chain), detail };
    event::store::append(connection, &event).await?;
    tracing::warn!(proposal = %id, act = adjustment.act(), amount = %entry.amount.units, asset = %entry.amount.asset, "ledger adjusted by two officers");
    Ok(adjustment)
}

/// The entry that an adjustment posts.
async fn entry_of(connection: &mut PgConnection, adjustment: &Adjustment, id: ProposalId, book: &ChainBook) -> Result<Entry, EscrowError> {
    let (payment, amount, decimals, debit, credit, why) = match adjustment {
        Adjustment::Attribute { entry, payment } => {
            let came = free_credit(connection, *entry).await?;
            payment::store::find(connection, *payment).await?.ok_or(EscrowError::Payment(payment::PaymentError::Unknown(*payment)))?;
            let why = format!("entry {entry} is of payment {payment}");
            (Some(*payment), came.amount, came.decimals, AccountKey::Suspense(None), AccountKey::Suspense(Some(*payment)), why)
        }
        Adjustment::Own { entry } => {
            let came = free_credit(connection, *entry).await?;
            let why = format!("entry {entry} is the operator's own");
            (None, came.amount, came.decimals, AccountKey::Suspense(None), AccountKey::Operator, why)
        }
        Adjustment::Lost { chain, asset, units, address } => {
            let (amount, decimals) = listed(book, *chain, *asset, units)?;
            if account::store::find_address_id(connection, *address).await?.is_none() {
                return Err(EscrowError::ForeignAddress(*address));
            }
            enough(connection, amount, AccountKey::Custody(*address)).await?;
            (None, amount, decimals, AccountKey::Shortfall, AccountKey::Custody(*address), format!("lost at {address}"))
        }
        Adjustment::Cover { chain, asset, units } => {
            let (amount, decimals) = listed(book, *chain, *asset, units)?;
            for key in [AccountKey::Operator, AccountKey::Shortfall] {
                enough(connection, amount, key).await?;
            }
            (None, amount, decimals, AccountKey::Operator, AccountKey::Shortfall, "a loss that the operator bears".to_owned())
        }
    };
    Ok(Entry {
        entry_type: EntryType::Adjustment,
        payment,
        amount,
        decimals,
        debit,
        credit,
        reverses: None,
        key: format!("adjustment:{id}"),
        memo: format!("{why}, proposal {id}"),
    })
}

/// A credit that came for nobody, stands, was not decided about, may leave again and is not held.
async fn free_credit(connection: &mut PgConnection, id: LedgerEntryId) -> Result<Entry, EscrowError> {
    let found: Option<PostedEntry> = ledger::store::list_by_ids(connection, &[id.0]).await?.pop();
    let entry = found.map(|posted| posted.entry).filter(|entry| entry.credit == AccountKey::Suspense(None));
    let Some(entry) = entry else { return Err(EscrowError::NotSuspended(id)) };
    if !ledger::store::is_standing(connection, &entry.key).await? || store::has_adjustment(connection, id).await? {
        return Err(EscrowError::NotSuspended(id));
    }
    let Some(verdict) = posting::verdict_of_credit(&entry.key) else { return Err(EscrowError::NotSuspended(id)) };
    let chain = entry.amount.asset.chain;
    let page = Page { after: verdict - 1, limit: 1 };
    let sighting = confirm::store::list_credited(connection, chain, page).await?.pop().filter(|sighting| sighting.verdict == verdict);
    let Some(sighting) = sighting else { return Err(EscrowError::NotSuspended(id)) };
    if !confirm::store::is_released(connection, chain, sighting.derived_address).await? {
        return Err(EscrowError::OnlyCredited(id));
    }
    match screen::store::find_hold(connection, chain, sighting.derived_address).await? {
        Some(hold) => Err(EscrowError::Screened { entry: id, hold }),
        None => Ok(entry),
    }
}

fn listed(book: &ChainBook, chain: ChainId, asset: Address, units: &str) -> Result<(TokenAmount, u8), EscrowError> {
    let asset = AssetId { chain, asset: Asset::from_marker(asset) };
    let facts = book.asset(asset).ok_or(EscrowError::Unlisted(asset))?;
    let units = parse_base_units(units).ok().filter(|units| !units.is_zero()).ok_or(EscrowError::Units(units.to_owned()))?;
    Ok((TokenAmount::new(asset, units), facts.decimals))
}

async fn enough(connection: &mut PgConnection, amount: TokenAmount, key: AccountKey) -> Result<(), EscrowError> {
    let there: U256 = ledger::store::balance(connection, amount.asset, key).await?.units;
    if there < amount.units {
        return Err(EscrowError::AccountShort { account: key.kind().name(), asked: amount.units, there });
    }
    Ok(())
}

/// A credit that came for nobody and waits for two officers.
#[derive(Clone, Debug)]
pub struct Suspended {
    pub posted: PostedEntry,
    /// The proposal about it that waits to be confirmed, if one does.
    pub proposal: Option<ProposalId>,
}
