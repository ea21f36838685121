//! `amanatd doctor` with each cause planted: it finds it, calls it what it is, and says what to do.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use amanatd::devkit::chain::{ChainOptions, LocalChain};
use amanatd::devkit::postgres::{APP, MIGRATOR, SUPERUSER};
use amanatd::devkit::schema::FreshDatabase;
use amanatd::devkit::trezor::{SimulatedTrezor, SimulatorOptions};
use serde::Deserialize;

use crate::process::{Ended, Place, chain, nobody, until};

#[derive(Clone, Debug, Deserialize)]
struct Finding {
    level: String,
    area: String,
    subject: String,
    found: String,
    remedy: String,
}

/// What the doctor found, and its exit status.
struct Examined {
    findings: Vec<Finding>,
    ended: Ended,
}

fn examine(place: &Place, more: &[&str]) -> Examined {
    examine_with(place, more, None)
}

fn examine_with(place: &Place, more: &[&str], credentials: Option<&str>) -> Examined {
    let words: Vec<&str> = ["doctor", "--json"].iter().chain(more).copied().collect();
    let mut command = place.command(&words);
    if let Some(directory) = credentials {
        command.env("CREDENTIALS_DIRECTORY", place.path(directory));
    }
    let ended = Ended::of(&words, command.output().unwrap());
    let findings: Vec<Finding> = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    for finding in &findings {
        assert_eq!(finding.level == "ok", finding.remedy.is_empty(), "what to do: {finding:?}");
    }
    let failures = findings.iter().any(|finding| finding.level == "failure");
    assert_eq!(ended.code, Some(i32::from(failures)), "{ended:?}");
    Examined { findings, ended }
}

impl Examined {
    /// Exactly this was found, among the rest.
    fn assert_found(&self, level: &str, area: &str, said: &[&str]) {
        let hit = self.findings.iter().find(|finding| {
            let text = format!("{} {} {}", finding.subject, finding.found, finding.remedy);
            finding.level == level && finding.area == area && said.iter().all(|word| text.contains(word))
        });
        assert!(hit.is_some(), "no {level} of {area} that says {said:?} in {:#?}", self.findings);
    }

    /// How full the disk is that a test runs on is nobody's fault here; the rule for it is tried beside the code.
    fn assert_no_failure(&self) {
        let failures: Vec<_> = self.findings.iter().filter(|finding| finding.level == "failure" && finding.area != "disk").collect();
        assert!(failures.is_empty(), "{failures:#?}");
    }
}

#[tokio::test]
async fn y9_what_is_in_order_is_called_so() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    let trezor = SimulatedTrezor::start(SimulatorOptions::default()).unwrap();
    trezor.officer().confirm_all();
    let text = place.configuration(&base.url(APP), chain.url());
    place.write("amanatd.toml", &text.replace("[api]", &format!("migrator_url = \"{}\"\n\n[api]", base.url(MIGRATOR))));
    place.succeed(&["account", "enrol", "--label", "main", "--device", &trezor.endpoint()]);
    let examined = examine(&place, &["--device", &trezor.endpoint()]);
    examined.assert_no_failure();
    for (area, said) in [
        ("configuration", "chains 31337"),
        ("database", "reached"),
        ("role", "neither superuser nor owner"),
        ("role", "may become the owner"),
        ("migrations", "this binary"),
        ("guards", "on, and as shipped"),
        ("clock", "of the database"),
        ("endpoint", "127.0.0.1 (endpoint 1)"),
        ("traces", "1 endpoints look inside"),
        ("webhooks", "none"),
        ("device", "is there"),
        ("device", "its public key is this device's"),
    ] {
        examined.assert_found("ok", area, &[said]);
    }
    // Warnings are no failure: one endpoint is believed, and the chain was never read.
    examined.assert_found("warning", "agreement", &["31337", "what this one endpoint says is believed"]);
    examined.assert_found("warning", "chain", &["never read yet", "start the daemon"]);
    // The server's files are on this host, and its lock file says where.
    assert!(
        examined.findings.iter().any(|finding| finding.area == "disk" && finding.found.contains("GiB free")),
        "{:#?}",
        examined.findings
    );

    // For people.
    let told = place.run(&["doctor"]);
    assert_eq!(told.code, examined.ended.code, "{told:?}");
    for said in ["area", "WARNING", "What to do:", " failures, "] {
        assert!(told.stdout.contains(said), "{said}: {told:?}");
    }
}

