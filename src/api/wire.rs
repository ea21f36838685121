//! What goes over the wire, in both directions. Amounts are decimal strings, with the raw integer
//! beside them; times are RFC 3339; hashes and addresses are hex.

use alloy::primitives::{Address, B256, Bytes};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::schema::{AddressText, BytesText, DecimalText, DecisionText, GateText, HashText, ResolutionText, SourceText, WeiText};
use crate::units::{IntentId, PaymentId, UserId};

/// Addresses leave with their EIP-55 checksum, so that a copy with a slip is noticed.
fn checksummed<S: serde::Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

/// `POST /v1/payments`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"amount": "100.50", "currency": "USDC", "chain_id": 31337, "token": "USDC", "seller_address": "0x2222222222222222222222222222222222222222", "purchase_request_external_ref": "order-1017"}))]
pub struct CreatePayment {
    /// Decimal, in units of `currency`: "100.50".
    #[schema(value_type = DecimalText)]
    pub amount: String,
    pub currency: String,
    pub chain_id: u64,
    pub token: String,
    /// Where a release pays to. EIP-55 checksums are verified.
    #[schema(value_type = AddressText)]
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
    pub seller_offer_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seller_offer_external_ref: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u32>,
    /// How much less than `amount` still counts as whole, in hundredths of a per cent. This and what follows
    /// come from the daemon's defaults where they are absent, and are fixed with the payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance_bps: Option<u32>,
    /// How long after it expires a payment that nothing came for waits before it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_window_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_fee_bps: Option<u32>,
    /// Decimal, in units of `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DecimalText>)]
    pub platform_fee_min: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_fee_bps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DecimalText>)]
    pub provider_fee_min: Option<String>,
}

/// A payment.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
    #[schema(value_type = AddressText)]
    pub token_contract: Address,
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
    pub deposit_address: Address,
    pub deposit_path: String,
    pub destination_status: String,
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
    pub seller_address: Address,
    /// Confirmed and counted towards the amount, whatever became of it since.
    pub received_units: String,
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Who watches for the money: amn.scanner is this daemon.
    pub provider: String,
    pub terms: TermsView,
    /// What the books hold for the payment now.
    pub claims: Vec<ClaimView>,
    /// Money ordered out of it.
    pub payouts: Vec<PayoutView>,
    pub disputes: Vec<DisputeView>,
    pub transfers: Vec<TransferView>,
    pub exceptions: Vec<ExceptionView>,
    /// The quote that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<QuoteView>,
}

/// A quote: what the amount in the token rests on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RequoteView {
    pub payment: PaymentView,
    pub quote: QuoteView,
    /// What has come so far, in time or late; counted, or waiting for an officer.
    pub received_units: String,
    /// What is missing of what is due now. At 0 an officer may take late money for the payment.
    pub missing_units: String,
}

/// What was agreed when the payment was created.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TermsView {
    pub tolerance_bps: u16,
    /// Until then a payment that nothing came for has not failed.
    #[serde(with = "time::serde::rfc3339")]
    pub late_until: OffsetDateTime,
    pub platform_fee_bps: u16,
    pub platform_fee_min_units: String,
    pub provider_fee_bps: u16,
    pub provider_fee_min_units: String,
    /// The fees of what is in escrow, or else of what is due, if all of it is released.
    pub platform_fee_units: String,
    pub provider_fee_units: String,
}

/// Money of a payment in one account of the ledger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClaimView {
    /// received, held, disputed, payable or suspense
    pub account: String,
    pub chain_id: u64,
    pub asset: String,
    pub symbol: String,
    pub amount: String,
    pub units: String,
}

