//! Every code that a problem can carry, in one table: its status, its title and what to do. The type of a problem is
//! `urn:amanatd:problem:<code>`, which never changes its meaning; a new case gets a new line.

use axum::http::StatusCode;

/// What kind of refusal a problem is.
#[derive(Clone, Copy, Debug)]
pub struct CodeFacts {
    pub name: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    /// What it means for the caller.
    pub meaning: &'static str,
}

macro_rules! codes {
    ($($code:ident $name:literal $status:ident $title:expr, $meaning:literal;)*) => {
        /// The reason of a refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Code {
            $($code,)*
        }

        impl Code {
            pub(super) const fn facts(self) -> CodeFacts {
                match self {
                    $(Self::$code => CodeFacts { name: $name, status: StatusCode::$status, title: $title, meaning: $meaning },)*
                }
            }
        }

        /// All codes, as callers may meet them.
        pub const CODES: &[CodeFacts] = &[$(Code::$code.facts()),*];
    };
}

const UNREADABLE: &str = "The request cannot be read";
const STATE: &str = "Not possible in the present state";
const LATER: &str = "Not possible right now";
const NO_QUOTE: &str = "There is no quote";

codes! {
    Unreadable "unreadable" BAD_REQUEST UNREADABLE, "the path, the query or the request itself has the wrong form";
    KeyMissing "idempotency_key_missing" BAD_REQUEST UNREADABLE, "send an Idempotency-Key with every POST";
    KeyForm "idempotency_key_form" BAD_REQUEST UNREADABLE, "an Idempotency-Key has 1 to 200 printable ASCII characters without spaces";
    ContentType "content_type" BAD_REQUEST UNREADABLE, "send Content-Type: application/json";
    BodyForm "body_form" BAD_REQUEST UNREADABLE, "the body must be one JSON object with named fields";
    TrailingText "trailing_text" BAD_REQUEST UNREADABLE, "nothing may follow the JSON object";
    Unauthorized "unauthorized" UNAUTHORIZED "No live token", "send a bearer token that has not expired and was not revoked";
    Forbidden "forbidden" FORBIDDEN "The token may not do this", "the token lacks the scope, or the route is for officers";
    NotFound "not_found" NOT_FOUND "There is no such thing", "no row has this id, or there is no such route";
    Method "method" METHOD_NOT_ALLOWED "The route does not take that method", "see the Allow header";
    KeyRunning "idempotency_key_running" CONFLICT "Still running", "the first call with this key runs; repeat the same call in a moment";
    PaymentState "payment_state" CONFLICT STATE, "the payment cannot do this in its state";
    IntentState "intent_state" CONFLICT STATE, "the intent cannot do this in its state";
    MayBeSigned "may_be_signed" CONFLICT STATE, "a device may hold a signature over the intent; it can no longer be given up";
    StaleDigest "stale_digest" CONFLICT STATE, "the intent is no longer what was looked at; read it again";
    AlreadyApproved "already_approved" CONFLICT STATE, "this person has approved the intent before";
    OutflowHalted "outflow_halted" CONFLICT STATE, "nothing may leave on this chain until an officer lifts the halt";
    OnlyCredited "only_credited" CONFLICT STATE, "the money has not passed the release gate yet";
    Held "held" CONFLICT STATE, "screening or an issuer's freeze holds the money; a resolver decides";
    NotHeld "not_held" CONFLICT STATE, "screening does not hold the transfer";
    OtherStation "other_station" CONFLICT STATE, "another signing station has the intent";
    NotEnough "not_enough" CONFLICT STATE, "there is less than was asked for";
    OnlyFees "only_fees" CONFLICT STATE, "fees would take all of it";
    Disputed "disputed" CONFLICT STATE, "a dispute is open; a resolver ends it";
    StillShort "still_short" CONFLICT STATE, "it is less than was due; say less_than_due to take it as the whole";
    NothingToAccept "nothing_to_accept" CONFLICT STATE, "nothing waits for a decision";
    DisputeResolved "dispute_resolved" CONFLICT STATE, "the dispute is not open any more";
    Split "split" CONFLICT STATE, "a compensation leaves something for each side";
    PayoutState "payout_state" CONFLICT STATE, "the order is planned already, or closed";
    NotQuarantined "not_quarantined" CONFLICT STATE, "the deposit address is not in quarantine";
    InsufficientSources "insufficient_sources" SERVICE_UNAVAILABLE NO_QUOTE, "too few price sources answer; try again";
    InconsistentSources "inconsistent_sources" SERVICE_UNAVAILABLE NO_QUOTE, "price sources are too far apart; try again";
    DepegHalt "depeg_halt" SERVICE_UNAVAILABLE NO_QUOTE, "the token has left its peg; another token may be offered";
    JumpUnconfirmed "jump_unconfirmed" SERVICE_UNAVAILABLE NO_QUOTE, "the price has jumped and is not confirmed yet; try again";
    MarketClosed "market_closed" SERVICE_UNAVAILABLE NO_QUOTE, "the currency's market is closed";
    FxSanity "fx_sanity" SERVICE_UNAVAILABLE NO_QUOTE, "the exchange rate is out of its bounds";
    AmountNotPositive "amount_not_positive" UNPROCESSABLE_ENTITY NO_QUOTE, "an amount is more than zero";
    RateNotPositive "rate_not_positive" UNPROCESSABLE_ENTITY NO_QUOTE, "a rate is more than zero";
    SettleOverflow "settle_overflow_numeric_38_18" UNPROCESSABLE_ENTITY NO_QUOTE, "the amount is too large to be kept";
    UnknownCurrency "unknown_currency" UNPROCESSABLE_ENTITY NO_QUOTE, "the currency is none that is quoted";
    TokenNotOffered "token_not_offered" UNPROCESSABLE_ENTITY NO_QUOTE, "the token has no price sources of its own on this chain";
    QuotingDisabled "quoting_disabled" UNPROCESSABLE_ENTITY NO_QUOTE, "quoting is off: pay in the token's own name";
    QuotedTooOften "quoted_too_often" CONFLICT STATE, "the payment has as many quotes as are allowed; create another";
    QuoteLives "quote_lives" CONFLICT STATE, "the quote is still honoured";
    NotPriced "not_priced" CONFLICT STATE, "a payment in its own token needs no quote";
    ApprovalsExpired "approvals_expired" CONFLICT STATE, "its approvals expired before a station had it; it is approved anew";
    NonceUsed "nonce_used" CONFLICT STATE, "the chain has used the nonce; what used it settles or is looked into";
    BeingCancelled "being_cancelled" CONFLICT STATE, "a cancel was asked for; the intent is signed no more";
    NotReplaceable "not_replaceable" CONFLICT STATE, "nothing at the nonce can be replaced or cancelled in this state; the text says what to do";
    NotAdoptable "not_adoptable" CONFLICT STATE, "the transaction is not taken into the books; the text says why and what to do";
    Baseline "baseline" CONFLICT STATE, "a baseline only rises";
    CannotPay "cannot_pay" CONFLICT STATE, "the address holds less of the chain's coin than this can cost";
    Fees "fees" CONFLICT STATE, "the fees displace nothing, or are above the chain's cap";
    Lowers "lowers" CONFLICT STATE, "a lower threshold takes two officers; propose it with an officer's token";
    Officer "officer" CONFLICT STATE, "people or tokens cannot be changed like this";
    Decided "decided" CONFLICT STATE, "the proposal was confirmed or withdrawn before";
    ProposalDead "proposal_dead" CONFLICT STATE, "nobody confirmed it in time, or who proposed it is no officer any more; propose it anew";
    OtherSubject "other_subject" CONFLICT STATE, "the proposal is about something else";
    PolicyRefused "policy_refused" CONFLICT STATE, "the policy in force does not let it leave";
    WebhookState "webhook_state" CONFLICT STATE, "the endpoint is disabled already, or not disabled";
    NoBase "no_base" CONFLICT STATE, "a tier needs a base threshold under it";
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE UNREADABLE, "a body may have 64 KiB";
    InvalidFields "invalid_fields" UNPROCESSABLE_ENTITY "A field cannot be accepted", "fields names each with its value and what would do";
    KeyReused "idempotency_key_reused" UNPROCESSABLE_ENTITY "Idempotency key reused", "the key was used on this route with another body";
    RateLimited "rate_limited" TOO_MANY_REQUESTS "Too many requests", "wait for the seconds in Retry-After";
    Internal "internal" INTERNAL_SERVER_ERROR "The daemon failed", "the log says why, under the request's x-request-id";
    Unavailable "unavailable" SERVICE_UNAVAILABLE LATER, "the database or a chain's node is away; repeat the same call later";
    StreamsFull "streams_full" SERVICE_UNAVAILABLE LATER, "as many streams are open as are allowed; read /v1/events, or try later";
    Timeout "timeout" GATEWAY_TIMEOUT LATER, "repeat the call with the same Idempotency-Key to learn its outcome";
}
