//! The signing station as a process, between a simulated device and a daemon that is only played.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes, U256};
use amanatd::account::{AccountXpub, DerivationPath, DerivedAddress, Deriver, Purpose};
use amanatd::api::wire::{AccountView, ClaimIntent, DeclineIntent, IntentView, ProblemView, SigningQueue, SubmitSignature};
use amanatd::devkit::trezor::{Press, SimulatedTrezor, SimulatorOptions};
use amanatd::intent::digest::digest_of;
use amanatd::intent::{FeeTerms, Intent, IntentKind, IntentState};
use amanatd::units::{Asset, AssetId, ChainId, IntentId, TokenAmount, TrezorAccountId};
use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use uuid::Uuid;

const XPUB: &str = "xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke";
const TREASURY: &str = "m/44'/60'/0'/1/1";
const USDT: &str = "0xdAC17F958D2ee523a2206206994597C13D831ec7";

/// What the played daemon knows, does wrong, and was told.
#[derive(Default)]
struct Played {
    intents: Vec<IntentView>,
    /// Claims of these are refused this many times.
    kept: BTreeMap<IntentId, u32>,
    /// This many submissions meet a broken gateway.
    gateway_fails: u32,
    claimed: Vec<IntentId>,
    /// Key and bytes of each submission that came.
    submitted: Vec<(IntentId, String, Bytes)>,
    declined: Vec<(IntentId, String)>,
}

type Shared = Arc<Mutex<Played>>;

async fn queue(State(played): State<Shared>) -> Json<SigningQueue> {
    let played = played.lock().unwrap();
    let done = |id| played.submitted.iter().any(|(submitted, ..)| *submitted == id) && played.gateway_fails == 0;
    let account =
        AccountView { label: "demo".to_owned(), path: "m/44'/60'/0'".to_owned(), xpub: XPUB.to_owned(), fingerprint: String::new() };
    let intents = played.intents.iter().filter(|intent| !done(intent.id)).cloned().collect();
    Json(SigningQueue { accounts: vec![account], intents })
}

async fn claim(State(played): State<Shared>, Path(id): Path<IntentId>, Json(_): Json<ClaimIntent>) -> Response {
    let mut played = played.lock().unwrap();
    if let Some(times) = played.kept.get_mut(&id)
        && *times > 0
    {
        *times -= 1;
        let problem = ProblemView {
            kind: "urn:amanatd:problem:outflow_halted".to_owned(),
            title: "Not possible in the present state".to_owned(),
            status: 409,
            detail: "outflow is halted\u{1b}[2K\nsigned: a lie".to_owned(),
            code: "outflow_halted".to_owned(),
            retryable: false,
            fields: Vec::new(),
        };
        return (StatusCode::CONFLICT, Json(problem)).into_response();
    }
    played.claimed.push(id);
    Json(found(&played, id)).into_response()
}

async fn submit(
    State(played): State<Shared>,
    Path(id): Path<IntentId>,
    headers: HeaderMap,
    Json(asked): Json<SubmitSignature>,
) -> Response {
    let mut played = played.lock().unwrap();
    let key = headers.get("idempotency-key").unwrap().to_str().unwrap().to_owned();
    played.submitted.push((id, key, asked.raw));
    if played.gateway_fails > 0 {
        played.gateway_fails -= 1;
        return (StatusCode::BAD_GATEWAY, "no").into_response();
    }
    Json(found(&played, id)).into_response()
}

async fn decline(State(played): State<Shared>, Path(id): Path<IntentId>, Json(asked): Json<DeclineIntent>) -> Response {
    let mut played = played.lock().unwrap();
    played.declined.push((id, asked.reason));
    Json(found(&played, id)).into_response()
}

fn found(played: &Played, id: IntentId) -> IntentView {
    played.intents.iter().find(|intent| intent.id == id).unwrap().clone()
}

/// A station's surroundings.
struct Desk {
    trezor: SimulatedTrezor,
    played: Shared,
    url: String,
    folder: std::path::PathBuf,
}

