//! The typed client: what `amanatd sign`, the command line and the demo speak to the daemon with.

use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::wire::{
    AcceptPayment, AdjustmentAsked, AdoptTransaction, ApproveIntent, CancelIntent, ChainView, CheckPolicy, CheckedPolicy, ClaimIntent,
    ConfirmProposal, CreatePayment, DecideScreening, DeclineIntent, DisputeView, EndQuarantine, EntryPage, ExplainedIntent, FindingPage,
    ForeignNonceView, IntentView, ListedDestination, OpenDispute, PaymentPage, PaymentView, PolicyView, ProblemView, ProposalView,
    ProposeBaseline, ProposeDestination, ProposePolicy, QuoteView, RecipientPage, RecipientView, Reconciliation, RefundPayment,
    RefusalView, ReleasePayment, ReplaceIntent, RequoteView, ResolveDispute, ScreeningPage, ScreeningView, SetThreshold, SigningQueue,
    SubmitSignature, SuspendedPage, ThresholdOutcome, ThresholdsView, VoidIntent, WithReason,
};
use crate::units::{ChainId, IntentId, PaymentId, ProposalId};

/// A caller of one daemon with one token.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: SecretString,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("url {0:?} is neither an http or https URL nor unix: and the path of a socket")]
    Url(String),
    #[error("the daemon cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the daemon refused: {} ({})", .0.detail, .0.code)]
    Refused(Box<ProblemView>),
    #[error("the daemon answered {0} and no problem document")]
    Unexpected(StatusCode),
    #[error("the daemon's answer cannot be read")]
    Malformed(#[source] reqwest::Error),
}

impl ClientError {
    /// Whether the same call with the same key may be repeated.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Malformed(_) => true,
            Self::Refused(problem) => problem.retryable,
            Self::Unexpected(status) => status.is_server_error(),
            Self::Url(_) => false,
        }
    }

    /// The daemon's code for a refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.code),
            Self::Url(_) | Self::Unreachable(_) | Self::Unexpected(_) | Self::Malformed(_) => None,
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(35);

impl Client {
    /// `base` is an http or https URL, or `unix:` and the path of the daemon's socket on this host.
    pub fn new(base: &str, token: SecretString) -> Result<Self, ClientError> {
        let socket = base.strip_prefix("unix:").filter(|path| path.starts_with('/'));
        let url = Url::parse(socket.map_or(base, |_| "http://localhost")).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let base = url.ok_or_else(|| ClientError::Url(base.chars().take(100).collect()))?;
        let builder =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(TOTAL_TIMEOUT).redirect(reqwest::redirect::Policy::none());
        let builder = match socket {
            Some(path) => builder.unix_socket(PathBuf::from(path)),
            None => builder,
        };
        let http = builder.build().map_err(ClientError::Unreachable)?;
        Ok(Self { http, base, token })
    }

    pub async fn create_payment(&self, payment: &CreatePayment, key: &str) -> Result<PaymentView, ClientError> {
        self.write("/v1/payments", payment, key).await
    }

    pub async fn payment(&self, id: PaymentId) -> Result<PaymentView, ClientError> {
        self.read(&format!("/v1/payments/{id}")).await
    }

    pub async fn payments(&self, cursor: Option<&str>) -> Result<PaymentPage, ClientError> {
        match cursor {
            None => self.read("/v1/payments").await,
            Some(cursor) => self.read(&format!("/v1/payments?cursor={cursor}")).await,
        }
    }

    pub async fn release(&self, id: PaymentId, key: &str) -> Result<PaymentView, ClientError> {
        self.write(&format!("/v1/payments/{id}/release"), &serde_json::json!({}), key).await
    }

    /// Releases a part, in units of the token, fees included.
    pub async fn release_part(&self, id: PaymentId, amount: Option<&str>, key: &str) -> Result<PaymentView, ClientError> {
        self.write(&format!("/v1/payments/{id}/release"), &ReleasePayment { amount: amount.map(str::to_owned) }, key).await
    }

