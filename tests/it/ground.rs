//! The ground that the other tests stand on: the private Postgres, the local chain, the contracts.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use alloy::primitives::{Address, Bytes, I256, U256};
use alloy::providers::Provider;
use alloy::sol_types::{SolCall, SolEvent};
use amanatd::devkit::chain::{ChainOptions, DEPLOYER, LocalChain, PAYERS, ReorgTx, transaction_request};
use amanatd::devkit::contracts::{self, BatchCalls, Feed, Token};
use amanatd::devkit::postgres::{self, PostgresError, PostgresOptions, PrivatePostgres};
use amanatd::devkit::schema::{self, FreshDatabase};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::Connection;

/// Set for the copy of this binary that a test starts in order to kill it.
const VICTIM: &str = "AMANATD_TEST_VICTIM";

// === Postgres ===

#[test]
fn postgres_starts_on_a_socket_alone_and_stops_with_its_guard() {
    let cluster = PrivatePostgres::start(PostgresOptions::default()).unwrap();
    let pid = cluster.pid().unwrap();
    let folder = cluster.socket_folder().to_path_buf();

    assert_eq!(cluster.sql("postgres", "show listen_addresses").unwrap().trim(), "");
    assert_eq!(cluster.sql("postgres", "show fsync").unwrap().trim(), "off");
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);

    cluster.stop().unwrap();
    assert!(!alive(pid), "the server must be gone");
    assert!(!folder.exists(), "a temporary cluster leaves no files");
}

#[test]
fn postgres_never_runs_as_root() {
    let cluster = postgres::shared().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.pid().unwrap())).unwrap();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:")).map(str::trim).unwrap();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|line| line.split_whitespace().nth(1)).unwrap();
    // Where there is no account to become, the server is in a user namespace of its own: seen
    // from outside it has our number, and no rights.
    assert!(user != "0" || rights.bytes().all(|b| b == b'0'), "user {user}, rights {rights}");
}

#[tokio::test]
async fn postgres_answers_sqlx_under_a_role_of_its_own() {
    let cluster = postgres::shared().unwrap();
    cluster.sql("postgres", "create role ground_reader login").unwrap();
    let url = cluster.url("ground_reader", "postgres");
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    let who: String = sqlx::query_scalar("select current_user::text").fetch_one(&mut connection).await.unwrap();
    assert_eq!(who, "ground_reader");
    connection.close().await.unwrap();
}

#[test]
fn postgres_keeps_a_directory_between_runs() {
    let place = Scratch::new("keep");
    let options = PostgresOptions { directory: Some(place.path().join("postgres")), durable: true };
    let first = PrivatePostgres::start(options.clone()).unwrap();
    assert_eq!(first.sql("postgres", "show fsync").unwrap().trim(), "on");
    first.create_database("kept").unwrap();
    first.stop().unwrap();

    let second = PrivatePostgres::start(options).unwrap();
    assert!(second.has_database("kept").unwrap());
}

#[test]
fn postgres_finds_a_short_socket_for_a_long_directory() {
    let place = Scratch::new("long");
    let directory = place.path().join("x".repeat(120)).join("postgres");
    let options = PostgresOptions { directory: Some(directory), durable: false };
    let cluster = PrivatePostgres::start(options).unwrap();
    assert_eq!(cluster.sql("postgres", "select 1").unwrap().trim(), "1");
}

#[test]
fn postgres_runs_where_only_its_user_can_go() {
    // For root this is the checkout under /root, which no other account may enter as it is.
    let place = Scratch::new("closed");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let options = PostgresOptions { directory: Some(place.path().join("postgres")), durable: true };
    for _ in 0..2 {
        let cluster = PrivatePostgres::start(options.clone()).unwrap();
        assert_eq!(cluster.sql("postgres", "select 1").unwrap().trim(), "1");
        cluster.stop().unwrap();
    }
}