/// Money ordered out of a payment.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PayoutView {
    pub id: Uuid,
    /// release or refund
    pub kind: String,
    /// ordered, planned, settled or withdrawn
    pub state: String,
    /// The claim it draws from.
    pub from: String,
    pub chain_id: u64,
    pub asset: String,
    pub gross_units: String,
    pub platform_fee_units: String,
    pub provider_fee_units: String,
    /// What the recipient gets.
    pub net_units: String,
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
    pub to_address: Address,
    pub requested_by: String,
    pub dispute_id: Option<Uuid>,
    pub intent_id: Option<IntentId>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DisputeView {
    pub id: Uuid,
    pub payment_id: PaymentId,
    /// open or resolved
    pub state: String,
    pub opened_by: String,
    pub reason: String,
    /// refund, replacement, compensation or no_action: what was decided last.
    pub resolution: Option<String>,
    pub resolved_by: Option<String>,
    pub note: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub opened_at: OffsetDateTime,
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub resolved_at: Option<OffsetDateTime>,
}

/// `POST /v1/payments/{id}/release`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"amount": "40"}))]
pub struct ReleasePayment {
    /// Decimal, in units of the token, fees included; all that is held when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DecimalText>)]
    pub amount: Option<String>,
}

/// `POST /v1/payments/{id}/refund`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"from": "held", "to": "0x3333333333333333333333333333333333333333", "amount": "10"}))]
pub struct RefundPayment {
    /// held, received (not whole yet) or suspense (too much, late, twice, of another kind).
    #[schema(value_type = SourceText)]
    pub from: String,
    /// Where the buyer wants it. EIP-55 checksums are verified. Nothing is ever sent back to where it came from
    /// by itself: exchanges send from addresses that they share.
    #[schema(value_type = AddressText)]
    pub to: String,
    /// Decimal, in units of what is refunded; all of it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DecimalText>)]
    pub amount: Option<String>,
    /// Of suspense: the chain it is on, if not the payment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// Of suspense: the symbol of what it is, if not the payment's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// `POST /v1/payments/{id}/accept`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"less_than_due": true, "reason": "the buyer pays the rest in cash"}))]
pub struct AcceptPayment {
    /// Take what is there as the whole, although it is less than was due.
    #[serde(default)]
    pub less_than_due: bool,
    pub reason: String,
}

/// `POST /v1/payments/{id}/disputes`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "nothing was delivered"}))]
pub struct OpenDispute {
    pub reason: String,
}

/// `POST /v1/disputes/{id}/resolve`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"resolution": "refund", "note": "the parcel came back", "refund_to": "0x3333333333333333333333333333333333333333"}))]
pub struct ResolveDispute {
    /// refund, replacement, compensation or no_action.
    #[schema(value_type = ResolutionText)]
    pub resolution: String,
    /// Why, for the record.
    pub note: String,
    /// For refund and compensation: where the buyer wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AddressText>)]
    pub refund_to: Option<String>,
    /// For compensation: what the buyer gets; the seller gets the rest. Decimal, in units of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DecimalText>)]
    pub refund_amount: Option<String>,
}

/// `POST /v1/payments/{id}/quarantine`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "the transfer is back in the chain"}))]
pub struct EndQuarantine {
    /// Its money does not count: it goes to suspense, to be refunded or accepted.
    #[serde(default)]
    pub to_suspense: bool,
    pub reason: String,
}

/// A transfer seen at a payment's address.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransferView {
    #[schema(value_type = HashText)]
    pub tx_hash: B256,
    pub asset: String,
    pub units: String,
    pub block_number: u64,
    #[schema(value_type = HashText)]
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

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExceptionView {
    pub kind: String,
    pub detail: String,
    pub open: bool,
    /// How it was closed.
    pub resolution: Option<String>,
}

/// A page of payments. `next_cursor` is absent on the last page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PaymentPage {
    pub payments: Vec<PaymentView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// An intent, as officers and stations read it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IntentView {
    pub id: IntentId,
    pub kind: String,
    pub state: String,
    pub state_version: i64,
    pub revision: u32,
    pub chain_id: u64,
    pub from_path: String,
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
    pub from_address: Address,
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
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
    #[schema(value_type = HashText)]
    pub digest: B256,
    pub approvals: u8,
    pub approvals_required: u8,
    /// How long an approval counts.
    #[serde(default)]
    pub approvals_expire_minutes: u32,
    /// The policy it was planned under.
    #[serde(default)]
    pub policy_id: Option<i64>,
    /// Who asked for its present fees, where they were raised.
    #[serde(default)]
    pub revised_by: Option<String>,
    /// The intent whose nonce a cancel takes: part of the digest.
    #[serde(default)]
    pub cancels: Option<IntentId>,
    #[schema(value_type = Option<HashText>)]
    pub tx_hash: Option<B256>,
}

