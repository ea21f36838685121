//! Seals against a superuser: every change of what was sealed is found and named, and what docs/ledger.md
//! says about them is what they are.

use std::collections::BTreeMap;
use std::time::Duration;

use alloy::primitives::{B256, keccak256};
use amanatd::db::{Database, DatabaseLimits};
use amanatd::devkit::postgres::{APP, SUPERUSER};
use amanatd::devkit::trezor::{Press, SimulatedTrezor, SimulatorOptions};
use amanatd::ledger::seal::{self, Fault, Head, Sealer, Verdict};
use amanatd::ledger::{AccountKey, Entry, EntryType, posting};
use amanatd::units::{LedgerEntryId, Progress, TokenAmount};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use time::OffsetDateTime;

use crate::ledger::{Books, TREASURY, detected, entry, held, native, released, reserved, units};
use crate::process::Place;
use crate::watching::XPUB;

/// After every entry of a test, so that blocks need not be full.
fn later() -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::minutes(10)
}

/// Seals until nothing is left. Other tests' transactions in the same server hold sealing up.
pub(crate) async fn seal_all(books: &Books) {
    let sealer = Sealer::new(books.db.clone());
    let all = async {
        loop {
            while sealer.tick(later()).await.unwrap() == Progress::Worked {}
            let unsealed = "select count(*) from funds_ledger_entries e \
                 where not exists (select from ledger_seals s where e.id = any (s.entry_ids))";
            if books.base.sql(unsealed).unwrap().trim() == "0" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all).await.expect("everything is sealed in the end");
}

/// Six blocks at least, with every kind of entry in them.
async fn sealed_books() -> Books {
    let books = Books::open(3).await;
    enrol(&books, 17);
    for payment in &books.payments {
        books.order_release(*payment, 50);
    }
    for block in 0..6 {
        for payment in books.payments.clone() {
            let key = |leg: &str| format!("block-{block}-{payment}-{leg}");
            books
                .post(vec![
                    detected(payment, units(100 + block), &key("a")),
                    held(payment, units(100), &key("b")),
                    reserved(payment, units(60), &key("c")),
                    released(payment, units(50), &key("d")),
                ])
                .await
                .unwrap();
            let float = TokenAmount::new(native(), alloy::primitives::U256::from(1_000));
            let legs = (AccountKey::Custody(TREASURY), AccountKey::Operator);
            books
                .post(vec![Entry {
                    memo: "ünïcode, \"quoted\"".to_owned(), ..entry(EntryType::Adjustment, None, float, legs, &key("e"))
                }])
                .await
                .unwrap();
            let of = books.entry(&key("e")).await;
            books.post(vec![posting::reversal(&of, "a test")]).await.unwrap();
        }
        let template = format!(
            "insert into funds_ledger_entries (legacy_object_id, entry_type, payment_ref_kind, payment_external_ref, chain_id, asset, \
             debit_account_id, credit_account_id, amount_units, asset_decimals, idempotency_key, memo) \
             select 'legacy-{block}', 'sweep', 'template', 'template-{block}', chain_id, asset, debit_account_id, credit_account_id, 1, 6, \
             'template-{block}', '' from funds_ledger_entries where id = 1"
        );
        books.base.sql(&template).unwrap();
        seal_all(&books).await;
    }
    books
}

fn enrol(books: &Books, next: u32) {
    let account = format!(
        "insert into trezor_accounts (label, account_index, path, xpub, fingerprint, next_deposit_index) \
         values ('test', 0, 'm/44''/60''/0''', '{XPUB}', '\\x01020304', {next})"
    );
    books.base.sql(&account).unwrap();
}

/// The superuser's own connection, in which no guard is left.
async fn unguarded(books: &Books) -> PgConnection {
    books
        .base
        .sql(
            "alter table funds_ledger_entries disable trigger user; alter table ledger_accounts disable trigger user; \
             alter table ledger_seals disable trigger user; \
             alter table funds_ledger_entries alter column id drop identity, drop constraint funds_ledger_entries_accounts_differ, \
                 drop constraint funds_ledger_entries_reversal_names_entry, drop constraint funds_ledger_entries_payment_ref, \
                 drop constraint funds_ledger_entries_reverses_fkey; \
             alter table ledger_accounts drop constraint ledger_accounts_custody_has_address, \
                 drop constraint ledger_accounts_claim_has_payment; \
             alter table ledger_seals drop constraint ledger_seals_leaf_each, drop constraint ledger_seals_block_bounds",
        )
        .unwrap();
    let mut connection = PgConnection::connect(&books.base.url(SUPERUSER)).await.unwrap();
    connection.execute("set session_replication_role = replica").await.unwrap();
    connection
}

/// What verify says after these statements, which are taken back.
async fn after(connection: &mut PgConnection, statements: &str, exported: &[Head]) -> Verdict {
    let mut transaction = connection.begin().await.unwrap();
    let outcome = transaction.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await;
    let touched = outcome.unwrap_or_else(|error| panic!("{statements}: {error}"));
    assert!(touched.rows_affected() > 0, "{statements} touched nothing");
    let verdict = seal::verify(&mut transaction, exported).await.unwrap();
    transaction.rollback().await.unwrap();
    verdict
}

async fn heads(books: &Books) -> Vec<Head> {
    let seals = seal::store::list(&mut books.db.connection().await.unwrap(), 0, 1_000).await.unwrap();
    seals.into_iter().map(|seal| seal.head).collect()
}

/// A walk that is the same in every run.
struct Walk(B256);

impl Walk {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = keccak256(self.0);
        usize::from(u16::from_be_bytes([self.0[0], self.0[1]])) % bound
    }
}

