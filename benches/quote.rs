//! A quote from warm sources: everything between what sources said and the amount, against the 50 µs that it may
//! take. Beside it what proving one costs, and the formula alone.

use std::hint::black_box;
use std::time::{Duration, Instant};

use amanatd::chains::PairKind;
use amanatd::quote::decide::{Decision, Fx, Quote, decide};
use amanatd::quote::depeg::DepegState;
use amanatd::quote::evidence::{Evidence, differences};
use amanatd::quote::formula::settle;
use amanatd::quote::jump::{JumpMemory, Mark};
use amanatd::quote::observation::Observation;
use amanatd::quote::{Asked, Limits, Memory, PairInput};
use amanatd::units::{ChainId, Currency, Decimal18, Toward, UsdRate};
use pair::{Bench, Equal, Pair, Random, Side};
use time::OffsetDateTime;

mod pair;

const SEED: u64 = 6;
/// A Wednesday, 12:00 UTC.
const NOW_S: i64 = 1_764_158_400;
const QUOTES: usize = 256;
const LIMIT: Duration = Duration::from_micros(50);

fn main() {
    let bench = Bench::start("quote");
    let mut random = Random::seeded(SEED);
    let cases: Vec<Case> = (0..QUOTES).map(|_| Case::new(&mut random)).collect();
    bench.note(&format!(
        "seed {SEED}; {QUOTES} quotes of euros in USDC: six families of the token, five and two official rates of the euro"
    ));
    let quotes: Vec<Quote> = cases.iter().map(|case| case.decide().outcome.expect("good sources")).collect();
    // Each quote follows from its evidence, written to JSON and read back.
    let evidence: Vec<Evidence> = cases.iter().map(Case::evidence_through_json).collect();
    let proven: Vec<usize> = quotes.iter().zip(&evidence).map(|(quote, evidence)| differences(quote, Some(evidence)).len()).collect();
    let equal = Equal::proved("quotes from evidence", &proven, &vec![0; QUOTES]);

    let limit = || Side::measured(1, || spin(LIMIT));
    let all = || Side::timed(QUOTES, || cases.iter().for_each(|case| drop(black_box(case.decide()))));
    bench.compare(&Pair { variant: "quote, both rounds and the formula", baseline: "the 50 µs it may take", equal }, all(), limit(), None);
    let terms: Vec<_> = quotes.iter().map(|quote| quote.terms).collect();
    let formula = Side::timed(QUOTES, || terms.iter().for_each(|terms| drop(black_box(settle(terms)))));
    bench.compare(&Pair { variant: "formula alone", baseline: "quote, both rounds and the formula", equal }, formula, all(), None);
    let verify = Side::timed(QUOTES, || {
        for (quote, evidence) in quotes.iter().zip(&evidence) {
            black_box(differences(quote, Some(evidence)));
        }
    });
    bench.compare(
        &Pair { variant: "quote computed again and compared", baseline: "quote, both rounds and the formula", equal },
        verify,
        all(),
        None,
    );
}

fn spin(span: Duration) -> Duration {
    let started = Instant::now();
    while started.elapsed() < span {
        std::hint::spin_loop();
    }
    started.elapsed()
}

/// One quote's inputs.
struct Case {
    asked: Asked,
    token: PairInput,
    fx: Fx,
    now: OffsetDateTime,
}

impl Case {
    fn new(random: &mut Random) -> Self {
        let now = OffsetDateTime::from_unix_timestamp(NOW_S).expect("an instant");
        let cents = 1 + random.below(10_000_000);
        let asked = Asked {
            amount: format!("{}.{:02}", cents / 100, cents % 100).parse::<Decimal18>().expect("an amount"),
            currency: Currency::Eur,
            chain: ChainId::new(1).expect("not zero"),
            token: "USDC".to_owned(),
            decimals: 6,
        };
        let token = input(random, "USDC/USD", PairKind::Stable, 99_700_000, &["kraken", "bitstamp", "pyth", "binance", "okx", "chainlink"]);
        let mut euro = input(random, "EUR/USD", PairKind::Fx, 105_860_000, &["kraken", "bitstamp", "pyth", "chainlink", "coinbase"]);
        euro.sanity = input(random, "EUR/USD", PairKind::Fx, 105_860_000, &["ecb", "tcmb"]).observations;
        Self { asked, token, fx: Fx::Pair(Box::new(euro)), now }
    }

    fn decide(&self) -> Decision {
        decide(&self.asked, &self.token, &self.fx, self.now)
    }

    fn evidence_through_json(&self) -> Evidence {
        let evidence = Evidence::new(self.token.clone(), self.fx.clone(), &self.decide(), 7);
        serde_json::from_str(&serde_json::to_string(&evidence).expect("JSON")).expect("evidence")
    }
}

/// Prices within 20 bps of a middle that is given in hundred-millionths.
fn input(random: &mut Random, pair: &str, kind: PairKind, middle: u64, names: &[&str]) -> PairInput {
    let price = |random: &mut Random| {
        let scaled = middle - middle / 1_000 + random.below(middle / 500);
        format!("{}.{:08}", scaled / 100_000_000, scaled % 100_000_000)
    };
    let observations: Vec<Observation> = names
        .iter()
        .map(|name| {
            let age_s = i64::try_from(random.below(60)).expect("small");
            // As wide as a pair of the book; the widest there is cannot be written as JSON.
            let max = "1000".parse().expect("a price");
            Observation { max, ..Observation::new(*name, *name, price(random).parse().expect("a price"), NOW_S - age_s) }
        })
        .collect();
    let accepted = price(random).parse::<UsdRate>().expect("a price");
    let stable = kind == PairKind::Stable;
    PairInput {
        pair: pair.to_owned(),
        kind,
        peg: stable.then(UsdRate::one),
        forex: !stable,
        toward: if stable { Toward::Down } else { Toward::Up },
        observations,
        sanity: Vec::new(),
        needs_bound: !stable,
        memory: Memory {
            depeg: DepegState::Par,
            last_price_s: Some(NOW_S - 15),
            jump: JumpMemory { accepted: Some(Mark { price: accepted, at_s: NOW_S - 15 }), candidate: None, heard: None },
        },
        limits: Limits::default(),
    }
}
