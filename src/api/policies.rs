//! Policies, destinations and everything else that takes two officers; what a policy says of an intent; and a
//! dry run of one that is only written yet.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use utoipa::IntoParams;

use super::ApiState;
use super::auth::Authenticated;
use super::idempotency::Writing;
use super::intents::intent_id;
use super::problem::Problem;
use super::schema::OpenOrAllText;
use super::thresholds::{chain_of, shorten};
use super::wire::{
    CheckPolicy, CheckedPolicy, ConfirmProposal, ExplainedIntent, ListedDestination, OutflowAsked, PolicyView, ProposalView,
    ProposeDestination, ProposePolicy, RefusalView, ReplayView, VerdictView, WithReason,
};
use crate::chains::ChainBook;
use crate::escrow::{self, Adjustment};
use crate::intent::baseline::BaselineAsked;
use crate::intent::{self, IntentKind, judge};
use crate::officer::proposal::{self, Proposal, Subject};
use crate::officer::{OfficerError, Scope};
use crate::policy::{self, Destination, DestinationAsked, Evaluation, Outflow, Policy, PolicyRow, Refusal, Verdict};
use crate::settings::{self, Lowering};
use crate::units::{AssetId, Confirmations, ProposalId, format_units, parse_address, parse_units};

const LIST_MAX: i64 = 200;
const REPLAY_MAX: u32 = 1_000;

// === policies ===

/// Policies, newest first
///
/// The one in force, what comes and what was.
#[utoipa::path(
    get, path = "/v1/policies", tag = "policy",
    responses((status = 200, body = Vec<PolicyView>)),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn list(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<Vec<PolicyView>>, Problem> {
    who.require(Scope::IntentsRead)?;
    let mut connection = state.db.connection().await?;
    let in_force = policy::store::find_in_force(&mut connection).await?.map(|row| row.id);
    let now = proposal::store::clock(&mut connection).await?;
    let rows = policy::store::list(&mut connection, LIST_MAX).await?;
    let state_of = |row: &PolicyRow| match in_force {
        Some(id) if id == row.id => "in force",
        _ if row.effective_at > now => "coming",
        _ => "past",
    };
    Ok(axum::Json(rows.iter().map(|row| policy_view(row, state_of(row), &state.book)).collect()))
}

/// Propose a policy
#[utoipa::path(
    post, path = "/v1/policies", tag = "policy",
    request_body = ProposePolicy,
    responses((status = 201, body = ProposalView)),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn propose(State(state): State<ApiState>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let (write, asked) = call.read::<ProposePolicy>(&caller, "POST /v1/policies".to_owned())?;
    let policy = policy::parse(&asked.document, &state.book).map_err(|error| Problem::field("document", "", error.to_string()))?;
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let proposal = policy::store::propose(connection, &policy, asked.effective_at, asked.reason, &caller).await?;
                Ok(proposal_view(&proposal, &book))
            })
        })
        .await
}

/// What a policy would do
///
/// A question, so nothing is stored, and the key that every POST brings is not kept.
#[utoipa::path(
    post, path = "/v1/policies/check", tag = "policy",
    request_body = CheckPolicy,
    responses((status = 200, body = CheckedPolicy)),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn check(State(state): State<ApiState>, call: Writing) -> Result<axum::Json<CheckedPolicy>, Problem> {
    let caller = call.who.require(Scope::IntentsRead)?;
    let (_, asked) = call.read::<CheckPolicy>(caller, "POST /v1/policies/check".to_owned())?;
    let book = &state.book;
    let policy = policy::parse(&asked.document, book).map_err(|error| Problem::field("document", "", error.to_string()))?;
    if asked.last > REPLAY_MAX {
        return Err(Problem::field("last", asked.last.to_string(), "use at most 1000"));
    }
    let mut connection = state.db.connection().await?;
    let outflow = match &asked.outflow {
        Some(asked) => {
            let outflow = read_outflow(asked, book)?;
            let facts = judge::facts(&mut connection, &policy, &outflow, None).await?;
            Some(verdict_view(&policy.evaluate(outflow, &facts, 1), book))
        }
        None => None,
    };
    let (past, standings) = judge::store::list_past(&mut connection, i64::from(asked.last)).await?;
    let verdicts = judge::replay(&policy, &past, &standings);
    let replayed = past.iter().zip(&verdicts).map(|(past, verdict)| replay_view(past, verdict, book)).collect();
    let digest = proposal::digest_of(&policy.canonical());
    Ok(axum::Json(CheckedPolicy { lines: policy.lines(book), digest, outflow, replayed }))
}