/// Each sets one field of entry {id} to something else.
const EDITS: [&str; 19] = [
    "id = id + 1000000",
    "legacy_object_id = coalesce(legacy_object_id, '') || 'x'",
    "entry_type = case when entry_type = 'hold' then 'release' else 'hold' end::funds_ledger_entry_type",
    "payment_ref_kind = case when payment_ref_kind = 'entity' then 'template' else 'entity' end::ref_kind",
    "payment_id = case when payment_id is null then '00000000-0000-0000-0000-000000000001' end::uuid",
    "payment_external_ref = case when payment_external_ref is null then 'x' end",
    "chain_id = chain_id + 1",
    "asset = set_byte(asset, 3, (get_byte(asset, 3) + 1) % 256)",
    "debit_account_id = debit_account_id % 5 + 1",
    "credit_account_id = credit_account_id % 5 + 1",
    "amount_units = amount_units + 1",
    "amount_units = amount_units * 10",
    "asset_decimals = (asset_decimals + 1) % 19",
    "reverses_entry_id = coalesce(reverses_entry_id, 0) + 500000 + id",
    "idempotency_key = idempotency_key || 'x'",
    "memo = memo || ' '",
    "memo = case when memo = '' then '-,' else '' end",
    "created_at = created_at + interval '1 microsecond'",
    "created_at = created_at - interval '1 day'",
];