/// `POST /v1/intents/{id}/approvals`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"digest": "0x1f9090aae28b8a3dceadf281b0f12828e676c3261f9090aae28b8a3dceadf281"}))]
pub struct ApproveIntent {
    /// The digest the officer saw.
    #[schema(value_type = HashText)]
    pub digest: B256,
}

/// `POST /v1/intents/{id}/claim`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"station": "desk", "take_over": false}))]
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
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"raw": "0x02c0"}))]
pub struct SubmitSignature {
    /// The signed transaction as it will be sent: EIP-2718, type 2.
    #[schema(value_type = BytesText)]
    pub raw: Bytes,
}

/// `POST /v1/intents/{id}/decline`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"station": "desk", "reason": "the screen shows another address"}))]
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
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "the seller asked for another address"}))]
pub struct VoidIntent {
    pub reason: String,
}

/// `POST /v1/intents/{id}/replacement`. Without fees, those that displace what is out there and that the market
/// asks for now.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "max_fee_per_gas": "60000000000", "max_priority_fee_per_gas": "2000000000" }))]
pub struct ReplaceIntent {
    /// In wei; with the other or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WeiText>)]
    pub max_fee_per_gas: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WeiText>)]
    pub max_priority_fee_per_gas: Option<String>,
}

/// `POST /v1/intents/{id}/cancel`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "another address" }))]
pub struct CancelIntent {
    pub reason: String,
    /// Fees as in [`ReplaceIntent`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WeiText>)]
    pub max_fee_per_gas: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WeiText>)]
    pub max_priority_fee_per_gas: Option<String>,
}

/// `POST /v1/intents/adopted`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "chain_id": 1, "tx_hash": "0x1111111111111111111111111111111111111111111111111111111111111111", "reason": "restored from the backup of Monday"
}))]
pub struct AdoptTransaction {
    pub chain_id: u64,
    #[schema(value_type = HashText)]
    pub tx_hash: B256,
    /// The signed bytes, where the node does not give them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BytesText>)]
    pub raw: Option<Bytes>,
    /// The order that it paid, where several pay the same to the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payout_id: Option<Uuid>,
    pub reason: String,
}

/// A nonce of one of our addresses that the chain used for what is not known here.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ForeignNonceView {
    pub chain_id: u64,
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
    pub address: Address,
    pub nonce: u64,
    /// Where the address's past ends; 0 where nothing is stated.
    pub baseline: u64,
    #[serde(with = "time::serde::rfc3339")]
    pub seen_at: OffsetDateTime,
}

/// `POST /v1/nonces/baselines`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "chain_id": 1, "address": "0x3333333333333333333333333333333333333333", "nonce": 7, "reason": "used by hand before the enrolment" }))]
pub struct ProposeBaseline {
    pub chain_id: u64,
    pub address: String,
    /// The first nonce that needs a transaction of ours.
    pub nonce: u64,
    pub reason: String,
}

