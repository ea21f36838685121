//! The whole way in one process, moved by hand: a real chain, a real database, the wire of a device,
//! and every worker ticked by the test. What a process would lose when it dies is dropped and made
//! again; what it would meet on a chain is done to the chain.

mod deposits;
mod elsewhere;
mod escrow;
mod findings;
mod mending;
mod outflows;
mod policy;
mod reorgs;
mod replacing;
mod restoring;
mod screening;
mod suspense;

use std::sync::Arc;

use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::sol_types::SolCall;
use amanatd::account::AccountXpub;
use amanatd::api::wire::{ClaimIntent, CreatePayment, IntentView, PaymentView, ProposeBaseline, ProposePolicy};
use amanatd::api::{Client, DoorLimits};
use amanatd::broadcast::{BroadcastError, Broadcaster};
use amanatd::chains::{ChainBook, ChainSpec};
use amanatd::confirm::{Confirmer, Sightings};
use amanatd::daemon;
use amanatd::deposit::Watched;
use amanatd::devkit::chain::{ChainOptions, DEPLOYER, LocalChain, PAYERS};
use amanatd::devkit::contracts::{self, Token};
use amanatd::devkit::trezor::{SimulatedTrezor, SimulatorOptions};
use amanatd::intent::{self, IntentError, PlanPolicy, Planner};
use amanatd::ledger::{self, AccountKey, Bookkeeper, LedgerError};
use amanatd::officer::{Scope, UserRole};
use amanatd::reconcile;
use amanatd::rpc::Node;
use amanatd::scan::{ScanOptions, Scanner};
use amanatd::settle::{SettleError, Settler};
use amanatd::signing::{self, Definitions, Device, DeviceAddress, DeviceLimits};
use amanatd::units::{Asset, AssetId, Confirmations, IntentId, PaymentId, Progress, ProposalId, parse_units};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::house::{ApiHouse, Pricing};
use crate::watching::{CHAIN, XPUB, local_spec};

const SELLERS: [&str; 3] = [
    "0x1111111111111111111111111111111111111111",
    "0x2222222222222222222222222222222222222222",
    "0x3333333333333333333333333333333333333333",
];

/// Who pays; the deployer only deploys and mints.
const BUYER: Address = PAYERS[1];
/// Blocks until what counts may leave again; it counts before that.
const RELEASE_THRESHOLD: u64 = 5;

/// The loops of one chain, as a process holds them.
struct Workers {
    scanner: Scanner,
    confirmer: Confirmer,
    bookkeeper: Bookkeeper,
    planner: Planner,
    broadcaster: Broadcaster,
    settler: Settler,
}

/// Everything between a buyer and a seller.
pub(crate) struct Way {
    pub(crate) api: ApiHouse,
    pub(crate) chain: LocalChain,
    pub(crate) spec: Arc<ChainSpec>,
    pub(crate) usdc: Address,
    pub(crate) usdt: Address,
    pub(crate) marketplace: Client,
    pub(crate) officer: Client,
    pub(crate) station: Client,
    /// What the officer's station holds.
    device: Device,
    workers: Workers,
    trezor: SimulatedTrezor,
}

/// What stopped a round.
#[derive(Debug)]
pub(crate) enum Stopped {
    Ledger(LedgerError),
    Intent(IntentError),
    Broadcast(BroadcastError),
    Settle(SettleError),
}

impl Way {
    /// A chain with both tokens, read; an enrolled account whose operator addresses hold coin.
    pub(crate) async fn start() -> Self {
        Self::start_with(ChainBook::parse(include_str!("../../chains.toml")).unwrap()).await
    }

    /// The same with another book; the chain is the local one.
    pub(crate) async fn start_with(book: ChainBook) -> Self {
        Self::furnished(book, DoorLimits::default()).await
    }

    /// The same with other bounds on what a caller may have.
    pub(crate) async fn start_within(limits: DoorLimits) -> Self {
        Self::furnished(ChainBook::parse(include_str!("../../chains.toml")).unwrap(), limits).await
    }