/// Outflows that are due and may not leave.
#[utoipa::path(
    get, path = "/v1/policies/refusals", tag = "policy",
    responses((status = 200, body = Vec<RefusalView>)),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn refusals(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<Vec<RefusalView>>, Problem> {
    who.require(Scope::IntentsRead)?;
    let mut connection = state.db.connection().await?;
    let rows = judge::store::list_refusals(&mut connection, LIST_MAX).await?;
    let views = rows.into_iter().map(|row| RefusalView {
        kind: row.kind.name().to_owned(),
        payment_id: row.payment,
        chain_id: row.asset.chain.get(),
        amount: amount(&state.book, row.asset, row.units),
        to_address: row.to,
        policy_id: row.policy.0,
        reasons: row.reasons,
        first_seen_at: row.first_seen_at,
        last_seen_at: row.last_seen_at,
    });
    Ok(axum::Json(views.collect()))
}

/// Which rules an intent is under, and what they say now.
#[utoipa::path(
    get, path = "/v1/intents/{id}/policy", tag = "policy",
    responses((status = 200, body = ExplainedIntent), (status = 404, description = "not_found")),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn explain(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(id): Path<String>,
) -> Result<axum::Json<ExplainedIntent>, Problem> {
    who.require(Scope::IntentsRead)?;
    let mut connection = state.db.connection().await?;
    let intent = intent::store::get(&mut connection, intent_id(&id)?).await?;
    let mut lines = Vec::new();
    let verdict = match intent.policy {
        None => {
            lines.push(format!(
                "planned before there was any policy: {}, as the configuration said",
                policy::officers(intent.approvals_required)
            ));
            None
        }
        Some(id) => {
            let row = policy::store::get(&mut connection, id).await?;
            lines.push(format!(
                "policy {id}, proposed by {} and confirmed by {}: {}, approvals count {} minutes",
                row.proposed_by,
                row.confirmed_by,
                policy::officers(intent.approvals_required),
                intent.approvals_expire_minutes
            ));
            if policy::store::find_in_force(&mut connection).await?.is_some_and(|now| now.id != id) {
                lines.push("another policy is in force by now; the intent keeps its own".to_owned());
            }
            let outflow = judge::outflow_of(&intent);
            let facts = judge::facts(&mut connection, &row.policy, &outflow, Some(intent.id)).await?;
            let at_least = if intent.kind == IntentKind::Cancel { intent.approvals_required } else { 1 };
            Some(verdict_view(&row.policy.evaluate(outflow, &facts, at_least), &state.book))
        }
    };
    Ok(axum::Json(ExplainedIntent {
        intent_id: intent.id,
        policy_id: intent.policy.map(|policy| policy.0),
        approvals_required: intent.approvals_required,
        approvals_expire_minutes: intent.approvals_expire_minutes,
        verdict,
        lines,
    }))
}

fn read_outflow(asked: &OutflowAsked, book: &ChainBook) -> Result<Outflow, Problem> {
    let kind = IntentKind::ALL.into_iter().find(|kind| kind.name() == asked.kind).ok_or_else(|| {
        Problem::field("outflow.kind", shorten(&asked.kind), format!("use one of {}", IntentKind::ALL.map(IntentKind::name).join(", ")))
    })?;
    let spec = chain_of(book, &asked.chain_id.to_string())?;
    let (asset, facts) = spec
        .find_asset(&asked.asset)
        .ok_or_else(|| Problem::field("outflow.asset", shorten(&asked.asset), format!("use one of {}", spec.symbols().join(", "))))?;
    let units = parse_units(&asked.amount, facts.decimals)
        .map_err(|error| Problem::field("outflow.amount", shorten(&asked.amount), error.to_string()))?;
    let to = parse_address(&asked.to_address)
        .map_err(|error| Problem::field("outflow.to_address", shorten(&asked.to_address), error.to_string()))?;
    Ok(Outflow { kind, asset, units, to })
}

// === what takes two officers ===

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// open or all
    #[serde(default)]
    #[param(value_type = Option<OpenOrAllText>, inline)]
    state: Option<String>,
}

