//! Schemathesis asks a daemon that runs, over a house in which there is one of everything, once in each role. It makes
//! its requests from the document alone, valid ones and bad ones, and finds every answer that the document does not
//! have, every form that is another, every failure of the daemon, and every route that a missing or wrong token opens.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use amanatd::devkit::postgres::APP;
use amanatd::officer::{Scope, UserRole};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::process::Command;

use super::root;
use super::seeded::Seeded;
use crate::process::{Place, until};

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,missing_required_header,unsupported_method,allow_header_conformance,ignored_auth";
/// The same requests every time.
const SEED: &str = "20261124";
/// How long one role may take. Far above what it takes.
const PATIENCE: Duration = Duration::from_secs(400);
/// How many roles ask at the same time.
const AT_ONCE: usize = 2;

/// Who asks, and how much: the parts of Schemathesis that one role goes through.
struct Role {
    name: &'static str,
    token: Option<String>,
    phases: &'static str,
    examples: &'static str,
}

/// Where Schemathesis is, if it is there.
fn installed() -> Option<PathBuf> {
    let path = root().join(".tools/schemathesis/bin/schemathesis");
    path.exists().then_some(path)
}

/// Each role of the marketplace, and what services have. An admin, who may most, is asked most of.
async fn roles(seeded: &Seeded) -> Vec<Role> {
    let house = &seeded.way.api;
    let everyday =
        [Scope::PaymentsRead, Scope::PaymentsWrite, Scope::IntentsRead, Scope::LedgerRead, Scope::EventsRead, Scope::WebhooksWrite];
    let mut roles = vec![Role { name: "an admin", token: Some(seeded.admin.clone()), phases: "examples,coverage,fuzzing", examples: "8" }];
    let mut add = |name, token| roles.push(Role { name, token, phases: "examples,fuzzing", examples: "6" });
    for (name, role) in
        [("a buyer", UserRole::Buyer), ("a seller", UserRole::Seller), ("a resolver", UserRole::Resolver), ("a guard", UserRole::Guard)]
    {
        let mut scopes = everyday.to_vec();
        scopes.extend(role.is_officer().then_some(Scope::IntentsApprove));
        scopes.extend(role.is_resolver().then_some(Scope::DisputesResolve));
        let person = house.user(name, role).await;
        add(name, Some(house.token(&scopes, Some(person), 1).await));
    }
    add("a service", Some(house.token(&everyday, None, 1).await));
    add("a station", Some(house.token(&[Scope::Signing, Scope::IntentsRead], None, 1).await));
    add("nobody", None);
    roles
}

/// What there is in the house, so that paths lead somewhere four times out of five.
fn configuration(ids: &BTreeMap<&'static str, Vec<String>>) -> String {
    let mut text = String::from("max-stream-events = 1\n");
    for (name, values) in ids {
        writeln!(text, "[dictionaries.{name}]\nvalues = {}", serde_json::json!(values)).unwrap();
    }
    text.push_str("[dictionaries.chains]\nvalues = [\"31337\"]\n");
    for (paths, parameter, name) in [
        ("^/v1/payments/", "path.id", "payments"),
        ("/payouts/", "path.payout", "payouts"),
        ("^/v1/intents/", "path.id", "intents"),
        ("^/v1/disputes/", "path.id", "disputes"),
        ("^/v1/webhooks/", "path.id", "webhooks"),
        ("^/v1/webhook-deliveries/", "path.id", "deliveries"),
        ("^/v1/proposals/", "path.id", "proposals"),
        ("^/v1/screenings/", "path.id", "screenings"),
        ("^/v1/chains/", "path.chain", "chains"),
        ("^/v1/destinations$", "query.payment", "payments"),
        ("^/v1/transfers$", "query.address", "addresses"),
    ] {
        writeln!(text, "[[operations]]\ninclude-path-regex = \"{paths}\"").unwrap();
        writeln!(text, "parameters = {{ \"{parameter}\" = {{ dictionary = \"{name}\", probability = 0.8 }} }}").unwrap();
    }
    text
}

/// One role's run, and its report.
async fn ask(program: &Path, place: &Place, role: &Role) -> Value {
    let report = place.path(&format!("{}.json", role.name.replace(' ', "-")));
    let mut command = Command::new(program);
    command.arg("--config-file").arg(place.path("schemathesis.toml"));
    command.arg("run").arg(format!("http://127.0.0.1:{}/v1/openapi.json", place.api_port));
    command.args([
        "--checks",
        CHECKS,
        "--phases",
        role.phases,
        "--max-examples",
        role.examples,
        "--seed",
        SEED,
        "--generation-deterministic",
    ]);
    command.args(["--request-timeout", "20", "--continue-on-failure", "--no-color", "--warnings", "off"]);
    command.args(["--report", "json", "--report-json-path"]).arg(&report);
    if let Some(token) = &role.token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    command.current_dir(&place.folder).stdin(Stdio::null()).env("no_proxy", "*").kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it must end").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}\n{}", role.name, String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap()
}

#[tokio::test]
async fn tp7_schemathesis_finds_nothing_in_any_role() {
    let Some(program) = installed() else {
        // Not by print: what a test prints is hidden when it passes.
        writeln!(std::io::stderr().lock(), "SKIPPED: the API asked by Schemathesis: it is not in .tools (scripts/setup installs it)")
            .unwrap();
        return;
    };
    let seeded = Seeded::start().await;
    let roles = roles(&seeded).await;
    let place = Place::new();
    let wide = "[api]\ntoken_per_second = 1000000\ntoken_burst = 1000000\naddress_per_second = 1000000\naddress_burst = 1000000\n";
    let configured = place.configuration(&seeded.way.api.base.url(APP), seeded.way.chain.url()).replace("[api]\n", wide);
    place.write("amanatd.toml", &configured);
    place.write("schemathesis.toml", &configuration(&seeded.ids));
    let mut daemon = place.serve("daemon.log");
    until(&mut daemon, "it is ready", async |_| place.is_ready().await).await;

    let started = Instant::now();
    let place = &place;
    let asking = roles.iter().map(|role| {
        let program = &program;
        async move { (role.name, ask(program, place, role).await) }
    });
    let reports: Vec<(&str, Value)> = stream::iter(asking).buffer_unordered(AT_ONCE).collect().await;
    let mut cases = 0;
    for (role, report) in &reports {
        let count = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{role}: no {path}: {report}"));
        assert_eq!(count("/operations/tested"), count("/operations/total"), "{role}: not every operation was tried");
        assert_eq!((count("/test_cases/with_failures"), count("/test_cases/errored")), (0, 0), "{role}: {report}");
        cases += count("/test_cases/generated");
    }
    assert!(cases > 3_000, "only {cases} requests were made");
    // It is the same daemon, and it has said of nothing that it failed.
    assert!(place.is_ready().await);
    let failed: Vec<String> =
        daemon.log().lines().filter(|line| line.contains("ERROR") && line.contains("request failed")).map(str::to_owned).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    writeln!(
        std::io::stderr().lock(),
        "Schemathesis: {cases} requests in {} roles over {} operations in {} s: 0 answers of 5xx, 0 violations of the document",
        reports.len(),
        super::Operation::all().len(),
        started.elapsed().as_secs()
    )
    .unwrap();
}
