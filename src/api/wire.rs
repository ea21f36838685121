//! What goes over the wire, in both directions. Amounts are decimal strings, with the raw integer
//! beside them; times are RFC 3339; hashes and addresses are hex.

use alloy::primitives::{Address, B256, Bytes};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::units::{IntentId, PaymentId, UserId};

/// Addresses leave with their EIP-55 checksum, so that a copy with a slip is noticed.
fn checksummed<S: serde::Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

/// `POST /v1/payments`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePayment {
    /// Decimal, in units of `currency`: "100.50".
    pub amount: String,
    pub currency: String,
    pub chain_id: u64,
    pub token: String,
    /// Where a release pays to. EIP-55 checksums are verified.
    pub seller_address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buyer_id: Option<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seller_id: Option<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase_request_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase_request_external_ref: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u32>,
}

/// A payment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PaymentView {
    pub id: PaymentId,
    pub status: String,
    pub escrow_state: Option<String>,
    pub state_version: i64,
    pub amount: String,
    pub amount_units: String,
    pub currency: String,
    pub chain_id: u64,
    pub token: String,
    #[serde(serialize_with = "checksummed")]
    pub token_contract: Address,
    #[serde(serialize_with = "checksummed")]
    pub deposit_address: Address,
    pub deposit_path: String,
    pub destination_status: String,
    #[serde(serialize_with = "checksummed")]
    pub seller_address: Address,
    /// Confirmed and counted towards the amount, whatever became of it since.
    pub received_units: String,
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    pub transfers: Vec<TransferView>,
    pub exceptions: Vec<ExceptionView>,
    /// The quote that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<QuoteView>,
}

/// A quote: what the amount in the token rests on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QuoteView {
    pub id: Uuid,
    /// priced, or identity where the currency is the token.
    pub kind: String,
    /// Decimal, in units of `currency`.
    pub amount: String,
    pub currency: String,
    /// US dollars for one unit of the currency.
    pub fx_rate: String,
    /// US dollars for one token, as sources say.
    pub token_price_usd: String,
    /// And as it was used.
    pub effective_price_usd: String,
    /// For people: it is in the price already.
    pub depeg_adjustment_bps: i32,
    pub peg_state: String,
    pub policy: Option<String>,
    pub settle_amount: String,
    pub settle_units: String,
    /// What must come; more than the settle amount where late money was quoted anew.
    pub required_units: String,
    #[serde(with = "time::serde::rfc3339")]
    pub quoted_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// How much later a block may be and still be in time.
    pub inclusion_grace_s: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Uuid>,
    /// Every source with its verdict, and all else that gives this quote again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<serde_json::Value>,
}

/// `POST /v1/payments/{id}/requote`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequoteView {
    pub payment: PaymentView,
    pub quote: QuoteView,
    /// What has come so far, in time or late; counted, or waiting for an officer.
    pub received_units: String,
    /// What is missing of what is due now. At 0 an officer may take late money for the payment.
    pub missing_units: String,
}

/// A transfer seen at a payment's address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TransferView {
    pub tx_hash: B256,
    pub asset: String,
    pub units: String,
    pub block_number: u64,
    pub block_hash: B256,
    /// waiting, confirmed or orphaned
    pub state: String,
    /// Blocks on it now, its own being the first; 0 for an orphaned one.
    pub depth: u64,
    /// Blocks it needs to be confirmed.
    pub threshold: u32,
    /// Whether it has passed the release gate too: nothing leaves for money that is only confirmed.
    #[serde(default)]
    pub may_leave: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExceptionView {
    pub kind: String,
    pub detail: String,
    pub open: bool,
}

