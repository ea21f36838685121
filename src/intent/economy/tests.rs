//! Tables of what is swept, fuelled and paid from where, printed whole.

use std::fmt::Write as _;

use time::Duration;

use super::*;
use crate::chains::ChainBook;

const T0: OffsetDateTime = time::macros::datetime!(2027-01-01 00:00 UTC);

fn local() -> ChainSpec {
    let book = ChainBook::parse(include_str!("../../../chains.toml")).unwrap();
    book.get(ChainId::new(31_337).unwrap()).unwrap().clone()
}

fn usdc(chain: &ChainSpec) -> Asset {
    Asset::Token(chain.token("USDC").unwrap().contract)
}

fn row(id: i64, key: EconomyKey, value: i64, minutes: i64) -> NumberChange {
    NumberChange {
        id,
        key: key.to_string(),
        value,
        effective_at: T0 + Duration::minutes(minutes),
        created_at: T0,
        changed_by: "test".to_owned(),
        reason: "test".to_owned(),
    }
}

fn economy(numbers: &[(&str, i64)]) -> Economy {
    let chain = local();
    let rows = (1..).zip(numbers).map(|(id, (name, value))| {
        let spec = SPECS.iter().find(|spec| spec.name == *name).unwrap();
        let key = EconomyKey::new(name, chain.id, spec.per_asset.then(|| usdc(&chain))).unwrap();
        row(id, key, *value, 0)
    });
    EconomyBook::new(rows.collect()).economy(&chain, T0)
}

fn money(units: u64, age_minutes: u64) -> Sweepable {
    Sweepable {
        asset: usdc(&local()),
        decimals: 6,
        units: U256::from(units) * pow10(6),
        age_minutes,
        wanted: false,
        // 0.001 coin.
        cost_units: pow10(15),
        prices: None,
    }
}

fn priced(units: u64, age_minutes: u64, asset: &str, coin: &str) -> Sweepable {
    Sweepable { prices: Some(Prices { asset: asset.parse().unwrap(), coin: coin.parse().unwrap() }), ..money(units, age_minutes) }
}

#[test]
fn what_is_swept_when() {
    let batch = [("sweep_after_minutes", 60), ("sweep_min_millionths", 5_000_000), ("sweep_now_millionths", 500_000_000)];
    let dear = [("sweep_after_minutes", 60), ("sweep_min_usd", 5), ("sweep_cost_pct", 300), ("sweep_now_millionths", 500_000_000)];
    let mut table = String::new();
    for (what, rules, money) in [
        ("no rules: at once", &[][..], money(1, 0)),
        ("no rules: nothing there", &[], money(0, 9)),
        ("dust by amount", &batch, money(4, 600)),
        ("exactly the least, and young", &batch, money(5, 0)),
        ("one minute early", &batch, money(5, 59)),
        ("old enough", &batch, money(5, 60)),
        ("one unit short of enough", &batch, money(499, 0)),
        ("enough", &batch, money(500, 0)),
        ("dust, but an order waits", &batch, Sweepable { wanted: true, ..money(1, 0) }),
        ("young, but an order waits", &batch, Sweepable { wanted: true, ..money(50, 0) }),
        ("priced: small", &dear, priced(4, 600, "1", "1000")),
        ("priced: a token below par is small", &dear, priced(5, 600, "0.99", "1000")),
        ("priced: 3 times its cost", &dear, priced(6, 60, "1", "2000")),
        ("priced: just below 3 times its cost", &dear, priced(6, 60, "1", "2001")),
        ("priced: worth it, and young", &dear, priced(100, 10, "1", "2000")),
        ("priced: enough, and yet dear", &dear, priced(500, 0, "1", "900000")),
        ("priced: dear, but an order waits", &dear, Sweepable { wanted: true, ..priced(6, 0, "1", "900000") }),
    ] {
        writeln!(table, "{what:<40} {:?}", economy(rules).sweep(&money)).unwrap();
    }
    println!("{table}");
    insta::assert_snapshot!(table);
}