    async fn furnished(book: ChainBook, limits: DoorLimits) -> Self {
        let chain = LocalChain::start(ChainOptions::default()).await.unwrap();
        let usdc = chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
        let usdt = chain.deploy(contracts::test_usdt().bytecode).await.unwrap();
        let api = ApiHouse::furnished(chain.url(), 8, limits, Pricing { book, sources: None, clock: daemon::now }).await;
        let spec = Arc::new(local_spec());
        let marketplace = api.client(&api.marketplace().await);
        let officer = api.user("officer", UserRole::Guard).await;
        let officer = api.client(&api.token(&[Scope::IntentsRead, Scope::IntentsApprove], Some(officer), 1).await);
        let station = api.client(&api.token(&[Scope::IntentsRead, Scope::Signing], None, 1).await);
        let trezor = SimulatedTrezor::start(SimulatorOptions::default()).unwrap();
        trezor.officer().confirm_all();
        let device = Device::open(DeviceAddress::Udp(trezor.address()), DeviceLimits::default()).await.unwrap();
        let workers = workers(&api, &api.node, &spec);
        let way = Self { api, chain, spec, usdc, usdt, marketplace, officer, station, device, workers, trezor };
        way.rounds().await;
        for address in way.operator_addresses().await {
            let hash = way.chain.send_native(PAYERS[0], address, parse_units("10", 18).unwrap()).await.unwrap();
            way.chain.mined(hash).await.unwrap();
        }
        way.deepen().await;
        way
    }

    /// The process dies and another one takes its place: all that is in memory is gone.
    pub(crate) fn restart(&mut self) {
        self.workers = workers(&self.api, &self.api.node, &self.spec);
    }

    // === rounds ===

    /// Ticks everything until nothing is left to do. Whatever stops must be asked for by [`Self::try_rounds`].
    pub(crate) async fn rounds(&self) {
        let stopped = self.try_rounds().await;
        assert!(stopped.is_empty(), "{stopped:?}");
    }

    /// The same; what could not go on is given back, once per worker and pass.
    pub(crate) async fn try_rounds(&self) -> Vec<Stopped> {
        for _ in 0..100 {
            let (progress, stopped) = self.round(daemon::now()).await;
            if progress == Progress::Idle {
                return stopped;
            }
        }
        panic!("the workers never come to rest");
    }

    /// Each worker once, in the order of the rooms.
    async fn round(&self, now: OffsetDateTime) -> (Progress, Vec<Stopped>) {
        let workers = &self.workers;
        let mut stopped = Vec::new();
        let mut progress = workers.scanner.tick(now).await.unwrap();
        progress = progress.or(workers.confirmer.tick(now).await.unwrap());
        progress = progress.or(Sightings::new(self.api.db.clone()).tick().await.unwrap());
        progress = progress.or(workers.bookkeeper.tick(CHAIN, now).await.unwrap_or_else(|error| {
            stopped.push(Stopped::Ledger(error));
            Progress::Idle
        }));
        progress = progress.or(workers.planner.tick().await.unwrap_or_else(|error| {
            stopped.push(Stopped::Intent(match error {
                IntentError::Item { source, .. } => *source,
                error => error,
            }));
            Progress::Idle
        }));
        progress = progress.or(self.broadcast(now).await.unwrap_or_else(|error| {
            stopped.push(Stopped::Broadcast(match error {
                BroadcastError::Item { source, .. } => *source,
                error => error,
            }));
            Progress::Idle
        }));
        progress = progress.or(workers.settler.tick().await.unwrap_or_else(|error| {
            stopped.push(Stopped::Settle(match error {
                SettleError::Item { source, .. } => *source,
                error => error,
            }));
            Progress::Idle
        }));
        (progress, stopped)
    }

    pub(crate) async fn broadcast(&self, now: OffsetDateTime) -> Result<Progress, BroadcastError> {
        self.workers.broadcaster.tick(now).await
    }

    /// After the pause at which bytes that are in no block are sent again.
    pub(crate) async fn broadcast_later(&self) -> Result<Progress, BroadcastError> {
        self.broadcast(daemon::now() + Duration::seconds(60)).await
    }

    /// Buries what is in the newest block as deep as it must be to pass both gates.
    pub(crate) async fn deepen(&self) {
        self.chain.mine(RELEASE_THRESHOLD - 1).await.unwrap();
        self.rounds().await;
    }

    // === the marketplace and its buyers ===

    pub(crate) async fn payment(&self, token: &str, amount: &str, seller: usize) -> PaymentView {
        self.payment_within(token, amount, seller, 86_400).await
    }