#[test]
fn postgres_starts_again_after_its_server_was_killed() {
    let place = Scratch::new("crash");
    let options = PostgresOptions { directory: Some(place.path().join("postgres")), durable: true };
    let first = PrivatePostgres::start(options.clone()).unwrap();
    first.create_database("kept").unwrap();
    kill_process(Pid::from_raw(first.pid().unwrap().cast_signed()).unwrap(), Signal::KILL).unwrap();
    drop(first);

    let second = PrivatePostgres::start(options).unwrap();
    assert!(second.has_database("kept").unwrap());
}

#[test]
fn a_template_is_made_once_and_its_copies_do_not_meet() {
    let cluster = postgres::shared().unwrap();
    let mut made = 0;
    for _ in 0..2 {
        cluster
            .template("tmpl_ground", |draft| {
                made += 1;
                cluster.sql(draft, "create table t (n int); insert into t values (7)").map(drop)
            })
            .unwrap();
    }
    assert_eq!(made, 1);

    let one = cluster.fresh_database("tmpl_ground").unwrap();
    let other = cluster.fresh_database("tmpl_ground").unwrap();
    cluster.sql(&one, "delete from t").unwrap();
    assert_eq!(cluster.sql(&other, "select n from t").unwrap().trim(), "7");
    cluster.drop_database(&one).unwrap();
    assert!(!cluster.has_database(&one).unwrap());
}

#[test]
fn a_template_that_fails_is_not_left_half_made() {
    let cluster = postgres::shared().unwrap();
    let failed = cluster.template("tmpl_ground_broken", |draft| {
        cluster.sql(draft, "create table t (n int)")?;
        cluster.sql(draft, "select nonsense").map(drop)
    });
    assert!(matches!(failed, Err(PostgresError::Failed { .. })));
    assert!(!cluster.has_database("tmpl_ground_broken").unwrap());
    cluster.template("tmpl_ground_broken", |draft| cluster.sql(draft, "create table t (n int)").map(drop)).unwrap();
}

#[test]
fn a_name_that_needs_quoting_never_reaches_the_server() {
    let cluster = postgres::shared().unwrap();
    assert!(matches!(cluster.create_database("x; drop database postgres"), Err(PostgresError::BadName(_))));
}

#[tokio::test]
async fn each_test_gets_a_migrated_database_of_its_own() {
    let (one, other) = (FreshDatabase::create().unwrap(), FreshDatabase::create().unwrap());
    assert_ne!(one.name, other.name);
    for (role, may_delete) in [(postgres::APP, false), (postgres::SUPERUSER, true)] {
        let mut connection = sqlx::PgConnection::connect(&one.url(role)).await.unwrap();
        let (who, deletes): (String, bool) =
            sqlx::query_as("select current_user::text, has_table_privilege('funds_ledger_entries', 'delete')")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!((who.as_str(), deletes), (role, may_delete));
    }
    let name = one.name.clone();
    drop(one);
    assert!(!postgres::shared().unwrap().has_database(&name).unwrap());
    assert_eq!(other.sql("select count(*) from payments").unwrap().trim(), "0");
}

#[test]
fn a_database_can_be_brought_up_to_date_twice() {
    let cluster = postgres::shared().unwrap();
    cluster.create_database("ground_twice").unwrap();
    for _ in 0..2 {
        schema::install(cluster, "ground_twice").unwrap();
    }
}

// === the end of the parent ===