#[tokio::test]
async fn y9_a_configuration_that_cannot_be_read_is_the_only_finding() {
    let place = Place::new();
    place.write("amanatd.toml", "[watch]\npol_ms = 3\n");
    let examined = examine(&place, &[]);
    examined.assert_found("failure", "configuration", &["pol_ms", "operating.md"]);
    assert_eq!(examined.findings.len(), 1, "{:#?}", examined.findings);
    assert!(examined.ended.stderr.contains("error: 1 failure"), "{:?}", examined.ended);
}

#[tokio::test]
async fn y7_secrets_that_others_may_read_are_found() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let text = place.configuration(&base.url(APP), "RPC").replace(&format!("url = \"{}\"", base.url(APP)), "url_file = \"db-url\"");
    place.write("amanatd.toml", &text.replace("rpc_urls = [\"RPC\"]", "rpc_urls_file = \"rpc\""));
    place.write("db-url", &base.url(APP));
    place.write("rpc", &nobody());
    std::fs::create_dir_all(place.path("credentials")).unwrap();
    place.write("credentials/migrator-url", &base.url(MIGRATOR));
    for (file, mode) in [("db-url", 0o640), ("rpc", 0o644), ("credentials/migrator-url", 0o600)] {
        set_permissions(place.path(file), Permissions::from_mode(mode)).unwrap();
    }
    let examined = examine_with(&place, &[], Some("credentials"));
    examined.assert_found("warning", "secrets", &["db-url", "mode 0640", "its group"]);
    examined.assert_found("failure", "secrets", &["rpc", "mode 0644", "others may read", "replace the secret"]);
    examined.assert_found("ok", "secrets", &["credentials/migrator-url", "mode 0600"]);

    // The configuration itself, once a secret stands in it.
    place.configure(&base.url(APP), "https://node.invalid/v2/canary-key");
    set_permissions(place.path("amanatd.toml"), Permissions::from_mode(0o644)).unwrap();
    let examined = examine(&place, &[]);
    examined.assert_found("failure", "secrets", &["amanatd.toml", "others may read"]);
    assert!(!examined.ended.stdout.contains("canary"), "{:?}", examined.ended);
    set_permissions(place.path("amanatd.toml"), Permissions::from_mode(0o600)).unwrap();
    examine(&place, &[]).assert_found("ok", "secrets", &["amanatd.toml"]);
}

#[tokio::test]
async fn y9_a_database_that_is_not_as_it_must_be_is_found() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    place.configure(&format!("postgres://amanat_app:canary@localhost/amanat?host={}", place.path("nowhere").display()), &nobody());
    let examined = examine(&place, &[]);
    examined.assert_found("failure", "database", &["cannot be reached", "start PostgreSQL"]);
    assert!(!examined.ended.stdout.contains("canary"), "{:?}", examined.ended);

    for (role, said) in [(SUPERUSER, "is a superuser"), (MIGRATOR, "may become their owner")] {
        place.configure(&base.url(role), &nobody());
        examine(&place, &[]).assert_found("failure", "role", &[said, "connect as amanat_app"]);
    }
    let text = place.configuration(&base.url(APP), &nobody());
    place.write("amanatd.toml", &text.replace("[api]", &format!("migrator_url = \"{}\"\n\n[api]", base.url(APP))));
    examine(&place, &[]).assert_found("warning", "role", &["of the migrator", "may not become amanat_owner"]);

    place.configure(&base.url(APP), &nobody());
    base.sql("grant delete on payments to amanat_app").unwrap();
    examine(&place, &[]).assert_found("failure", "role", &["may delete on payments", "ask who granted it"]);
    base.sql("revoke delete on payments from amanat_app").unwrap();
    base.sql("alter table funds_ledger_entries disable trigger funds_ledger_entries_no_delete").unwrap();
    examine(&place, &[]).assert_found("failure", "guards", &["funds_ledger_entries_no_delete", "amanatd verify"]);
    base.sql("alter table funds_ledger_entries enable always trigger funds_ledger_entries_no_delete").unwrap();
    // As an older binary finds it after a newer one: a downgrade.
    base.sql(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'later', true, '\\x00', 0)",
    )
    .unwrap();
    examine(&place, &[]).assert_found("failure", "migrations", &["9999", "install the newer amanatd"]);
    place.serve("log").ended().await.assert_failed(&["migration 9999", "run a newer amanatd"]);
    base.sql("delete from _sqlx_migrations where version = 9999; update _sqlx_migrations set checksum = '\\x00' where version = 1")
        .unwrap();
    examine(&place, &[]).assert_found("failure", "migrations", &["another text", "install the binary that made it"]);
}

