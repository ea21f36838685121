//! Policy over what leaves: two officers make it, the strictest rule wins, and the database holds it up.

use amanatd::api::wire::{CheckPolicy, ClaimIntent, OutflowAsked, ProposeDestination, ProposePolicy};
use amanatd::approval::Lapser;
use amanatd::units::{Progress, ProposalId};

use super::{SELLERS, Way};

/// Inside as it was; releases take two officers from 50 USDC on.
const RULES: &str = r#"
[[rule]]
name = "inside"
kinds = ["sweep"]
chain = 31337
asset = "USDC"
approvals = 1
[[rule]]
name = "fuel"
kinds = ["fuel"]
chain = 31337
asset = "ETH"
approvals = 1
"#;

fn with_releases(more: &str) -> String {
    format!(
        "{RULES}\n[[rule]]\nname = \"releases\"\nkinds = [\"release\"]\nchain = 31337\nasset = \"USDC\"\napprovals = 1\n\
         destinations = \"any\"\n{more}"
    )
}

fn large() -> String {
    with_releases(
        "[[rule]]\nname = \"large\"\nkinds = [\"release\"]\nchain = 31337\nasset = \"USDC\"\napprovals = 2\nfrom = \"50\"\n\
         destinations = \"any\"\napprovals_expire_minutes = 5",
    )
}

/// Whether the superuser, as the daemon's role, is refused by this rule.
fn refused_by(way: &Way, sql: &str, said: &str) {
    let refused = way.api.base.sql(&format!("set role amanat_app; {sql}")).unwrap_err();
    assert!(format!("{refused:?}").contains(said), "{sql}: {refused:?}");
}

/// Every approval there is ends now.
fn expire(way: &Way) {
    way.api
        .base
        .sql(
            "alter table intent_approvals disable trigger all; update intent_approvals set expires_at = now() - interval '1 second'; \
             alter table intent_approvals enable always trigger intent_approvals_no_update; \
             alter table intent_approvals enable always trigger intent_approvals_no_delete; \
             alter table intent_approvals enable always trigger intent_approvals_no_truncate; \
             alter table intent_approvals enable always trigger intent_approvals_guard",
        )
        .unwrap();
}

#[tokio::test]
async fn s6_a_policy_takes_two_officers_and_running_intents_keep_theirs() {
    let way = Way::start().await;
    way.funded("USDC", "60", 0).await;
    let running = way.planned("fuel").await;
    assert_eq!((running.approvals_required, running.policy_id), (1, None));

    let second = way.another("second").await;
    let asked = ProposePolicy { document: large(), effective_at: None, reason: "two for large sums".to_owned() };
    let proposal = way.officer.propose_policy(&asked).await.unwrap();
    let id = ProposalId(proposal.id);
    assert_eq!(way.officer.confirm(id, proposal.digest).await.unwrap_err().code(), Some("forbidden"), "who proposes does not confirm");
    assert_eq!(second.confirm(id, running.digest).await.unwrap_err().code(), Some("stale_digest"));
    assert_eq!(way.marketplace.confirm(id, proposal.digest).await.unwrap_err().code(), Some("forbidden"));
    assert_eq!(way.api.count("select count(*) from outflow_policies"), 0);
    // Nor does the database take it from whoever writes as the daemon.
    let insert = |confirmed: bool| {
        format!(
            "insert into change_decisions (proposal_id, confirmed, digest, decided_by) \
             select id, {confirmed}, digest, proposed_by from change_proposals where id = {id}"
        )
    };
    refused_by(&way, &insert(true), "who proposes does not confirm");
    let unconfirmed = "insert into outflow_policies (proposal_id, body, digest) select id, body, digest from change_proposals";
    refused_by(&way, unconfirmed, "one officer proposed and another confirmed");

    assert_eq!(second.confirm(id, proposal.digest).await.unwrap().state, "confirmed");
    assert_eq!(second.confirm(id, proposal.digest).await.unwrap_err().code(), Some("decided"));
    assert_eq!(second.withdraw(id, "too late").await.unwrap_err().code(), Some("decided"));
    let policies = second.policies().await.unwrap();
    assert_eq!(policies.iter().map(|policy| policy.state.as_str()).collect::<Vec<_>>(), ["in force"]);

    // What runs keeps what it was planned under.
    let explained = way.officer.explain_policy(running.id).await.unwrap();
    assert_eq!((explained.policy_id, explained.verdict.is_some()), (None, false));
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    let payment = way.intents("settled").await[0].payment_id.unwrap();
    way.marketplace.release(payment, "release").await.unwrap();
    way.rounds().await;
    let release = way.planned("release").await;
    assert_eq!((release.approvals_required, release.policy_id, release.approvals_expire_minutes), (2, Some(policies[0].id), 5));
    let explained = second.explain_policy(release.id).await.unwrap().verdict.unwrap();
    assert!(explained.allowed && explained.lines.iter().any(|line| line.contains("2 officers (rule \"large\")")), "{explained:?}");
    way.approve(&release).await;
    assert_eq!(way.intent(release.id).await.state, "planned");
    assert_eq!(way.officer.approve(release.id, release.digest).await.unwrap_err().code(), Some("already_approved"));
    assert_eq!(second.approve(release.id, release.digest).await.unwrap().state, "approved");
    let raw = way.sign(release.id).await;
    way.submit(release.id, &raw).await;
    way.rounds().await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;
    assert_eq!(way.intent(release.id).await.state, "settled");
    way.assert_sound().await;
}