#[tokio::test]
async fn l5_every_edit_of_a_superuser_is_found_and_the_row_is_named() {
    let books = sealed_books().await;
    let mut connection = unguarded(&books).await;
    let whole = seal::verify(&mut connection, &heads(&books).await).await.unwrap();
    assert_eq!((whole.entries, whole.unsealed, whole.faults.as_slice()), (114, 0, [].as_slice()));
    assert!(whole.seals >= 6);
    let entries: Vec<i64> = sqlx::query_scalar("select id from funds_ledger_entries order by id").fetch_all(&mut connection).await.unwrap();
    let mut walk = Walk(keccak256("l5"));
    let (mut found, mut named, mut kinds) = (0, 0, BTreeMap::<usize, u32>::new());
    for _ in 0..1_000 {
        let (id, edit) = (entries[walk.below(entries.len())], walk.below(EDITS.len()));
        let verdict = after(&mut connection, &format!("update funds_ledger_entries set {} where id = {id}", EDITS[edit]), &[]).await;
        found += usize::from(!verdict.faults.is_empty());
        named += usize::from(matches!(
            verdict.faults.first(),
            Some(Fault::EntryChanged { entry, .. } | Fault::EntryMissing { entry, .. }) if *entry == LedgerEntryId(id)
        ));
        *kinds.entry(edit).or_default() += 1;
    }
    println!("edits of one field: {found} of 1000 found, {named} of 1000 rows named, {} kinds", kinds.len());
    assert_eq!((found, named, kinds.len()), (1_000, 1_000, EDITS.len()));

    // The meaning of an account is part of every entry that names it, and seals keep each other.
    let others = [
        "update ledger_accounts set kind = 'disputed' where id = 2",
        "update ledger_accounts set address = set_byte(address, 0, 9) where id = 1",
        "update ledger_accounts set payment_id = null where id = 2",
        "update ledger_accounts set asset = set_byte(asset, 0, 9) where id = 1",
        "update ledger_accounts set chain_id = chain_id + 1 where id = 1",
        "delete from ledger_accounts where id = 2",
        "update ledger_seals set number = 700 where number = 6; update ledger_seals set number = 6 where number = 5",
        "update ledger_seals set previous_hash = root where number = 3",
        "update ledger_seals set entry_ids = entry_ids[2:] where number = 3",
        "update ledger_seals set entry_ids = array_append(entry_ids, 1::bigint) where number = 3",
        "update ledger_seals set leaves = set_byte(leaves, 40, (get_byte(leaves, 40) + 1) % 256) where number = 3",
        "update ledger_seals set root = hash where number = 3",
        "update ledger_seals set entries_total = entries_total + 1 where number = 3",
        "update ledger_seals set derivation = replace(derivation, '17', '16') where number = 3",
        "update ledger_seals set sealed_at = sealed_at + interval '1 microsecond' where number = 3",
        "update ledger_seals set hash = root where number = 3",
        "delete from ledger_seals where number = 3",
    ];
    for statements in others {
        let verdict = after(&mut connection, statements, &[]).await;
        assert_ne!(verdict.faults, [], "{statements}");
    }
}

#[tokio::test]
async fn l5_deletions_swaps_and_a_cut_off_end_are_found() {
    let books = sealed_books().await;
    let kept = heads(&books).await;
    let mut connection = unguarded(&books).await;
    let entries: Vec<i64> = sqlx::query_scalar("select id from funds_ledger_entries order by id").fetch_all(&mut connection).await.unwrap();
    let mut walk = Walk(keccak256("l5 more"));
    let (mut deletions, mut swaps) = (0, 0);
    for _ in 0..100 {
        let id = entries[walk.below(entries.len())];
        let verdict = after(&mut connection, &format!("delete from funds_ledger_entries where id = {id}"), &[]).await;
        let first = verdict.faults.first();
        deletions += usize::from(matches!(first, Some(Fault::EntryMissing { entry, .. }) if *entry == LedgerEntryId(id)));
    }
    for _ in 0..100 {
        let (one, other) = (entries[walk.below(entries.len())], entries[walk.below(entries.len())]);
        if one == other {
            swaps += 1;
            continue;
        }
        let (one, other) = (one.min(other), one.max(other));
        let swap = format!(
            "update funds_ledger_entries set id = -1 where id = {one}; update funds_ledger_entries set id = {one} where id = {other}; \
             update funds_ledger_entries set id = {other} where id = -1"
        );
        let verdict = after(&mut connection, &swap, &[]).await;
        let named: Vec<LedgerEntryId> = verdict
            .faults
            .iter()
            .filter_map(|fault| if let Fault::EntryChanged { entry, .. } = fault { Some(*entry) } else { None })
            .collect();
        swaps += usize::from(named == [LedgerEntryId(one), LedgerEntryId(other)]);
    }
    println!("deletions: {deletions} of 100 named; swaps: {swaps} of 100 named");
    assert_eq!((deletions, swaps), (100, 100));

    // The end of the ledger, with its seals: whole by itself, and not against what was exported.
    let last = kept.last().unwrap().number;
    let mut truncations = 0;
    for left in 0..last {
        let cut = format!(
            "delete from funds_ledger_entries where id in (select unnest(entry_ids) from ledger_seals where number > {left}); \
             delete from ledger_seals where number > {left}"
        );
        assert_eq!(after(&mut connection, &cut, &[]).await.faults, [], "nothing in here tells");
        let verdict = after(&mut connection, &cut, &kept).await;
        truncations += i64::from(verdict.faults == [Fault::Truncated { exported: last, found: left }]);
    }
    println!("cut-off ends: {truncations} of {last} found against exported heads");
    assert_eq!(truncations, last);

    // All of it written anew, seals included, by somebody who knows how: again only what was exported tells.
    let rewrite = "update funds_ledger_entries set memo = 'rewritten' where id = 1; delete from ledger_seals";
    let mut transaction = connection.begin().await.unwrap();
    transaction.execute(rewrite).await.unwrap();
    let verdict = seal::verify(&mut transaction, &kept).await.unwrap();
    assert_eq!(verdict.faults.first(), Some(&Fault::Truncated { exported: last, found: 0 }));
    transaction.rollback().await.unwrap();
    let other = Head { derivation: String::new(), ..kept[2].clone() };
    let verdict = seal::verify(&mut connection, &[other]).await.unwrap();
    assert_eq!(verdict.faults, [Fault::NotAsExported { seal: 3 }]);
    // D3: an account that has issued fewer addresses than a seal says was restored from an old backup.
    let verdict = after(&mut connection, "update trezor_accounts set next_deposit_index = 16", &[]).await;
    assert!(matches!(verdict.faults.as_slice(), [Fault::DerivationBehind { sealed: 17, .. }]), "{:?}", verdict.faults);
}