/// A change that takes two officers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProposalView {
    pub id: i64,
    /// policy, destination, threshold, nonce baseline or adjustment
    pub subject: String,
    /// What it says, for people.
    pub lines: Vec<String>,
    /// The text that is decided about.
    pub body: String,
    /// SHA-256 of the text.
    #[schema(value_type = HashText)]
    pub digest: B256,
    #[serde(with = "time::serde::rfc3339::option")]
    pub effective_at: Option<OffsetDateTime>,
    pub proposed_by: Uuid,
    pub reason: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// open, confirmed or withdrawn
    pub state: String,
    pub decided_by: Option<Uuid>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub decided_at: Option<OffsetDateTime>,
}

/// `POST /v1/proposals/{id}/confirm`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "digest": "0x3f1c0b6e0f0a1a7c5f3d7c3ad1f6a0a4c8a4de4a0ec8f7f9a1b4a7d1f0c2b3e4" }))]
pub struct ConfirmProposal {
    /// The digest of the text the officer saw.
    #[schema(value_type = HashText)]
    pub digest: B256,
}

/// `POST /v1/proposals/{id}/withdraw`, and `POST /v1/policies/destinations/{chain}/{address}/remove`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "contract ended" }))]
pub struct WithReason {
    pub reason: String,
}

/// `POST /v1/policies`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "document": "[[rule]]\nname = \"inside\"\nkinds = [\"sweep\"]\nchain = 1\nasset = \"USDC\"\napprovals = 1\n", "reason": "first rules" }))]
pub struct ProposePolicy {
    /// The policy, in TOML.
    pub document: String,
    /// At once when absent.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<OffsetDateTime>,
    pub reason: String,
}

/// A policy that two officers made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    pub id: i64,
    /// in force, coming, or past
    pub state: String,
    pub lines: Vec<String>,
    #[schema(value_type = HashText)]
    pub digest: B256,
    #[serde(with = "time::serde::rfc3339")]
    pub effective_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    pub proposed_by: Uuid,
    pub confirmed_by: Uuid,
    pub reason: String,
}

/// `POST /v1/policies/check`: what a policy would say. Nothing is stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "document": "[[rule]]\nname = \"inside\"\nkinds = [\"sweep\"]\nchain = 1\nasset = \"USDC\"\napprovals = 1\n", "last": 100 }))]
pub struct CheckPolicy {
    /// The policy, in TOML.
    pub document: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outflow: Option<OutflowAsked>,
    /// How many of the newest intents to try it on; at most 1000.
    #[serde(default)]
    pub last: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutflowAsked {
    pub kind: String,
    pub chain_id: u64,
    /// A symbol of the chain.
    pub asset: String,
    #[schema(value_type = DecimalText)]
    pub amount: String,
    #[schema(value_type = AddressText)]
    pub to_address: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckedPolicy {
    pub lines: Vec<String>,
    #[schema(value_type = HashText)]
    pub digest: B256,
    pub outflow: Option<VerdictView>,
    /// Oldest first.
    pub replayed: Vec<ReplayView>,
}

/// What a policy says of an outflow, and which rules it rests on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VerdictView {
    pub allowed: bool,
    pub approvals: Option<u8>,
    pub approvals_expire_minutes: Option<u32>,
    pub lines: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReplayView {
    pub intent_id: IntentId,
    pub kind: String,
    pub chain_id: u64,
    pub amount: String,
    pub allowed: bool,
    pub approvals: Option<u8>,
    /// What it took.
    pub approvals_required: u8,
    pub reasons: Vec<String>,
}

/// `GET /v1/intents/{id}/policy`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplainedIntent {
    pub intent_id: IntentId,
    pub policy_id: Option<i64>,
    pub approvals_required: u8,
    pub approvals_expire_minutes: u32,
    /// What that policy says now, with the intent itself left out of what has left.
    pub verdict: Option<VerdictView>,
    pub lines: Vec<String>,
}

/// An outflow that is due and may not leave.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RefusalView {
    pub kind: String,
    pub payment_id: PaymentId,
    pub chain_id: u64,
    pub amount: String,
    #[schema(value_type = AddressText)]
    pub to_address: Address,
    pub policy_id: i64,
    pub reasons: String,
    #[serde(with = "time::serde::rfc3339")]
    pub first_seen_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen_at: OffsetDateTime,
}