    pub async fn refund(&self, id: PaymentId, refund: &RefundPayment, key: &str) -> Result<PaymentView, ClientError> {
        self.write(&format!("/v1/payments/{id}/refund"), refund, key).await
    }

    pub async fn accept(&self, id: PaymentId, acceptance: &AcceptPayment, key: &str) -> Result<PaymentView, ClientError> {
        self.write(&format!("/v1/payments/{id}/accept"), acceptance, key).await
    }

    /// A fresh quote for a payment whose quote has ended.
    pub async fn requote(&self, id: PaymentId, key: &str) -> Result<RequoteView, ClientError> {
        self.write(&format!("/v1/payments/{id}/requote"), &serde_json::json!({}), key).await
    }

    /// All quotes of a payment with their evidence, oldest first.
    pub async fn quotes(&self, id: PaymentId) -> Result<Vec<QuoteView>, ClientError> {
        self.read(&format!("/v1/payments/{id}/quotes")).await
    }

    pub async fn cancel(&self, id: PaymentId, key: &str) -> Result<PaymentView, ClientError> {
        self.write(&format!("/v1/payments/{id}/cancel"), &serde_json::json!({}), key).await
    }

    pub async fn withdraw_payout(&self, id: PaymentId, payout: Uuid, key: &str) -> Result<PaymentView, ClientError> {
        self.write(&format!("/v1/payments/{id}/payouts/{payout}/withdraw"), &serde_json::json!({}), key).await
    }

    pub async fn end_quarantine(&self, id: PaymentId, exit: &EndQuarantine, key: &str) -> Result<PaymentView, ClientError> {
        self.write(&format!("/v1/payments/{id}/quarantine"), exit, key).await
    }

    pub async fn open_dispute(&self, id: PaymentId, reason: &str, key: &str) -> Result<DisputeView, ClientError> {
        self.write(&format!("/v1/payments/{id}/disputes"), &OpenDispute { reason: reason.to_owned() }, key).await
    }

    pub async fn disputes(&self) -> Result<Vec<DisputeView>, ClientError> {
        self.read("/v1/disputes").await
    }

    pub async fn resolve_dispute(&self, id: Uuid, decision: &ResolveDispute, key: &str) -> Result<DisputeView, ClientError> {
        self.write(&format!("/v1/disputes/{id}/resolve"), decision, key).await
    }

    pub async fn intents(&self, states: Option<&str>) -> Result<Vec<IntentView>, ClientError> {
        match states {
            None => self.read("/v1/intents").await,
            Some(states) => self.read(&format!("/v1/intents?state={states}")).await,
        }
    }

    pub async fn intent(&self, id: IntentId) -> Result<IntentView, ClientError> {
        self.read(&format!("/v1/intents/{id}")).await
    }

    pub async fn approve(&self, id: IntentId, digest: B256) -> Result<IntentView, ClientError> {
        self.write(&format!("/v1/intents/{id}/approvals"), &ApproveIntent { digest }, &new_key()).await
    }

    pub async fn signing_queue(&self) -> Result<SigningQueue, ClientError> {
        self.read("/v1/signing-queue").await
    }

    pub async fn void(&self, id: IntentId, reason: &str) -> Result<IntentView, ClientError> {
        self.write(&format!("/v1/intents/{id}/void"), &VoidIntent { reason: reason.to_owned() }, &new_key()).await
    }

    /// Without fees: what displaces the transaction that is out, and what the market asks for.
    pub async fn replace(&self, id: IntentId, asked: &ReplaceIntent) -> Result<IntentView, ClientError> {
        self.write(&format!("/v1/intents/{id}/replacement"), asked, &new_key()).await
    }

    /// The cancel, which is an intent of its own.
    pub async fn cancel_intent(&self, id: IntentId, asked: &CancelIntent) -> Result<IntentView, ClientError> {
        self.write(&format!("/v1/intents/{id}/cancel"), asked, &new_key()).await
    }

