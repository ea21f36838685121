//! Acceptance vectors: a file of inputs and what must come out, run through the real code. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::aggregate::{AggregateFault, Rules, aggregate};
use super::formula::{PegRule, Policy, Terms, settle, step_of};
use super::observation::{Observation, Verdict, WEIGHT_ONE};
use super::refusal::Refusal;
use crate::units::{Decimal18, MicroBps, Price, Toward, UsdRate};

/// One vector and where it differs; nowhere when it passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub name: String,
    pub differences: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    schema: String,
    parameters: Parameters,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Parameters {
    floor_bps: u32,
    min_sources: u32,
    max_dispersion_bps: u32,
    deadband_bps: u32,
    exit_bps: u32,
    halt_bps: u32,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    kind: String,
    input: Value,
    expect: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuoteInput {
    amount: String,
    fx: String,
    price: String,
    decimals: u8,
    peg: Option<String>,
    policy: Option<Policy>,
    #[serde(default)]
    adjusted: bool,
    step: Option<u8>,
    deadband_bps: Option<u32>,
    exit_bps: Option<u32>,
    halt_bps: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AggregateInput {
    observations: Vec<Seen>,
    #[serde(default = "down")]
    toward: Toward,
    min_sources: Option<u32>,
    floor_bps: Option<u32>,
    max_dispersion_bps: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    id: String,
    family: String,
    price: String,
    age_s: i64,
    max_age_s: i64,
    weight: Option<String>,
    conf_bps: Option<String>,
    max_conf_bps: Option<String>,
    invalid: Option<String>,
}

fn down() -> Toward {
    Toward::Down
}

/// Any instant: vectors give ages.
const NOW_S: i64 = 1_700_000_000;

/// Runs every vector of a file; an error where the file is no such file.
pub fn run(text: &str) -> Result<Vec<Outcome>, String> {
    let file: File = serde_json::from_str(text).map_err(|error| format!("no file of vectors: {error}"))?;
    if file.schema != "oracle-vectors/1" {
        return Err(format!("schema {:?} is not oracle-vectors/1", file.schema));
    }
    Ok(file.vectors.into_iter().map(|vector| run_one(vector, &file.parameters)).collect())
}

fn run_one(vector: Vector, parameters: &Parameters) -> Outcome {
    let found = match vector.kind.as_str() {
        "quote" => read(vector.input).and_then(|input| quote(&input, parameters)),
        "aggregate" => read(vector.input).and_then(|input| aggregated(input, parameters)),
        other => Err(format!("kind {other:?} is neither quote nor aggregate")),
    };
    let differences = match found {
        Err(error) => vec![error],
        Ok(found) => {
            let keys: std::collections::BTreeSet<&String> = vector.expect.keys().chain(found.keys()).collect();
            let absent = Value::Null;
            let pairs = keys.into_iter().map(|key| (key, vector.expect.get(key).unwrap_or(&absent), found.get(key).unwrap_or(&absent)));
            pairs.filter(|(_, wanted, got)| wanted != got).map(|(key, wanted, got)| format!("{key}: wanted {wanted}, got {got}")).collect()
        }
    };
    Outcome { name: vector.name, differences }
}

fn read<T: serde::de::DeserializeOwned>(input: Value) -> Result<T, String> {
    serde_json::from_value(input).map_err(|error| format!("input: {error}"))
}

fn object(value: Value) -> BTreeMap<String, Value> {
    match value {
        Value::Object(map) => map.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

fn quote(input: &QuoteInput, parameters: &Parameters) -> Result<BTreeMap<String, Value>, String> {
    let rate = |field: &str, text: &str| text.parse::<UsdRate>().map_err(|error| format!("{field}: {error}"));
    let peg = input.peg.as_deref().map(|peg| rate("peg", peg)).transpose()?;
    let (enter, exit) = (input.deadband_bps.unwrap_or(parameters.deadband_bps), input.exit_bps.unwrap_or(parameters.exit_bps));
    let terms = Terms {
        amount: input.amount.parse::<Decimal18>().map_err(|error| format!("amount: {error}"))?,
        fx_rate: rate("fx", &input.fx)?,
        token_price: rate("price", &input.price)?,
        peg: peg.map(|peg| PegRule {
            peg,
            policy: input.policy.unwrap_or(Policy::SellerWhole),
            band_bps: if input.adjusted { exit } else { enter },
            halt_bps: input.halt_bps.unwrap_or(parameters.halt_bps),
        }),
        premium_bps: 0,
        step: input.step.unwrap_or_else(|| step_of(true, input.decimals)),
        decimals: input.decimals,
    };
    Ok(object(match settle(&terms) {
        Ok(settled) => json!({
            "ok": true,
            "settle_amount": settled.settle_amount,
            "settle_units": settled.settle_units.to_string(),
            "token_price_usd": terms.token_price,
            "effective_price_usd": settled.effective_price,
            "fx_rate": terms.fx_rate,
            "depeg_adjustment_bps": settled.depeg_adjustment_bps,
            "peg_state": settled.peg_state,
        }),
        Err(Refusal::DepegHalt { deviation_bps, .. }) => json!({ "ok": false, "error": "depeg_halt", "deviation_bps": deviation_bps }),
        Err(refusal) => json!({ "ok": false, "error": refusal.code() }),
    }))
}

fn aggregated(input: AggregateInput, parameters: &Parameters) -> Result<BTreeMap<String, Value>, String> {
    let rules = Rules {
        min_sources: input.min_sources.unwrap_or(parameters.min_sources),
        outlier_floor_bps: input.floor_bps.unwrap_or(parameters.floor_bps),
        dispersion_max_bps: input.max_dispersion_bps.unwrap_or(parameters.max_dispersion_bps),
        needs_direct: false,
    };
    let toward = input.toward;
    let observations = input.observations.into_iter().map(observation).collect::<Result<Vec<_>, _>>()?;
    let rejected = |verdicts: &[Verdict]| -> BTreeMap<String, &'static str> {
        let pairs = observations.iter().zip(verdicts).filter(|(_, verdict)| **verdict != Verdict::Used);
        pairs.map(|(seen, verdict)| (seen.source.clone(), verdict.name())).collect()
    };
    Ok(object(match aggregate(&observations, NOW_S, rules) {
        Ok(found) => json!({
            "ok": true,
            "price": found.price(toward).map_err(|error| error.to_string())?,
            "dispersion_bps": found.spread.bps(),
            "used": found.used,
            "rejected": rejected(&found.verdicts),
        }),
        Err(AggregateFault::Insufficient { have, verdicts, .. }) => {
            json!({ "ok": false, "error": "insufficient_sources", "used": have, "rejected": rejected(&verdicts) })
        }
        Err(AggregateFault::Inconsistent { spread, verdicts, .. }) => {
            json!({ "ok": false, "error": "inconsistent_sources", "dispersion_bps": spread.bps(), "rejected": rejected(&verdicts) })
        }
    }))
}

fn observation(seen: Seen) -> Result<Observation, String> {
    let price = seen.price.parse::<Price>().map_err(|error| format!("price: {error}"))?;
    let bps = |text: Option<String>| text.map(|text| text.parse::<MicroBps>()).transpose().map_err(|error| format!("conf_bps: {error}"));
    let weight = match seen.weight {
        None => WEIGHT_ONE,
        // A weight has at most six decimals, as bps do.
        Some(text) => {
            let weight = text.parse::<Price>().map_err(|error| format!("weight: {error}"))?;
            u64::try_from(weight.scaled() / crate::units::pow10(30)).map_err(|error| format!("weight: {error}"))?
        }
    };
    let invalid = seen.invalid.map(|reason| reason.parse()).transpose().map_err(|reason| format!("invalid: {reason:?} is unknown"))?;
    Ok(Observation {
        max_age_s: seen.max_age_s,
        weight,
        conf_bps: bps(seen.conf_bps)?,
        conf_max_bps: bps(seen.max_conf_bps)?,
        invalid,
        ..Observation::new(seen.id, seen.family, price, NOW_S - seen.age_s)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTORS: &str = include_str!("../../tests/data/oracle/vectors.json");

    #[test]
    fn q1_q2_q3_every_acceptance_vector_passes() {
        let outcomes = run(VECTORS).unwrap();
        let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.differences.is_empty()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(outcomes.len(), 30);
    }

    #[test]
    fn a_vector_that_expects_something_else_fails() {
        let wrong = VECTORS.replacen("113.973103000000000000", "113.973102000000000000", 1).replacen("\"used\": 2", "\"used\": 3", 1);
        let failed: Vec<Outcome> = run(&wrong).unwrap().into_iter().filter(|outcome| !outcome.differences.is_empty()).collect();
        assert_eq!(failed.len(), 2);
        assert!(failed[0].differences[0].contains("113.973102"), "{failed:?}");
        assert!(run("<html>").is_err() && run("{}").is_err());
    }
}