/// `POST /v1/policies/destinations`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "chain_id": 1, "address": "0x3333333333333333333333333333333333333333", "label": "Seller", "reason": "contract of May" }))]
pub struct ProposeDestination {
    pub chain_id: u64,
    #[schema(value_type = AddressText)]
    pub address: String,
    pub label: String,
    pub reason: String,
}

/// A listed destination.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ListedDestination {
    pub chain_id: u64,
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
    pub address: Address,
    pub label: String,
    pub allowed: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// When the policy in force lets money go there; absent without a policy.
    #[serde(with = "time::serde::rfc3339::option")]
    pub cools_until: Option<OffsetDateTime>,
    pub changed_by: Uuid,
    pub reason: String,
}

/// What became of a threshold that was asked for: set, or proposed because it is lower.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ThresholdOutcome {
    Set(Box<ThresholdView>),
    Proposed { proposal: Box<ProposalView> },
}

/// An account whose xpub a station compares with its device.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    pub label: String,
    pub path: String,
    pub xpub: String,
    pub fingerprint: String,
}

/// What a station needs to start a session.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SigningQueue {
    pub accounts: Vec<AccountView>,
    pub intents: Vec<IntentView>,
}

/// A watched chain.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChainView {
    pub chain_id: u64,
    pub name: String,
    pub scanned_number: Option<u64>,
    #[schema(value_type = Option<HashText>)]
    pub scanned_hash: Option<B256>,
    pub threshold: Option<u32>,
    pub threshold_history_id: Option<i64>,
    pub outflow_halted: Option<String>,
    pub operator_addresses: Vec<OperatorAddressView>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OperatorAddressView {
    pub purpose: String,
    pub path: String,
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
    pub address: Address,
}

/// One custody account against the chain.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReconciliationLine {
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
    pub address: Address,
    pub asset: String,
    pub symbol: String,
    pub ledger: String,
    pub chain: String,
    pub pending: String,
    pub equal: bool,
}

/// The books of one asset: where it is, and whose it is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reconciliation {
    pub chains: Vec<ChainReconciliation>,
    pub sides: Vec<SidesView>,
    pub equal: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChainReconciliation {
    pub chain_id: u64,
    pub block_number: u64,
    #[schema(value_type = HashText)]
    pub block_hash: B256,
    pub lines: Vec<ReconciliationLine>,
}

/// A ledger entry.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryPage {
    pub entries: Vec<EntryView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// What the chain held and the books did not explain, as it was last seen. Amounts are in the asset's own decimals.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FindingView {
    pub id: i64,
    pub chain_id: u64,
    #[schema(value_type = AddressText)]
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
    #[schema(value_type = HashText)]
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
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FindingPage {
    pub findings: Vec<FindingView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A credited transfer and what screening says of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ScreeningView {
    pub id: i64,
    pub chain_id: u64,
    pub payment_id: Option<PaymentId>,
    #[schema(value_type = HashText)]
    pub tx_hash: B256,
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
    pub sender: Address,
    /// Who signed the transaction, once it was asked for.
    #[schema(value_type = Option<AddressText>)]
    pub origin: Option<Address>,
    pub asset: String,
    pub symbol: String,
    pub amount: String,
    pub amount_units: String,
    /// not_screened, clear, hit or unavailable; absent before anybody has looked.
    pub outcome: Option<String>,
    /// screener:address
    pub hits: Vec<String>,
    /// unavailable:screener
    pub missing: Vec<String>,
    /// Whether its money may leave as far as screening goes.
    pub passes: bool,
    /// cleared or confirmed, by a resolver.
    pub decision: Option<String>,
    pub decided_by: Option<UserId>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub decided_at: Option<OffsetDateTime>,
    pub reason: Option<String>,
    /// The newest first; in the view of one alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<ScreeningVerdictView>,
}

/// One answer of one screener, with what it rests on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ScreeningVerdictView {
    /// list, oracle or provider
    pub screener: String,
    pub outcome: String,
    pub evidence: serde_json::Value,
    #[serde(with = "time::serde::rfc3339")]
    pub screened_at: OffsetDateTime,
}

