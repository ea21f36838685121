//! Issuing addresses as processes do it: a daemon that is killed while it hands them out, accounts that
//! run low and run out, and the command that proves the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amanatd::api::wire::PaymentView;
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use tokio::task::JoinSet;

use crate::accounts::XPUB_1;
use crate::house::derived;
use crate::process::{Place, chain, nobody, until};
use crate::watching::XPUB;

const GOOD: &str = r#"{"amount": "1", "currency": "USDC", "chain_id": 31337, "token": "USDC",
    "seller_address": "0x2222222222222222222222222222222222222222"}"#;

fn enrol(place: &Place, label: &str, number: &str, xpub: &str) {
    place.write("xpub", xpub);
    let file = place.path("xpub").display().to_string();
    place.succeed(&["account", "add", "--label", label, "--account", number, "--xpub-file", &file]);
}

/// All the payments asked for at once under keys of their own; what was answered. `answered` counts along.
async fn ask(place: &Place, token: &str, keys: usize, answered: &Arc<AtomicUsize>) -> BTreeMap<usize, PaymentView> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
    let url = format!("http://127.0.0.1:{}/v1/payments", place.api_port);
    let mut calls = JoinSet::new();
    for key in 0..keys {
        let request = http
            .post(&url)
            .bearer_auth(token)
            .header("idempotency-key", format!("key-{key}"))
            .header("content-type", "application/json")
            .body(GOOD);
        let answered = Arc::clone(answered);
        calls.spawn(async move {
            let response = request.send().await.ok().filter(|response| response.status().is_success())?;
            let payment: PaymentView = serde_json::from_str(&response.text().await.ok()?).unwrap();
            answered.fetch_add(1, Ordering::SeqCst);
            Some((key, payment))
        });
    }
    calls.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_64_parallel_claims_with_a_process_killed_hand_out_no_index_twice() {
    const CALLS: usize = 64;
    let base = FreshDatabase::create().unwrap();
    let place = Arc::new(Place::new());
    let chain = chain(0).await;
    place.configure(&base.url(APP), chain.url());
    enrol(&place, "main", "0", XPUB);
    let token = place.succeed(&["token", "create", "--name", "t", "--scope", "payments:write", "--scope", "payments:read"]);

    let mut given: BTreeMap<usize, PaymentView> = BTreeMap::new();
    // Killed after so many answers of a round; the last round runs to its end.
    for (round, kill_after) in [Some(1), Some(9), Some(25), Some(40), None].into_iter().enumerate() {
        let mut daemon = place.serve(&format!("log-{round}"));
        until(&mut daemon, "the chain is read", async |_| {
            place.client(&token).chains().await.is_ok_and(|chains| chains[0].scanned_number.is_some())
        })
        .await;
        let answered = Arc::new(AtomicUsize::new(0));
        let calls = {
            let (place, token, answered) = (Arc::clone(&place), token.clone(), Arc::clone(&answered));
            tokio::spawn(async move { ask(&place, &token, CALLS, &answered).await })
        };
        if let Some(enough) = kill_after {
            until(&mut daemon, "some are answered", async |_| answered.load(Ordering::SeqCst) >= enough).await;
            daemon.kill();
        } else {
            calls_end(&mut given, calls.await.unwrap());
            assert_eq!(daemon.terminate().code(), Some(0));
            break;
        }
        calls_end(&mut given, calls.await.unwrap());
    }

    assert_eq!(given.len(), CALLS);
    let indices: BTreeSet<u32> = given.values().map(index).collect();
    assert_eq!(indices.len(), CALLS, "an index was handed out twice");
    for payment in given.values() {
        assert_eq!(payment.deposit_address, derived(0, index(payment)), "{}", payment.deposit_path);
    }
    // What a killed daemon had begun is there whole or not at all: no index is used up without a payment.
    let stored = "select next_deposit_index, (select count(*) from payments), \
         (select count(distinct address_index) from trezor_derived_addresses where branch = 0) from trezor_accounts";
    assert_eq!(base.sql(stored).unwrap().trim(), format!("{CALLS}|{CALLS}|{CALLS}"));
    assert_eq!(indices, (0..64).collect());
    place.succeed(&["account", "rebuild"]);
}

fn index(payment: &PaymentView) -> u32 {
    payment.deposit_path.strip_prefix("m/44'/60'/0'/0/").unwrap().parse().unwrap()
}

/// What one key was answered, it is answered for ever.
fn calls_end(given: &mut BTreeMap<usize, PaymentView>, answers: BTreeMap<usize, PaymentView>) {
    for (key, payment) in answers {
        let before = given.entry(key).or_insert_with(|| payment.clone());
        assert_eq!((before.id, before.deposit_address), (payment.id, payment.deposit_address), "key {key}");
    }
}