#[tokio::test]
async fn l5_the_documents_own_sql_computes_the_same() {
    let books = sealed_books().await;
    let document = include_str!("../../docs/ledger.md");
    let statement = |name: &str| {
        let from = document.split_once(&format!("```sql {name}\n")).expect("the document has the statement").1;
        from.split_once("```").unwrap().0.to_owned()
    };
    let lines = |text: String| -> BTreeMap<i64, String> {
        text.lines().map(|line| line.split_once('|').map(|(id, hash)| (id.parse().unwrap(), hash.to_owned())).unwrap()).collect()
    };
    let (leaves, hashes) = (lines(books.base.sql(&statement("leaf")).unwrap()), lines(books.base.sql(&statement("head")).unwrap()));
    let seals = seal::store::list(&mut books.db.connection().await.unwrap(), 0, 100).await.unwrap();
    assert_eq!((leaves.len(), hashes.len()), (114, seals.len()));
    for seal in seals {
        assert_eq!(format!("0x{}", hashes[&seal.head.number]), seal.hash.to_string());
        for (entry, leaf) in seal.entries.iter().zip(&seal.leaves) {
            assert_eq!(format!("0x{}", leaves[&entry.0]), leaf.to_string(), "entry {entry}");
        }
    }
}

#[tokio::test]
async fn p8_what_may_be_joined_by_an_older_row_is_not_sealed_yet() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    books.post(vec![detected(payment, units(1), "first")]).await.unwrap();
    seal_all(&books).await;
    // The older transaction gets the higher id, and ends last.
    let second = Database::connect(&books.base.url(APP), DatabaseLimits { connections_max: 2, ..DatabaseLimits::default() }).await.unwrap();
    let mut slow = PgConnection::connect(&books.base.url(APP)).await.unwrap();
    slow.execute("begin").await.unwrap();
    slow.execute("select pg_current_xact_id()").await.unwrap();
    crate::ledger::post(&second, vec![detected(payment, units(2), "second")]).await.unwrap();
    let sealer = Sealer::new(books.db.clone());
    for _ in 0..3 {
        assert_eq!(sealer.tick(later()).await.unwrap(), Progress::Idle, "an older transaction still runs");
    }
    assert_eq!(books.base.sql("select count(*) from ledger_seals").unwrap().trim(), "1");
    amanatd::ledger::store::append(&mut slow, &[detected(payment, units(3), "third")]).await.unwrap();
    slow.execute("commit").await.unwrap();
    seal_all(&books).await;
    // A lower id that comes last is sealed all the same, in a block of its own.
    let low = books.base.sql("select nextval('funds_ledger_entries_id_seq')").unwrap().trim().parse::<i64>().unwrap();
    books.post(vec![detected(payment, units(4), "fourth")]).await.unwrap();
    seal_all(&books).await;
    let late = format!(
        "insert into funds_ledger_entries (id, entry_type, chain_id, asset, debit_account_id, credit_account_id, amount_units, asset_decimals, \
         idempotency_key, memo) overriding system value \
         select {low}, 'adjustment', chain_id, asset, debit_account_id, credit_account_id, 1, 6, 'late', '' from funds_ledger_entries where id = 1"
    );
    books.base.sql(&late).unwrap();
    seal_all(&books).await;
    let verdict = seal::verify(&mut books.db.connection().await.unwrap(), &heads(&books).await).await.unwrap();
    assert_eq!((verdict.entries, verdict.unsealed, verdict.faults.as_slice()), (5, 0, [].as_slice()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l5_an_officer_signs_a_seal_on_the_device() {
    let books = Books::open(1).await;
    let enrolment = books.db.unit::<_, amanatd::account::AccountError, _>(|connection| {
        Box::pin(async move {
            let xpub = XPUB.parse().unwrap();
            amanatd::account::store::insert(connection, "vault", &xpub, &amanatd::account::store::DeviceHint::default()).await
        })
    });
    enrolment.await.unwrap();
    books.post(vec![detected(books.payments[0], units(5), "a-1")]).await.unwrap();
    seal_all(&books).await;
    let trezor = SimulatedTrezor::start(SimulatorOptions::default()).unwrap();
    trezor.officer().confirm_all();
    let place = Place::new();
    place.configure(&books.base.url(APP), "http://127.0.0.1:9");
    let endpoint = trezor.endpoint();
    let words = ["seal", "sign", "--account", "vault", "--device", &endpoint];
    let said = place.succeed(&words);
    let head = heads(&books).await.remove(0);
    assert!(said.contains(&head.message()) && said.contains("seal 1 signed by 0x"), "{said}");
    let shown: String = trezor.screens().iter().map(|screen| screen.text().clone()).collect::<Vec<_>>().join(" ");
    assert!(shown.contains("amanatd ledger seal 1"), "{shown}");
    // Once is enough, and another wallet, a refusal, or another seal's signature is none.
    assert!(place.run(&words).stderr.contains("has signed seal 1 already"));
    let verified = place.succeed(&["verify"]);
    assert!(verified.contains("1 seals over 1 entries recomputed") && verified.contains("1 signatures of officers hold"), "{verified}");
    assert!(place.succeed(&["seal", "list"]).contains("0x"));
    let line = place.succeed(&["seal", "export"]);
    assert_eq!(Head::parse(&line), Ok(head.clone()));

    books.post(vec![detected(books.payments[0], units(6), "a-2")]).await.unwrap();
    seal_all(&books).await;
    let other = SimulatedTrezor::start(SimulatorOptions {
        mnemonic: "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about".to_owned(),
        ..SimulatorOptions::default()
    })
    .unwrap();
    other.officer().confirm_all();
    let refused = place.run(&["seal", "sign", "--account", "vault", "--device", &other.endpoint()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    trezor.officer().script([Press::Reject]);
    let refused = place.run(&words);
    assert!(refused.code == Some(1) && refused.stderr.contains("refused"), "{refused:?}");
    assert_eq!(books.base.sql("select count(*) from ledger_seal_signatures").unwrap().trim(), "1");
    let forged = "insert into ledger_seal_signatures (seal_number, account_id, address, signature) \
         select 2, account_id, address, signature from ledger_seal_signatures";
    books.base.sql(forged).unwrap();
    let verdict = seal::verify(&mut books.db.connection().await.unwrap(), &[]).await.unwrap();
    assert_eq!(verdict.faults, [Fault::SealChanged { seal: 2, what: "an officer's signature is not of this seal" }]);
    let told = place.run(&["verify"]);
    assert!(told.code == Some(1) && told.stdout.contains("first broken: seal 2 was changed"), "{told:?}");
}
