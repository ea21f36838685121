//! The API as its callers meet it: over HTTP, with a real database behind it. What is refused is a
//! problem document that names the field, and leaves no row behind.

use std::collections::BTreeSet;

use alloy::primitives::B256;
use amanatd::account::{self, Purpose};
use amanatd::api::DoorLimits;
use amanatd::api::wire::{IntentView, PaymentView, ProblemView};
use amanatd::daemon;
use amanatd::intent::{self, FeeTerms, Intent, IntentKind, IntentState};
use amanatd::officer::store::Rotation;
use amanatd::officer::{self, OfficerError, Scope, TokenSecret, UserRole};
use amanatd::units::{IntentId, PaymentId, TokenAmount};
use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::house::{Answer, ApiHouse, answer, derived};
use crate::watching::CHAIN;

const SELLER: &str = "0x2222222222222222222222222222222222222222";

/// A body that is accepted.
fn good() -> Value {
    json!({ "amount": "100.5", "currency": "USDC", "chain_id": 31337, "token": "USDC", "seller_address": SELLER })
}

/// The same with one field as it must not be.
fn with(field: &str, value: Value) -> Value {
    let mut body = good();
    body[field] = value;
    body
}

async fn create(house: &ApiHouse, token: &str, key: &str, body: impl ToString) -> Answer {
    answer(house.post("/v1/payments", token, key, body.to_string())).await
}

/// Every house has an account with its two operator addresses.
const NOTHING_STORED: &str = "0|2|0|0|0|0";

// === a payment ===

#[tokio::test]
async fn w9_a_payment_is_created_with_its_address_and_its_watch() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let reference = Uuid::new_v4();
    let mut body = with("purchase_request_id", json!(reference));
    body["expires_in_seconds"] = json!(86_400);
    let created = create(&house, &token, "first", &body).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let payment: PaymentView = serde_json::from_str(&created.body).unwrap();

    assert_eq!((payment.amount.as_str(), payment.amount_units.as_str()), ("100.5", "100500000"));
    assert_eq!((payment.status.as_str(), payment.escrow_state.as_deref()), ("pending", None));
    assert_eq!((payment.chain_id, payment.token.as_str(), payment.currency.as_str()), (31_337, "USDC", "USDC"));
    assert_eq!(payment.seller_address.to_string(), SELLER);
    assert_eq!(payment.deposit_path, "m/44'/60'/0'/0/0");
    assert_eq!(payment.deposit_address, derived(0, 0));
    assert_eq!(payment.expires_at - payment.created_at, payment.expires_at - payment.created_at);
    let seconds = (payment.expires_at - payment.created_at).whole_seconds();
    assert!((86_390..=86_410).contains(&seconds), "{seconds}");
    assert!(payment.transfers.is_empty() && payment.exceptions.is_empty());

    // What left the API was committed, the watch with it, and the block from which it counts.
    assert_eq!(house.stored(), "1|3|1|1|1|1");
    let watch = format!(
        "select birth_block from derived_destinations d join trezor_derived_addresses a on a.id = d.derived_address_id \
         where d.payment_id = '{}' and a.address = d.address and a.address = '\\x{:x}'",
        payment.id, payment.deposit_address
    );
    assert_eq!(house.count(&watch), 100);
    let row = format!("select amount::text, due_units::text, purchase_request_ref_kind from payments where id = '{}'", payment.id);
    assert_eq!(house.base.sql(&row).unwrap().trim(), "100.500000000000000000|100500000|entity");

    let read = answer(house.get(&format!("/v1/payments/{}", payment.id), &token)).await;
    assert_eq!((read.status, read.json()), (StatusCode::OK, created.json()));
    let listed = answer(house.get("/v1/payments", &token)).await.json();
    assert_eq!(listed, json!({ "payments": [created.json()] }));
}

#[tokio::test]
async fn w9_d1_parallel_payments_get_every_index_once() {
    const CALLS: u32 = 64;
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let mut calls = JoinSet::new();
    for call in 0..CALLS {
        calls.spawn(answer(house.post("/v1/payments", &token, &format!("call-{call}"), good().to_string())));
    }
    let answers = calls.join_all().await;
    let payments: Vec<PaymentView> = answers
        .iter()
        .map(|answer| {
            assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
            serde_json::from_str(&answer.body).unwrap()
        })
        .collect();
    let indices: BTreeSet<u32> = payments.iter().map(|payment| payment.deposit_path.rsplit('/').next().unwrap().parse().unwrap()).collect();
    assert_eq!(indices, (0..CALLS).collect::<BTreeSet<u32>>(), "an index is missing or was handed out twice");
    let addresses: BTreeSet<_> = payments.iter().map(|payment| payment.deposit_address).collect();
    assert_eq!(addresses.len(), payments.len());
    for payment in &payments {
        let index: u32 = payment.deposit_path.strip_prefix("m/44'/60'/0'/0/").unwrap().parse().unwrap();
        assert_eq!(payment.deposit_address, derived(0, index), "{}", payment.deposit_path);
    }
    assert_eq!(house.stored(), "64|66|64|64|64|64");
}

#[tokio::test]
async fn d1_the_last_index_is_used_and_none_after_it() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    house.base.sql("update trezor_accounts set next_deposit_index = 1000000").unwrap();
    let last = create(&house, &token, "last", good()).await;
    assert_eq!(last.json()["deposit_path"], "m/44'/60'/0'/0/1000000");
    let before = house.stored();
    let refused = create(&house, &token, "after", good()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.problem().detail.contains("test"), "the account is named: {refused:?}");
    assert_eq!(house.stored(), before);
}

