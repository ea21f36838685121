//! The rules on one screen, and what must hold for any of them.

use alloy::primitives::address;
use proptest::prelude::*;
use time::macros::datetime;

use super::*;
use crate::units::{Asset, ChainId};

const NOW: OffsetDateTime = datetime!(2027-03-01 12:00 UTC);
const SELLER: Address = address!("0x1111111111111111111111111111111111111111");

fn token() -> AssetId {
    AssetId { chain: ChainId::new(31_337).unwrap(), asset: Asset::Token(address!("0x5FbDB2315678afecb367f032d93F642f64180aa3")) }
}

fn usdc(units: u64) -> U256 {
    U256::from(units) * U256::from(1_000_000)
}

fn rule(name: &str, approvals: u8) -> Rule {
    Rule {
        name: name.to_owned(),
        kinds: [IntentKind::Release].into(),
        asset: token(),
        from_units: U256::ZERO,
        approvals,
        destinations: Destinations::Any,
        max_units: None,
        limits: Vec::new(),
        approvals_expire_minutes: None,
    }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy { approvals_expire_minutes: 1_440, cooling_hours: 24, rules }
}

fn release(units: U256) -> Outflow {
    Outflow { kind: IntentKind::Release, asset: token(), units, to: SELLER }
}

fn facts(standing: Standing) -> Facts {
    Facts { now: NOW, standing, left: Left::default(), left_to_recipient: Left::default() }
}

/// A policy as an operator may write it.
fn sample() -> Policy {
    policy(vec![
        Rule { limits: vec![Limit { hours: 24, max_units: usdc(10_000), per_recipient: false }], ..rule("releases", 1) },
        Rule { from_units: usdc(1_000), approvals_expire_minutes: Some(60), ..rule("large releases", 2) },
        Rule {
            from_units: usdc(5_000),
            destinations: Destinations::Listed,
            max_units: Some(usdc(8_000)),
            ..rule("very large releases", 3)
        },
        Rule { kinds: [IntentKind::Sweep, IntentKind::Fuel].into(), destinations: Destinations::Listed, ..rule("inside", 1) },
        Rule { kinds: [IntentKind::Cancel].into(), ..rule("cancels", 2) },
    ])
}

#[test]
fn s6_verdicts_of_a_policy() {
    let book = ChainBook::parse(include_str!("../../../chains.toml")).unwrap();
    let policy = sample();
    let mut table = String::new();
    let mut judge = |what: &str, outflow: Outflow, facts: &Facts, at_least: u8| {
        table.push_str(&format!("# {what}\n"));
        for line in policy.evaluate(outflow, facts, at_least).lines(&book) {
            table.push_str(&line);
            table.push('\n');
        }
    };
    let unlisted = facts(Standing::Unlisted);
    judge("small", release(usdc(999)), &unlisted, 1);
    judge("exactly the tier", release(usdc(1_000)), &unlisted, 1);
    judge("unlisted", release(usdc(5_000)), &unlisted, 1);
    let cooling = facts(Standing::Listed { since: NOW - Duration::hours(24) + Duration::SECOND });
    judge("one second too early", release(usdc(5_000)), &cooling, 1);
    judge("cooled", release(usdc(5_000)), &facts(Standing::Listed { since: NOW - Duration::hours(24) }), 1);
    let mut busy = facts(Standing::Listed { since: NOW - Duration::days(9) });
    busy.left.add(24, IntentKind::Release, usdc(1_999));
    judge("over the maximum", release(usdc(8_001)), &busy, 1);
    busy.left.add(24, IntentKind::Release, usdc(7_502));
    judge("over the limit", release(usdc(500)), &busy, 1);
    judge("exactly the limit", release(usdc(499)), &busy, 1);
    judge("a kind without a rule", Outflow { kind: IntentKind::Refund, ..release(usdc(1)) }, &unlisted, 1);
    let native = AssetId { asset: Asset::Native, ..token() };
    judge("an asset without a rule", Outflow { asset: native, ..release(usdc(1)) }, &unlisted, 1);
    judge("another chain", Outflow { asset: AssetId { chain: ChainId::new(1).unwrap(), ..token() }, ..release(usdc(1)) }, &unlisted, 1);
    judge("a sweep home", Outflow { kind: IntentKind::Sweep, ..release(usdc(9_000)) }, &facts(Standing::Own), 1);
    let listed = facts(Standing::Listed { since: NOW - Duration::days(9) });
    judge("a sweep elsewhere", Outflow { kind: IntentKind::Sweep, ..release(usdc(1)) }, &listed, 1);
    judge(
        "a cancel that no rule covers",
        Outflow { kind: IntentKind::Cancel, asset: native, ..release(U256::ZERO) },
        &facts(Standing::Own),
        3,
    );
    judge("a cancel", Outflow { kind: IntentKind::Cancel, ..release(U256::ZERO) }, &facts(Standing::Own), 1);
    insta::assert_snapshot!(table);
}