#[tokio::test]
async fn s6_fifty_officers_confirm_at_once_and_one_policy_comes_of_it() {
    let way = Way::start().await;
    let asked = ProposePolicy { document: large(), effective_at: None, reason: "test".to_owned() };
    let proposal = way.officer.propose_policy(&asked).await.unwrap();
    let mut officers = Vec::new();
    for place in 0..50 {
        officers.push(way.another(&format!("officer {place}")).await);
    }
    let mut clicks = tokio::task::JoinSet::new();
    for officer in officers {
        clicks.spawn(async move {
            officer.confirm(ProposalId(proposal.id), proposal.digest).await.map_err(|error| error.code().map(str::to_owned))
        });
    }
    let answers = clicks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(|code| code.as_deref() == Some("decided")), "{answers:?}");
    assert_eq!(way.api.count("select count(*) from outflow_policies"), 1);
}

#[tokio::test]
async fn s6_what_no_rule_covers_waits_in_sight_and_takes_no_nonce() {
    let way = Way::start().await;
    let second = way.policy(RULES).await;
    let payment = way.releasable("40", 0).await;
    assert!(way.intents("planned").await.is_empty());
    let refused = way.officer.refusals().await.unwrap();
    assert_eq!(refused.iter().map(|row| (row.kind.as_str(), row.payment_id)).collect::<Vec<_>>(), [("release", payment.id)]);
    assert!(refused[0].reasons.contains("no rule covers"), "{refused:?}");
    way.rounds().await;
    assert_eq!(way.api.count("select count(*) from events where kind = 'policy.outflow_refused'"), 1, "told once");
    // Whoever writes as the daemon cannot plan past the policy.
    let past = "insert into intents (id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, \
         max_fee_per_gas, max_priority_fee_per_gas, payment_id, digest, approvals_required, requested_by) \
         select gen_random_uuid(), 'release', chain_id, from_address_id, from_address, to_address, asset, amount, 99, gas_limit, \
         max_fee_per_gas, max_priority_fee_per_gas, payment_id, digest, 1, 'daemon' from intents limit 1";
    refused_by(&way, past, "under the policy in force");

    // With a rule it is planned by itself, and is no longer refused.
    let asked = ProposePolicy { document: large(), effective_at: None, reason: "releases too".to_owned() };
    let proposal = way.officer.propose_policy(&asked).await.unwrap();
    second.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
    way.rounds().await;
    assert!(way.officer.refusals().await.unwrap().is_empty());
    way.outflow("release").await;
    assert_eq!(way.read(payment.id).await.status, "completed");
    way.assert_sound().await;
}

