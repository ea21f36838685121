//! Statements and balances over HTTP and on the command line: what an auditor is handed.

use std::collections::BTreeMap;

use alloy::primitives::U256;
use amanatd::ledger::statement::{BalanceLines, Filter, Format, StatementLines};
use amanatd::ledger::{AccountKey, Entry};
use amanatd::officer::Scope;
use amanatd::units::{LedgerAccountId, PaymentId};
use axum::http::StatusCode;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::house::{ApiHouse, answer};
use crate::ledger::{Books, DEPOSIT, detected, held, released, reserved, units, usdc};

async fn whole(mut lines: StatementLines) -> String {
    let mut text = String::new();
    while let Some(piece) = lines.next().await.unwrap() {
        assert!(piece.len() < 2_000_000, "a page is a page");
        text.push_str(&piece);
    }
    text
}

async fn statement(books: &Books, filter: Filter) -> Vec<BTreeMap<String, Option<String>>> {
    serde_json::from_str(&whole(StatementLines::new(books.db.clone(), filter, Format::Json)).await).unwrap()
}

async fn balances(books: &Books, at: Option<OffsetDateTime>) -> BTreeMap<String, String> {
    let mut lines = BalanceLines::new(books.db.clone(), at, Format::Json);
    let mut text = String::new();
    while let Some(piece) = lines.next().await.unwrap() {
        text.push_str(&piece);
    }
    let rows: Vec<BTreeMap<String, Option<String>>> = serde_json::from_str(&text).unwrap();
    rows.into_iter().map(|row| (row["account"].clone().unwrap(), row["balance_units"].clone().unwrap())).collect()
}

fn keys(rows: &[BTreeMap<String, Option<String>>]) -> Vec<&str> {
    rows.iter().map(|row| row["key"].as_deref().unwrap()).collect()
}

/// Moves an entry to an instant, as if it had been posted then.
fn backdate(books: &Books, key: &str, at: &str) {
    let sql = format!(
        "alter table funds_ledger_entries disable trigger user; update funds_ledger_entries set created_at = '{at}' where idempotency_key = '{key}'; \
         alter table funds_ledger_entries enable trigger user"
    );
    books.base.sql(&sql).unwrap();
}

#[tokio::test]
async fn ex_statements_of_a_payment_an_account_and_a_period() {
    let books = Books::open(2).await;
    let (one, two) = (books.payments[0], books.payments[1]);
    books.post(vec![detected(one, units(100), "a-1"), held(one, units(100), "a-2")]).await.unwrap();
    books.post(vec![detected(two, units(7), "a-3")]).await.unwrap();
    books.order_release(one, 60);
    books.post(vec![reserved(one, units(60), "a-4"), released(one, units(60), "a-5")]).await.unwrap();
    for (key, at) in [("a-1", "2026-01-01"), ("a-2", "2026-01-01"), ("a-3", "2026-02-01"), ("a-4", "2026-03-01"), ("a-5", "2026-03-01")] {
        backdate(&books, key, &format!("{at} 00:00:00+00"));
    }
    assert_eq!(keys(&statement(&books, Filter::default()).await), ["a-1", "a-2", "a-3", "a-4", "a-5"]);
    assert_eq!(keys(&statement(&books, Filter { payment: Some(one), ..Filter::default() }).await), ["a-1", "a-2", "a-4", "a-5"]);
    let day = |month: u8| {
        Some(OffsetDateTime::new_utc(time::Date::from_calendar_date(2026, month.try_into().unwrap(), 1).unwrap(), time::Time::MIDNIGHT))
    };
    let period = Filter { from: day(2), until: day(3), ..Filter::default() };
    assert_eq!(keys(&statement(&books, period).await), ["a-3"], "from on, and not until");
    assert_eq!(keys(&statement(&books, Filter { from: day(3), payment: Some(one), ..Filter::default() }).await), ["a-4", "a-5"]);
    assert_eq!(statement(&books, Filter { from: day(4), ..Filter::default() }).await, []);

    // The custody account, with what was in it after each line; and from March on, with what was in it before.
    let custody = LedgerAccountId(books.base.sql("select id from ledger_accounts where kind = 'custody'").unwrap().trim().parse().unwrap());
    let rows = statement(&books, Filter { account: Some(custody), ..Filter::default() }).await;
    let sides: Vec<_> = rows
        .iter()
        .map(|row| (row["debited_units"].as_deref(), row["credited_units"].as_deref(), row["balance_units"].as_deref().unwrap()))
        .collect();
    assert_eq!(sides, [(Some("100"), None, "100"), (Some("7"), None, "107"), (None, Some("60"), "47")]);
    let late = statement(&books, Filter { account: Some(custody), from: day(3), ..Filter::default() }).await;
    assert_eq!((late.len(), late[0]["balance_units"].as_deref()), (1, Some("47")));

    // Balances at an instant: everything posted up to it.
    let name = |key: AccountKey| amanatd::ledger::statement::account_name(key);
    let january = balances(&books, day(1)).await;
    assert_eq!(january[&name(AccountKey::Custody(DEPOSIT))], "100");
    assert_eq!(january[&name(AccountKey::Held(one))], "100");
    assert!(!january.contains_key(&name(AccountKey::Received(two))), "nothing had reached it");
    assert_eq!(balances(&books, day(2)).await[&name(AccountKey::Custody(DEPOSIT))], "107");
    let now = balances(&books, None).await;
    assert_eq!((now[&name(AccountKey::Custody(DEPOSIT))].as_str(), now[&name(AccountKey::Held(one))].as_str()), ("47", "40"));
    assert_eq!(books.balance(usdc(), AccountKey::Held(one)).await, U256::from(40));
    assert_eq!(balances(&books, day(12)).await, now);
}

