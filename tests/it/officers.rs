//! Acts that take two officers, over the API: thresholds that fall, policies that are dated ahead, and limits under
//! many planners at once.

use alloy::primitives::B256;
use amanatd::account::{self, Purpose};
use amanatd::api::Client;
use amanatd::api::wire::{CreatePayment, ProposePolicy, SetThreshold, ThresholdOutcome};
use amanatd::daemon;
use amanatd::intent::{self, FeeTerms, Intent, IntentError, IntentKind, IntentState};
use amanatd::officer::{Scope, UserRole};
use amanatd::policy::PolicyError;
use amanatd::units::{IntentId, ProposalId, TokenAmount};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::house::ApiHouse;
use crate::watching::CHAIN;

async fn officer(house: &ApiHouse, name: &str) -> Client {
    let user = house.user(name, UserRole::Guard).await;
    house.client(&house.token(&[Scope::PaymentsRead, Scope::IntentsRead, Scope::IntentsApprove], Some(user), 1).await)
}

fn threshold(blocks: i64, effective_at: Option<OffsetDateTime>) -> SetThreshold {
    SetThreshold {
        gate: "credit".to_owned(),
        blocks: Some(blocks),
        asset: None,
        from_amount: None,
        effective_at,
        reason: "the chain is calm".to_owned(),
    }
}

async fn proposed(client: &Client, change: &SetThreshold) -> amanatd::api::wire::ProposalView {
    match client.set_threshold(CHAIN, change, &Uuid::new_v4().to_string()).await.unwrap() {
        ThresholdOutcome::Proposed { proposal } => *proposal,
        ThresholdOutcome::Set(set) => panic!("one officer lowered it: {set:?}"),
    }
}

#[tokio::test]
async fn w3_a_lower_threshold_takes_two_officers_and_a_day() {
    let house = ApiHouse::start().await;
    let (first, second) = (officer(&house, "first").await, officer(&house, "second").await);
    let rows = || house.count("select count(*) from config_setting_history");
    let before = rows();
    let proposal = proposed(&first, &threshold(2, None)).await;
    assert!(proposal.lines[0].contains("lower confirmation_threshold:31337 to 2 blocks"), "{proposal:?}");
    assert_eq!(rows(), before, "a proposal changes nothing");
    assert_eq!(first.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap_err().code(), Some("forbidden"));
    second.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
    assert_eq!(rows(), before + 1);
    let credit = || async { first.thresholds(CHAIN).await.unwrap().remove(0) };
    let gate = credit().await;
    assert_eq!((gate.in_force[0].blocks, gate.coming[0].blocks), (Some(3), Some(2)));
    let late = house.count("select count(*) from config_setting_history where effective_at between now() + interval '23 hours 59 minutes' and now() + interval '24 hours'");
    assert_eq!(late, 1, "a day from its confirmation");

    // A rise takes one and acts at once, and overtakes what was coming.
    let ThresholdOutcome::Set(risen) = first.set_threshold(CHAIN, &threshold(5, None), "rise").await.unwrap() else {
        panic!("a rise is no proposal")
    };
    assert_eq!(risen.blocks, Some(5));
    let gate = credit().await;
    assert_eq!((gate.in_force[0].blocks, gate.coming.len()), (Some(5), 0));
    // Dating a fall ahead is a fall; where it is dated later than a day, it keeps its date.
    let at = daemon::now().replace_nanosecond(0).unwrap() + Duration::days(9);
    let dated = proposed(&second, &threshold(4, Some(at))).await;
    first.confirm(ProposalId(dated.id), dated.digest).await.unwrap();
    assert_eq!(credit().await.coming[0].effective_at, at);
    assert_eq!(house.count("select count(*) from events where kind = 'settings.threshold_lowered'"), 2);
}

#[tokio::test]
async fn s6_a_proposal_dies_with_its_time_and_with_its_proposer() {
    let house = ApiHouse::start().await;
    let (first, second) = (officer(&house, "first").await, officer(&house, "second").await);
    let proposal = proposed(&first, &threshold(2, None)).await;
    house
        .base
        .sql(
            "insert into change_proposals (subject, body, digest, proposed_by, reason, created_at) \
             select subject, body, digest, proposed_by, reason, now() - interval '7 days' from change_proposals",
        )
        .unwrap();
    let old = ProposalId(house.count("select max(id) from change_proposals"));
    assert_eq!(second.confirm(old, proposal.digest).await.unwrap_err().code(), Some("proposal_dead"));
    assert_eq!(second.proposals(false).await.unwrap().len(), 1, "a dead one does not wait");
    assert_eq!(second.proposals(true).await.unwrap().len(), 2);
    house.base.sql("update users set role = 'seller' where display_name = 'first'").unwrap();
    assert_eq!(second.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap_err().code(), Some("proposal_dead"));
    assert_eq!(second.withdraw(ProposalId(proposal.id), "gone").await.unwrap().state, "withdrawn");
}