    pub(crate) async fn payment_within(&self, token: &str, amount: &str, seller: usize, seconds: u32) -> PaymentView {
        let asked = CreatePayment {
            amount: amount.to_owned(),
            currency: token.to_owned(),
            chain_id: CHAIN.get(),
            token: token.to_owned(),
            seller_address: SELLERS[seller].to_owned(),
            buyer_id: None,
            seller_id: None,
            purchase_request_id: None,
            purchase_request_external_ref: None,
            expires_in_seconds: Some(seconds),
            ..CreatePayment::default()
        };
        self.marketplace.create_payment(&asked, &Uuid::new_v4().to_string()).await.unwrap()
    }

    pub(crate) async fn read(&self, payment: PaymentId) -> PaymentView {
        self.marketplace.payment(payment).await.unwrap()
    }

    /// The open exceptions of a payment.
    pub(crate) async fn exceptions(&self, payment: PaymentId) -> Vec<String> {
        let payment = self.read(payment).await;
        payment.exceptions.into_iter().filter(|exception| exception.open).map(|exception| exception.kind).collect()
    }

    /// A transfer from a buyer's wallet, in a block when this returns.
    pub(crate) async fn pay(&self, token: Address, to: Address, amount: &str) -> B256 {
        let units = parse_units(amount, 6).unwrap();
        let minted = self.chain.mint(token, BUYER, units).await.unwrap();
        self.chain.mined(minted).await.unwrap();
        let hash = self.chain.transfer_token(token, BUYER, to, units).await.unwrap();
        self.chain.mined(hash).await.unwrap();
        hash
    }

    /// A payment that is whole.
    pub(crate) async fn funded(&self, token: &str, amount: &str, seller: usize) -> PaymentView {
        let payment = self.payment(token, amount, seller).await;
        self.pay(payment.token_contract, payment.deposit_address, amount).await;
        self.deepen().await;
        let payment = self.read(payment.id).await;
        assert_eq!(payment.escrow_state.as_deref(), Some("funded"), "{payment:?}");
        payment
    }

    /// A payment whose money is at the treasury and whose release was asked for.
    pub(crate) async fn releasable(&self, amount: &str, seller: usize) -> PaymentView {
        let payment = self.funded("USDC", amount, seller).await;
        self.outflow("fuel").await;
        self.outflow("sweep").await;
        self.marketplace.release(payment.id, &format!("release-{}", payment.id)).await.unwrap();
        self.rounds().await;
        self.read(payment.id).await
    }

    // === the officer and the station ===

    pub(crate) async fn intents(&self, states: &str) -> Vec<IntentView> {
        self.officer.intents(Some(states)).await.unwrap()
    }

    /// The one intent that waits to be approved.
    pub(crate) async fn planned(&self, kind: &str) -> IntentView {
        let mut planned = self.intents("planned").await;
        assert_eq!(planned.iter().map(|intent| intent.kind.as_str()).collect::<Vec<_>>(), [kind]);
        planned.remove(0)
    }

    /// Another custody officer.
    pub(crate) async fn another(&self, name: &str) -> Client {
        let user = self.api.user(name, UserRole::Guard).await;
        self.api.client(&self.api.token(&[Scope::IntentsRead, Scope::IntentsApprove], Some(user), 1).await)
    }

    /// A policy that two officers brought into force.
    pub(crate) async fn policy(&self, document: &str) -> Client {
        let other = self.another("second").await;
        let asked = ProposePolicy { document: document.to_owned(), effective_at: None, reason: "test".to_owned() };
        let proposal = self.officer.propose_policy(&asked).await.unwrap();
        other.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
        other
    }

    /// Says with two officers that an address's nonces below this one are past.
    pub(crate) async fn baseline(&self, address: Address, nonce: u64) {
        let other = self.another(&format!("baseline-{nonce}")).await;
        let asked = ProposeBaseline { chain_id: CHAIN.get(), address: address.to_string(), nonce, reason: "looked into".to_owned() };
        let proposal = self.officer.propose_baseline(&asked).await.unwrap();
        other.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
    }

    pub(crate) async fn approve(&self, intent: &IntentView) {
        self.officer.approve(intent.id, intent.digest).await.unwrap();
    }

