//! Who may what: every route of the document, asked by everybody.

use std::fmt::Write;

use amanatd::officer::{Scope, UserRole};
use reqwest::StatusCode;

use super::Operation;
use crate::house::ApiHouse;

/// What a caller learns of whether it may: in, or why not.
async fn tried(house: &ApiHouse, operation: &Operation, token: Option<&str>) -> &'static str {
    let mut request = house.request(operation.method.clone(), &operation.filled());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(example) = operation.example() {
        request = request.header("idempotency-key", "who").header("content-type", "application/json").body(example.to_string());
    }
    match request.send().await.unwrap().status() {
        StatusCode::UNAUTHORIZED => "401",
        StatusCode::FORBIDDEN => "403",
        StatusCode::TOO_MANY_REQUESTS => "429",
        _ => "in",
    }
}

#[tokio::test]
async fn z6_who_may_what_is_a_table() {
    let house = ApiHouse::start().await;
    let guard = house.user("guard", UserRole::Admin).await;
    let mut table = String::new();
    let header = ["route", "scope", "nobody", "other scopes", "a service", "a buyer", "a resolver", "a guard", "an admin"];
    writeln!(table, "{}", header.join(" | ")).unwrap();
    for operation in Operation::all() {
        let route = format!("{} {}", operation.method, operation.path);
        let nobody = tried(&house, &operation, None).await;
        let Some((scheme, scope)) = operation.security() else {
            assert_eq!(nobody, "in", "{route}");
            writeln!(table, "{route} | none | {nobody}").unwrap();
            continue;
        };
        let others: Vec<Scope> = Scope::ALL.into_iter().filter(|other| *other != scope).collect();
        let others = house.token(&others, Some(guard), 1).await;
        let without = tried(&house, &operation, Some(&others)).await;
        let mut row = vec![nobody, without];
        for role in [None, Some("buyer"), Some("resolver"), Some("guard"), Some("admin")] {
            // Such a token is refused at its making where it could approve; here it is one whose bearer changed since.
            let person = house.user("person", UserRole::Admin).await;
            let token = house.token(&[scope], Some(person), 1).await;
            let changed = match role {
                None => house.base.sql(&format!("update api_tokens set user_id = null where user_id = '{person}'")),
                Some(role) => house.base.sql(&format!("update users set role = '{role}' where id = '{person}'")),
            };
            match (role, changed) {
                // The database itself wants a person behind an approval.
                (None, Err(error)) if error.to_string().contains("_is_a_person") => row.push("none such"),
                (_, changed) => {
                    changed.unwrap();
                    row.push(tried(&house, &operation, Some(&token)).await);
                }
            }
        }
        let wanted = match scheme.as_str() {
            "token" => ["401", "403", "in", "in", "in", "in", "in"],
            "officer" => ["401", "403", "none such", "403", "403", "in", "in"],
            "resolver" => ["401", "403", "none such", "403", "in", "403", "in"],
            "resolver_alone" => ["401", "403", "none such", "403", "in", "403", "403"],
            other => panic!("{route}: scheme {other}"),
        };
        assert_eq!(row, wanted, "{route} is not what its annotation says");
        writeln!(table, "{route} | {scope} | {}", row.join(" | ")).unwrap();
    }
    insta::assert_snapshot!("who_may_what", table);
}