#[test]
fn how_much_fuel() {
    let rule =
        |below_pct, to_pct, max: u64, day: u64| FuelRule { below_pct, to_pct, max_units: U256::from(max), day_max_units: U256::from(day) };
    let mut table = String::new();
    for (what, rule, held, own, today) in [
        ("nothing there", rule(100, 200, 0, 0), 0, 0, 0),
        ("a little there", rule(100, 200, 0, 0), 999, 0, 0),
        ("just enough", rule(100, 200, 0, 0), 1_000, 0, 0),
        ("own coin is paid, too", rule(100, 200, 0, 0), 1_000, 500, 0),
        ("threshold above what is needed", rule(150, 300, 0, 0), 1_499, 0, 0),
        ("at that threshold", rule(150, 300, 0, 0), 1_500, 0, 0),
        ("capped between needed and wanted", rule(100, 200, 1_200, 0), 0, 0, 0),
        ("cap below what is needed", rule(100, 200, 999, 0), 0, 0, 0),
        ("what is left of the day", rule(100, 200, 0, 10_000), 0, 0, 8_500),
        ("too little left of the day", rule(100, 200, 0, 10_000), 0, 0, 9_500),
    ] {
        let (held, own) = (U256::from(held), U256::from(own));
        let ceiling = U256::from(1_000);
        let step = if held >= rule.enough(own, ceiling) {
            "none".to_owned()
        } else {
            let least = (own + ceiling).saturating_sub(held);
            match rule.cap(rule.full(own, ceiling) - held, least, U256::from(today)) {
                Ok(units) => format!("send {units}"),
                Err(refusal) => refusal.to_string(),
            }
        };
        writeln!(table, "{what:<34} {step}").unwrap();
    }
    println!("{table}");
    insta::assert_snapshot!(table);
}

#[test]
fn from_where_a_release_is_paid() {
    let mut table = String::new();
    for (what, free, needs_fuel, leftover_pays) in [
        ("whole, no coin", 100_u64, true, false),
        ("whole, with coin", 100, false, false),
        ("more than due, dust stays", 103, true, false),
        ("more than due, worth a sweep", 160, true, true),
        ("one unit short", 99, true, false),
    ] {
        let facts = PathFacts { free_units: U256::from(free), due_units: U256::from(100), needs_fuel, leftover_pays };
        let chosen: Vec<String> = ReleasePath::ALL.iter().map(|path| format!("{} {:?}", path.name(), paid_from(*path, facts))).collect();
        let (direct, treasury) = (facts.direct_signatures(), facts.treasury_signatures());
        writeln!(table, "{what:<30} direct {direct}, treasury {treasury}: {}", chosen.join(", ")).unwrap();
    }
    println!("{table}");
    insta::assert_snapshot!(table);
}

#[test]
fn the_newest_number_in_force_counts_and_chains_toml_before_it() {
    let chain = local();
    let path = EconomyKey::new("release_path", chain.id, None).unwrap();
    let least = EconomyKey::new("sweep_min_millionths", chain.id, Some(usdc(&chain))).unwrap();
    let book = EconomyBook::new(vec![row(2, path, 1, 10), row(1, path, 2, 0), row(3, least, 7_000_000, 0)]);
    let at = |minutes| book.economy(&chain, T0 + Duration::minutes(minutes));
    assert_eq!(
        (at(-1).release_path, at(9).release_path, at(10).release_path),
        (ReleasePath::Auto, ReleasePath::Treasury, ReleasePath::Direct)
    );
    assert_eq!(at(0).sweep(&money(6, 0)), SweepVerdict::Dust(Dust::Small));
    assert_eq!(at(-1).sweep(&money(6, 0)), SweepVerdict::Now(Ripe::Age));
    for (key, value, _) in book.standing(&chain, T0 + Duration::hours(1)) {
        assert_eq!(key.to_string().parse(), Ok(key));
        let change = EconomyChange { key, value };
        assert_eq!(EconomyChange::from_canonical(&change.canonical()), Some(change));
        assert!(key.check(key.spec().max + 1).is_err());
    }
    for bad in ["planning", "planning:release_path", "planning:fee:1", "other:release_path:1", "planning:release_path:1:0x00"] {
        assert!(bad.parse::<EconomyKey>().is_err(), "{bad}");
    }
    assert_eq!(EconomyKey::new("sweep_min_millionths", chain.id, None), Err(EconomyError::NeedsAsset("sweep_min_millionths")));
    assert_eq!(EconomyChange::from_canonical(r#"{"key":"planning:release_path:1","value":3}"#), None);
}

#[test]
fn every_default_of_every_chain_may_be_set() {
    let book = ChainBook::parse(include_str!("../../../chains.toml")).unwrap();
    for chain in book.iter() {
        for (key, value, _) in EconomyBook::default().standing(chain, T0) {
            key.check(value).unwrap();
        }
    }
}