#[tokio::test]
async fn s6_limits_count_what_is_reserved_and_roll() {
    let way = Way::start().await;
    way.policy(&with_releases("[[rule.limit]]\nhours = 24\nmax = \"100\"")).await;
    let first = way.releasable("60", 0).await;
    let reserved = way.planned("release").await;
    // The second one is refused while the first is only planned.
    let second = way.payment("USDC", "60", 1).await;
    way.pay(way.usdc, second.deposit_address, "60").await;
    way.deepen().await;
    for kind in ["fuel", "sweep"] {
        let planned: Vec<_> = way.intents("planned").await.into_iter().filter(|intent| intent.kind == kind).collect();
        way.approve(&planned[0]).await;
        let raw = way.sign(planned[0].id).await;
        way.submit(planned[0].id, &raw).await;
        way.rounds().await;
        way.chain.mine(1).await.unwrap();
        way.rounds().await;
        way.deepen().await;
    }
    way.marketplace.release(second.id, "second").await.unwrap();
    way.rounds().await;
    assert_eq!(way.planned("release").await.id, reserved.id);
    let refused = way.officer.refusals().await.unwrap();
    assert!(refused.len() == 1 && refused[0].reasons.contains("60000000 have left or are on their way"), "{refused:?}");
    // And when it has settled; and when it is a day old, it leaves.
    way.outflow("release").await;
    assert_eq!(way.read(first.id).await.status, "completed");
    way.rounds().await;
    assert!(way.intents("planned").await.is_empty());
    let age = |hours: u32, minutes: u32| {
        let sql =
            format!("update intents set updated_at = now() - interval '{hours} hours {minutes} minutes' where id = '{}'", reserved.id);
        way.api.base.sql(&sql).unwrap();
    };
    age(23, 59);
    way.rounds().await;
    assert!(way.intents("planned").await.is_empty(), "a window does not end before its last minute");
    age(24, 1);
    way.rounds().await;
    way.outflow("release").await;
    assert_eq!(way.read(second.id).await.status, "completed");
    way.assert_sound().await;
}

#[tokio::test]
async fn s6_destinations_cool_and_a_removal_acts_at_once() {
    let way = Way::start().await;
    let listed = with_releases("").replace("destinations = \"any\"", "destinations = \"listed\"");
    let second = way.policy(&listed).await;
    let payment = way.releasable("40", 0).await;
    let reasons = async || way.officer.refusals().await.unwrap().into_iter().map(|row| row.reasons).collect::<Vec<_>>().join("; ");
    assert!(reasons().await.contains("listed destination"));

    let ask = |label: &str| ProposeDestination {
        chain_id: 31_337,
        address: SELLERS[0].to_owned(),
        label: label.to_owned(),
        reason: "a new seller".to_owned(),
    };
    let list = async |label: &str| {
        let proposal = second.propose_destination(&ask(label)).await.unwrap();
        assert_eq!(second.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap_err().code(), Some("forbidden"));
        way.officer.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
        way.officer.destinations().await.unwrap().remove(0)
    };
    let first = list("seller").await;
    way.rounds().await;
    assert!(reasons().await.contains("cools until"), "{}", reasons().await);
    // Another label is a change: the clock starts again.
    let again = list("the seller").await;
    assert!(again.since > first.since && again.label == "the seller", "{again:?}");
    // Nobody lists an address alone, or one of ours.
    let alone = format!(
        "insert into outflow_destinations (chain_id, address, label, allowed, changed_by, reason) \
         select 31337, decode(repeat('44', 20), 'hex'), 'x', true, id, 'x' from users limit {}",
        1
    );
    refused_by(&way, &alone, "proposed and another confirmed");
    let own = ProposeDestination { address: way.operator("treasury").await.to_string(), ..ask("ours") };
    assert_eq!(second.propose_destination(&own).await.unwrap_err().code(), Some("invalid_fields"));

    // Cooled, it is paid; off the list, the next one is not.
    let asked = ProposePolicy { document: format!("cooling_hours = 0\n{listed}"), effective_at: None, reason: "no cooling".to_owned() };
    let proposal = second.propose_policy(&asked).await.unwrap();
    way.officer.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
    way.rounds().await;
    way.outflow("release").await;
    assert_eq!(way.read(payment.id).await.status, "completed");
    let address = SELLERS[0].parse().unwrap();
    second.remove_destination(amanatd::units::ChainId::new(31_337).unwrap(), address, "no longer").await.unwrap();
    assert!(second.destinations().await.unwrap().is_empty());
    way.releasable("30", 0).await;
    assert!(reasons().await.contains("listed destination"));
    way.assert_sound().await;
}