    /// Claims an approved intent and has the device sign it. The bytes are with nobody yet.
    pub(crate) async fn sign(&self, id: IntentId) -> Bytes {
        self.station.claim(id, &ClaimIntent::of("desk")).await.unwrap();
        let intent = intent::store::get(&mut self.api.db.connection().await.unwrap(), id).await.unwrap();
        let spec = self.api.book.get(intent.chain()).unwrap();
        let request = signing::request_for(&intent, spec).unwrap();
        let definitions = Definitions::load(None, spec, request.transfer().asset);
        let xpub: AccountXpub = XPUB.parse().unwrap();
        let account = self.device.open_account(xpub).await.unwrap();
        account.sign(request, definitions).await.unwrap().raw().clone()
    }

    /// The real station, as a process, between the API and the simulated device: signs what is approved, and ends.
    pub(crate) async fn sign_at_station(&self) -> String {
        let token = self.api.token(&[Scope::IntentsRead, Scope::Signing], None, 1).await;
        let folder = std::env::temp_dir().join(format!("amanatd-way-{}-{}", std::process::id(), Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("token"), token).unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_amanatd"));
        command.args(["sign", "--once", "--url", &self.api.url, "--device", &self.trezor.endpoint(), "--token-file"]);
        command.arg(folder.join("token")).arg("--chains").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/chains.toml"));
        command.stdin(std::process::Stdio::null()).env_remove("RUST_LOG").kill_on_drop(true);
        let ended = command.output().await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success(), "{said}");
        said
    }

    pub(crate) async fn submit(&self, id: IntentId, raw: &Bytes) -> IntentView {
        self.station.submit_signature(id, raw.clone(), &Uuid::new_v4().to_string()).await.unwrap()
    }

    /// Approved, signed and stored; not sent.
    pub(crate) async fn signed(&self, kind: &str) -> (IntentView, Bytes) {
        let intent = self.planned(kind).await;
        self.approve(&intent).await;
        let raw = self.sign(intent.id).await;
        let intent = self.submit(intent.id, &raw).await;
        assert_eq!(intent.state, "signed");
        (intent, raw)
    }

    /// An outflow from its plan to its settlement.
    pub(crate) async fn outflow(&self, kind: &str) -> IntentView {
        let (intent, _) = self.signed(kind).await;
        self.rounds().await;
        assert_eq!(self.intent(intent.id).await.state, "broadcast");
        self.chain.mine(1).await.unwrap();
        self.rounds().await;
        assert_eq!(self.intent(intent.id).await.state, "mined");
        self.deepen().await;
        let settled = self.intent(intent.id).await;
        assert_eq!(settled.state, "settled");
        settled
    }

    pub(crate) async fn intent(&self, id: IntentId) -> IntentView {
        self.officer.intent(id).await.unwrap()
    }

    pub(crate) async fn operator_addresses(&self) -> Vec<Address> {
        let chains = self.marketplace.chains().await.unwrap();
        chains[0].operator_addresses.iter().map(|address| address.address).collect()
    }

    pub(crate) async fn operator(&self, purpose: &str) -> Address {
        let chains = self.marketplace.chains().await.unwrap();
        chains[0].operator_addresses.iter().find(|address| address.purpose == purpose).unwrap().address
    }

    // === what it looks like ===

    pub(crate) fn token(&self, contract: Address) -> AssetId {
        AssetId { chain: CHAIN, asset: Asset::Token(contract) }
    }

    pub(crate) fn native(&self) -> AssetId {
        AssetId { chain: CHAIN, asset: Asset::Native }
    }

    pub(crate) async fn balance(&self, asset: AssetId, key: AccountKey) -> U256 {
        ledger::store::balance(&mut self.api.db.connection().await.unwrap(), asset, key).await.unwrap().units
    }

    pub(crate) async fn halted(&self) -> Option<String> {
        self.marketplace.chains().await.unwrap()[0].outflow_halted.clone()
    }

    /// Calls a function of a test token as its owner, in a block.
    pub(crate) async fn as_owner(&self, token: Address, call: impl SolCall) {
        let hash = self.chain.send(DEPLOYER, token, U256::ZERO, call.abi_encode().into()).await.unwrap();
        self.chain.mined(hash).await.unwrap();
    }