impl Desk {
    async fn set(name: &str, intents: Vec<IntentView>) -> Self {
        let trezor = SimulatedTrezor::start(SimulatorOptions::default()).unwrap();
        trezor.officer().confirm_all();
        let played = Shared::default();
        played.lock().unwrap().intents = intents;
        let router = Router::new()
            .route("/v1/signing-queue", get(queue))
            .route("/v1/intents/{id}/claim", post(claim))
            .route("/v1/intents/{id}/signature", post(submit))
            .route("/v1/intents/{id}/decline", post(decline))
            .with_state(Arc::clone(&played));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let folder = std::env::temp_dir().join(format!("amanatd-station-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("token"), "amanat_test").unwrap();
        std::fs::write(folder.join("chains.toml"), include_str!("../../chains.toml")).unwrap();
        Self { trezor, played, url, folder }
    }

    fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_amanatd"));
        command.args(["sign", "--url", &self.url, "--device", &self.trezor.endpoint()]);
        command.arg("--token-file").arg(self.folder.join("token")).arg("--chains").arg(self.folder.join("chains.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_LOG").kill_on_drop(true);
        command
    }

    /// One session, which must end by itself. Its output, and whether it ended with 0.
    async fn once(&self) -> (String, bool) {
        let ended: Output =
            tokio::time::timeout(Duration::from_secs(90), self.command().arg("--once").output()).await.expect("it must end").unwrap();
        (String::from_utf8(ended.stdout).unwrap(), ended.status.success())
    }

    fn told<T>(&self, ask: impl FnOnce(&Played) -> T) -> T {
        ask(&self.played.lock().unwrap())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn at(path: &str) -> Address {
    let (xpub, path): (AccountXpub, DerivationPath) = (XPUB.parse().unwrap(), path.parse().unwrap());
    Deriver::new(&xpub, path.branch).unwrap().address(path.index).unwrap()
}

/// An approved sweep of 5 USDT from the deposit address with this index.
fn sweep(index: u32) -> IntentView {
    let path = format!("m/44'/60'/0'/0/{index}");
    let chain = ChainId::new(1).unwrap();
    let intent = Intent {
        id: IntentId(Uuid::from_u128(u128::from(index) + 1)),
        kind: IntentKind::Sweep,
        state: IntentState::Approved,
        state_version: 2,
        revision: 1,
        from: DerivedAddress {
            id: Uuid::nil(),
            account: TrezorAccountId(Uuid::nil()),
            path: path.parse().unwrap(),
            address: at(&path),
            purpose: Purpose::Deposit,
        },
        to: at(TREASURY),
        amount: TokenAmount::new(AssetId { chain, asset: Asset::Token(USDT.parse().unwrap()) }, U256::from(5_000_000)),
        nonce: 0,
        fees: FeeTerms { gas_limit: 65_000, max_fee_per_gas: 30_000_000_000, max_priority_fee_per_gas: 1_000_000_000 },
        payment: None,
        destination: None,
        digest: B256::ZERO,
        approvals_required: 1,
        approvals_expire_minutes: 1_440,
        policy: None,
        revised_by: None,
        signed_revision: None,
        cancels: None,
        requested_by: String::new(),
        station: None,
    };
    IntentView {
        id: intent.id,
        kind: "sweep".to_owned(),
        state: "approved".to_owned(),
        state_version: 2,
        revision: 1,
        chain_id: 1,
        from_path: path,
        from_address: intent.from.address,
        to_address: intent.to,
        to_path: Some(TREASURY.to_owned()),
        asset: USDT.to_owned(),
        // A daemon's words, which no officer should read at this desk.
        symbol: "\u{1b}[31mLIE".to_owned(),
        amount: "0.01".to_owned(),
        amount_units: "5000000".to_owned(),
        nonce: 0,
        gas_limit: 65_000,
        max_fee_per_gas: "30000000000".to_owned(),
        max_priority_fee_per_gas: "1000000000".to_owned(),
        payment_id: None,
        destination_id: None,
        digest: digest_of(&intent),
        approvals: 1,
        approvals_required: 1,
        approvals_expire_minutes: 1_440,
        policy_id: None,
        revised_by: None,
        cancels: None,
        tx_hash: None,
    }
}

#[tokio::test]
async fn an_intent_the_daemon_keeps_is_left_and_the_others_are_signed() {
    let intents = [sweep(1), sweep(2), sweep(3)];
    let desk = Desk::set("kept", intents.to_vec()).await;
    desk.played.lock().unwrap().kept.insert(intents[1].id, 1);
    let (said, ended_well) = desk.once().await;
    assert!(ended_well, "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("signed: sweep is ")).count(), 2, "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("signed")).count(), 2, "{said}");
    assert!(said.contains("outflow is halted[2K signed: a lie; it is left"), "{said}");
    assert_eq!(said.lines().last(), Some("2 signed, 1 left"), "{said}");
    // Nothing here is the daemon's word for an amount, and nothing moves the cursor.
    assert!(said.contains("5 USDT (5000000 base units)") && said.contains("0.00195 ETH"), "{said}");
    assert!(!said.contains("LIE") && !said.contains("0.01") && !said.contains('\u{1b}'), "{said}");
    assert_eq!(desk.told(|played| played.submitted.len()), 2);
}

#[tokio::test]
async fn a_signature_is_handed_in_again_with_the_same_key_and_bytes() {
    let desk = Desk::set("gateway", vec![sweep(1)]).await;
    desk.played.lock().unwrap().gateway_fails = 2;
    let (said, ended_well) = desk.once().await;
    assert!(ended_well, "{said}");
    let submitted = desk.told(|played| played.submitted.clone());
    assert_eq!(submitted.len(), 3);
    assert!(submitted.iter().all(|again| *again == submitted[0]), "{submitted:?}");
    assert!(submitted[0].1.starts_with("signature-00000000-0000-0000-0000-000000000002-0x"), "{}", submitted[0].1);
}

#[tokio::test]
async fn what_is_not_what_was_approved_is_neither_claimed_nor_shown() {
    let (mut other, good) = (sweep(1), sweep(2));
    other.amount_units = "5000001".to_owned();
    let mut foreign = sweep(3);
    foreign.from_address = Address::repeat_byte(9);
    let desk = Desk::set("changed", vec![other.clone(), good.clone(), foreign.clone()]).await;
    let (said, ended_well) = desk.once().await;
    assert!(!ended_well, "{said}");
    assert!(said.contains(&format!("intent {}: refused here, nothing was signed: the digest of these fields is", other.id)), "{said}");
    assert!(said.contains(&format!("intent {}: refused here, no account has", foreign.id)), "{said}");
    assert_eq!(said.lines().last(), Some("1 signed, 2 left"), "{said}");
    assert_eq!(desk.told(|played| played.claimed.clone()), [good.id]);
    assert!(desk.trezor.screens().iter().all(|screen| !screen.text().contains("5.000001")));
}

#[tokio::test]
async fn what_the_officer_refuses_goes_back_and_the_others_go_on() {
    let intents = [sweep(1), sweep(2)];
    let desk = Desk::set("refused", intents.to_vec()).await;
    desk.trezor.officer().script([Press::Reject]);
    let (said, ended_well) = desk.once().await;
    assert!(!ended_well, "{said}");
    assert_eq!(said.lines().last(), Some("1 signed, 1 left"), "{said}");
    assert_eq!(desk.told(|played| played.declined.iter().map(|(id, _)| *id).collect::<Vec<_>>()), [intents[0].id], "{said}");
    assert_eq!(desk.told(|played| played.submitted[0].0), intents[1].id);
}

#[tokio::test]
async fn a_station_that_stays_outlives_a_halt_and_asks_a_refusing_officer_once() {
    let intents = [sweep(1), sweep(2)];
    let desk = Desk::set("stays", intents.to_vec()).await;
    desk.played.lock().unwrap().kept.insert(intents[1].id, 2);
    desk.trezor.officer().script([Press::Reject]);
    let mut station = desk.command().spawn().unwrap();
    let signed = async {
        while desk.told(|played| played.submitted.is_empty()) {
            assert!(station.try_wait().unwrap().is_none(), "the station ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), signed).await.expect("the halt is over, so it must be signed");
    station.kill().await.unwrap();
    let said = String::from_utf8(station.wait_with_output().await.unwrap().stdout).unwrap();
    assert_eq!(desk.told(|played| played.submitted[0].0), intents[1].id, "{said}");
    assert_eq!(desk.told(|played| played.declined.len()), 1, "{said}");
    assert_eq!(said.matches("it is left").count(), 1, "{said}");
}
