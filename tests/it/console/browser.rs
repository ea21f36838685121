//! A real Chromium, an officer's passkey in it, a real chain behind it, a simulated device at the real station: enrolling,
//! signing in, a payment that grows to confirmed on the page without a reload, approving, signing, its release, a dispute
//! that is ended, and every page in four looks.
//!
//! What is seen stays under target/console. Without Chromium or its driver there is nothing to drive: a line
//! says so.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use amanatd::console::identity;
use amanatd::daemon;
use amanatd::officer::UserRole;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::way::Way;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where Chromium is, and whether its driver is there too.
fn chromium() -> Result<PathBuf, String> {
    let named = std::env::var_os("AMANATD_CHROMIUM").map(PathBuf::from);
    let known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(PathBuf::from);
    let found = named.into_iter().chain(known).find(|path| path.exists());
    let found = found.ok_or("no Chromium (scripts/setup installs it, or name one in AMANATD_CHROMIUM)")?;
    for package in ["playwright-core", "axe-core"] {
        if !root().join("node_modules").join(package).exists() {
            return Err(format!("no {package} in node_modules (scripts/setup installs it)"));
        }
    }
    Ok(found)
}

/// The script that drives the browser: one order a line, one answer a line.
struct Driver {
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Driver {
    async fn start(chromium: &Path, origin: &str) -> Self {
        let mut process = Command::new("node")
            .arg(root().join("tests/console/drive.mjs"))
            .arg(chromium)
            .arg(origin)
            .arg(root().join("target/console"))
            .current_dir(root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (orders, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { _process: process, orders, answers: BufReader::new(answers).lines() }
    }

    async fn order(&mut self, order: Value) -> Value {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        let line = self.answers.next_line().await.unwrap().unwrap_or_else(|| panic!("the driver ended at {order}"));
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(answer["error"], Value::Null, "{order}: {answer}");
        answer
    }

    async fn open(&mut self, path: &str) {
        self.order(json!({ "do": "open", "path": path })).await;
    }

    /// Waits until a place of the page says so, without a reload.
    async fn sees(&mut self, place: &str, text: &str) {
        self.order(json!({ "do": "see", "place": place, "text": text })).await;
    }

    /// Pictures of the page in four looks, and its accessibility in each.
    async fn look(&mut self, name: &str) {
        let answer = self.order(json!({ "do": "look", "name": name })).await;
        assert_eq!(answer["violations"], json!([]), "{name}");
    }
}

#[tokio::test]
async fn an_officer_follows_a_payment_and_approves_with_a_passkey() {
    let chromium = match chromium() {
        Ok(chromium) => chromium,
        Err(why) => {
            // Not by print: what a test prints is hidden when it passes.
            writeln!(std::io::stderr().lock(), "SKIPPED: the console in a real browser: {why}").unwrap();
            return;
        }
    };
    let way = Way::start().await;
    let user = way.api.user("First officer", UserRole::Admin).await;
    let mut driver = Driver::start(&chromium, &way.api.origin).await;

    // The door.
    driver.open("/console").await;
    driver.sees("h1", "Sign in").await;
    driver.look("sign-in").await;
    let link = identity::invite(&way.api.db, &way.api.origin, user, daemon::now()).await.unwrap();
    driver.order(json!({ "do": "open", "url": link })).await;
    driver.look("enrol").await;
    driver.order(json!({ "do": "fill", "place": "#label", "text": "blue key" })).await;
    driver.order(json!({ "do": "click", "place": "#enrol-form button" })).await;
    driver.sees(".note", "The passkey is enrolled").await;
    driver.order(json!({ "do": "click", "place": "[data-sign-in]" })).await;
    driver.sees("h1", "Overview").await;
    driver.look("overview-empty").await;
    for page in ["findings", "plan", "prices", "statements", "disputes", "payments", "webhooks"] {
        driver.open(&format!("/console/{page}")).await;
        driver.look(&format!("{page}-empty")).await;
    }

    // A payment grows to confirmed on the page.
    let payment = way.payment("USDC", "1250.5", 0).await;
    let page = format!("/console/payments/{}", payment.id);
    driver.open(&page).await;
    driver.sees("#payment-state", "Waiting for payment").await;
    driver.look("payment-waiting").await;
    way.pay(payment.token_contract, payment.deposit_address, "1250.5").await;
    way.rounds().await;
    driver.sees("#live-way", "1 of 3 confirmations").await;
    driver.sees("#payment-state", "Seen").await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    driver.sees("#live-way", "2 of 3 confirmations").await;
    driver.look("payment-growing").await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    driver.sees("#live-way", "3 of 3 confirmations reached").await;
    driver.sees("#payment-state", "Held").await;
    driver.order(json!({ "do": "same-page" })).await;

    // What waits for the officer comes by itself.
    driver.open("/console").await;
    way.deepen().await;
    driver.sees("#live-overview", "fuel").await;
    driver.look("overview").await;

    driver.open("/console/plan").await;
    driver.sees("#live-plan", "fuel: waits for approval").await;
    driver.look("plan").await;

    // Approving: the passkey is asked for, then the station signs on the device.
    let fuel = way.planned("fuel").await;
    driver.open(&format!("/console/intents/{}", fuel.id)).await;
    driver.look("intent-fuel").await;
    driver.order(json!({ "do": "click", "place": "[data-approve]" })).await;
    driver.sees("#intent-state", "Approved").await;
    driver.sees("#live-approval", "1 of 1").await;
    driver.order(json!({ "do": "same-page" })).await;
    let said = way.sign_at_station().await;
    assert!(said.contains("signed"), "{said}");
    driver.sees("#intent-state", "Signed").await;
    way.rounds().await;
    driver.sees("#intent-state", "Sent").await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;
    driver.sees("#intent-state", "Settled").await;
    way.outflow("sweep").await;

    way.marketplace.release(payment.id, "release").await.unwrap();
    way.rounds().await;
    let release = way.planned("release").await;
    driver.open(&format!("/console/intents/{}", release.id)).await;
    driver.look("intent-release").await;
    driver.order(json!({ "do": "click", "place": "[data-approve]" })).await;
    driver.sees("#intent-state", "Approved").await;
    driver.look("intent-approved").await;
    driver.open(&page).await;
    driver.sees("#payment-state", "Releasing").await;
    way.sign_at_station().await;
    way.rounds().await;
    assert_eq!(way.intent(release.id).await.state, "broadcast");
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;
    driver.sees("#payment-state", "Released").await;
    driver.order(json!({ "do": "same-page" })).await;
    driver.look("payment-released").await;
    assert_eq!(way.chain.balance_of(way.usdc, payment.seller_address).await.unwrap().to_string(), "1250500000", "the seller has it");
    way.assert_sound().await;

    // A dispute, ended with the passkey.
    let quarrel = way.funded("USDC", "60", 1).await;
    driver.open("/console/disputes").await;
    let dispute =
        way.marketplace.open_dispute(quarrel.id, "Nothing was delivered, and the seller does not answer.", "dispute").await.unwrap();
    driver.sees("#live-disputes", "Nothing was delivered").await;
    driver.look("disputes").await;
    driver.open(&format!("/console/disputes/{}", dispute.id)).await;
    driver.order(json!({ "do": "click", "place": "[value=refund]" })).await;
    driver.order(json!({ "do": "fill", "place": "#refund-to", "text": "0x4444444444444444444444444444444444444444" })).await;
    driver.order(json!({ "do": "fill", "place": "#note", "text": "The carrier has no trace of the parcel." })).await;
    driver.look("dispute").await;
    driver.order(json!({ "do": "click", "place": "#resolve-form [type=submit]" })).await;
    driver.sees("#dispute-state", "refund").await;
    driver.sees("#live-outcome", "refund of 60 USDC").await;
    driver.order(json!({ "do": "same-page" })).await;
    driver.look("dispute-ended").await;
    way.rounds().await;

    // One that is out of the ordinary, and the other pages.
    let partial = way.payment("USDT", "80", 1).await;
    way.pay(partial.token_contract, partial.deposit_address, "30").await;
    way.deepen().await;
    driver.open(&format!("/console/payments/{}", partial.id)).await;
    driver.look("payment-partial").await;
    for page in [
        "payments",
        "intents?show=all",
        "ledger",
        "ledger?account=custody",
        "plan",
        "statements",
        "statements?period=1h",
        "sessions",
        "disputes?show=all",
        "settings",
        "findings?show=all",
        "webhooks",
        "events",
        "nowhere",
    ] {
        driver.open(&format!("/console/{page}")).await;
        let name: String = page.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' }).collect();
        driver.look(&name).await;
    }
    driver.open("/console").await;
    driver.look("overview-busy").await;
    driver.order(json!({ "do": "keyboard" })).await;
    // The daemon is away, and comes back.
    driver.order(json!({ "do": "offline", "away": true })).await;
    driver.order(json!({ "do": "shown", "place": "#offline" })).await;
    driver.sees("#offline", "No connection to the daemon").await;
    driver.look("overview-offline").await;
    driver.order(json!({ "do": "offline", "away": false })).await;
    driver.order(json!({ "do": "gone", "place": "#offline" })).await;
    driver.order(json!({ "do": "click", "place": "[data-sign-out]" })).await;
    driver.sees(".note", "You are signed out").await;
    driver.open(&page).await;
    driver.sees("h1", "Sign in").await;
    // A policy that was broken, a script that failed, a request that went elsewhere.
    let told = driver.order(json!({ "do": "end" })).await;
    assert_eq!(told["console"], json!([]), "{told}");
}