/// A page of payments. `next_cursor` is absent on the last page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PaymentPage {
    pub payments: Vec<PaymentView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// An intent, as officers and stations read it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IntentView {
    pub id: IntentId,
    pub kind: String,
    pub state: String,
    pub state_version: i64,
    pub revision: u32,
    pub chain_id: u64,
    pub from_path: String,
    #[serde(serialize_with = "checksummed")]
    pub from_address: Address,
    #[serde(serialize_with = "checksummed")]
    pub to_address: Address,
    /// Where `to_address` sits, when it is one of ours: a station derives it again and compares.
    pub to_path: Option<String>,
    /// "native", or the token's contract.
    pub asset: String,
    pub symbol: String,
    pub amount: String,
    pub amount_units: String,
    pub nonce: u64,
    pub gas_limit: u64,
    pub max_fee_per_gas: String,
    pub max_priority_fee_per_gas: String,
    pub payment_id: Option<PaymentId>,
    /// The deposit address's row: part of the digest, which a station computes again.
    pub destination_id: Option<Uuid>,
    pub digest: B256,
    pub approvals: u8,
    pub approvals_required: u8,
    pub tx_hash: Option<B256>,
}

/// `POST /v1/intents/{id}/approvals`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveIntent {
    /// The digest the officer saw.
    pub digest: B256,
}

/// `POST /v1/intents/{id}/claim`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimIntent {
    /// A name of the station, for the record.
    pub station: String,
    /// Take it from another station that is gone for good.
    #[serde(default)]
    pub take_over: bool,
}

impl ClaimIntent {
    /// A claim of an intent that no other station has.
    pub fn of(station: &str) -> Self {
        Self { station: station.to_owned(), take_over: false }
    }
}

/// `POST /v1/intents/{id}/signature`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitSignature {
    /// The signed transaction as it will be sent: EIP-2718, type 2.
    pub raw: Bytes,
}

/// `POST /v1/intents/{id}/decline`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclineIntent {
    /// The name under which it was claimed.
    pub station: String,
    pub reason: String,
}

impl DeclineIntent {
    pub fn of(station: &str, reason: &str) -> Self {
        Self { station: station.to_owned(), reason: reason.to_owned() }
    }
}

/// `POST /v1/intents/{id}/void`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoidIntent {
    pub reason: String,
}

/// An account whose xpub a station compares with its device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountView {
    pub label: String,
    pub path: String,
    pub xpub: String,
    pub fingerprint: String,
}

/// What a station needs to start a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SigningQueue {
    pub accounts: Vec<AccountView>,
    pub intents: Vec<IntentView>,
}

/// A watched chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChainView {
    pub chain_id: u64,
    pub name: String,
    pub scanned_number: Option<u64>,
    pub scanned_hash: Option<B256>,
    pub threshold: Option<u32>,
    pub threshold_history_id: Option<i64>,
    pub outflow_halted: Option<String>,
    pub operator_addresses: Vec<OperatorAddressView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperatorAddressView {
    pub purpose: String,
    pub path: String,
    #[serde(serialize_with = "checksummed")]
    pub address: Address,
}

/// One custody account against the chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReconciliationLine {
    #[serde(serialize_with = "checksummed")]
    pub address: Address,
    pub asset: String,
    pub symbol: String,
    pub ledger: String,
    pub chain: String,
    pub pending: String,
    pub equal: bool,
}

/// The books of one asset: where it is, and whose it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SidesView {
    pub chain_id: u64,
    pub asset: String,
    pub symbol: String,
    pub custody: String,
    pub debit: String,
    pub credit: String,
    pub equal: bool,
}

/// `GET /v1/reconciliation`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reconciliation {
    pub chains: Vec<ChainReconciliation>,
    pub sides: Vec<SidesView>,
    pub equal: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChainReconciliation {
    pub chain_id: u64,
    pub block_number: u64,
    pub block_hash: B256,
    pub lines: Vec<ReconciliationLine>,
}

/// A ledger entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EntryView {
    pub id: i64,
    pub entry_type: String,
    pub payment_id: Option<PaymentId>,
    pub chain_id: u64,
    pub asset: String,
    pub amount: String,
    pub amount_units: String,
    pub debit: String,
    pub credit: String,
    pub memo: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Entries after a cursor, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EntryPage {
    pub entries: Vec<EntryView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// What the chain held and the books did not explain, as it was last seen. Amounts are in the asset's own decimals.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FindingView {
    pub id: i64,
    pub chain_id: u64,
    pub address: Address,
    pub asset: String,
    pub symbol: String,
    pub ledger: String,
    /// In the chain and not in the ledger yet; negative the other way round.
    pub pending: String,
    pub chain: String,
    /// Unexplained; negative where it is missing.
    pub difference: String,
    /// The same in base units.
    pub difference_units: String,
    pub block_number: u64,
    pub block_hash: B256,
    #[serde(with = "time::serde::rfc3339")]
    pub first_seen_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub closed_at: Option<OffsetDateTime>,
    pub resolution: Option<String>,
}