    pub async fn adopt(&self, asked: &AdoptTransaction) -> Result<IntentView, ClientError> {
        self.write("/v1/intents/adopted", asked, &new_key()).await
    }

    pub async fn foreign_nonces(&self) -> Result<Vec<ForeignNonceView>, ClientError> {
        self.read("/v1/nonces/foreign").await
    }

    pub async fn propose_baseline(&self, asked: &ProposeBaseline) -> Result<ProposalView, ClientError> {
        self.write("/v1/nonces/baselines", asked, &new_key()).await
    }

    pub async fn explain_policy(&self, id: IntentId) -> Result<ExplainedIntent, ClientError> {
        self.read(&format!("/v1/intents/{id}/policy")).await
    }

    pub async fn policies(&self) -> Result<Vec<PolicyView>, ClientError> {
        self.read("/v1/policies").await
    }

    pub async fn propose_policy(&self, asked: &ProposePolicy) -> Result<ProposalView, ClientError> {
        self.write("/v1/policies", asked, &new_key()).await
    }

    pub async fn check_policy(&self, asked: &CheckPolicy) -> Result<CheckedPolicy, ClientError> {
        self.write("/v1/policies/check", asked, &new_key()).await
    }

    pub async fn refusals(&self) -> Result<Vec<RefusalView>, ClientError> {
        self.read("/v1/policies/refusals").await
    }

    /// Those that wait, or all.
    pub async fn proposals(&self, all: bool) -> Result<Vec<ProposalView>, ClientError> {
        self.read(if all { "/v1/proposals?state=all" } else { "/v1/proposals" }).await
    }

    pub async fn proposal(&self, id: ProposalId) -> Result<ProposalView, ClientError> {
        self.read(&format!("/v1/proposals/{id}")).await
    }

    pub async fn confirm(&self, id: ProposalId, digest: B256) -> Result<ProposalView, ClientError> {
        self.write(&format!("/v1/proposals/{id}/confirm"), &ConfirmProposal { digest }, &new_key()).await
    }

    pub async fn withdraw(&self, id: ProposalId, reason: &str) -> Result<ProposalView, ClientError> {
        self.write(&format!("/v1/proposals/{id}/withdraw"), &WithReason { reason: reason.to_owned() }, &new_key()).await
    }

    pub async fn destinations(&self) -> Result<Vec<ListedDestination>, ClientError> {
        self.read("/v1/policies/destinations").await
    }

    pub async fn propose_destination(&self, asked: &ProposeDestination) -> Result<ProposalView, ClientError> {
        self.write("/v1/policies/destinations", asked, &new_key()).await
    }

    pub async fn remove_destination(&self, chain: ChainId, address: Address, reason: &str) -> Result<ListedDestination, ClientError> {
        self.write(&format!("/v1/policies/destinations/{chain}/{address}/remove"), &WithReason { reason: reason.to_owned() }, &new_key())
            .await
    }

    pub async fn claim(&self, id: IntentId, claim: &ClaimIntent) -> Result<IntentView, ClientError> {
        self.write(&format!("/v1/intents/{id}/claim"), claim, &new_key()).await
    }

    /// The caller brings the key, so that the same bytes can be handed in again after a lost answer.
    pub async fn submit_signature(&self, id: IntentId, raw: Bytes, key: &str) -> Result<IntentView, ClientError> {
        self.write(&format!("/v1/intents/{id}/signature"), &SubmitSignature { raw }, key).await
    }

    pub async fn decline(&self, id: IntentId, decline: &DeclineIntent) -> Result<IntentView, ClientError> {
        self.write(&format!("/v1/intents/{id}/decline"), decline, &new_key()).await
    }

    pub async fn chains(&self) -> Result<Vec<ChainView>, ClientError> {
        self.read("/v1/chains").await
    }