#[tokio::test]
async fn w9_no_address_leaves_before_the_chain_is_read() {
    let house = ApiHouse::over("http://127.0.0.1:9", 4, DoorLimits::default()).await;
    let token = house.marketplace().await;
    let refused = create(&house, &token, "early", good()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let problem = refused.problem();
    assert!(problem.retryable && problem.detail.contains("31337"), "{problem:?}");
    assert_eq!(house.stored(), NOTHING_STORED);
}

// === bad input ===

/// Field, what the answer repeats of it, body.
fn bad_fields() -> Vec<(&'static str, String, Value)> {
    let mut cases = Vec::new();
    let mut bad = |field: &'static str, value: Value| {
        let shown = match &value {
            Value::String(text) => text.chars().take(40).collect(),
            Value::Array(_) | Value::Object(_) | Value::Null => String::new(),
            other => other.to_string(),
        };
        cases.push((field, shown, with(field, value)));
    };
    let whole = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
    for amount in [
        "NaN",
        "Infinity",
        "-Infinity",
        "-1",
        "-0",
        "+1",
        "0",
        "0.0",
        "0.000000",
        "1.0000001",
        "1e6",
        "1E6",
        "0x10",
        "1,0",
        "1_000",
        " 1",
        "1 ",
        "1.",
        ".5",
        "01",
        "1.2.3",
        "",
        "１",
        "1\u{0}",
        "100000000000000000000.5",
        "100000000000000000000000",
        whole,
    ] {
        bad("amount", json!(amount));
    }
    bad("amount", json!("9".repeat(10_000)));
    bad("amount", json!(format!("1.{}", "0".repeat(10_000))));
    for amount in [json!(100), json!(1.0), json!(1e18), json!(-1), json!(true), Value::Null, json!(["1"]), json!({ "value": "1" })] {
        bad("amount", amount);
    }
    for chain in [json!(0), json!(1), json!(2), json!(-1), json!(31337.0), json!(1.5), json!("31337"), Value::Null, json!([31337])] {
        bad("chain_id", chain);
    }
    bad("chain_id", json!(u64::MAX));
    for token in [json!("DAI"), json!("usdc"), json!(""), json!("USDC "), json!("ETH"), json!(7), Value::Null] {
        bad("token", token);
    }
    for currency in [json!("USD"), json!("EUR"), json!("usdc"), json!("USDT"), json!(""), json!(1), Value::Null] {
        bad("currency", currency);
    }
    for seller in [
        // The checksum of its fourth-last letter is wrong.
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD".replace("BeAeD", "beAeD"),
        "0x5FbDB2315678afecb367f032d93F642f64180aa3".to_owned(),
        "0x0000000000000000000000000000000000000000".to_owned(),
        "0x0000000000000000000000000000000000000009".to_owned(),
        "0x22222222222222222222222222222222222222".to_owned(),
        "0x222222222222222222222222222222222222222222".to_owned(),
        "2222222222222222222222222222222222222222".to_owned(),
        "0X2222222222222222222222222222222222222222".to_owned(),
        "XE7338O073KYGTWWZN0F2WZ0R8PX5ZPPZS".to_owned(),
        "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t".to_owned(),
        "vitalik.eth".to_owned(),
        "' or 1=1 --".to_owned(),
        String::new(),
    ] {
        bad("seller_address", json!(seller));
    }
    bad("seller_address", json!(34));
    for seconds in [json!(0), json!(59), json!(2_592_001), json!(-60), json!(4_294_967_296_u64), json!(60.5), json!("60")] {
        bad("expires_in_seconds", seconds);
    }
    for id in [json!("x"), json!(""), json!(5), json!(Uuid::nil().to_string().replace('-', "").split_at(31).0)] {
        bad("purchase_request_id", id.clone());
        bad("buyer_id", id.clone());
        bad("seller_id", id);
    }
    // Well formed, and nobody.
    bad("buyer_id", json!(Uuid::from_u128(7)));
    bad("seller_id", json!(Uuid::from_u128(8)));
    bad("purchase_request_external_ref", json!(""));
    bad("purchase_request_external_ref", json!("r".repeat(201)));
    bad("purchase_request_external_ref", json!(4));
    // Fields that nobody knows, one of them a near miss.
    bad("memo", json!("please"));
    bad("amount_units", json!("1"));
    bad("Amount", json!("1"));
    cases
}

#[tokio::test]
async fn xn_xc18_a_bad_field_is_named_with_its_value_and_nothing_is_stored() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let cases = bad_fields();
    assert!(cases.len() > 100, "{}", cases.len());
    for (place, (field, shown, body)) in cases.into_iter().enumerate() {
        let refused = create(&house, &token, &format!("bad-{place}"), &body).await;
        let what = format!("{field} = {shown:?}: {refused:?}");
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{what}");
        let problem = refused.problem();
        // A currency of the marketplace is well formed; what is missing is a quote.
        let priced = field == "currency" && ["USD", "EUR", "USDT"].contains(&shown.as_str());
        assert_eq!(problem.code, if priced { "quoting_disabled" } else { "invalid_fields" }, "{what}");
        assert!(!problem.retryable, "{what}");
        let named = problem.fields.iter().find(|fault| fault.field == field).unwrap_or_else(|| panic!("not named: {what}"));
        assert!(!named.problem.is_empty() && problem.detail.contains(field), "{what}");
        let known = good().get(field).is_some() || ["expires_in_seconds", "buyer_id", "seller_id"].contains(&field);
        if known {
            assert!(named.value.contains(&shown) || named.problem.contains(&shown), "the value is not repeated: {what}");
        }
        assert!(refused.body.len() < 2_000, "an answer of {} bytes", refused.body.len());
    }
    assert_eq!(house.stored(), NOTHING_STORED);
}

