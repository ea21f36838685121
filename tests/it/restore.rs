//! Backups as docs/operating.md says: the commands are read from it. A release is paid after the point that is restored,
//! and an address is issued after it; neither happens a second time.

use std::path::Path;
use std::time::Duration;

use alloy::primitives::U256;
use amanatd::api::wire::AdoptTransaction;
use amanatd::devkit::postgres::{PostgresOptions, PrivatePostgres};

use crate::troupe::{SELLER, Troupe};

/// The commands under a mark in docs/operating.md.
fn commands(name: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md")).unwrap();
    let mark = format!("<!-- a test runs this: {name} -->\n```sh\n");
    let (_, after) = text.split_once(&mark).unwrap_or_else(|| panic!("docs/operating.md has no commands {name}"));
    after.split_once("```").unwrap().0.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_w5_d1_f8_a_restore_rebuilds_every_credit_and_pays_nothing_again() {
    let mut troupe = Troupe::gather("restore", 1).await;
    let folder = troupe.stage.postgres.folder().unwrap().display().to_string();
    let restored = format!("{folder}/restored");
    let (archive, backup, data) = (format!("{folder}/wal"), format!("{folder}/base"), format!("{restored}/data"));
    let variables = [("ARCHIVE", archive.as_str()), ("BACKUP", backup.as_str()), ("PGDATA", data.as_str())];
    troupe.stage.postgres.shell(&commands("archive"), &variables).unwrap();
    troupe.stage.postgres.halt().unwrap();
    troupe.stage.postgres.restart().unwrap();

    troupe.members[0].start();
    troupe.members[0].ready().await;
    troupe.fund_operator().await;
    // The treasury could pay twice.
    let treasury =
        troupe.market(0).chains().await.unwrap()[0].operator_addresses.iter().find(|own| own.purpose == "treasury").unwrap().address;
    troupe.pay(treasury).await;
    troupe.pay(treasury).await;
    let paid_out = troupe.create(0).await;
    troupe.pay(paid_out.deposit_address).await;
    troupe.reached(0, paid_out.id, "funded").await;
    troupe.outflow("fuel").await;
    troupe.outflow("sweep").await;
    troupe.stage.postgres.shell(&commands("backup"), &variables).unwrap();
    // After the copy and before the point: it is in the archive alone.
    let archived = troupe.create(0).await;
    troupe.pay(archived.deposit_address).await;
    troupe.reached(0, archived.id, "funded").await;
    let until = troupe.sql(&troupe.stage.postgres, "select clock_timestamp()");
    tokio::time::sleep(Duration::from_millis(1_200)).await;

    // After the point: the seller is paid, and a new payment is made and paid.
    troupe.market(0).release(paid_out.id, "release").await.unwrap();
    let release = troupe.outflow("release").await;
    let seller = SELLER.parse().unwrap();
    assert_eq!(troupe.stage.chain.balance_of(troupe.stage.usdc, seller).await.unwrap(), U256::from(1_000_000));
    let forgotten = troupe.create(0).await;
    troupe.pay(forgotten.deposit_address).await;
    troupe.reached(0, forgotten.id, "funded").await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let segment = troupe.sql(&troupe.stage.postgres, "select pg_walfile_name(pg_current_wal_lsn())");
    troupe.sql(&troupe.stage.postgres, "select pg_switch_wal()");
    let finished = Path::new(&archive).join(&segment);
    troupe.until("the segment is archived", async |_| finished.exists().then_some(())).await;
    troupe.members[0].stop();
    troupe.stage.postgres.kill().unwrap();

    // The server is lost, and restored to the point.
    let point = [("UNTIL", until.as_str())];
    let restoring: Vec<(&str, &str)> = variables.iter().chain(&point).copied().collect();
    troupe.stage.postgres.shell(&commands("restore"), &restoring).unwrap();
    let server = PrivatePostgres::start(PostgresOptions { directory: Some(restored.into()), durable: false }).unwrap();
    let _lost = std::mem::replace(&mut troupe.stage.postgres, server);
    troupe.point(&troupe.stage.postgres);
    troupe
        .until("it is restored", async |troupe| (troupe.sql(&troupe.stage.postgres, "select pg_is_in_recovery()") == "f").then_some(()))
        .await;
    let count = |id| format!("select count(*) from payments where id = '{id}'");
    assert_eq!(troupe.sql(&troupe.stage.postgres, &count(archived.id)), "1", "what was in the archive is there");
    assert_eq!(troupe.sql(&troupe.stage.postgres, &count(forgotten.id)), "0", "what came after the point is not");

    troupe.members[0].start();
    troupe.members[0].ready().await;
    let status = troupe.stage.run(&["failover", "status"]).unwrap();
    assert!(status.contains("timeline 2 in place of 1, and it is behind"), "{status}");
    // D1: no index is issued a second time.
    let next = troupe.create(0).await;
    let index = |path: &str| path.rsplit('/').next().unwrap().parse::<u32>().unwrap();
    assert!(index(&next.deposit_path) > index(&forgotten.deposit_path), "{} after {}", next.deposit_path, forgotten.deposit_path);
    // W5: every credit is there again; what was paid to the forgotten payment is found where nobody can lose it.
    troupe.reached(0, archived.id, "funded").await;
    troupe.reached(0, paid_out.id, "funded").await;
    let suspense =
        "select coalesce(sum(b.balance), 0) from ledger_accounts a join ledger_balances b on b.account_id = a.id where a.kind = 'suspense'";
    troupe
        // What the treasury got by hand is nobody's too.
        .until("the forgotten money is found", async |troupe| (troupe.sql(&troupe.stage.postgres, suspense) == "3000000").then_some(()))
        .await;

    // S7: the payment is held by these books, and its seller has been paid. Ordered again, nothing is planned, neither
    // while the loss is open nor after, because the chain has used a nonce that the books do not know.
    troupe.market(0).release(paid_out.id, "release-again").await.unwrap();
    troupe
        .until("the loss is reconciled", async |troupe| {
            troupe.stage.run(&["failover", "reconcile", "--by", "test", "--reason", "restored to a point; read again"]).ok()
        })
        .await;
    let resume = ["chain", "resume", "--chain", "31337", "--by", "test", "--reason", "reconciled"];
    troupe.stage.run(&resume).unwrap();
    troupe.until("the nonce is found", async |troupe| troupe.officer.foreign_nonces().await.ok().filter(|found| !found.is_empty())).await;
    troupe.stage.chain.mine(6).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let planned = "select count(*) from intents where kind = 'release' and state not in ('void', 'reverted', 'replaced')";
    assert_eq!(troupe.sql(&troupe.stage.postgres, planned), "0", "{}", troupe.members[0].log());
    assert_eq!(troupe.stage.chain.balance_of(troupe.stage.usdc, seller).await.unwrap(), U256::from(1_000_000), "paid once");

    // An officer takes in the transaction that the Trezor signed: it settles the order, and the books are right.
    let asked =
        AdoptTransaction { chain_id: 31_337, tx_hash: release.tx_hash.unwrap(), raw: None, payout_id: None, reason: "restored".to_owned() };
    troupe.officer.adopt(&asked).await.unwrap();
    troupe.stage.chain.mine(6).await.unwrap();
    troupe.reached(0, paid_out.id, "released").await;
    assert_eq!(troupe.stage.chain.balance_of(troupe.stage.usdc, seller).await.unwrap(), U256::from(1_000_000), "still once");
    troupe.until("books and chain agree", async |troupe| troupe.stage.run(&["reconcile"]).ok()).await;
    // What halted it meanwhile is dealt with.
    let _ = troupe.stage.run(&resume);
    troupe.stage.run(&["verify"]).unwrap();
    troupe.members[0].stop();
    troupe.tidy();
}