/// Acts that take two officers
#[utoipa::path(
    get, path = "/v1/proposals", tag = "policy",
    params(Filter),
    responses((status = 200, body = Vec<ProposalView>)),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn proposals(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(filter): Query<Filter>,
) -> Result<axum::Json<Vec<ProposalView>>, Problem> {
    who.require(Scope::IntentsRead)?;
    let open_only = match filter.state.as_deref() {
        None | Some("open") => true,
        Some("all") => false,
        Some(other) => return Err(Problem::field("state", shorten(other), "use open or all")),
    };
    let mut connection = state.db.connection().await?;
    let rows = proposal::store::list(&mut connection, open_only, LIST_MAX).await?;
    Ok(axum::Json(rows.iter().map(|proposal| proposal_view(proposal, &state.book)).collect()))
}

/// One proposal
#[utoipa::path(
    get, path = "/v1/proposals/{id}", tag = "policy",
    responses((status = 200, body = ProposalView), (status = 404, description = "not_found")),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn proposal(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(id): Path<String>,
) -> Result<axum::Json<ProposalView>, Problem> {
    who.require(Scope::IntentsRead)?;
    let mut connection = state.db.connection().await?;
    let found = proposal::store::get(&mut connection, proposal_id(&id)?).await?;
    Ok(axum::Json(proposal_view(&found, &state.book)))
}

/// Confirm a proposal
///
/// Another officer's confirmation brings about what the proposal says, in one transaction.
#[utoipa::path(
    post, path = "/v1/proposals/{id}/confirm", tag = "policy",
    request_body = ConfirmProposal,
    responses(
        (status = 201, body = ProposalView),
        (status = 404, description = "not_found"),
        (status = 409, description = "decided, stale_digest, proposal_dead, other_subject, no_base, nothing_to_accept, not_enough, only_credited, held")
    ),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn confirm(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let id = proposal_id(&id)?;
    let (write, asked) = call.read::<ConfirmProposal>(&caller, format!("POST /v1/proposals/{id}/confirm"))?;
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                match proposal::store::get(connection, id).await?.subject {
                    Subject::Policy => drop(policy::store::confirm(connection, id, asked.digest, &caller).await?),
                    Subject::Destination => drop(policy::store::confirm_destination(connection, id, asked.digest, &caller).await?),
                    Subject::NonceBaseline => {
                        let _baseline = intent::baseline::store::confirm(connection, id, asked.digest, &caller).await?;
                    }
                    Subject::Threshold => drop(settings::store::confirm(connection, id, asked.digest, &caller).await?),
                    Subject::Adjustment => drop(escrow::adjust::confirm(connection, id, asked.digest, &caller, &book).await?),
                }
                confirmed_view(connection, id, &book).await
            })
        })
        .await
}

/// Withdraw a proposal
#[utoipa::path(
    post, path = "/v1/proposals/{id}/withdraw", tag = "policy",
    request_body = WithReason,
    responses(
        (status = 200, body = ProposalView),
        (status = 404, description = "not_found"),
        (status = 409, description = "decided")
    ),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn withdraw(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let id = proposal_id(&id)?;
    let (write, asked) = call.read::<WithReason>(&caller, format!("POST /v1/proposals/{id}/withdraw"))?;
    let book = state.book.clone();
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                proposal::store::withdraw(connection, id, &asked.reason, &caller).await?;
                confirmed_view(connection, id, &book).await
            })
        })
        .await
}