fn rules(limit: &str) -> String {
    format!(
        "[[rule]]\nname = \"r\"\nkinds = [\"release\"]\nchain = 31337\nasset = \"USDC\"\napprovals = 1\ndestinations = \"any\"\n\
         [[rule.limit]]\nhours = 24\nmax = \"{limit}\""
    )
}

#[tokio::test]
async fn s6_a_policy_that_is_dated_ahead_waits_for_its_day() {
    let house = ApiHouse::start().await;
    let (first, second) = (officer(&house, "first").await, officer(&house, "second").await);
    let at = daemon::now() + Duration::days(1);
    let asked = ProposePolicy { document: rules("400"), effective_at: Some(at), reason: "from tomorrow".to_owned() };
    let proposal = first.propose_policy(&asked).await.unwrap();
    second.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
    let states: Vec<String> = first.policies().await.unwrap().into_iter().map(|policy| policy.state).collect();
    assert_eq!(states, ["coming"]);
    let past = ProposePolicy { effective_at: Some(at - Duration::days(3)), ..asked };
    assert_eq!(first.propose_policy(&past).await.unwrap_err().code(), Some("invalid_fields"));
}

/// A release of 100.5 USDC that nobody planned yet.
async fn release(house: &ApiHouse, nonce: u64) -> Intent {
    let marketplace = house.client(&house.marketplace().await);
    let asked = CreatePayment {
        amount: "100.5".to_owned(),
        currency: "USDC".to_owned(),
        chain_id: CHAIN.get(),
        token: "USDC".to_owned(),
        seller_address: "0x1111111111111111111111111111111111111111".to_owned(),
        buyer_id: None,
        seller_id: None,
        purchase_request_id: None,
        purchase_request_external_ref: None,
        expires_in_seconds: None,
        ..CreatePayment::default()
    };
    let payment = marketplace.create_payment(&asked, &Uuid::new_v4().to_string()).await.unwrap();
    let mut connection = house.db.connection().await.unwrap();
    let account = account::store::list(&mut connection).await.unwrap().remove(0).id;
    let from = account::store::get_operator_address(&mut connection, account, Purpose::Treasury).await.unwrap();
    let spec = house.book.get(CHAIN).unwrap();
    let mut intent = Intent {
        id: IntentId(Uuid::now_v7()),
        kind: IntentKind::Release,
        state: IntentState::Planned,
        state_version: 1,
        revision: 1,
        from,
        to: asked.seller_address.parse().unwrap(),
        amount: TokenAmount::new(spec.token_asset(spec.token("USDC").unwrap()), "100500000".parse().unwrap()),
        nonce,
        fees: FeeTerms { gas_limit: 65_000, max_fee_per_gas: 30_000_000_000, max_priority_fee_per_gas: 1_000_000_000 },
        payment: Some(payment.id),
        destination: None,
        digest: B256::ZERO,
        approvals_required: 1,
        approvals_expire_minutes: 1_440,
        policy: None,
        requested_by: "daemon".to_owned(),
        revised_by: None,
        signed_revision: None,
        cancels: None,
        station: None,
    };
    intent.digest = intent::digest::digest_of(&intent);
    intent
}

#[tokio::test]
async fn s6_limits_hold_under_many_planners_at_once() {
    let house = ApiHouse::start().await;
    let (first, second) = (officer(&house, "first").await, officer(&house, "second").await);
    let asked = ProposePolicy { document: rules("400"), effective_at: None, reason: "test".to_owned() };
    let proposal = first.propose_policy(&asked).await.unwrap();
    second.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
    let mut planners = tokio::task::JoinSet::new();
    for nonce in 0..16 {
        let (db, intent) = (house.db.clone(), release(&house, nonce).await);
        planners.spawn(async move {
            db.unit::<_, IntentError, _>(move |connection| {
                Box::pin(async move {
                    let intent = intent::store::insert(connection, &intent).await?;
                    crate::api::order_paid_by(connection, &intent).await;
                    Ok(intent)
                })
            })
            .await
        });
    }
    let outcomes = planners.join_all().await;
    let planned = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(IntentError::Policy(PolicyError::Refused { .. })))).count();
    assert_eq!((planned, refused), (3, 13), "3 of 100.5 fit into 400");
    assert_eq!(house.count("select count(*) from intents"), 3);
}
