//! The chain that `benches/catch_up.rs` measures with, small: what is fast must first be right.

use amanatd::devkit::chain::LocalChain;
use amanatd::devkit::workload::{self, Kind, Recipe, Sighting};
use amanatd::scan::ScanOptions;
use amanatd::units::BlockNumber;

use crate::watching::{CHAIN, Watching, local_spec};

const RECIPE: Recipe = Recipe { blocks: 60, watched: 300, seed: 60 };

/// Whether the scanner reads traces. Until it does, what a contract passes on is known to be missing.
const TRACES: bool = true;

/// W2: everything that reached us is found, by content, once, and nothing else is.
#[tokio::test]
async fn w2_the_workload_is_found_whole() {
    let chain = LocalChain::start(RECIPE.options()).await.unwrap();
    let expected = workload::build(&chain, &RECIPE, |_| {}).await.unwrap();
    let of = |kind| expected.iter().filter(|sighting| sighting.kind == kind).count();
    assert_eq!((of(Kind::Token), of(Kind::Native), of(Kind::Internal)), (180, 60, 6));

    let options = ScanOptions { start: Some(BlockNumber(0)), ..ScanOptions::default() };
    let watching = Watching::with(&[chain.url()], local_spec(), options).await;
    for address in RECIPE.watched_addresses().unwrap() {
        // The daemon derives the same addresses as the recipe.
        assert_eq!(watching.issue().await.address, address);
    }
    watching.scan().await.unwrap();
    assert_eq!(watching.cursor().await.tip.number, BlockNumber(RECIPE.head()));
    watching.assert_line();

    let found = workload::found(&mut watching.database.connection().await.unwrap(), CHAIN).await.unwrap();
    let (missing, extra) = workload::differences(&found, &expected);
    let unseen: Vec<Sighting> = expected.iter().filter(|sighting| sighting.kind == Kind::Internal && !TRACES).copied().collect();
    assert_eq!(missing, unseen);
    assert_eq!(extra, []);
}