#[tokio::test]
async fn d1_an_account_that_runs_low_is_told_and_the_list_says_how_much_is_left() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    place.configure(&base.url(APP), &nobody());
    enrol(&place, "zero", "0", XPUB);
    base.sql("update trezor_accounts set next_deposit_index = 900000").unwrap();
    let list = place.succeed(&["account", "list"]);
    assert!(list.contains("900000     100001  issuing") && !list.contains("account add"), "{list}");

    let mut daemon = place.serve("log");
    until(&mut daemon, "it is ready", async |_| place.is_ready().await).await;
    base.sql("update trezor_accounts set next_deposit_index = 900001").unwrap();
    let remedy =
        "100000 deposit addresses are left in all accounts; connect the Trezor and run `amanatd account add --account 1 --label NAME`";
    until(&mut daemon, "it warns", async |daemon| daemon.said(remedy)).await;
    until(&mut daemon, "the metric is exported", async |_| {
        metrics(&place).await.contains("amanatd_deposit_indices_remaining{account=\"zero\"} 100000\n")
    })
    .await;
    assert!(place.succeed(&["account", "list"]).contains(remedy));

    enrol(&place, "one", "1", XPUB_1);
    until(&mut daemon, "there is room again", async |daemon| daemon.said("deposit addresses are left")).await;
    base.sql("update trezor_accounts set next_deposit_index = 1000001").unwrap();
    until(&mut daemon, "it calls", async |daemon| daemon.said("no payment can be created") && daemon.said("--account 2")).await;
    let log = daemon.log();
    assert_eq!(log.matches("100000 deposit addresses are left").count(), 1, "told once, not at every tick: {log}");
    assert_eq!(daemon.terminate().code(), Some(0));
    let list = place.succeed(&["account", "list"]);
    assert!(list.contains("1000001          0") && !list.contains("issuing"), "{list}");
}

async fn metrics(place: &Place) -> String {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = http.get(format!("http://127.0.0.1:{}/metrics", place.metrics_port)).send().await.unwrap();
    response.text().await.unwrap()
}

#[test]
fn d3_rebuild_says_what_it_found_and_ends_accordingly() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    place.configure(&base.url(APP), &nobody());
    place.run(&["account", "rebuild"]).assert_failed(&["no account is enrolled"]);
    enrol(&place, "zero", "0", XPUB);
    enrol(&place, "one", "1", XPUB_1);

    // As if 3,000 had been issued and the table were lost: more than a page.
    let filled = place.succeed(&["account", "rebuild", "--account", "zero", "--missing", "--issued-below", "3000"]);
    assert!(filled.contains("zero: 3000 missing rows inserted"), "{filled}");
    let whole = place.run(&["account", "rebuild"]);
    assert_eq!((whole.code, whole.stderr.as_str()), (Some(0), ""), "no bar where nobody sits: {whole:?}");
    let lines: Vec<Vec<&str>> = whole.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1..], [["zero", "3002", "0", "0", "0"], ["one", "2", "0", "0", "0"]]);

    base.sql("delete from trezor_derived_addresses where branch = 0 and address_index in (5, 2999)").unwrap();
    let missing = place.run(&["account", "rebuild"]);
    missing.assert_failed(&["2 of 3004 rows differ", "all of them are missing", "rebuild --missing"]);
    assert!(missing.stdout.contains("zero: first difference: m/44'/60'/0'/0/5: the row is missing"), "{missing:?}");
    let filled = place.succeed(&["account", "rebuild", "--missing"]);
    assert!(filled.contains("zero: 2 missing rows inserted") && filled.contains("one: 0 missing rows inserted"), "{filled}");

    let other = "0x00000000000000000000000000000000000000AA";
    base.sql(&format!("update trezor_derived_addresses set address = '\\x{}' where branch = 0 and address_index = 17", &other[2..]))
        .unwrap();
    for words in [&["account", "rebuild"][..], &["account", "rebuild", "--account", "zero"]] {
        let changed = place.run(words);
        changed.assert_failed(&["1 of 300", "rows differ", "halt outflow"]);
        assert!(
            changed.stdout.contains(&format!("m/44'/60'/0'/0/17: the row says {other}; the key gives {}", derived(0, 17))),
            "{changed:?}"
        );
    }
    place.run(&["account", "rebuild", "--missing"]).assert_failed(&["\"zero\"", "m/44'/60'/0'/0/17", "nothing was written"]);
    assert_eq!(place.run(&["account", "rebuild", "--account", "one"]).code, Some(0));
    place.run(&["account", "rebuild", "--account", "none"]).assert_failed(&["\"none\"", "account list"]);
    for bad in [
        &["--issued-below", "5"][..],
        &["--missing", "--issued-below", "5"],
        &["--account", "zero", "--missing", "--issued-below", "1000002"],
    ] {
        assert_eq!(place.run(&[&["account", "rebuild"], bad].concat()).code, Some(2), "{bad:?}");
    }
}