/// Screenings after a cursor, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ScreeningPage {
    pub screenings: Vec<ScreeningView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Money that came for nobody.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SuspendedView {
    /// The credit's entry in the ledger.
    pub entry: i64,
    pub chain_id: u64,
    /// Where it is.
    #[schema(value_type = Option<AddressText>)]
    pub address: Option<Address>,
    pub symbol: String,
    pub amount: String,
    pub amount_units: String,
    pub memo: String,
    #[serde(with = "time::serde::rfc3339")]
    pub credited_at: OffsetDateTime,
    /// The proposal about it that waits for another officer.
    pub proposal: Option<i64>,
}

/// Money that came for nobody, after a cursor, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SuspendedPage {
    pub suspended: Vec<SuspendedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `POST /v1/adjustments`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"act": "attribute", "entry": 71, "payment_id": "01900000-0000-7000-8000-000000000041", "reason": "the buyer paid the treasury"}))]
pub struct AdjustmentAsked {
    /// attribute or own, about money that came for nobody; lost or cover, about a loss.
    pub act: String,
    /// attribute, own: the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<i64>,
    /// attribute: whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<PaymentId>,
    /// lost, cover: the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// lost, cover: the symbol of the coin or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset: Option<String>,
    /// lost, cover: decimal, in units of the asset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// lost: the address that it is gone from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub reason: String,
}

/// Whom a payment's money would go to, and what screening says of them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecipientView {
    pub id: i64,
    pub chain_id: u64,
    pub payment_id: PaymentId,
    #[serde(serialize_with = "checksummed")]
    #[schema(value_type = AddressText)]
    pub address: Address,
    /// not_screened, clear, hit or unavailable; absent before anybody has looked.
    pub outcome: Option<String>,
    /// screener:address
    pub hits: Vec<String>,
    /// unavailable:screener
    pub missing: Vec<String>,
    /// Whether money may go there as far as screening goes.
    pub passes: bool,
    /// cleared or confirmed, by a resolver.
    pub decision: Option<String>,
    pub decided_by: Option<UserId>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub decided_at: Option<OffsetDateTime>,
    pub reason: Option<String>,
    /// The newest first; in the view of one alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<ScreeningVerdictView>,
}

/// Recipients after a cursor, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecipientPage {
    pub recipients: Vec<RecipientView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `POST /v1/screenings/{id}/decision` and `POST /v1/recipients/{id}/decision`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"decision": "clear", "reason": "another person of that name"}))]
pub struct DecideScreening {
    /// clear or confirm
    #[schema(value_type = DecisionText)]
    pub decision: String,
    pub reason: String,
}

/// `POST /v1/chains/{chain}/thresholds`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"gate": "release", "blocks": 40, "asset": "USDC", "from_amount": "1000", "reason": "large payments wait longer"}))]
pub struct SetThreshold {
    /// credit or release
    #[schema(value_type = GateText)]
    pub gate: String,
    /// 1 to 10000; absent switches a tier off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<i64>,
    /// A tier: the symbol of the coin or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset: Option<String>,
    /// A tier: from this amount on, in units of the asset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DecimalText>)]
    pub from_amount: Option<String>,
    /// At once when absent. Never in the past.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<OffsetDateTime>,
    pub reason: String,
}

/// The thresholds of one gate.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ThresholdsView {
    pub gate: String,
    pub in_force: Vec<ThresholdView>,
    /// What takes effect later, soonest first.
    pub coming: Vec<ThresholdView>,
}

/// A row of the history.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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

/// A write that says nothing but that it shall be done: `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({}))]
pub struct Nothing {}