#[tokio::test]
async fn xa2_a_missing_field_is_named() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    for field in ["amount", "currency", "chain_id", "token", "seller_address"] {
        let mut body = good();
        body.as_object_mut().unwrap().remove(field);
        let refused = create(&house, &token, &format!("without-{field}"), &body).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
        assert_eq!(refused.problem().fields[0].field, field, "{refused:?}");
    }
    let mut both = with("purchase_request_id", json!(Uuid::from_u128(1)));
    both["purchase_request_external_ref"] = json!("template-1");
    let refused = create(&house, &token, "both", &both).await;
    assert_eq!(refused.problem().fields[0].field, "purchase_request_id", "{refused:?}");
    assert_eq!(house.stored(), NOTHING_STORED);
}

#[tokio::test]
async fn xn_all_faults_of_a_request_are_named_at_once() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let mut body = with("amount", json!("x"));
    body["seller_address"] = json!("y");
    body["expires_in_seconds"] = json!(0);
    let problem = create(&house, &token, "three", &body).await.problem();
    let fields: Vec<&str> = problem.fields.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["amount", "seller_address", "expires_in_seconds"]);
    assert_eq!(house.stored(), NOTHING_STORED);
}

#[tokio::test]
async fn xk1_a_private_key_in_a_request_is_refused_and_not_repeated() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let xprv = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi";
    let words = "all all all all all all all all all all all all";
    let raw = "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
    for (place, secret) in [xprv, words, raw].into_iter().enumerate() {
        for field in ["seller_address", "amount", "token", "currency", "chain_id", "buyer_id", "memo"] {
            let refused = create(&house, &token, &format!("secret-{place}-{field}"), with(field, json!(secret))).await;
            assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
            let problem = refused.problem();
            assert!(problem.fields.iter().any(|fault| fault.field == field), "{problem:?}");
            let tail = secret.get(8..24).unwrap();
            assert!(!refused.body.contains(tail), "{field} repeats the secret: {refused:?}");
        }
    }
    assert_eq!(house.stored(), NOTHING_STORED);
}

#[tokio::test]
async fn xa2_a_body_that_is_no_plain_object_is_refused() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let good = good().to_string();
    let twice = good.replacen('{', r#"{"amount":"1","#, 1);
    let nested = format!(r#"{{"amount":{}"1"{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let positional = json!(["100.5", "USDC", 31337, "USDC", SELLER, null, null, null, null, null]).to_string();
    let bodies = [
        ("duplicate key", twice, "amount"),
        ("trailing text", format!("{good} x"), "text after"),
        ("two values", format!("{good}{good}"), "text after"),
        ("cut off", good[..good.len() - 3].to_owned(), ""),
        ("nothing", String::new(), ""),
        ("null", "null".to_owned(), ""),
        ("a string", "\"100\"".to_owned(), ""),
        ("positional", positional, ""),
        ("a list of one", format!("[{good}]"), ""),
        ("nested", nested, "amount"),
        ("not JSON", "amount=1&token=USDC".to_owned(), ""),
        ("NaN literal", good.replace("\"100.5\"", "NaN"), ""),
        ("a comment", good.replacen('{', "{/* */", 1), ""),
    ];
    for (place, (what, body, said)) in bodies.into_iter().enumerate() {
        let refused = create(&house, &token, &format!("form-{place}"), body).await;
        assert!(refused.status.is_client_error(), "{what}: {refused:?}");
        let problem = refused.problem();
        assert!(problem.detail.contains(said), "{what}: {problem:?}");
    }
    // Bytes that are no text.
    let bytes = [b"{\"amount\":\"".as_slice(), &[0xff, 0xfe], b"\"}"].concat();
    let refused = answer(house.post("/v1/payments", &token, "bytes", bytes)).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
    refused.problem();
    assert_eq!(house.stored(), NOTHING_STORED);
}

#[tokio::test]
async fn xa2_a_body_too_large_is_refused_unread() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let large = with("purchase_request_external_ref", json!("r".repeat(100_000))).to_string();
    let refused = answer(house.post("/v1/payments", &token, "large", large)).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE, "{refused:?}");
    assert!(!refused.problem().detail.is_empty());
    assert_eq!(house.stored(), NOTHING_STORED);
}