async fn confirmed_view(connection: &mut PgConnection, id: ProposalId, book: &ChainBook) -> Result<ProposalView, Problem> {
    let proposal = proposal::store::get(connection, id).await.map_err(|error: OfficerError| Problem::from(error))?;
    Ok(proposal_view(&proposal, book))
}

fn proposal_id(text: &str) -> Result<ProposalId, Problem> {
    text.parse().map_err(|_| Problem::not_found(format!("no proposal {:?}", shorten(text))))
}

// === destinations ===

/// Listed destinations
#[utoipa::path(
    get, path = "/v1/policies/destinations", tag = "policy",
    responses((status = 200, body = Vec<ListedDestination>)),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn destinations(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<Vec<ListedDestination>>, Problem> {
    who.require(Scope::IntentsRead)?;
    let mut connection = state.db.connection().await?;
    let cooling = cooling_hours(&mut connection).await?;
    let rows = policy::store::list_destinations(&mut connection, 10_000).await?;
    Ok(axum::Json(rows.iter().map(|row| destination_view(row, cooling)).collect()))
}

async fn cooling_hours(connection: &mut PgConnection) -> Result<Option<u32>, Problem> {
    Ok(policy::store::find_in_force(connection).await?.map(|row| row.policy.cooling_hours))
}

/// Propose a destination
#[utoipa::path(
    post, path = "/v1/policies/destinations", tag = "policy",
    request_body = ProposeDestination,
    responses((status = 201, body = ProposalView), (status = 404, description = "not_found")),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn propose_destination(State(state): State<ApiState>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let (write, asked) = call.read::<ProposeDestination>(&caller, "POST /v1/policies/destinations".to_owned())?;
    let spec = chain_of(&state.book, &asked.chain_id.to_string())?;
    let bad = |problem: String| Problem::field("address", shorten(&asked.address), problem);
    let address = parse_address(&asked.address).map_err(|error| bad(error.to_string()))?;
    spec.check_recipient(address).map_err(|error| bad(error.to_string()))?;
    let destination = DestinationAsked::new(spec.id, address, &asked.label);
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let proposal = policy::store::propose_destination(connection, &destination, asked.reason, &caller).await?;
                Ok(proposal_view(&proposal, &book))
            })
        })
        .await
}

/// Take a destination off the list
#[utoipa::path(
    post, path = "/v1/policies/destinations/{chain}/{address}/remove", tag = "policy",
    request_body = WithReason,
    responses((status = 200, body = ListedDestination), (status = 404, description = "not_found")),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn remove_destination(
    State(state): State<ApiState>,
    Path((chain, address)): Path<(String, String)>,
    call: Writing,
) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let chain = chain_of(&state.book, &chain)?.id;
    let address = parse_address(&address).map_err(|error| Problem::field("address", shorten(&address), error.to_string()))?;
    let route = format!("POST /v1/policies/destinations/{chain}/{address}/remove");
    let (write, asked) = call.read::<WithReason>(&caller, route)?;
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                let removed = policy::store::remove_destination(connection, chain, address, &asked.reason, &caller).await?;
                Ok(destination_view(&removed, None))
            })
        })
        .await
}

// === views ===

fn policy_view(row: &PolicyRow, state: &str, book: &ChainBook) -> PolicyView {
    PolicyView {
        id: row.id.0,
        state: state.to_owned(),
        lines: row.policy.lines(book),
        digest: row.digest,
        effective_at: row.effective_at,
        created_at: row.created_at,
        proposed_by: row.proposed_by.0,
        confirmed_by: row.confirmed_by.0,
        reason: row.reason.clone(),
    }
}

pub(super) fn proposal_view(proposal: &Proposal, book: &ChainBook) -> ProposalView {
    let state = match &proposal.decision {
        None => "open",
        Some(decision) if decision.confirmed => "confirmed",
        Some(_) => "withdrawn",
    };
    ProposalView {
        id: proposal.id.0,
        subject: proposal.subject.name().to_owned(),
        lines: lines_of(proposal, book),
        body: proposal.body.clone(),
        digest: proposal.digest,
        effective_at: proposal.effective_at,
        proposed_by: proposal.proposed_by.0,
        reason: proposal.reason.clone(),
        created_at: proposal.created_at,
        state: state.to_owned(),
        decided_by: proposal.decision.as_ref().map(|decision| decision.decided_by.0),
        decided_at: proposal.decision.as_ref().map(|decision| decision.decided_at),
    }
}