#[test]
fn s6_the_order_of_rules_means_nothing() {
    let forward = sample();
    let backward = policy(forward.rules.iter().rev().cloned().collect());
    for units in [1, 1_000, 5_000, 8_001] {
        for standing in [Standing::Unlisted, Standing::Listed { since: NOW - Duration::days(2) }] {
            let [one, other] = [&forward, &backward].map(|policy| policy.evaluate(release(usdc(units)), &facts(standing), 1).verdict);
            assert!(one.is_as_strict_as(&other) && other.is_as_strict_as(&one), "{units} {standing:?}: {one:?} {other:?}");
        }
    }
}

fn any_kind() -> impl Strategy<Value = IntentKind> {
    proptest::sample::select(IntentKind::ALL.to_vec())
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let kinds = proptest::collection::btree_set(any_kind(), 1..4);
    let limits = proptest::collection::vec(
        (1_u32..4, 0_u64..40, any::<bool>()).prop_map(|(hours, max, per_recipient)| Limit {
            hours,
            max_units: U256::from(max),
            per_recipient,
        }),
        0..3,
    );
    (
        kinds,
        0_u64..30,
        1_u8..6,
        any::<bool>(),
        proptest::option::of(0_u64..40),
        limits,
        proptest::option::of(5_u32..100),
        proptest::bool::weighted(0.8),
    )
        .prop_map(|(kinds, from, approvals, listed, max, limits, expire, here)| Rule {
            kinds,
            from_units: U256::from(from),
            destinations: if listed { Destinations::Listed } else { Destinations::Any },
            max_units: max.map(U256::from),
            limits,
            approvals_expire_minutes: expire,
            asset: if here { token() } else { AssetId { asset: Asset::Native, ..token() } },
            ..rule("any", approvals)
        })
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let standing = prop_oneof![
        Just(Standing::Own),
        Just(Standing::Unlisted),
        (0_i64..48).prop_map(|hours| Standing::Listed { since: NOW - Duration::hours(hours) })
    ];
    let left = proptest::collection::vec((1_u32..4, any_kind(), 0_u64..30), 0..6);
    (standing, left).prop_map(|(standing, left)| {
        let mut facts = facts(standing);
        for (hours, kind, units) in left {
            facts.left.add(hours, kind, U256::from(units));
        }
        facts
    })
}

fn any_outflow() -> impl Strategy<Value = Outflow> {
    (any_kind(), 0_u64..40).prop_map(|(kind, units)| Outflow { kind, ..release(U256::from(units)) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What a policy covers is never made easier by one more rule. What nothing covered was refused, and a
    /// rule for it gives no more than that rule alone.
    #[test]
    fn s6_one_more_rule_never_loosens(
        rules in proptest::collection::vec(any_rule(), 0..6), more in any_rule(), at in 0_usize..6, outflow in any_outflow(),
        facts in any_facts(), at_least in 1_u8..4,
    ) {
        let before = policy(rules.clone());
        let mut with_more = rules;
        with_more.insert(at.min(with_more.len()), more.clone());
        let after = policy(with_more);
        let [was, is] = [&before, &after].map(|policy| policy.evaluate(outflow, &facts, at_least));
        if !was.covering.is_empty() || outflow.kind == IntentKind::Cancel {
            prop_assert!(is.verdict.is_as_strict_as(&was.verdict), "{:?} after {:?}", is.verdict, was.verdict);
        }
        if more.covers(&outflow) {
            let alone = policy(vec![more]);
            prop_assert!(is.verdict.is_as_strict_as(&alone.evaluate(outflow, &facts, at_least).verdict));
        }
    }

    /// More that has left, and less time on the list, never make anything easier.
    #[test]
    fn s6_more_that_has_left_never_loosens(
        rules in proptest::collection::vec(any_rule(), 0..6), outflow in any_outflow(), facts in any_facts(),
        more in (1_u32..4, any_kind(), 0_u64..30),
    ) {
        let policy = policy(rules);
        let was = policy.evaluate(outflow, &facts, 1).verdict;
        let mut busier = facts;
        busier.left.add(more.0, more.1, U256::from(more.2));
        prop_assert!(policy.evaluate(outflow, &busier, 1).verdict.is_as_strict_as(&was));
    }

    /// Nothing is allowed that no rule covers, but for a cancel.
    #[test]
    fn s6_what_no_rule_covers_cannot_leave(
        rules in proptest::collection::vec(any_rule(), 0..6), outflow in any_outflow(), facts in any_facts(),
    ) {
        let policy = policy(rules);
        let evaluation = policy.evaluate(outflow, &facts, 1);
        if evaluation.covering.is_empty() && outflow.kind != IntentKind::Cancel {
            prop_assert!(matches!(evaluation.verdict, Verdict::Refused(_)));
        }
    }
}