#[tokio::test]
async fn xa2_another_content_type_is_refused() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    for kind in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx"), Some("text/json"), Some("")]
    {
        let mut request =
            house.request(Method::POST, "/v1/payments").bearer_auth(&token).header("idempotency-key", "kind").body(good().to_string());
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let refused = answer(request).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{kind:?}: {refused:?}");
        assert_eq!(refused.problem().code, "content_type");
    }
    assert_eq!(house.stored(), NOTHING_STORED);
    let charset = house
        .request(Method::POST, "/v1/payments")
        .bearer_auth(&token)
        .header("idempotency-key", "kind")
        .header("content-type", "Application/JSON; charset=utf-8")
        .body(good().to_string());
    assert_eq!(answer(charset).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn xa3_odd_paths_and_filters_are_problems_too() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let paths = [
        ("/v1/payments/1", StatusCode::NOT_FOUND),
        ("/v1/payments/'%20or%20'1'='1", StatusCode::NOT_FOUND),
        ("/v1/payments/..%2f..%2fetc%2fpasswd", StatusCode::NOT_FOUND),
        ("/v1/payments/%00", StatusCode::NOT_FOUND),
        ("/v1/payments/%ff", StatusCode::BAD_REQUEST),
        ("/v1/payments/00000000-0000-0000-0000-000000000000", StatusCode::NOT_FOUND),
        ("/v1/intents/x", StatusCode::NOT_FOUND),
        ("/v1/nothing", StatusCode::NOT_FOUND),
        ("/", StatusCode::NOT_FOUND),
        ("/v1/payments?limit=0", StatusCode::UNPROCESSABLE_ENTITY),
        ("/v1/payments?limit=201", StatusCode::UNPROCESSABLE_ENTITY),
        ("/v1/payments?limit=-1", StatusCode::UNPROCESSABLE_ENTITY),
        ("/v1/payments?limit=ten", StatusCode::BAD_REQUEST),
        ("/v1/payments?limit=99999999999999999999", StatusCode::BAD_REQUEST),
        ("/v1/payments?cursor=x", StatusCode::UNPROCESSABLE_ENTITY),
        ("/v1/payments?cursor=1_'%3bdrop%20table%20payments", StatusCode::UNPROCESSABLE_ENTITY),
        (
            "/v1/payments?cursor=170141183460469231731687303715884105727_00000000-0000-0000-0000-000000000000",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        ("/v1/payments?page=2", StatusCode::BAD_REQUEST),
        ("/v1/intents?state=open", StatusCode::UNPROCESSABLE_ENTITY),
        ("/v1/intents?state=planned,'", StatusCode::UNPROCESSABLE_ENTITY),
        ("/v1/ledger/entries?cursor=-", StatusCode::UNPROCESSABLE_ENTITY),
    ];
    for (path, status) in paths {
        let refused = answer(house.get(path, &token)).await;
        assert_eq!(refused.status, status, "{path}: {refused:?}");
        assert!(!refused.problem().detail.is_empty(), "{path}");
    }
    for (method, path) in [(Method::DELETE, "/v1/payments"), (Method::PUT, "/v1/intents"), (Method::PATCH, "/v1/ledger/entries")] {
        let refused = answer(house.request(method, path).bearer_auth(&token)).await;
        assert!(refused.status.is_client_error(), "{refused:?}");
        refused.problem();
    }
}

// === idempotency ===

#[tokio::test]
async fn y2_the_same_call_again_gets_the_same_answer() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let first = create(&house, &token, "order-1", good()).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let before = house.stored();
    for key in ["order-1", "\"order-1\""] {
        let again = create(&house, &token, key, good()).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body), "{key}");
    }
    let other = create(&house, &token, "order-1", with("amount", json!("100.6"))).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.problem().code, "idempotency_key_reused");
    assert_eq!(house.stored(), before);

    // The key is the caller's own, and of one route.
    let neighbour = house.marketplace().await;
    let theirs = create(&house, &neighbour, "order-1", good()).await;
    assert_eq!(theirs.status, StatusCode::CREATED);
    assert_ne!(theirs.json()["id"], first.json()["id"]);
}

#[tokio::test]
async fn y2_fifty_calls_at_once_make_one_payment() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        calls.spawn(answer(house.post("/v1/payments", &token, "the-one", good().to_string())));
    }
    let answers = calls.join_all().await;
    let (made, waiting): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.status == StatusCode::CREATED);
    assert!(!made.is_empty());
    let bodies: BTreeSet<&str> = made.iter().map(|answer| answer.body.as_str()).collect();
    assert_eq!(bodies.len(), 1, "two answers to one call");
    for refused in &waiting {
        let problem = refused.problem();
        assert_eq!((problem.status, problem.code.as_str(), problem.retryable), (409, "idempotency_key_running", true));
    }
    assert_eq!(house.stored(), "1|3|1|1|1|1");
    let later = create(&house, &token, "the-one", good()).await;
    assert_eq!(later.body, made[0].body);
}

#[tokio::test]
async fn y2_a_refused_call_does_not_take_its_key() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let unknown = Uuid::from_u128(7);
    assert_eq!(create(&house, &token, "retry", with("amount", json!("NaN"))).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(create(&house, &token, "retry", with("buyer_id", json!(unknown))).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(create(&house, &token, "retry", good()).await.status, StatusCode::CREATED);
    assert_eq!(house.stored(), "1|3|1|1|1|1");
}

#[tokio::test]
async fn xa1_a_bad_key_is_refused() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let bare = house.request(Method::POST, "/v1/payments").bearer_auth(&token).header("content-type", "application/json");
    let missing = answer(bare.try_clone().unwrap().body(good().to_string())).await;
    assert_eq!((missing.status, missing.problem().code.as_str()), (StatusCode::BAD_REQUEST, "idempotency_key_missing"));
    let long = "k".repeat(201);
    let longer = "k".repeat(10_000);
    let keys: [&[u8]; 8] =
        [b"", b"\"\"", b"two words", b"tab\there", "schl\u{fc}ssel".as_bytes(), b"\xff\xfe", long.as_bytes(), longer.as_bytes()];
    for key in keys {
        let refused = answer(bare.try_clone().unwrap().header("idempotency-key", key).body(good().to_string())).await;
        let shown = String::from_utf8_lossy(key).chars().take(20).collect::<String>();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{shown}: {refused:?}");
        assert_eq!(refused.problem().code, "idempotency_key_form", "{shown}");
    }
    assert_eq!(house.stored(), NOTHING_STORED);
    assert_eq!(create(&house, &token, &"k".repeat(200), good()).await.status, StatusCode::CREATED);
}

// === who may ===