#[tokio::test]
async fn y9_endpoints_are_judged_one_by_one() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let good = chain(0).await;
    good.mine(50).await.unwrap();
    let behind = chain(0).await;
    let other = LocalChain::start(ChainOptions { chain_id: 1_337, ..ChainOptions::default() }).await.unwrap();
    let urls = [good.url(), behind.url(), other.url(), &nobody()].join("\", \"");
    place.configure(&base.url(APP), &urls);
    let examined = examine(&place, &[]);
    examined.assert_found("ok", "endpoint", &["(endpoint 1)", "0 behind", "headers hash", "traces"]);
    examined.assert_found("warning", "endpoint", &["(endpoint 2)", "50 behind", "not in step"]);
    examined.assert_found("failure", "endpoint", &["(endpoint 3)", "1337", "correct"]);
    examined.assert_found("failure", "endpoint", &["(endpoint 4)", "IPAddressAllow"]);
    examined.assert_found("failure", "agreement", &["1 of 4 endpoints are good, 2 must agree", "mend them"]);

    let chains = std::fs::read_to_string(place.path("chains.toml")).unwrap();
    let usdc = "symbol = \"USDC\"\n  contract = \"0x5FbDB2315678afecb367f032d93F642f64180aa3\"\n  decimals = ";
    place.write("chains.toml", &chains.replace(&format!("{usdc}6"), &format!("{usdc}8")));
    place.configure(&base.url(APP), good.url());
    examine(&place, &[]).assert_found("failure", "endpoint", &["USDC", "decimals = 8", "6 on chain", "every amount is wrong"]);
    place.write("chains.toml", &chains);

    // The chain is an hour ahead of this host.
    good.skip_time(3_600).await.unwrap();
    good.mine(1).await.unwrap();
    examine(&place, &[]).assert_found("failure", "clock", &["of chain 31337", "in the future", "timedatectl"]);
}

#[tokio::test]
async fn y9_what_the_database_says_of_a_chain_is_told() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    place.configure(&base.url(APP), chain.url());
    let mut daemon = place.serve("log");
    until(&mut daemon, "the chain is read", async |_| base.sql("select count(*) from chain_cursors").unwrap().trim() == "1").await;
    assert_eq!(daemon.terminate().code(), Some(0));
    examine(&place, &[]).assert_found("ok", "thresholds", &["31337 credit", "3 blocks, 3 in chains.toml"]);
    // The book asks for more than is in force.
    let book = include_str!("../../chains.toml").replace("confirmation_threshold = 3\n", "confirmation_threshold = 4\n");
    place.write("chains.toml", &book);
    place.succeed(&["chain", "halt", "--chain", "31337", "--by", "test", "--reason", "a drill"]);
    base.sql(
        "insert into reconcile_findings (chain_id, address, asset, ledger_units, chain_units, pending_units, block_number, block_hash, first_seen_at, last_seen_at)
         select chain_id, decode(repeat('11', 20), 'hex'), decode(repeat('ee', 20), 'hex'), 0, 1, 0, number, hash, now(), now() from chain_cursors",
    )
    .unwrap();
    let examined = examine(&place, &[]);
    examined.assert_no_failure();
    examined.assert_found("warning", "thresholds", &["31337 credit", "3 blocks, 4 in chains.toml", "threshold history"]);
    examined.assert_found("warning", "chain", &["outflow is halted", "a drill"]);
    examined.assert_found("warning", "chain", &["1 findings are open", "reconcile --findings"]);
}