/// Findings after a cursor, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FindingPage {
    pub findings: Vec<FindingView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `POST /v1/chains/{chain}/thresholds`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetThreshold {
    /// credit or release
    pub gate: String,
    /// 1 to 10000; absent switches a tier off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<i64>,
    /// A tier: the symbol of the coin or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset: Option<String>,
    /// A tier: from this amount on, in units of the asset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_amount: Option<String>,
    /// At once when absent. Never in the past.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<OffsetDateTime>,
    pub reason: String,
}

/// The thresholds of one gate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ThresholdsView {
    pub gate: String,
    pub in_force: Vec<ThresholdView>,
    /// What takes effect later, soonest first.
    pub coming: Vec<ThresholdView>,
}

/// A row of the history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ThresholdView {
    pub history_id: i64,
    pub gate: String,
    pub key: String,
    pub asset: Option<String>,
    pub from_amount: Option<String>,
    pub from_units: Option<String>,
    pub old_blocks: Option<u32>,
    /// Absent: the tier is off.
    pub blocks: Option<u32>,
    #[serde(with = "time::serde::rfc3339")]
    pub effective_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    pub changed_by: String,
    pub reason: String,
}

/// An RFC 9457 problem.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProblemView {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: String,
    pub retryable: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldProblem>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FieldProblem {
    pub field: String,
    pub value: String,
    pub problem: String,
}

// === webhooks and events ===

/// `POST /v1/webhooks`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhook {
    /// https, and an address of the public internet.
    pub url: String,
    /// One kind (`payment.funded`), all of a noun (`payment.*`), or `*`.
    pub events: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Where events are sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WebhookView {
    pub id: Uuid,
    pub url: String,
    pub description: String,
    pub events: Vec<String>,
    pub created_by: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub disabled_at: Option<OffsetDateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<String>,
}

/// `GET /v1/webhooks/{id}/secret`.
#[derive(Clone, Serialize, Deserialize)]
pub struct WebhookSecretView {
    /// `whsec_` and base64; what deliveries are signed with.
    pub secret: String,
}

impl std::fmt::Debug for WebhookSecretView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSecretView").finish_non_exhaustive()
    }
}

/// `POST /v1/webhooks/{id}/secret`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateWebhook {
    /// For how long the secret before signs too; 24 without it, 0 if it leaked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_secret_hours: Option<u32>,
}

/// `POST /v1/webhooks/{id}/disable`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisableWebhook {
    pub reason: String,
}

/// `POST /v1/webhooks/{id}/redeliver`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redeliver {
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Now, without it.
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub until: Option<OffsetDateTime>,
    /// Only what was given up.
    #[serde(default)]
    pub dead_only: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Redelivered {
    pub deliveries: u64,
}

/// One event on its way to one endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryView {
    pub id: i64,
    pub webhook_id: Uuid,
    pub event_id: i64,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<Uuid>,
    /// pending, delivered or dead.
    pub state: String,
    pub attempts: i32,
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<OffsetDateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_outcome: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryPage {
    pub deliveries: Vec<DeliveryView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptView {
    #[serde(with = "time::serde::rfc3339")]
    pub attempted_at: OffsetDateTime,
    pub took_ms: i32,
    /// Absent where nobody answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i16>,
    pub outcome: String,
    /// The beginning of the answer.
    pub answer: String,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventView {
    pub id: i64,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<i64>,
    pub detail: serde_json::Value,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventPage {
    pub events: Vec<EventView>,
    /// Where the feed goes on, also when there is nothing more yet.
    pub next_cursor: String,
}