    pub async fn thresholds(&self, chain: ChainId) -> Result<Vec<ThresholdsView>, ClientError> {
        self.read(&format!("/v1/chains/{chain}/thresholds")).await
    }

    pub async fn set_threshold(&self, chain: ChainId, change: &SetThreshold, key: &str) -> Result<ThresholdOutcome, ClientError> {
        self.write(&format!("/v1/chains/{chain}/thresholds"), change, key).await
    }

    pub async fn entries(&self, cursor: Option<&str>) -> Result<EntryPage, ClientError> {
        match cursor {
            None => self.read("/v1/ledger/entries?limit=200").await,
            Some(cursor) => self.read(&format!("/v1/ledger/entries?limit=200&cursor={cursor}")).await,
        }
    }

    /// Open findings, or all if `state` is `all`.
    pub async fn findings(&self, state: &str, cursor: Option<&str>) -> Result<FindingPage, ClientError> {
        match cursor {
            None => self.read(&format!("/v1/findings?limit=200&state={state}")).await,
            Some(cursor) => self.read(&format!("/v1/findings?limit=200&state={state}&cursor={cursor}")).await,
        }
    }

    /// Held transfers, or all if `state` is `all`.
    pub async fn screenings(&self, state: &str, cursor: Option<&str>) -> Result<ScreeningPage, ClientError> {
        match cursor {
            None => self.read(&format!("/v1/screenings?limit=200&state={state}")).await,
            Some(cursor) => self.read(&format!("/v1/screenings?limit=200&state={state}&cursor={cursor}")).await,
        }
    }

    pub async fn screening(&self, id: i64) -> Result<ScreeningView, ClientError> {
        self.read(&format!("/v1/screenings/{id}")).await
    }

    pub async fn suspended(&self, cursor: Option<&str>) -> Result<SuspendedPage, ClientError> {
        match cursor {
            None => self.read("/v1/suspense?limit=200").await,
            Some(cursor) => self.read(&format!("/v1/suspense?limit=200&cursor={cursor}")).await,
        }
    }

    pub async fn adjust(&self, asked: &AdjustmentAsked, key: &str) -> Result<ProposalView, ClientError> {
        self.write("/v1/adjustments", asked, key).await
    }

    pub async fn recipients(&self, state: &str, cursor: Option<&str>) -> Result<RecipientPage, ClientError> {
        match cursor {
            None => self.read(&format!("/v1/recipients?limit=200&state={state}")).await,
            Some(cursor) => self.read(&format!("/v1/recipients?limit=200&state={state}&cursor={cursor}")).await,
        }
    }

    pub async fn decide_recipient(&self, id: i64, decision: &DecideScreening, key: &str) -> Result<RecipientView, ClientError> {
        self.write(&format!("/v1/recipients/{id}/decision"), decision, key).await
    }

    pub async fn decide_screening(&self, id: i64, decision: &DecideScreening, key: &str) -> Result<ScreeningView, ClientError> {
        self.write(&format!("/v1/screenings/{id}/decision"), decision, key).await
    }

    pub async fn reconciliation(&self) -> Result<Reconciliation, ClientError> {
        self.read("/v1/reconciliation").await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.finish(self.request(Method::GET, path)?).await
    }

    async fn write<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B, key: &str) -> Result<T, ClientError> {
        self.finish(self.request(Method::POST, path)?.header("idempotency-key", key).json(body)).await
    }

    fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, ClientError> {
        let url = self.base.join(path).map_err(|_| ClientError::Url(path.to_owned()))?;
        Ok(self.http.request(method, url).bearer_auth(self.token.expose_secret()))
    }

    async fn finish<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ClientError> {
        let response = request.send().await.map_err(ClientError::Unreachable)?;
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(ClientError::Malformed);
        }
        match response.json::<ProblemView>().await {
            Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
            Err(_) => Err(ClientError::Unexpected(status)),
        }
    }
}

/// A key for a call that the state machine makes safe to repeat.
fn new_key() -> String {
    Uuid::new_v4().to_string()
}