const ROUTES: [(&str, &str); 34] = [
    ("POST", "/v1/payments"),
    ("GET", "/v1/payments"),
    ("GET", "/v1/payments/00000000-0000-0000-0000-000000000007"),
    ("POST", "/v1/payments/00000000-0000-0000-0000-000000000007/release"),
    ("GET", "/v1/intents"),
    ("GET", "/v1/intents/00000000-0000-0000-0000-000000000007"),
    ("POST", "/v1/intents/00000000-0000-0000-0000-000000000007/approvals"),
    ("POST", "/v1/intents/00000000-0000-0000-0000-000000000007/claim"),
    ("POST", "/v1/intents/00000000-0000-0000-0000-000000000007/signature"),
    ("POST", "/v1/intents/00000000-0000-0000-0000-000000000007/decline"),
    ("GET", "/v1/signing-queue"),
    ("GET", "/v1/chains"),
    ("GET", "/v1/ledger/entries"),
    ("POST", "/v1/intents/00000000-0000-0000-0000-000000000007/replacement"),
    ("POST", "/v1/intents/00000000-0000-0000-0000-000000000007/cancel"),
    ("GET", "/v1/intents/00000000-0000-0000-0000-000000000007/policy"),
    ("GET", "/v1/policies"),
    ("POST", "/v1/policies"),
    ("POST", "/v1/policies/check"),
    ("GET", "/v1/policies/refusals"),
    ("GET", "/v1/proposals"),
    ("POST", "/v1/proposals/7/confirm"),
    ("POST", "/v1/proposals/7/withdraw"),
    ("GET", "/v1/policies/destinations"),
    ("POST", "/v1/policies/destinations"),
    ("POST", "/v1/policies/destinations/31337/0x1111111111111111111111111111111111111111/remove"),
    ("POST", "/v1/payments/00000000-0000-0000-0000-000000000007/refund"),
    ("POST", "/v1/payments/00000000-0000-0000-0000-000000000007/accept"),
    ("POST", "/v1/payments/00000000-0000-0000-0000-000000000007/cancel"),
    ("POST", "/v1/payments/00000000-0000-0000-0000-000000000007/payouts/00000000-0000-0000-0000-000000000007/withdraw"),
    ("POST", "/v1/payments/00000000-0000-0000-0000-000000000007/disputes"),
    ("POST", "/v1/payments/00000000-0000-0000-0000-000000000007/quarantine"),
    ("GET", "/v1/disputes"),
    ("POST", "/v1/disputes/00000000-0000-0000-0000-000000000007/resolve"),
];

#[tokio::test]
async fn xa6_without_a_live_token_nothing_is_told() {
    let house = ApiHouse::start().await;
    let live = house.marketplace().await;
    let expired = house.token(&[Scope::PaymentsWrite, Scope::PaymentsRead], None, -1).await;
    let revoked = house.token(&[Scope::PaymentsWrite, Scope::PaymentsRead], None, 1).await;
    house
        .base
        .sql("update api_tokens set revoked_at = now() where id = (select id from api_tokens order by created_at desc limit 1)")
        .unwrap();
    let mut wrong = live.clone();
    let last = if wrong.pop() == Some('0') { '1' } else { '0' };
    wrong.push(last);
    let upper = live.replace("amanat_", "AMANAT_");
    let headers = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(format!("Basic {live}")),
        Some(live.clone()),
        Some(format!("Bearer  {live}")),
        Some(format!("Bearer {live}x")),
        Some(format!("Bearer {upper}")),
        Some(format!("Bearer {wrong}")),
        Some(format!("Bearer {expired}")),
        Some(format!("Bearer {revoked}")),
        Some("Bearer ' or 1=1 --".to_owned()),
    ];
    for header in headers {
        for (method, path) in ROUTES {
            let mut request = house
                .request(method.parse().unwrap(), path)
                .header("idempotency-key", "who")
                .header("content-type", "application/json")
                .body(good().to_string());
            if let Some(header) = &header {
                request = request.header("authorization", header);
            }
            let refused = answer(request).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{header:?} {method} {path}: {refused:?}");
            assert_eq!(refused.problem().code, "unauthorized");
            assert!(!refused.body.contains(&live[7..]), "a secret is repeated");
        }
    }
    assert_eq!(house.stored(), NOTHING_STORED);
}

#[tokio::test]
async fn xa6_a_token_without_the_scope_is_refused() {
    let house = ApiHouse::start().await;
    let officer = house.user("officer", UserRole::Admin).await;
    let needed = [
        Scope::PaymentsWrite,
        Scope::PaymentsRead,
        Scope::PaymentsRead,
        Scope::PaymentsWrite,
        Scope::IntentsRead,
        Scope::IntentsRead,
        Scope::IntentsApprove,
        Scope::Signing,
        Scope::Signing,
        Scope::Signing,
        Scope::Signing,
        Scope::PaymentsRead,
        Scope::LedgerRead,
        Scope::IntentsApprove,
        Scope::IntentsApprove,
        Scope::IntentsRead,
        Scope::IntentsRead,
        Scope::IntentsApprove,
        Scope::IntentsRead,
        Scope::IntentsRead,
        Scope::IntentsRead,
        Scope::IntentsApprove,
        Scope::IntentsApprove,
        Scope::IntentsRead,
        Scope::IntentsApprove,
        Scope::IntentsApprove,
        Scope::PaymentsWrite,
        Scope::PaymentsWrite,
        Scope::PaymentsWrite,
        Scope::PaymentsWrite,
        Scope::PaymentsWrite,
        Scope::DisputesResolve,
        Scope::PaymentsRead,
        Scope::DisputesResolve,
    ];
    for ((method, path), needed) in ROUTES.into_iter().zip(needed) {
        let others: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| *scope != needed).collect();
        let token = house.token(&others, Some(officer), 1).await;
        let request = house
            .request(method.parse().unwrap(), path)
            .bearer_auth(&token)
            .header("idempotency-key", "scope")
            .header("content-type", "application/json")
            .body(good().to_string());
        let refused = answer(request).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}: {refused:?}");
        let problem = refused.problem();
        assert!(problem.code == "forbidden" && problem.detail.contains(needed.name()), "{problem:?}");
    }
    assert_eq!(house.stored(), NOTHING_STORED);
}

