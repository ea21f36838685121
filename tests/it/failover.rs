//! Two daemons on one database: one is paused, one is killed, and the database fails over to a replica, one that had
//! everything and one that is behind. Nothing that was acknowledged is lost without being found, and nothing is done
//! twice.

use std::time::Duration;

use amanatd::units::PaymentId;
use rustix::process::Signal;

use crate::troupe::Troupe;

const CHAIN: &str = "chain:31337";
const HOUSE: &str = "house";

/// Both are ready and each has one of the two leases. Gives back who has the chain's.
async fn divided(troupe: &mut Troupe) -> usize {
    for member in &mut troupe.members {
        member.ready().await;
    }
    troupe
        .until("each has a lease", async |troupe| {
            let postgres = &troupe.stage.postgres;
            let (chain, house) = (troupe.holder(postgres, CHAIN)?, troupe.holder(postgres, HOUSE)?);
            (chain != house).then_some(chain)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn y3_y9_nothing_is_lost_or_done_twice_when_daemons_stop_die_and_the_database_fails_over() {
    let mut troupe = Troupe::gather("failover", 2).await;
    troupe.members.iter_mut().for_each(crate::troupe::Member::start);
    let leader = divided(&mut troupe).await;
    let mut payments: Vec<PaymentId> = Vec::new();
    // The API is served by both, whoever works on the chain.
    for member in [0, 1] {
        let payment = troupe.create(member).await;
        troupe.pay(payment.deposit_address).await;
        payments.push(troupe.reached(1 - member, payment.id, "funded").await.id);
    }
    let shown = troupe.stage.run(&["chain", "status"]).unwrap();
    assert!(shown.contains(&format!("pid {}", troupe.members[leader].pid())), "{shown}");

    // SIGSTOP: the server gives up the leader's connection, as it does with a machine that is gone for long.
    troupe.members[leader].signal(Signal::STOP);
    let other = 1 - leader;
    let gone = format!(
        "select pg_terminate_backend(k.pid) from pg_locks k, leases l where l.name = '{CHAIN}' and k.locktype = 'advisory' and k.granted \
         and (k.classid::bigint << 32) | k.objid::bigint = lease_key(l.name, 'held')"
    );
    troupe.sql(&troupe.stage.postgres, &gone);
    troupe.until("the other has the chain", async |troupe| (troupe.holder(&troupe.stage.postgres, CHAIN)? == other).then_some(())).await;
    let payment = troupe.create(other).await;
    troupe.pay(payment.deposit_address).await;
    payments.push(troupe.reached(other, payment.id, "funded").await.id);
    let written = "select (select count(*) from funds_ledger_entries), (select count(*) from transfer_verdicts), (select max(number) from chain_cursors)";
    let before = troupe.sql(&troupe.stage.postgres, written);
    troupe.members[leader].signal(Signal::CONT);
    let status = troupe.members[leader].ended().await;
    assert_eq!(status.code(), Some(1), "{}", troupe.members[leader].log());
    assert_eq!(troupe.sql(&troupe.stage.postgres, written), before, "the one that slept writes nothing when it wakes");

    // SIGKILL, with the other one back: whoever holds the chain dies.
    troupe.members[leader].start();
    let leader = divided(&mut troupe).await;
    let other = 1 - leader;
    let payment = troupe.create(leader).await;
    troupe.members[leader].kill();
    troupe.pay(payment.deposit_address).await;
    payments.push(troupe.reached(other, payment.id, "funded").await.id);
    troupe.members[leader].start();
    divided(&mut troupe).await;

    // The database fails over to a replica that has everything.
    let replica = troupe.stage.postgres.replica().unwrap();
    troupe
        .until("the replica has everything", async |troupe| {
            let lsn = troupe.sql(&troupe.stage.postgres, "select pg_current_wal_flush_lsn()");
            let caught_up = format!("select pg_last_wal_replay_lsn() >= '{lsn}'");
            (troupe.sql(&replica, &caught_up) == "t").then_some(())
        })
        .await;
    troupe.stage.postgres.kill().unwrap();
    for member in &mut troupe.members {
        assert_eq!(member.ended().await.code(), Some(1));
    }
    let mut old = std::mem::replace(&mut troupe.stage.postgres, replica);
    troupe.point(&troupe.stage.postgres);
    // Started again before the replica is promoted, they wait for that.
    troupe.members.iter_mut().for_each(crate::troupe::Member::start);
    troupe.until("a replica is not written to", async |troupe| troupe.members[0].said("replica in recovery").then_some(())).await;
    assert!(troupe.members[0].readiness().await.contains("replica in recovery"), "{}", troupe.members[0].readiness().await);
    troupe.sql(&troupe.stage.postgres, "select pg_promote()");
    divided(&mut troupe).await;
    let status = troupe.stage.run(&["failover", "status"]).unwrap();
    assert!(status.contains("timeline 2 in place of 1"), "{status}");
    let halted = "select outflow_halted_reason from chain_cursors";
    assert!(troupe.sql(&troupe.stage.postgres, halted).contains("the database is not what it was"));
    let resume = ["chain", "resume", "--chain", "31337", "--by", "test", "--reason", "too early"];
    assert!(troupe.stage.run(&resume).unwrap_err().to_string().contains("nobody has reconciled"));
    // Watching and crediting go on.
    let payment = troupe.create(0).await;
    troupe.pay(payment.deposit_address).await;
    payments.push(troupe.reached(1, payment.id, "funded").await.id);
    assert_eq!(troupe.sql(&troupe.stage.postgres, "select count(*) from intents"), "0");
    troupe.stage.run(&["failover", "reconcile", "--by", "test", "--reason", "the replica had everything"]).unwrap();
    troupe.stage.run(&resume).unwrap();
    assert_eq!(troupe.sql(&troupe.stage.postgres, halted), "");

    // Once each, and all of them.
    for payment in &payments {
        troupe.reached(0, *payment, "funded").await;
    }
    let once = "select count(*), count(distinct p.id), sum(b.balance) from payments p join ledger_accounts a on a.payment_id = p.id \
         join ledger_balances b on b.account_id = a.id where a.kind = 'held'";
    let count = payments.len();
    let held = troupe.sql(&troupe.stage.postgres, once);
    assert_eq!(held, format!("{count}|{count}|{}", count * 1_000_000), "{held}");
    troupe.stage.run(&["verify"]).unwrap();
    troupe.stage.run(&["reconcile"]).unwrap();
    troupe.members.iter_mut().for_each(crate::troupe::Member::stop);
    old.halt().unwrap();
    troupe.tidy();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn y9_f9_a_replica_that_is_behind_is_found_and_nothing_is_issued_or_credited_twice() {
    let mut troupe = Troupe::gather("behind", 1).await;
    troupe.members[0].start();
    troupe.members[0].ready().await;
    troupe.until("the chain is read", async |troupe| troupe.market(0).chains().await.ok()?[0].scanned_number).await;
    let first = troupe.create(0).await;
    troupe.pay(first.deposit_address).await;
    troupe.reached(0, first.id, "funded").await;
    let mut replica = troupe.stage.postgres.replica().unwrap();
    troupe
        .until("the replica has the first", async |troupe| {
            let funded = format!("select count(*) from payments where id = '{}' and escrow_state = 'funded'", first.id);
            (troupe.sql(&replica, &funded) == "1").then_some(())
        })
        .await;
    // From here on the replica is down, and what is acknowledged is on the primary alone.
    replica.halt().unwrap();
    let lost = troupe.create(0).await;
    troupe.pay(lost.deposit_address).await;
    troupe.reached(0, lost.id, "funded").await;
    let unpaid = troupe.create(0).await;
    // One mark more than the replica can have.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    troupe.stage.postgres.kill().unwrap();
    assert_eq!(troupe.members[0].ended().await.code(), Some(1));
    replica.restart().unwrap();
    let _old = std::mem::replace(&mut troupe.stage.postgres, replica);
    troupe.point(&troupe.stage.postgres);
    troupe.sql(&troupe.stage.postgres, "select pg_promote()");

    troupe.members[0].start();
    troupe.members[0].ready().await;
    let status = troupe.stage.run(&["failover", "status"]).unwrap();
    assert!(status.contains("timeline 2 in place of 1, and it is behind"), "{status}");
    assert!(troupe.members[0].said("count as issued"), "{}", troupe.members[0].log());
    // The payment is forgotten; its money is not. No address is anybody else's now.
    assert_eq!(troupe.sql(&troupe.stage.postgres, &format!("select count(*) from payments where id = '{}'", lost.id)), "0");
    let next = troupe.create(0).await;
    let index = |path: &str| path.rsplit('/').next().unwrap().parse::<u32>().unwrap();
    assert!(index(&next.deposit_path) > index(&unpaid.deposit_path), "{} after {}", next.deposit_path, unpaid.deposit_path);
    troupe
        .until("what was paid to the forgotten address is found", async |troupe| {
            let found =
                "select sum(b.balance) from ledger_accounts a join ledger_balances b on b.account_id = a.id where a.kind = 'suspense'";
            (troupe.sql(&troupe.stage.postgres, found) == "1000000").then_some(())
        })
        .await;
    troupe.reached(0, first.id, "funded").await;
    troupe
        .until("the chain is read again", async |troupe| {
            troupe.stage.run(&["failover", "reconcile", "--by", "test", "--reason", "read again; one payment is forgotten"]).ok()
        })
        .await;
    troupe.stage.run(&["chain", "resume", "--chain", "31337", "--by", "test", "--reason", "reconciled"]).unwrap();
    troupe.stage.run(&["verify"]).unwrap();
    troupe.stage.run(&["reconcile"]).unwrap();
    troupe.stage.run(&["account", "rebuild"]).unwrap();

    // A restart finds the same database, and nothing to say.
    troupe.members[0].stop();
    troupe.members[0].start();
    troupe.members[0].ready().await;
    assert!(troupe.stage.run(&["failover", "status"]).unwrap().contains("nothing is to be reconciled"));
    troupe.members[0].stop();
    troupe.tidy();
}