/// An RFC 9457 problem.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    pub field: String,
    pub value: String,
    pub problem: String,
}

// === webhooks and events ===

/// `POST /v1/webhooks`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"url": "https://shop.example/hooks", "events": ["payment.*"], "description": "the shop"}))]
pub struct CreateWebhook {
    /// https, and an address of the public internet.
    pub url: String,
    /// One kind (`payment.funded`), all of a noun (`payment.*`), or `*`.
    pub events: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Where events are sent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"old_secret_hours": 24}))]
pub struct RotateWebhook {
    /// For how long the secret before signs too; 24 without it, 0 if it leaked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_secret_hours: Option<u32>,
}

/// `POST /v1/webhooks/{id}/disable`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "the receiver moves"}))]
pub struct DisableWebhook {
    pub reason: String,
}

/// `POST /v1/webhooks/{id}/redeliver`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"since": "2026-01-01T00:00:00Z", "dead_only": true}))]
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

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Redelivered {
    pub deliveries: u64,
}

/// One event on its way to one endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeliveryPage {
    pub deliveries: Vec<DeliveryView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    pub events: Vec<EventView>,
    /// Where the feed goes on, also when there is nothing more yet.
    pub next_cursor: String,
}

/// One server-sent event, field by field.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StreamedEvent {
    /// Its place in the feed: what `Last-Event-ID` and `after` take.
    pub id: String,
    /// The kind.
    pub event: String,
    /// An `EventView`, as JSON text.
    pub data: String,
}

// === reads of what is held where ===

/// An account as everybody may know it: the xpub shows all its addresses and stays here.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EnrolledAccount {
    pub label: String,
    pub path: String,
    pub fingerprint: String,
    /// Deposit addresses handed out.
    pub issued: u32,
    /// Deposit addresses that can still be handed out.
    pub remaining: u32,
}

/// The address that a payment is paid to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DestinationView {
    pub id: Uuid,
    pub payment_id: PaymentId,
    pub chain_id: u64,
    #[schema(value_type = AddressText)]
    #[serde(serialize_with = "checksummed")]
    pub address: Address,
    pub path: String,
    /// active, sweeping, swept or quarantined
    pub status: String,
    /// Only transfers in blocks above this one count.
    pub birth_block: u64,
}

/// A transfer seen at an address of ours, in one block.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ObservedTransfer {
    pub id: i64,
    pub chain_id: u64,
    #[schema(value_type = AddressText)]
    #[serde(serialize_with = "checksummed")]
    pub address: Address,
    #[schema(value_type = AddressText)]
    #[serde(serialize_with = "checksummed")]
    pub sender: Address,
    #[schema(value_type = HashText)]
    pub tx_hash: B256,
    /// Where in the transaction: a log, the transaction itself, or a call inside.
    pub position: String,
    /// "native", or the token's contract.
    pub asset: String,
    pub symbol: String,
    pub amount: String,
    pub amount_units: String,
    pub block_number: u64,
    #[schema(value_type = HashText)]
    pub block_hash: B256,
    #[serde(with = "time::serde::rfc3339")]
    pub block_time: OffsetDateTime,
    /// Sent by an address of ours; it is not credited.
    pub internal: bool,
    /// waiting, confirmed or orphaned
    pub state: String,
    /// Blocks on it now, its own being the first; 0 for an orphaned one.
    pub depth: u64,
    /// Blocks it needs to be confirmed.
    pub threshold: u32,
    pub may_leave: bool,
}

/// Transfers after a cursor, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransferPage {
    pub transfers: Vec<ObservedTransfer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// All ledger accounts of one kind in one asset, summed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BalanceView {
    pub chain_id: u64,
    pub asset: String,
    pub symbol: String,
    /// custody, network_fee and shortfall say where it is; all others whose it is.
    pub kind: String,
    pub amount: String,
    pub amount_units: String,
}