#[tokio::test]
async fn xa6_a_suspended_person_has_no_live_token() {
    let house = ApiHouse::start().await;
    let officer = house.user("officer", UserRole::Admin).await;
    let token = house.token(&[Scope::IntentsRead, Scope::IntentsApprove], Some(officer), 1).await;
    assert_eq!(answer(house.get("/v1/intents", &token)).await.status, StatusCode::OK);
    house.base.sql("update users set status = 'suspended'").unwrap();
    assert_eq!(answer(house.get("/v1/intents", &token)).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn y2_a_rotated_token_is_the_same_token() {
    let house = ApiHouse::start().await;
    let old = house.marketplace().await;
    let first = create(&house, &old, "order-1", good()).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let name = house.base.sql("select name from api_tokens").unwrap().trim().to_owned();
    let rotate = async |random: u8, hours: i64| {
        let (name, rotation) = (name.clone(), Rotation { old_until: daemon::now() + time::Duration::hours(hours), expires_at: None });
        let rotated = house.db.unit::<_, OfficerError, _>(move |connection| {
            Box::pin(async move {
                let secret = TokenSecret::from_random([random; 32]);
                officer::store::rotate_token(connection, &name, &secret, rotation).await?;
                Ok(secret.expose().to_owned())
            })
        });
        rotated.await.unwrap()
    };
    let new = rotate(7, 24).await;
    // With either secret the key has been used, and one payment came of it.
    for token in [&old, &new] {
        let again = create(&house, token, "order-1", good()).await;
        assert_eq!((again.status, &again.body), (StatusCode::CREATED, &first.body));
    }
    assert_eq!(house.count("select count(*) from payments"), 1);
    // The secret before ends with its time, one that leaked at once.
    house.base.sql("update api_tokens set old_secret_until = now()").unwrap();
    assert_eq!(answer(house.get("/v1/payments", &old)).await.status, StatusCode::UNAUTHORIZED);
    let newest = rotate(8, 0).await;
    assert_eq!(answer(house.get("/v1/payments", &new)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer(house.get("/v1/payments", &newest)).await.status, StatusCode::OK);
    // Neither is in the database, and it is told.
    for secret in [&old, &new, &newest] {
        assert_eq!(house.count(&format!("select count(*) from api_tokens t where t::text like '%{secret}%'")), 0);
    }
    assert_eq!(house.count("select count(*) from events where kind = 'token.rotated'"), 2);
    house.base.sql("update api_tokens set revoked_at = now()").unwrap();
    assert_eq!(answer(house.get("/v1/payments", &newest)).await.status, StatusCode::UNAUTHORIZED);
}

// === approvals ===

/// A stored release that waits for `approvals` officers.
pub(crate) async fn planned(house: &ApiHouse, approvals: u8, requested_by: String) -> Intent {
    let token = house.marketplace().await;
    let created = create(house, &token, &format!("for-{requested_by}-{approvals}-{}", Uuid::new_v4()), good()).await;
    let payment: PaymentId = serde_json::from_value(created.json()["id"].clone()).unwrap();
    let spec = house.book.get(CHAIN).unwrap().clone();
    let nonce = u64::try_from(house.count("select count(*) from intents")).unwrap();
    let stored = house.db.unit::<_, intent::IntentError, _>(move |connection| {
        Box::pin(async move {
            let account = account::store::list(connection).await?.remove(0).id;
            let from = account::store::get_operator_address(connection, account, Purpose::Treasury).await?;
            let asset = spec.token_asset(spec.token("USDC").unwrap());
            let mut intent = Intent {
                id: IntentId(Uuid::now_v7()),
                kind: IntentKind::Release,
                state: IntentState::Planned,
                state_version: 1,
                revision: 1,
                from,
                to: SELLER.parse().unwrap(),
                amount: TokenAmount::new(asset, "100500000".parse().unwrap()),
                nonce,
                fees: FeeTerms { gas_limit: 65_000, max_fee_per_gas: 30_000_000_000, max_priority_fee_per_gas: 1_000_000_000 },
                payment: Some(payment),
                destination: None,
                digest: B256::ZERO,
                approvals_required: approvals,
                approvals_expire_minutes: 1_440,
                policy: None,
                requested_by,
                revised_by: None,
                signed_revision: None,
                cancels: None,
                station: None,
            };
            intent.digest = intent::digest::digest_of(&intent);
            let intent = intent::store::insert(connection, &intent).await?;
            order_paid_by(connection, &intent).await;
            Ok(intent)
        })
    });
    stored.await.unwrap()
}

/// The order that a planned release pays.
pub(crate) async fn order_paid_by(connection: &mut sqlx::PgConnection, intent: &Intent) {
    let order = "insert into payment_payouts (id, payment_id, kind, chain_id, asset, asset_decimals, source, gross_units, \
         platform_fee_units, provider_fee_units, net_units, to_address, requested_by, reservation_key) \
         select id, payment_id, 'release', chain_id, asset, 6, 'held', amount, 0, 0, amount, to_address, 'daemon', \
         'payout:' || id || ':reserve' from intents where id = $1";
    for statement in [order, "update payment_payouts set state = 'planned', intent_id = id where id = $1"] {
        sqlx::query(statement).bind(intent.id.0).execute(&mut *connection).await.unwrap();
    }
}

async fn approve(house: &ApiHouse, token: &str, intent: &Intent, digest: B256) -> Answer {
    let key = Uuid::new_v4().to_string();
    answer(house.post(&format!("/v1/intents/{}/approvals", intent.id), token, &key, json!({ "digest": digest }).to_string())).await
}

fn approvals(house: &ApiHouse) -> i64 {
    house.count("select count(*) from intent_approvals")
}

#[tokio::test]
async fn s6_two_officers_approve_and_nobody_counts_twice() {
    let house = ApiHouse::start().await;
    let (first, second) = (house.user("first", UserRole::Guard).await, house.user("second", UserRole::Admin).await);
    let scopes = [Scope::IntentsRead, Scope::IntentsApprove];
    let (one, other) = (house.token(&scopes, Some(first), 1).await, house.token(&scopes, Some(second), 1).await);
    let intent = planned(&house, 2, "daemon".to_owned()).await;

    let approved: IntentView = serde_json::from_str(&approve(&house, &one, &intent, intent.digest).await.body).unwrap();
    assert_eq!((approved.approvals, approved.approvals_required, approved.state.as_str()), (1, 2, "planned"));
    // The same person, with another token too.
    let same_person = house.token(&scopes, Some(first), 1).await;
    for token in [&one, &same_person] {
        let refused = approve(&house, token, &intent, intent.digest).await;
        assert_eq!((refused.status, refused.problem().code.as_str()), (StatusCode::CONFLICT, "already_approved"));
    }
    assert_eq!(approvals(&house), 1);
    let approved: IntentView = serde_json::from_str(&approve(&house, &other, &intent, intent.digest).await.body).unwrap();
    assert_eq!((approved.approvals, approved.state.as_str()), (2, "approved"));
    // What is approved is past approving.
    let third = house.user("third", UserRole::Guard).await;
    let late = house.token(&scopes, Some(third), 1).await;
    let refused = approve(&house, &late, &intent, intent.digest).await;
    assert_eq!((refused.status, refused.problem().code.as_str()), (StatusCode::CONFLICT, "intent_state"));
    assert_eq!(approvals(&house), 2);
}

#[tokio::test]
async fn s6_two_officers_at_once_move_the_intent_once() {
    let house = ApiHouse::start().await;
    let intent = planned(&house, 2, "daemon".to_owned()).await;
    let mut calls = JoinSet::new();
    for place in 0..8 {
        let user = house.user(&format!("officer {place}"), UserRole::Guard).await;
        let token = house.token(&[Scope::IntentsApprove], Some(user), 1).await;
        let body = json!({ "digest": intent.digest }).to_string();
        calls.spawn(answer(house.post(&format!("/v1/intents/{}/approvals", intent.id), &token, "once", body)));
    }
    let answers = calls.join_all().await;
    let accepted = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(accepted, 2, "{answers:?}");
    assert_eq!((approvals(&house), house.count("select state_version from intents")), (2, 2));
}

#[tokio::test]
async fn s6_an_approval_of_something_else_is_refused() {
    let house = ApiHouse::start().await;
    let officer = house.user("officer", UserRole::Guard).await;
    let token = house.token(&[Scope::IntentsRead, Scope::IntentsApprove], Some(officer), 1).await;
    let intent = planned(&house, 1, "daemon".to_owned()).await;
    let other = planned(&house, 1, "daemon".to_owned()).await;
    for digest in [B256::ZERO, B256::repeat_byte(7), other.digest] {
        let refused = approve(&house, &token, &intent, digest).await;
        assert_eq!((refused.status, refused.problem().code.as_str()), (StatusCode::CONFLICT, "stale_digest"));
    }
    for body in [json!({}), json!({ "digest": "0x12" }), json!({ "digest": null }), json!({ "digest": intent.digest, "amount": "1" })] {
        let refused = answer(house.post(&format!("/v1/intents/{}/approvals", intent.id), &token, "form", body.to_string())).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
        refused.problem();
    }
    // A row that was changed behind the daemon's back has no digest that can be approved.
    let past = "alter table payment_payouts drop constraint payment_payouts_intent_fkey";
    house.base.sql(&format!("{past}; update intents set to_address = '\\x{}' where id = '{}'", "66".repeat(20), intent.id)).unwrap();
    let refused = approve(&house, &token, &intent, intent.digest).await;
    assert!(refused.status.is_server_error(), "{refused:?}");
    refused.problem();
    assert_eq!(approvals(&house), 0);
    assert_eq!(house.count("select count(*) from intents where state <> 'planned'"), 0);
}

#[tokio::test]
async fn s6_only_an_officer_who_did_not_ask_may_approve() {
    let house = ApiHouse::start().await;
    let officer = house.user("officer", UserRole::Guard).await;
    let token = house.token(&[Scope::IntentsRead, Scope::IntentsApprove], Some(officer), 1).await;
    let own = planned(&house, 1, format!("user:{officer}")).await;
    let refused = approve(&house, &token, &own, own.digest).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    assert!(refused.problem().detail.contains(&officer.to_string()));

    let intent = planned(&house, 1, "daemon".to_owned()).await;
    for role in ["buyer", "seller", "resolver"] {
        house.base.sql(&format!("update users set role = '{role}'")).unwrap();
        let refused = approve(&house, &token, &intent, intent.digest).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{role}: {refused:?}");
    }
    assert_eq!(approvals(&house), 0);
    house.base.sql("update users set role = 'admin'").unwrap();
    assert_eq!(approve(&house, &token, &intent, intent.digest).await.status, StatusCode::CREATED);
}

// === stations ===

#[tokio::test]
async fn s3_a_station_gets_only_what_is_approved_and_hands_in_nothing_else() {
    let house = ApiHouse::start().await;
    let station = house.token(&[Scope::Signing, Scope::IntentsRead], None, 1).await;
    let intent = planned(&house, 1, "daemon".to_owned()).await;
    let path = |act: &str| format!("/v1/intents/{}/{act}", intent.id);
    let claim = json!({ "station": "desk" }).to_string();
    let refused = answer(house.post(&path("claim"), &station, "early", claim.clone())).await;
    assert_eq!((refused.status, refused.problem().code.as_str()), (StatusCode::CONFLICT, "intent_state"));
    let queue = answer(house.get("/v1/signing-queue", &station)).await.json();
    assert_eq!(queue["intents"], json!([]));

    let officer = house.user("officer", UserRole::Guard).await;
    let token = house.token(&[Scope::IntentsApprove], Some(officer), 1).await;
    assert_eq!(approve(&house, &token, &intent, intent.digest).await.status, StatusCode::CREATED);
    for (key, name) in [("none", String::new()), ("long", "s".repeat(101))] {
        let refused = answer(house.post(&path("claim"), &station, key, json!({ "station": name }).to_string())).await;
        assert_eq!(refused.problem().fields[0].field, "station", "{refused:?}");
    }
    assert_eq!(answer(house.post(&path("claim"), &station, "claim", claim)).await.status, StatusCode::OK);
    for (key, raw) in [("empty", "0x"), ("legacy", "0xc0"), ("short", "0x02c0"), ("text", "hello"), ("odd", "0x123")] {
        let refused = answer(house.post(&path("signature"), &station, key, json!({ "raw": raw }).to_string())).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{raw}: {refused:?}");
        let problem: ProblemView = refused.problem();
        assert_eq!(problem.fields[0].field, "raw", "{problem:?}");
    }
    assert_eq!(house.count("select count(*) from outbound_transactions"), 0);
    assert_eq!(house.count("select count(*) from intents where state = 'signing'"), 1);
}

// === thresholds ===

#[tokio::test]
async fn w3_officers_change_thresholds_over_the_api_and_nobody_else_does() {
    let house = ApiHouse::start().await;
    let guard = house.user("guard", UserRole::Guard).await;
    let officer = house.token(&[Scope::PaymentsRead, Scope::IntentsApprove], Some(guard), 1).await;
    let marketplace = house.marketplace().await;
    let path = "/v1/chains/31337/thresholds";
    let tier = r#"{"gate":"release","blocks":40,"asset":"USDC","from_amount":"1000.5","reason":"large"}"#;
    let rows = || house.count("select count(*) from config_setting_history");
    let before = rows();

    let refused = answer(house.post(path, &marketplace, "k", tier)).await.problem();
    assert_eq!(refused.status, 403);
    // body, the field that is named, and the value that is repeated
    for (body, field, value) in [
        (r#"{"gate":"both","blocks":5,"reason":"x"}"#, "gate", "both"),
        (r#"{"gate":"credit","blocks":0,"reason":"x"}"#, "blocks", "0"),
        (r#"{"gate":"credit","blocks":10001,"reason":"x"}"#, "blocks", "10001"),
        (r#"{"gate":"credit","reason":"x"}"#, "blocks", "null"),
        (r#"{"gate":"credit","blocks":5,"reason":""}"#, "reason", "0 characters"),
        (r#"{"gate":"credit","blocks":5,"asset":"DOGE","from_amount":"1","reason":"x"}"#, "asset", "DOGE"),
        (r#"{"gate":"credit","blocks":5,"asset":"USDC","reason":"x"}"#, "from_amount", ""),
        (r#"{"gate":"credit","blocks":5,"asset":"USDC","from_amount":"0","reason":"x"}"#, "from_amount", "0"),
        (r#"{"gate":"credit","blocks":5,"asset":"USDC","from_amount":"0.0000001","reason":"x"}"#, "from_amount", "0.0000001"),
        (r#"{"gate":"credit","asset":"USDC","from_amount":"7","reason":"x"}"#, "blocks", "null"),
        (r#"{"gate":"credit","blocks":5,"effective_at":"2026-01-01T00:00:00Z","reason":"x"}"#, "effective_at", "2026-01-01T00:00:00Z"),
    ] {
        let problem = answer(house.post(path, &officer, "bad", body)).await.problem();
        let fields: Vec<(&str, &str)> = problem.fields.iter().map(|field| (field.field.as_str(), field.value.as_str())).collect();
        assert_eq!((problem.status, fields), (422, vec![(field, value)]), "{body}: {problem:?}");
    }
    let nowhere = answer(house.post("/v1/chains/5/thresholds", &officer, "bad", tier)).await.problem();
    assert_eq!(nowhere.status, 404);
    assert_eq!(rows(), before, "L8: what is refused leaves nothing");

    for _ in 0..2 {
        let set = answer(house.post(path, &officer, "tier", tier)).await;
        assert_eq!(set.status, StatusCode::CREATED, "{set:?}");
        assert_eq!(set.json()["from_units"], "1000500000");
    }
    assert_eq!(rows(), before + 1, "Y2: one effect per key");
    let later = r#"{"gate":"credit","blocks":9,"effective_at":"2040-01-01T00:00:00Z","reason":"later"}"#;
    assert_eq!(answer(house.post(path, &officer, "later", later)).await.status, StatusCode::CREATED);

    let gates = answer(house.get(path, &marketplace)).await.json();
    let blocks = |gate: usize, part: &str| -> Vec<u64> {
        gates[gate][part].as_array().unwrap().iter().map(|row| row["blocks"].as_u64().unwrap()).collect()
    };
    assert_eq!((blocks(0, "in_force"), blocks(0, "coming")), (vec![3], vec![9]));
    assert_eq!((blocks(1, "in_force"), blocks(1, "coming")), (vec![5, 40], vec![]));
    let history = answer(house.get(&format!("{path}/history"), &marketplace)).await.json();
    assert_eq!(history[0]["changed_by"], format!("user:{guard}"));
    assert_eq!(history.as_array().unwrap().len(), 4);
}