/// Not a test of its own: what [`a_killed_parent_leaves_no_server_behind`] starts and kills.
#[tokio::test]
async fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let cluster = postgres::shared().unwrap();
    let chain = LocalChain::start(ChainOptions::default()).await.unwrap();
    println!("\npids {} {}", cluster.pid().unwrap(), chain.pid());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_parent_leaves_no_server_behind() {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ground::victim", "--nocapture", "--test-threads=1"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pids: Vec<u32> = BufReader::new(parent.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| {
            let pids = line.strip_prefix("pids ")?;
            Some(pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect())
        })
        .unwrap();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| alive(*pid)));

    parent.kill().unwrap();
    parent.wait().unwrap();

    let started = Instant::now();
    while pids.iter().any(|pid| alive(*pid)) {
        assert!(started.elapsed() < Duration::from_secs(20), "still there: {pids:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// === the chain ===

#[tokio::test]
async fn blocks_come_only_on_command() {
    let chain = chain().await;
    assert_eq!(chain.head().await.unwrap().number, 0);
    assert_eq!(chain.mine(3).await.unwrap().number, 3);
    assert_eq!(chain.provider().get_block_number().await.unwrap(), 3);
}

#[tokio::test]
async fn the_same_deployments_get_the_same_addresses() {
    let (one, other) = (chain().await, chain().await);
    let code = contracts::test_usdc().bytecode;
    let address = one.deploy(code.clone()).await.unwrap();
    assert_eq!(address, other.deploy(code).await.unwrap());
    assert_eq!(address, DEPLOYER.create(0));
}

#[tokio::test]
async fn tokens_move_and_say_so() {
    let chain = chain().await;
    let [payer, shop, ..] = PAYERS;
    for artifact in [contracts::test_usdc(), contracts::test_usdt()] {
        let token = chain.deploy(artifact.bytecode).await.unwrap();
        chain.mint(token, payer, U256::from(5_000_000)).await.unwrap();
        let hash = chain.transfer_token(token, payer, shop, U256::from(2_000_000)).await.unwrap();
        let receipt = chain.mined(hash).await.unwrap();

        assert_eq!(chain.balance_of(token, payer).await.unwrap(), U256::from(3_000_000));
        assert_eq!(chain.balance_of(token, shop).await.unwrap(), U256::from(2_000_000));
        let topic = receipt["logs"][0]["topics"][0].as_str().unwrap().to_owned();
        assert_eq!(topic, Token::Transfer::SIGNATURE_HASH.to_string());
    }
}

#[tokio::test]
async fn one_usd_returns_a_word_and_the_other_nothing() {
    let chain = chain().await;
    let call = Token::transferCall { to: PAYERS[1], amount: U256::ZERO }.abi_encode();
    let usdc = chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
    let usdt = chain.deploy(contracts::test_usdt().bytecode).await.unwrap();
    assert_eq!(chain.view(usdc, call.clone().into()).await.unwrap().len(), 32);
    assert_eq!(chain.view(usdt, call.into()).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_fee_can_be_switched_on() {
    let chain = chain().await;
    let [payer, shop, ..] = PAYERS;
    let token = chain.deploy(contracts::test_usdt().bytecode).await.unwrap();
    chain.mint(token, payer, U256::from(1_000_000)).await.unwrap();
    let fee = Token::setParamsCall { newBasisPoints: U256::from(100), newMaxFee: U256::from(50_000_000) };
    chain.send(DEPLOYER, token, U256::ZERO, fee.abi_encode().into()).await.unwrap();
    chain.transfer_token(token, payer, shop, U256::from(1_000_000)).await.unwrap();
    chain.mine(1).await.unwrap();
    assert_eq!(chain.balance_of(token, shop).await.unwrap(), U256::from(990_000));
}

#[tokio::test]
async fn a_blocked_address_makes_the_transfer_fail_in_its_block() {
    let chain = chain().await;
    let [payer, shop, ..] = PAYERS;
    let token = chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
    chain.mint(token, payer, U256::from(1)).await.unwrap();
    let block = Token::blacklistCall { account: shop }.abi_encode();
    chain.send(DEPLOYER, token, U256::ZERO, block.into()).await.unwrap();
    let hash = chain.transfer_token(token, payer, shop, U256::from(1)).await.unwrap();
    chain.mine(1).await.unwrap();
    assert_eq!(chain.receipt(hash).await.unwrap().unwrap()["status"], "0x0");
}

#[tokio::test]
async fn an_odd_token_lies_in_its_events() {
    let chain = chain().await;
    let [payer, shop, ..] = PAYERS;
    let token = chain.deploy(contracts::odd_token().bytecode).await.unwrap();
    // (mode, logs, what arrives)
    for (mode, logs, arrived) in [(0, 1, 1), (2, 1, 0), (3, 0, 1), (4, 0, 0)] {
        let before = chain.balance_of(token, shop).await.unwrap();
        let set = Token::setModeCall { next: mode }.abi_encode();
        chain.send(DEPLOYER, token, U256::ZERO, set.into()).await.unwrap();
        chain.mint(token, payer, U256::from(1)).await.unwrap();
        let hash = chain.transfer_token(token, payer, shop, U256::from(1)).await.unwrap();
        let receipt = chain.mined(hash).await.unwrap();
        assert_eq!(receipt["logs"].as_array().unwrap().len(), logs, "mode {mode}");
        let after = chain.balance_of(token, shop).await.unwrap();
        assert_eq!(after - before, U256::from(arrived), "mode {mode}");
    }
}

#[tokio::test]
async fn a_reorg_drops_old_transactions_and_brings_new_ones() {
    let chain = chain().await;
    let [payer, shop, other, ..] = PAYERS;
    chain.mine(1).await.unwrap();
    let lost = chain.send_native(payer, shop, U256::from(5)).await.unwrap();
    let before = chain.mine(2).await.unwrap();
    assert!(chain.receipt(lost).await.unwrap().is_some());

    let request = transaction_request(payer, other, U256::from(9), Bytes::new());
    let (was_shop, was_other) = (chain.native_balance(shop).await.unwrap(), chain.native_balance(other).await.unwrap());
    let after = chain.reorg(2, vec![(ReorgTx::Request(request), 0)]).await.unwrap();

    assert_eq!(after.number, before.number);
    assert_ne!(after.hash, before.hash);
    assert!(chain.receipt(lost).await.unwrap().is_none());
    assert_eq!(chain.native_balance(shop).await.unwrap(), was_shop - U256::from(5));
    assert_eq!(chain.native_balance(other).await.unwrap(), was_other + U256::from(9));
}

#[tokio::test]
async fn the_head_goes_back_and_a_snapshot_brings_old_hashes_back() {
    let chain = chain().await;
    let tip = chain.mine(5).await.unwrap();
    assert_eq!(chain.rollback(2).await.unwrap().number, 3);

    let here = chain.head().await.unwrap();
    let snapshot = chain.snapshot().await.unwrap();
    let branch = chain.mine(2).await.unwrap();
    assert_eq!(branch.number, tip.number);
    assert_eq!(chain.revert(snapshot).await.unwrap(), here);
}

#[tokio::test]
async fn short_epochs_bring_finality_near() {
    let options = ChainOptions { slots_in_an_epoch: 1, ..ChainOptions::default() };
    let chain = LocalChain::start(options).await.unwrap();
    chain.mine(10).await.unwrap();
    assert_eq!(chain.block("safe").await.unwrap().number, 9);
    assert_eq!(chain.block("finalized").await.unwrap().number, 8);
}

#[tokio::test]
async fn a_balance_can_appear_from_nowhere() {
    let chain = chain().await;
    let account = Address::repeat_byte(0x77);
    chain.set_balance(account, U256::from(123)).await.unwrap();
    assert_eq!(chain.native_balance(account).await.unwrap(), U256::from(123));
    chain.impersonate(account).await.unwrap();
    chain.set_balance(account, U256::from(10).pow(U256::from(18))).await.unwrap();
    let hash = chain.send_native(account, PAYERS[0], U256::from(1)).await.unwrap();
    chain.mined(hash).await.unwrap();
}

#[tokio::test]
async fn a_chain_goes_on_where_its_state_file_ends() {
    let place = Scratch::new("chain");
    let options = ChainOptions { state_file: Some(place.path().join("chain.json")), ..ChainOptions::default() };
    let first = LocalChain::start(options.clone()).await.unwrap();
    let hash = first.send_native(PAYERS[0], PAYERS[1], U256::from(1)).await.unwrap();
    first.mined(hash).await.unwrap();
    let tip = first.mine(3).await.unwrap();
    drop(first);

    let second = LocalChain::start(options).await.unwrap();
    assert_eq!(second.head().await.unwrap(), tip);
    assert!(second.receipt(hash).await.unwrap().is_some());
}

#[tokio::test]
async fn a_chain_can_beat_by_itself() {
    let options = ChainOptions { block_time: Some(Duration::from_millis(50)), ..ChainOptions::default() };
    let chain = LocalChain::start(options).await.unwrap();
    let token = chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
    assert_eq!(token, DEPLOYER.create(0));
}

#[tokio::test]
async fn a_batch_reads_like_multicall3() {
    let chain = chain().await;
    let batch = chain.deploy(contracts::batch().bytecode).await.unwrap();
    let token = chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
    let tip = chain.mine(1).await.unwrap();
    let call = |target: Address, data: Vec<u8>| BatchCalls::Call3 { target, allowFailure: true, callData: data.into() };
    let calls = vec![
        call(batch, BatchCalls::getEthBalanceCall { addr: PAYERS[3] }.abi_encode()),
        call(token, Token::balanceOfCall { account: PAYERS[3] }.abi_encode()),
        call(token, vec![1, 2, 3, 4]),
        call(batch, BatchCalls::getBlockHashCall { blockNumber: U256::from(tip.number - 1) }.abi_encode()),
    ];
    let data = BatchCalls::aggregate3Call { calls }.abi_encode();
    let answer = chain.view(batch, data.into()).await.unwrap();
    let results = BatchCalls::aggregate3Call::abi_decode_returns(&answer).unwrap();

    assert_eq!(U256::from_be_slice(&results[0].returnData), chain.native_balance(PAYERS[3]).await.unwrap());
    assert_eq!(U256::from_be_slice(&results[1].returnData), U256::ZERO);
    assert_eq!(results.iter().map(|r| r.success).collect::<Vec<_>>(), [true, true, false, true]);
    let parent = chain.block(&format!("0x{:x}", tip.number - 1)).await.unwrap();
    assert_eq!(results[3].returnData.as_ref(), parent.hash.as_slice());
    // The selectors of Multicall3, as its documentation prints them.
    assert_eq!(BatchCalls::aggregate3Call::SELECTOR, [0x82, 0xad, 0x56, 0xcb]);
    assert_eq!(BatchCalls::getEthBalanceCall::SELECTOR, [0x4d, 0x23, 0x01, 0xcc]);
    assert_eq!(BatchCalls::getBlockHashCall::SELECTOR, [0xee, 0x82, 0xac, 0x5e]);
}

#[tokio::test]
async fn a_feed_can_be_set_and_made_stale() {
    let chain = chain().await;
    let code = contracts::price_feed_code(8, "ETH / USD", I256::try_from(250_000_000_000_i64).unwrap());
    let feed = chain.deploy(code).await.unwrap();
    let read = async || {
        let answer = chain.view(feed, Feed::latestRoundDataCall {}.abi_encode().into()).await.unwrap();
        Feed::latestRoundDataCall::abi_decode_returns(&answer).unwrap()
    };
    assert_eq!(read().await.answer.as_i64(), 250_000_000_000);

    let stale = Feed::setAnswerAtCall { next: I256::ONE, moment: U256::from(1_000) };
    let hash = chain.send(DEPLOYER, feed, U256::ZERO, stale.abi_encode().into()).await.unwrap();
    chain.mined(hash).await.unwrap();
    let round = read().await;
    assert_eq!((round.answer, round.updatedAt), (I256::ONE, U256::from(1_000)));
    assert_eq!(round.roundId.to::<u64>(), 2);
}

#[test]
fn the_artifacts_are_what_the_sources_compile_to() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("scripts/compile-contracts")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sources: HashSet<PathBuf> = fs::read_dir(root.join("contracts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "sol"))
        .collect();
    assert_eq!(sources.len(), 8);
}

// === tools ===

async fn chain() -> LocalChain {
    LocalChain::start(ChainOptions::default()).await.unwrap()
}

/// A folder that is gone after the test, also when the test fails.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("amanatd-ground-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether the process is there and not only waiting to be buried.
fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}
