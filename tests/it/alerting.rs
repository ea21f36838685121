//! Rules, their tests, runbooks and the dashboard against the metrics that there are; and the documentation against
//! both. Whether rules fire is tried with promtool (scripts/check-alerting); what is held together here needs no tool.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use alloy::primitives::U256;
use amanatd::devkit::child;
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::metrics::Metrics;

use crate::process::{Place, chain, until};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// An alert as the rules file has it: one line for each field.
#[derive(Debug, Default)]
struct Alert {
    name: String,
    expr: String,
    severity: String,
    summary: String,
    runbook: String,
}

fn alerts() -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::new();
    for line in read("alerting/amanatd.rules.yml").lines().map(str::trim) {
        let Some((key, value)) = line.trim_start_matches("- ").split_once(": ") else { continue };
        let value = value.trim_matches('\'').replace("''", "'");
        if key == "alert" {
            alerts.push(Alert { name: value, ..Alert::default() });
        } else if let Some(alert) = alerts.last_mut() {
            match key {
                "expr" => alert.expr = value,
                "severity" => alert.severity = value,
                "summary" => alert.summary = value,
                "runbook_url" => alert.runbook = value,
                _ => {}
            }
        }
    }
    alerts
}

/// Words of an expression that are metrics of ours, as they are registered.
fn metrics_in(expr: &str) -> BTreeSet<String> {
    expr.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("amanatd_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

fn registered() -> BTreeSet<String> {
    Metrics::new().describe().iter().map(|metric| metric.name.clone()).collect()
}

fn dashboard_expressions() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&read("alerting/amanatd.dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn y8_every_metric_in_a_rule_or_a_panel_exists() {
    let registered = registered();
    let rules: Vec<String> = alerts().into_iter().map(|alert| alert.expr).collect();
    let panels = dashboard_expressions();
    assert!(rules.len() > 20 && panels.len() > 20, "{} rules, {} panels", rules.len(), panels.len());
    for expr in rules.iter().chain(&panels) {
        let named = metrics_in(expr);
        let unknown: Vec<_> = named.difference(&registered).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {expr}");
        assert!(!named.is_empty() || expr.contains("up{job=\"amanatd\"}"), "no metric of ours in {expr}");
    }
    let watched: BTreeSet<String> = rules.iter().chain(&panels).flat_map(|expr| metrics_in(expr)).collect();
    let unseen: Vec<_> = registered.difference(&watched).collect();
    assert!(unseen.is_empty(), "metrics that neither a rule nor a panel shows: {unseen:?}");
}

#[test]
fn y8_every_alert_says_what_it_is_and_has_its_page() {
    let mut pages: BTreeSet<String> =
        fs::read_dir(root("docs/runbooks")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for alert in alerts() {
        let name = &alert.name;
        assert!(["critical", "warning"].contains(&alert.severity.as_str()), "{alert:?}");
        assert!(alert.summary.len() > 30 && alert.summary.contains(' ') && alert.summary.ends_with(['.', '?']), "{alert:?}");
        assert_eq!(alert.runbook, format!("file:///usr/share/doc/amanatd/runbooks/{name}.md"));
        assert!(pages.remove(&format!("{name}.md")), "{name} has no page in docs/runbooks, or there are two of it");
        let page = read(&format!("docs/runbooks/{name}.md"));
        assert!(page.starts_with(&format!("# {name}\n")), "{name}");
        for part in ["## What it means", "## What to look at", "## What to do", "## Whom to call"] {
            assert!(page.contains(&format!("{part}\n\n")), "{name}: no {part:?}");
        }
        assert!(page.contains(&format!("`{}`", alert.expr)), "{name}: the page shows another rule than {}", alert.expr);
    }
    assert!(pages.is_empty(), "pages without an alert: {pages:?}");
}

#[test]
fn y8_every_alert_is_tried_firing_and_silent() {
    // alert → (cases that fire, cases that stay silent)
    let mut tried: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for entry in fs::read_dir(root("alerting/tests")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut alert = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("alertname: ") {
                alert = name.to_owned();
            } else if line == "exp_alerts: []" {
                tried.entry(alert.clone()).or_default().1 += 1;
            } else if line == "- exp_labels:" {
                tried.entry(alert.clone()).or_default().0 += 1;
            }
        }
    }
    for alert in alerts() {
        let (firing, silent) = tried.remove(&alert.name).unwrap_or_default();
        assert!(firing > 0, "{}: no case that fires", alert.name);
        assert!(silent > 0, "{}: no case that stays silent", alert.name);
    }
    assert!(tried.is_empty(), "cases of alerts that are not there: {tried:?}");
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    fault: Vec<FaultEntry>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultEntry {
    id: String,
    what: String,
    #[serde(default)]
    alerts: Vec<String>,
    reason: Option<String>,
}

#[test]
fn y8_every_fault_calls_somebody_or_says_why_not() {
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let faults: Faults = toml::from_str(&read("alerting/faults.toml")).unwrap();
    let mut left: BTreeSet<String> = (1..=34).map(|number| format!("F{number}")).collect();
    for fault in &faults.fault {
        assert!(left.remove(&fault.id), "{} is unknown, or there twice", fault.id);
        assert!(!fault.what.is_empty());
        let reason = fault.reason.as_ref().is_some_and(|reason| reason.len() > 20);
        assert_eq!(reason, fault.alerts.is_empty(), "{fault:?}: alerts, or a reason");
        for alert in &fault.alerts {
            assert!(names.contains(alert), "{}: no alert {alert}", fault.id);
        }
    }
    assert!(left.is_empty(), "faults without an entry: {left:?}");
}

#[test]
fn y8_the_example_of_alertmanager_names_alerts_that_are_there() {
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let text = read("alerting/alertmanager.example.yml");
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    for word in words.filter(|word| word.starts_with("Amanatd") && *word != "Amanatd") {
        assert!(names.contains(word), "no alert {word}");
    }
}

#[test]
fn y8_the_documentation_describes_every_metric_once() {
    let docs = read("docs/operating.md");
    // | `name` | label, label | Help. |
    let mut described: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in docs.lines().filter(|line| line.starts_with("| `amanatd_")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, labels, help] = cells.as_slice() else { panic!("{line}") };
        let before = described.insert(name.trim_matches('`').to_owned(), ((*labels).to_owned(), help.replace('`', "")));
        assert!(before.is_none(), "{name} is described twice");
    }
    for metric in Metrics::new().describe() {
        let (labels, help) =
            described.remove(&metric.name).unwrap_or_else(|| panic!("docs/operating.md does not describe {}", metric.name));
        let theirs: BTreeSet<&str> = labels.split(", ").filter(|label| *label != "–").collect();
        let ours: BTreeSet<&str> = metric.labels.iter().map(String::as_str).collect();
        assert_eq!(theirs, ours, "{}", metric.name);
        assert!(help.starts_with(&metric.help), "{}: the code says {:?}, the document {help:?}", metric.name, metric.help);
    }
    assert!(described.is_empty(), "the document describes what is not there: {:?}", described.keys());
}

/// The value of a metric, by the beginning of its line: name and labels.
pub(crate) fn value(text: &str, series: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

pub(crate) async fn scrape(place: &Place) -> String {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = http.get(format!("http://127.0.0.1:{}/metrics", place.metrics_port)).send().await.unwrap();
    response.text().await.unwrap()
}

/// A station asks for work, as it does while it has its device.
async fn station_asks(place: &Place) {
    let token = place.succeed(&["token", "create", "--name", "desk", "--scope", "signing"]);
    place.client(&token).signing_queue().await.unwrap();
}

/// A daemon on a real chain and database exports what the rules ask for.
#[tokio::test]
async fn y8_figures_follow_what_is_in_the_database() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    place.configure(&base.url(APP), chain.url());
    place.succeed(&["account", "enrol", "--label", "main", "--xpub-file", &{
        place.write("xpub", crate::watching::XPUB);
        place.path("xpub").display().to_string()
    }]);
    let mut daemon = place.serve("log");
    let series = "amanatd_chain_head_block{chain=\"31337\"}";
    until(&mut daemon, "the head is exported", async |_| place.is_ready().await && value(&scrape(&place).await, series).is_some()).await;
    // The first round of figures may have come before the first block was stored.
    let lag = "amanatd_chain_lag_seconds{chain=\"31337\"}";
    until(&mut daemon, "the lag is exported", async |_| value(&scrape(&place).await, lag).is_some()).await;
    until(&mut daemon, "the gas float is exported", async |_| scrape(&place).await.contains("amanatd_gas_float_sweeps{")).await;
    station_asks(&place).await;
    let station = "amanatd_station_last_asked_timestamp_seconds{station=\"desk\"}";
    until(&mut daemon, "a station has asked", async |_| value(&scrape(&place).await, station).is_some()).await;
    let text = scrape(&place).await;
    let of = |series: &str| value(&text, series).unwrap_or_else(|| panic!("no {series} in\n{text}"));
    assert_eq!(of("amanatd_lease_held{lease=\"house\"}"), 1);
    assert_eq!(of("amanatd_lease_held{lease=\"chain:31337\"}"), 1);
    assert_eq!(of("amanatd_ready"), 1);
    assert!(of("amanatd_clock_skew_seconds").abs() <= 1);
    assert!(of("amanatd_database_round_trip_seconds_count") >= 1);
    assert_eq!(of(lag), 0);
    assert_eq!(of("amanatd_threshold_blocks{chain=\"31337\",gate=\"credit\"}"), 3);
    assert_eq!(of("amanatd_deposits{chain=\"31337\",state=\"waiting\"}"), 0);
    assert_eq!(of("amanatd_intents{chain=\"31337\",state=\"planned\"}"), 0);
    assert_eq!(of("amanatd_threshold_lowerings{chain=\"31337\"}"), 0);
    assert_eq!(of("amanatd_worker_errors_total{chain=\"31337\",disposition=\"officer\",worker=\"settle\"}"), 0);
    assert!(text.contains("amanatd_gas_float_gwei{address=\"0x") && of("amanatd_start_timestamp_seconds") > 0);
    // Every metric but those of what is not there has a value: no account means no such series, and so on.
    // And nothing is quoted here.
    let quiet = |name: &str| name.starts_with("amanatd_oracle_") || name.starts_with("amanatd_quotes_");
    let silent: Vec<String> = registered().into_iter().filter(|name| !quiet(name) && !text.contains(&format!("# HELP {name} "))).collect();
    assert_eq!(silent, ["amanatd_chain_final_block", "amanatd_head_notices_connected"]);

    // A deposit that waits, with one confirmation.
    let token = place.succeed(&["token", "create", "--name", "t", "--scope", "payments:read", "--scope", "payments:write"]);
    let asked = serde_json::json!({
        "amount": "1", "currency": "USDC", "chain_id": 31337, "token": "USDC", "seller_address": "0x2222222222222222222222222222222222222222",
    });
    let payment = place.client(&token).create_payment(&serde_json::from_value(asked).unwrap(), "k").await.unwrap();
    let usdc = "0x5FbDB2315678afecb367f032d93F642f64180aa3".parse().unwrap();
    let paid = chain.mint(usdc, payment.deposit_address, U256::from(1_000_000)).await.unwrap();
    chain.mined(paid).await.unwrap();
    let waiting = "amanatd_deposits{chain=\"31337\",state=\"waiting\"}";
    until(&mut daemon, "the deposit waits", async |_| value(&scrape(&place).await, waiting) == Some(1)).await;
    let depth = "amanatd_deposit_waiting_depth_blocks{chain=\"31337\",gate=\"credit\"}";
    assert_eq!(value(&scrape(&place).await, depth), Some(1));
    chain.mine(2).await.unwrap();
    let credited = "amanatd_deposits{chain=\"31337\",state=\"credited\"}";
    until(&mut daemon, "it counts", async |_| {
        let text = scrape(&place).await;
        value(&text, waiting) == Some(0) && value(&text, credited) == Some(1)
    })
    .await;

    // As two officers and a day bring it about.
    base.sql(
        "insert into config_setting_history (key, old_value, new_value, changed_by, reason)
         values ('confirmation_threshold:31337', 3, 2, 'test', 'test')",
    )
    .unwrap();
    let lowered = "amanatd_threshold_lowerings{chain=\"31337\"}";
    until(&mut daemon, "the lowering is counted", async |_| value(&scrape(&place).await, lowered) == Some(1)).await;
    // Nonce 4 is done, 6 and 8 are signed, 7 waits for its approval: 5 is nobody's. 9 is given up and above them all.
    base.sql(
        "insert into intents (id, kind, state, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit,
                              max_fee_per_gas, max_priority_fee_per_gas, digest, approvals_required, requested_by, updated_at)
         select gen_random_uuid(), 'cancel', s.state::intent_state, 31337, d.id, d.address, d.address, decode(repeat('ee', 20), 'hex'), 0, s.nonce, 21000, 1, 0,
                decode(repeat('00', 32), 'hex'), 1, 'test', now() - interval '1 hour'
         from trezor_derived_addresses d,
              (values ('settled', 4), ('broadcast', 6), ('planned', 7), ('uncertain', 8), ('void', 9)) s(state, nonce)
         where d.purpose = 'gas'",
    )
    .unwrap();
    let gaps = "amanatd_nonce_gaps{chain=\"31337\"}";
    until(&mut daemon, "the gap is counted", async |_| value(&scrape(&place).await, gaps) == Some(1)).await;
    let text = scrape(&place).await;
    assert_eq!(value(&text, "amanatd_transactions_uncertain{chain=\"31337\"}"), Some(1));
    assert_eq!(value(&text, "amanatd_intents{chain=\"31337\",state=\"broadcast\"}"), Some(1));
    let oldest = value(&text, "amanatd_intent_oldest_seconds{chain=\"31337\",state=\"uncertain\"}").unwrap();
    assert!((3_600..3_700).contains(&oldest), "{oldest}");
    assert_eq!(daemon.terminate().code(), Some(0));
}

/// Prometheus itself, as scripts/setup unpacks it; ends with its parent, and when it is dropped.
struct Prometheus {
    child: std::process::Child,
    url: String,
}

impl Prometheus {
    fn start(place: &Place) -> Option<Self> {
        let binary = root(".tools/prometheus/usr/bin/prometheus");
        if !binary.is_file() {
            return None;
        }
        let port = crate::process::free_port();
        place.write(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [\"{}\"]\nscrape_configs:\n\
                 - job_name: amanatd\n  static_configs: [{{targets: [\"127.0.0.1:{}\"]}}]\n",
                root("alerting/amanatd.rules.yml").display(),
                place.metrics_port
            ),
        );
        let mut words = child::dies_with_us("KILL");
        words.push(binary.display().to_string());
        words.push(format!("--config.file={}", place.path("prometheus.yml").display()));
        words.push(format!("--storage.tsdb.path={}", place.path("prometheus-data").display()));
        words.push(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut command = child::command(&words).unwrap();
        let log = fs::File::create(place.path("prometheus.log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Some(Self { child: child::spawn(command).unwrap(), url: format!("http://127.0.0.1:{port}") })
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<serde_json::Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.url), query).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = http.get(url).send().await.ok()?;
        serde_json::from_str(&answer.text().await.ok()?).ok()
    }

    /// How many series an expression has now; `None` if it is refused.
    async fn count(&self, expr: &str) -> Option<usize> {
        let answer = self.ask("/api/v1/query", &[("query", expr)]).await?;
        (answer["status"] == "success").then(|| answer["data"]["result"].as_array().map_or(0, Vec::len))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = child::stop(&mut self.child, rustix::process::Signal::KILL, std::time::Duration::from_secs(5));
    }
}

#[tokio::test]
async fn y8_a_real_prometheus_reads_the_daemon_and_every_expression_has_an_answer() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    place.configure(&base.url(APP), chain.url());
    let Some(prometheus) = Prometheus::start(&place) else {
        eprintln!("SKIPPED: scripts/setup could not unpack Prometheus here, so no expression was run against it");
        return;
    };
    place.write("xpub", crate::watching::XPUB);
    place.succeed(&["account", "enrol", "--label", "main", "--xpub-file", &place.path("xpub").display().to_string()]);
    let mut daemon = place.serve("log");
    until(&mut daemon, "it is ready", async |_| place.is_ready().await).await;
    station_asks(&place).await;
    // Two scrapes make a rate; the float comes last.
    let last = "rate(amanatd_database_round_trip_seconds_count[5m]) and on (instance) amanatd_gas_float_gwei \
         and on (instance) amanatd_chain_lag_seconds and on (instance) amanatd_station_last_asked_timestamp_seconds";
    until(&mut daemon, "Prometheus has rates", async |_| prometheus.count(last).await.is_some_and(|count| count > 0)).await;
    let mut silent = BTreeSet::new();
    for expr in dashboard_expressions() {
        match prometheus.count(&expr).await {
            // Nothing is quoted here.
            Some(0) => silent.extend(
                metrics_in(&expr).into_iter().filter(|name| !name.starts_with("amanatd_oracle_") && !name.starts_with("amanatd_quotes_")),
            ),
            Some(_) => {}
            None => panic!("Prometheus refuses {expr}"),
        }
    }
    // A chain that goes by depth names no final block, and this one announces no heads. Nothing is posted, so nothing sealed.
    let expected = [
        "amanatd_chain_final_block",
        "amanatd_chain_head_block",
        "amanatd_head_notices_connected",
        "amanatd_ledger_seal_timestamp_seconds",
    ]
    .map(str::to_owned);
    assert_eq!(silent, BTreeSet::from(expected));
    let rules = prometheus.ask("/api/v1/rules", &[]).await.unwrap();
    let rules: Vec<&serde_json::Value> =
        rules["data"]["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert_eq!(rules.len(), alerts().len());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    // A daemon in health calls nobody at once.
    let firing: Vec<_> = rules.iter().filter(|rule| rule["state"] == "firing").map(|rule| &rule["name"]).collect();
    assert!(firing.is_empty(), "{firing:?}");

    // What is exported is as Prometheus' own linter likes it.
    let text = scrape(&place).await;
    let mut linter = Command::new(root(".tools/prometheus/usr/bin/promtool"));
    linter.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut linter = linter.spawn().unwrap();
    linter.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let linted = linter.wait_with_output().unwrap();
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stderr));

    // An officer halts the chain, and is called.
    place.succeed(&["chain", "halt", "--chain", "31337", "--by", "test", "--reason", "a drill"]);
    let halted = "ALERTS{alertname=\"AmanatdOutflowHalted\",alertstate=\"firing\",chain=\"31337\"}";
    until(&mut daemon, "the halt fires", async |_| prometheus.count(halted).await == Some(1)).await;
    assert_eq!(daemon.terminate().code(), Some(0));
}