/// What a proposal says, for people; the text itself where it cannot be read.
fn lines_of(proposal: &Proposal, book: &ChainBook) -> Vec<String> {
    let as_it_is = || vec![proposal.body.clone()];
    match proposal.subject {
        Subject::Policy => Policy::from_canonical(&proposal.body).map_or_else(|_| as_it_is(), |policy| policy.lines(book)),
        Subject::Destination => serde_json::from_str::<DestinationAsked>(&proposal.body).map_or_else(
            |_| as_it_is(),
            |asked| {
                vec![format!(
                    "list {} on chain {} as {:?}; its cooling begins when it is confirmed",
                    asked.address, asked.chain, asked.label
                )]
            },
        ),
        Subject::NonceBaseline => BaselineAsked::from_canonical(&proposal.body).map_or_else(as_it_is, |asked| {
            vec![format!("nonces of {} on chain {} below {} need no transaction of ours", asked.address, asked.chain, asked.nonce)]
        }),
        Subject::Threshold => Lowering::from_canonical(&proposal.body).map_or_else(as_it_is, |lowering| {
            let to = lowering.blocks.map_or_else(|| "off".to_owned(), |blocks: Confirmations| format!("{blocks} blocks"));
            let hours = settings::LOWERING_DELAY.whole_hours();
            vec![format!("lower {} to {to}, {hours} hours after it is confirmed", lowering.key)]
        }),
        Subject::Adjustment => Adjustment::from_canonical(&proposal.body)
            .map_or_else(as_it_is, |adjustment| vec![super::adjustments::line_of(&adjustment, book)]),
    }
}

fn destination_view(row: &Destination, cooling_hours: Option<u32>) -> ListedDestination {
    let cools_until: Option<OffsetDateTime> =
        cooling_hours.filter(|_| row.allowed).map(|hours| row.created_at.saturating_add(Duration::hours(i64::from(hours))));
    ListedDestination {
        chain_id: row.chain.get(),
        address: row.address,
        label: row.label.clone(),
        allowed: row.allowed,
        since: row.created_at,
        cools_until,
        changed_by: row.changed_by.0,
        reason: row.reason.clone(),
    }
}

fn verdict_view(evaluation: &Evaluation<'_>, book: &ChainBook) -> VerdictView {
    let terms = match &evaluation.verdict {
        Verdict::Allowed(terms) => Some(*terms),
        Verdict::Refused(_) => None,
    };
    VerdictView {
        allowed: terms.is_some(),
        approvals: terms.map(|terms| terms.approvals),
        approvals_expire_minutes: terms.map(|terms| terms.approvals_expire_minutes),
        lines: evaluation.lines(book),
    }
}

fn replay_view(past: &judge::Past, verdict: &Verdict, book: &ChainBook) -> ReplayView {
    let (approvals, reasons) = match verdict {
        Verdict::Allowed(terms) => (Some(terms.approvals), Vec::new()),
        Verdict::Refused(refusals) => (None, refusals.iter().map(Refusal::to_string).collect()),
    };
    ReplayView {
        intent_id: past.intent,
        kind: past.outflow.kind.name().to_owned(),
        chain_id: past.outflow.asset.chain.get(),
        amount: amount(book, past.outflow.asset, past.outflow.units),
        allowed: approvals.is_some(),
        approvals,
        approvals_required: past.approvals_required,
        reasons,
    }
}

fn amount(book: &ChainBook, asset: AssetId, units: alloy::primitives::U256) -> String {
    match book.asset(asset) {
        Some(facts) => format!("{} {}", format_units(units, facts.decimals), facts.symbol),
        None => format!("{units} base units of {}", asset.asset),
    }
}