    pub(crate) async fn blacklist(&self, account: Address) {
        self.as_owner(self.usdc, Token::blacklistCall { account }).await;
    }

    /// L1, L2, W7: the books are right in themselves, and equal the chain.
    pub(crate) async fn assert_sound(&self) {
        self.assert_books().await;
        let differing = self.differing().await;
        assert!(differing.is_empty(), "W7: {differing:?}");
    }

    /// L1, L2: balances equal their entries, and both sides of the books are equal.
    pub(crate) async fn assert_books(&self) {
        let drifting = ledger::store::list_drifting(&mut self.api.db.connection().await.unwrap()).await.unwrap();
        assert_eq!(drifting, []);
        for sides in reconcile::sides(&self.api.db).await.unwrap() {
            assert!(sides.is_equal(), "L1: {sides:?}");
        }
    }

    /// Custody accounts that differ from the chain.
    pub(crate) async fn differing(&self) -> Vec<reconcile::Line> {
        let report = reconcile::reconcile(&self.api.db, &self.api.node, &self.spec).await.unwrap();
        report.lines.into_iter().filter(|line| !line.is_equal()).collect()
    }
}

fn workers(api: &ApiHouse, node: &Arc<Node>, spec: &Arc<ChainSpec>) -> Workers {
    let (db, node) = (api.db.clone(), Arc::clone(node));
    let watched = Arc::new(Watched::default());
    assert_eq!(spec.confirmation_threshold, Confirmations::new(3).unwrap());
    assert_eq!(u64::from(spec.release_threshold.get()), RELEASE_THRESHOLD);
    let policy = PlanPolicy { approvals_required: 1, max_fee_per_gas_max: 500_000_000_000 };
    Workers {
        scanner: Scanner::new(db.clone(), Arc::clone(&node), watched, spec, ScanOptions::default()),
        confirmer: Confirmer::new(db.clone(), Arc::clone(&node), spec),
        bookkeeper: Bookkeeper::new(db.clone(), Arc::clone(&api.book)),
        planner: Planner::new(db.clone(), Arc::clone(&node), Arc::clone(spec), policy),
        broadcaster: Broadcaster { db: db.clone(), node: Arc::clone(&node) },
        settler: Settler { db, node, chain: Arc::clone(spec) },
    }
}

#[tokio::test]
async fn s4_l6_a_payment_goes_the_whole_way() {
    let way = Way::start().await;
    let payment = way.funded("USDC", "250", 0).await;
    let asset = way.token(way.usdc);
    let due = U256::from(250_000_000);
    assert_eq!(way.balance(asset, AccountKey::Held(payment.id)).await, due);
    way.assert_sound().await;

    // The deposit address has no coin of its own: fuel comes first, the sweep after it.
    way.outflow("fuel").await;
    way.assert_sound().await;
    way.outflow("sweep").await;
    way.assert_sound().await;
    let treasury = way.operator("treasury").await;
    assert_eq!(way.balance(asset, AccountKey::Custody(treasury)).await, due);
    assert_eq!(way.read(payment.id).await.destination_status, "swept");
    assert!(way.intents("planned").await.is_empty(), "nothing is released before it is asked for");

    way.marketplace.release(payment.id, "release").await.unwrap();
    way.rounds().await;
    let planned = way.planned("release").await;
    assert_eq!((planned.amount_units.as_str(), planned.to_address.to_string().as_str()), ("250000000", SELLERS[0]));
    // Held first: what is planned can go nowhere else.
    assert_eq!(way.balance(asset, AccountKey::Held(payment.id)).await, U256::ZERO);
    assert_eq!(way.balance(asset, AccountKey::Payable(payment.id)).await, due);
    way.outflow("release").await;
    let released = way.read(payment.id).await;
    assert_eq!((released.status.as_str(), released.escrow_state.as_deref()), ("completed", Some("released")));
    assert_eq!(way.chain.balance_of(way.usdc, SELLERS[0].parse().unwrap()).await.unwrap(), due);
    assert_eq!(way.balance(asset, AccountKey::Custody(treasury)).await, U256::ZERO);
    way.assert_sound().await;
    // A second release of the same payment has nothing to take.
    let refused = way.marketplace.release(payment.id, "again").await.unwrap_err();
    assert_eq!(refused.code(), Some("payment_state"));
}