#[tokio::test]
async fn y6_webhooks_that_cannot_be_reached_are_found() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    place.configure(&base.url(APP), &nobody());
    for (number, url) in
        [(1, "https://localhost/hook"), (2, "https://nobody.invalid/hook"), (3, "https://93.184.216.34/hook"), (4, "http://shop.example/")]
    {
        base.sql(&format!(
            "insert into webhook_endpoints (id, url, description, events, created_by, created_at)
             values ('00000000-0000-0000-0000-00000000000{number}', '{url}', '', '{{\"*\"}}', 'test', now())"
        ))
        .unwrap();
    }
    let examined = examine(&place, &[]);
    examined.assert_found("failure", "webhooks", &["0001", "localhost", "not an address of the public internet", "allowed_networks"]);
    examined.assert_found("failure", "webhooks", &["0002", "nobody.invalid", "does not resolve"]);
    examined.assert_found("ok", "webhooks", &["0003"]);
    examined.assert_found("failure", "webhooks", &["0004", "use https"]);
    base.sql("update webhook_endpoints set disabled_at = now(), disabled_reason = 'answered 410'").unwrap();
    examine(&place, &[]).assert_found("warning", "webhooks", &["0001", "answered 410", "webhook enable"]);
}

#[tokio::test]
async fn s11_a_device_of_another_seed_is_found() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    place.configure(&base.url(APP), &nobody());
    let ours = SimulatedTrezor::start(SimulatorOptions::default()).unwrap();
    ours.officer().confirm_all();
    place.succeed(&["account", "enrol", "--label", "main", "--device", &ours.endpoint()]);
    drop(ours);
    let mnemonic = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about".to_owned();
    let other = SimulatedTrezor::start(SimulatorOptions { mnemonic, ..SimulatorOptions::default() }).unwrap();
    other.officer().confirm_all();
    let examined = examine(&place, &["--device", &other.endpoint()]);
    examined.assert_found("failure", "device", &["account main", "another seed", "enrolled with"]);
    let away = other.endpoint();
    drop(other);
    examine(&place, &["--device", &away]).assert_found("failure", "device", &["connect and unlock it"]);
}

/// An endpoint that passes everything on, and says of every block that somebody else made it.
async fn forger(target: String) -> String {
    let forward = move |body: String| {
        let target = target.clone();
        async move {
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            let answer =
                http.post(target).header("content-type", "application/json").body(body).send().await.unwrap().text().await.unwrap();
            let nobody = "0x0000000000000000000000000000000000000000";
            answer.replace(&format!("\"miner\":\"{nobody}\""), "\"miner\":\"0x00000000000000000000000000000000000000ff\"")
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, axum::Router::new().fallback(forward)).into_future());
    format!("http://{address}")
}

// The forger answers while the doctor is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn w8_an_endpoint_whose_headers_are_not_what_their_hash_says_is_found() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    place.configure(&base.url(APP), &forger(chain.url().to_owned()).await);
    examine(&place, &[]).assert_found("failure", "endpoint", &["(endpoint 1)", "hash", "do not trust it"]);
    // Switched off, it passes, and that is told.
    let text = place.configuration(&base.url(APP), &forger(chain.url().to_owned()).await);
    place.write("amanatd.toml", &format!("{text}verify_header_hash = false\n"));
    let examined = examine(&place, &[]);
    examined.assert_found("warning", "endpoint", &["verify_header_hash is off"]);
    examined.assert_no_failure();
}