#[tokio::test]
async fn s6_approvals_expire_and_are_asked_for_anew() {
    let way = Way::start().await;
    let second = way.policy(&large()).await;
    way.releasable("60", 0).await;
    let release = way.planned("release").await;
    let lapser = Lapser { db: way.api.db.clone() };
    assert_eq!(lapser.tick().await.unwrap(), Progress::Idle);
    way.approve(&release).await;
    expire(&way);
    // The first does not count any more, so the second completes nothing.
    let after = second.approve(release.id, release.digest).await.unwrap();
    assert_eq!((after.state.as_str(), after.approvals), ("planned", 1));
    assert_eq!(lapser.tick().await.unwrap(), Progress::Worked);
    let revised = way.intent(release.id).await;
    assert_eq!((revised.revision, revised.approvals, revised.nonce), (2, 0, release.nonce));
    assert_eq!(second.approve(release.id, release.digest).await.unwrap_err().code(), Some("stale_digest"));
    for officer in [&way.officer, &second] {
        officer.approve(release.id, revised.digest).await.unwrap();
    }
    assert_eq!(way.intent(release.id).await.state, "approved");

    // Approved and not signed in time: no station gets it, and the database lets nobody give it to one.
    expire(&way);
    assert_eq!(way.station.claim(release.id, &ClaimIntent::of("desk")).await.unwrap_err().code(), Some("approvals_expired"));
    refused_by(&way, &format!("update intents set state = 'signing' where id = '{}'", release.id), "while their approvals count");
    assert_eq!(lapser.tick().await.unwrap(), Progress::Worked);
    let again = way.intent(release.id).await;
    assert_eq!((again.state.as_str(), again.revision), ("planned", 3));
    for officer in [&way.officer, &second] {
        officer.approve(release.id, again.digest).await.unwrap();
    }
    // What a station has in time, it may sign.
    way.station.claim(release.id, &ClaimIntent::of("desk")).await.unwrap();
    expire(&way);
    assert_eq!(lapser.tick().await.unwrap(), Progress::Idle);
    let raw = way.sign(release.id).await;
    assert_eq!(way.submit(release.id, &raw).await.state, "signed");
    // The database lets nobody approve what they asked for, what changed, or as no officer.
    let insert = "insert into intent_approvals (intent_id, revision, digest, officer_id) select i.id, i.revision, i.digest, u.id \
         from intents i, users u where i.id = ";
    refused_by(&way, &format!("{insert} '{}' limit 1", release.id), "present revision of a planned intent");
}

#[tokio::test]
async fn s6_a_dry_run_tells_what_a_policy_would_do_and_changes_nothing() {
    let way = Way::start().await;
    way.releasable("60", 0).await;
    way.outflow("release").await;
    let before = way.api.count("select count(*) from change_proposals");
    let ask = |amount: &str, kind: &str| CheckPolicy {
        document: large(),
        outflow: Some(OutflowAsked {
            kind: kind.to_owned(),
            chain_id: 31_337,
            asset: "USDC".to_owned(),
            amount: amount.to_owned(),
            to_address: SELLERS[0].to_owned(),
        }),
        last: 100,
    };
    let checked = way.officer.check_policy(&ask("49.999999", "release")).await.unwrap();
    assert_eq!(checked.outflow.unwrap().approvals, Some(1));
    let replayed: Vec<_> = checked.replayed.iter().map(|row| (row.kind.as_str(), row.approvals)).collect();
    assert_eq!(replayed, [("fuel", Some(1)), ("sweep", Some(1)), ("release", Some(2))]);
    assert_eq!(way.officer.check_policy(&ask("50", "release")).await.unwrap().outflow.unwrap().approvals, Some(2));
    let refused = way.officer.check_policy(&ask("50", "refund")).await.unwrap().outflow.unwrap();
    assert!(!refused.allowed && refused.lines.iter().any(|line| line.contains("no rule covers")), "{refused:?}");
    for (bad, said) in [("[[rule]]", "missing field"), ("rules = 1", "unknown field")] {
        let error = way.officer.check_policy(&CheckPolicy { document: bad.to_owned(), outflow: None, last: 0 }).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(way.api.count("select count(*) from change_proposals"), before);
    assert_eq!(way.api.count("select count(*) from outflow_policies"), 0);
}