#[tokio::test]
async fn ex_a_long_statement_comes_in_pages_and_is_whole() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    for batch in 0..3 {
        let entries: Vec<Entry> = (0..1_000).map(|place| detected(payment, units(1), &format!("n-{}", batch * 1_000 + place))).collect();
        books.post(entries).await.unwrap();
    }
    let mut lines = StatementLines::new(books.db.clone(), Filter::default(), Format::Csv);
    let mut pieces = Vec::new();
    while let Some(piece) = lines.next().await.unwrap() {
        pieces.push(piece);
    }
    // The head, three full pages, and one that is empty: none holds more than a page.
    assert_eq!(pieces.iter().map(|piece| piece.matches("\r\n").count()).collect::<Vec<_>>(), [1, 1_000, 1_000, 1_000, 0]);
    let account = LedgerAccountId(1);
    let rows = statement(&books, Filter { account: Some(account), payment: Some(payment), ..Filter::default() }).await;
    assert_eq!(rows.len(), 3_000);
    for (place, row) in rows.iter().enumerate() {
        assert_eq!(row["balance_units"].as_deref(), Some((place + 1).to_string().as_str()));
    }
}

#[tokio::test]
async fn ex_the_api_streams_statements_to_those_who_may_read_the_ledger() {
    let house = ApiHouse::start().await;
    let payment = PaymentId(Uuid::from_u128(7));
    let token = format!("'\\x{}'", "11".repeat(20));
    house
        .base
        .sql(&format!(
            "insert into payments (id, amount, currency, chain_id, token_contract, token_symbol, token_decimals, due_units, seller_address, expires_at) \
             values ('{payment}', 1, 'USDC', 31337, {token}, 'USDC', 6, 1, {token}, now())"
        ))
        .unwrap();
    let evil = Entry { memo: "=HYPERLINK(\"http://x\")".to_owned(), ..detected(payment, units(5), "evil") };
    crate::ledger::post(&house.db, vec![evil]).await.unwrap();
    let reader = house.token(&[Scope::LedgerRead], None, 1).await;
    let csv = answer(house.get("/v1/ledger/statement?format=csv", &reader)).await;
    assert_eq!((csv.status, csv.content_type.as_str()), (StatusCode::OK, "text/csv; charset=utf-8; header=present"));
    assert!(csv.body.ends_with("\"evil\",\"'=HYPERLINK(\"\"http://x\"\")\"\r\n"), "{}", csv.body);
    let json = answer(house.get(&format!("/v1/ledger/statement?payment_id={payment}&account_id=1"), &reader)).await.json();
    assert_eq!(json[0]["balance_units"], "5");
    let none = answer(house.get("/v1/ledger/statement?from=2031-01-01T00:00:00Z", &reader)).await.json();
    assert_eq!(none, serde_json::json!([]));
    let then = answer(house.get("/v1/ledger/balances?at=2020-01-01T00:00:00Z", &reader)).await.json();
    assert_eq!(then, serde_json::json!([]));
    let now = answer(house.get("/v1/ledger/balances?format=csv", &reader)).await;
    assert!(now.body.contains("\"custody:0x1111111111111111111111111111111111111111\""), "{}", now.body);

    let stranger = house.token(&[Scope::PaymentsRead], None, 1).await;
    for path in ["/v1/ledger/statement", "/v1/ledger/balances"] {
        assert_eq!(answer(house.get(path, &stranger)).await.problem().code, "forbidden");
    }
    for (path, status) in [
        ("/v1/ledger/statement?account_id=99", StatusCode::NOT_FOUND),
        ("/v1/ledger/statement?format=xml", StatusCode::BAD_REQUEST),
        ("/v1/ledger/statement?from=yesterday", StatusCode::BAD_REQUEST),
        ("/v1/ledger/statement?payment_id=1'--", StatusCode::BAD_REQUEST),
        ("/v1/ledger/balances?at=1", StatusCode::BAD_REQUEST),
    ] {
        let refused = answer(house.get(path, &reader)).await;
        assert_eq!(refused.status, status, "{path}: {refused:?}");
        refused.problem();
    }
}
