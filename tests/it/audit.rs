//! Online verification against a superuser: each promise is broken once, found by a running auditor, stops
//! what leaves, and is forgotten once it is mended. And faults that a change of ours might plant.

use alloy::primitives::U256;
use amanatd::db::{self, SelfTestError};
use amanatd::devkit::postgres::APP;
use amanatd::ledger::{AccountKey, posting};
use amanatd::reconcile::invariants::{Auditor, Invariant, Look};
use sqlx::{Connection, PgConnection};
use time::{Duration, OffsetDateTime};

use crate::ledger::{Books, DEPOSIT, detected, held, race, released, reserved, units};
use crate::seals::seal_all;
use crate::watching::{CHAIN, NOW, XPUB};

/// Looks until one turn is over, whatever there is to look at in these tests.
const LOOKS_MAX: u32 = 12;

struct Audited {
    books: Books,
    auditor: Auditor,
    now: std::sync::Mutex<OffsetDateTime>,
}

/// A chain that was scanned, two credited transfers, an outflow that settled, and one that waits with its replacement.
const SURROUNDINGS: &str = "
    insert into trezor_accounts (id, label, account_index, path, xpub, fingerprint)
        values ('01900000-0000-7000-8000-000000000001', 'test', 0, 'm/44''/60''/0''', 'XPUB', '\\x01020304');
    insert into trezor_derived_addresses (id, account_id, branch, address_index, address, purpose)
        values ('01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000001', 0, 0, decode(repeat('11', 20), 'hex'), 'deposit');
    insert into config_settings (key, value) values ('confirmation_threshold:31337', 3);
    insert into config_setting_history (key, new_value, changed_by, reason) values ('confirmation_threshold:31337', 3, 'test', 'test');
    insert into chain_blocks (chain_id, number, hash, parent_hash, block_time, threshold_history_id)
        values (31337, 5, decode(repeat('05', 32), 'hex'), decode(repeat('04', 32), 'hex'), now(), 1);
    insert into chain_cursors (chain_id, start_number, number, hash) values (31337, 5, 5, decode(repeat('05', 32), 'hex'));
    insert into transfers (chain_id, tx_hash, position) select 31337, decode(lpad(n::text, 64, '0'), 'hex'), 'log:0' from generate_series(1, 2) n;
    insert into transfer_observations (transfer_id, chain_id, block_number, block_hash, asset, sender, recipient, amount, derived_address_id, internal)
        select n, 31337, 5, decode(repeat('05', 32), 'hex'), decode(repeat('22', 20), 'hex'), decode(repeat('33', 20), 'hex'),
            decode(repeat('11', 20), 'hex'), 100, '01900000-0000-7000-8000-000000000001', false from generate_series(1, 2) n;
    insert into transfer_verdicts (transfer_id, observation_id, chain_id, block_number, block_hash, head_number, head_hash, depth, threshold,
        threshold_seen_history_id, threshold_now_history_id)
        select n, n, 31337, 5, decode(repeat('05', 32), 'hex'), 7, decode(repeat('07', 32), 'hex'), 3, 3, 1, 1 from generate_series(1, 2) n;
    insert into intents (id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, max_fee_per_gas,
        max_priority_fee_per_gas, payment_id, digest, approvals_required, requested_by)
        select ('01900000-0000-7000-8000-00000000006' || n)::uuid, 'release', 31337, '01900000-0000-7000-8000-000000000001',
            decode(repeat('11', 20), 'hex'), decode(repeat('66', 20), 'hex'), decode('5FbDB2315678afecb367f032d93F642f64180aa3', 'hex'), 40, n, 65000, 2, 1,
            ('00000000-0000-0000-0000-00000000000' || n)::uuid, decode(repeat('e1', 32), 'hex'), 1, 'test' from generate_series(1, 2) n;
    insert into payment_payouts (id, payment_id, kind, state, chain_id, asset, asset_decimals, source, gross_units, platform_fee_units,
        provider_fee_units, net_units, to_address, requested_by, intent_id, reservation_key)
        select id, payment_id, 'release', 'planned', chain_id, asset, 6, 'held', amount, 0, 0, amount, to_address, 'test', id,
            'payout:' || id || ':reserve' from intents;
    insert into outbound_transactions (intent_id, chain_id, from_address, nonce, tx_hash, raw)
        select ('01900000-0000-7000-8000-00000000006' || n)::uuid, 31337, decode(repeat('11', 20), 'hex'), n, decode(repeat('d' || n, 32), 'hex'),
            decode(repeat('02', 80), 'hex') from generate_series(1, 2) n;
    insert into outbound_transactions (intent_id, chain_id, from_address, nonce, tx_hash, raw, replaces, max_fee_per_gas, max_priority_fee_per_gas)
        select intent_id, chain_id, from_address, nonce, decode(repeat('d3', 32), 'hex'), raw, id, 3, 2 from outbound_transactions where nonce = 2;
    update outbound_transactions set block_number = 5, block_hash = decode(repeat('05', 32), 'hex'), succeeded = true, fee_paid = 1,
        settled_at = now() where nonce = 1;";

impl Audited {
    async fn start() -> Self {
        let books = Books::open(2).await;
        books.base.sql(&SURROUNDINGS.replace("XPUB", XPUB)).unwrap();
        let (one, two) = (books.payments[0], books.payments[1]);
        books.post(vec![detected(one, units(100), "verdict:1:credit"), held(one, units(100), "verdict:1:hold")]).await.unwrap();
        books.post(vec![detected(two, units(100), "verdict:2:credit")]).await.unwrap();
        books.post(vec![reserved(one, units(40), "intent:1:reserve"), released(one, units(40), "outbound:1:move")]).await.unwrap();
        books.post(vec![detected(two, units(7), "other")]).await.unwrap();
        let other = books.entry("other").await;
        books.post(vec![posting::reversal(&other, "test")]).await.unwrap();
        seal_all(&books).await;
        let auditor = Auditor::new(books.db.clone());
        Self { books, auditor, now: std::sync::Mutex::new(NOW) }
    }

    async fn look(&self) -> Look {
        let now = {
            let mut now = self.now.lock().unwrap();
            *now += Duration::seconds(10);
            *now
        };
        self.auditor.tick(now).await.unwrap().expect("it is time to look")
    }

    fn halted(&self) -> String {
        self.books.base.sql("select outflow_halted_reason from chain_cursors").unwrap().trim().to_owned()
    }

    fn sql(&self, statements: &str) {
        self.books.base.sql(statements).unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// How many looks it takes to meet a violation of this invariant.
    async fn looks_until(&self, invariant: Invariant) -> u32 {
        for looks in 1..=LOOKS_MAX {
            if self.look().await.violations.iter().any(|violation| violation.invariant == invariant) {
                return looks;
            }
        }
        panic!("{invariant} is broken and nobody sees it");
    }

    /// Looks until nothing stands any more.
    async fn calm(&self) {
        for _ in 0..LOOKS_MAX {
            if self.look().await.standing.iter().all(|(_, violations, _)| *violations == 0) {
                return;
            }
        }
        panic!("what was mended still stands");
    }
}

/// Each invariant: what breaks it, behind every guard, and what mends it.
const BREAKS: [(Invariant, &str, &str); 14] = [
    (
        Invariant::Conservation,
        "update ledger_balances set balance = balance + 1 where account_id = 1",
        "update ledger_balances set balance = balance - 1 where account_id = 1",
    ),
    // On both sides, so that the sums are equal; and the version alone.
    (
        Invariant::Balance,
        "update ledger_balances set balance = balance + 1 where account_id in (1, 3)",
        "update ledger_balances set balance = balance - 1 where account_id in (1, 3)",
    ),
    (
        Invariant::Balance,
        "update ledger_balances set version = version + 1 where account_id = 3",
        "update ledger_balances set version = version - 1 where account_id = 3",
    ),
    (
        Invariant::Balance,
        "update ledger_balances set version = 5000000 where account_id = 1",
        "update ledger_balances set version = (select count(*) from funds_ledger_entries where 1 in (debit_account_id, credit_account_id)) where account_id = 1",
    ),
    (
        Invariant::Overdraft,
        "alter table ledger_balances drop constraint ledger_balances_no_overdraft; update ledger_balances set balance = balance - 1000 where account_id = 2",
        "update ledger_balances set balance = balance + 1000 where account_id = 2; alter table ledger_balances add constraint ledger_balances_no_overdraft \
         check (balance >= 0 and balance < 115792089237316195423570985008687907853269984665640564039457584007913129639936)",
    ),
    (
        Invariant::AppendOnly,
        "alter table funds_ledger_entries disable trigger funds_ledger_entries_no_update",
        "alter table funds_ledger_entries enable always trigger funds_ledger_entries_no_update",
    ),
    (
        Invariant::Sealed,
        "update funds_ledger_entries set memo = memo || '!' where id = 2",
        "update funds_ledger_entries set memo = 'test' where id = 2",
    ),
    (
        Invariant::Payment,
        "update funds_ledger_entries set payment_id = '00000000-0000-0000-0000-000000000002' where id = 1",
        "update funds_ledger_entries set payment_id = '00000000-0000-0000-0000-000000000001' where id = 1",
    ),
    (
        Invariant::Reversal,
        "update funds_ledger_entries set amount_units = amount_units + 1 where entry_type = 'reversal'",
        "update funds_ledger_entries set amount_units = amount_units - 1 where entry_type = 'reversal'",
    ),
    (
        Invariant::Credit,
        "update transfer_verdicts set transfer_id = 1, gate = 'credit', revoked_at = now() where id = 2",
        "drop trigger transfer_verdicts_guard on transfer_verdicts; update transfer_verdicts set transfer_id = 2, revoked_at = null where id = 2; \
         create trigger transfer_verdicts_guard before update on transfer_verdicts for each row execute function transfer_verdicts_guard(); \
         alter table transfer_verdicts enable always trigger transfer_verdicts_guard",
    ),
    (
        Invariant::Nonce,
        "drop index outbound_transactions_nonce_key; update outbound_transactions set nonce = 1 where nonce = 2",
        "update outbound_transactions set nonce = 2 where id <> 1; \
         create unique index outbound_transactions_nonce_key on outbound_transactions (chain_id, from_address, nonce) where replaces is null",
    ),
    // A link to what is no transaction of the same nonce.
    (
        Invariant::Nonce,
        "update outbound_transactions set replaces = 1 where replaces = 2",
        "update outbound_transactions set replaces = 2 where replaces = 1",
    ),
    // Less was approved than moved; and what moved is not in the books.
    (
        Invariant::Settlement,
        "alter table payment_payouts drop constraint payment_payouts_intent_fkey; update intents set amount = 39 where nonce = 1",
        "update intents set amount = 40 where nonce = 1",
    ),
    (
        Invariant::Settlement,
        "update funds_ledger_entries set idempotency_key = 'elsewhere' where idempotency_key = 'outbound:1:move'",
        "update funds_ledger_entries set idempotency_key = 'outbound:1:move' where idempotency_key = 'elsewhere'",
    ),
];

#[tokio::test]
async fn y8_whatever_a_superuser_breaks_is_found_and_stops_what_leaves() {
    let audited = Audited::start().await;
    audited.calm().await;
    assert_eq!(audited.halted(), "", "in health nothing is halted");
    // The ledger's guards are off for the statement only, as somebody would do it who does not want to be seen.
    let quiet = |statements: &str| {
        format!(
            "alter table funds_ledger_entries disable trigger funds_ledger_entries_no_update; {statements}; \
             alter table funds_ledger_entries enable always trigger funds_ledger_entries_no_update"
        )
    };
    let mut slowest = 0;
    for (invariant, damage, mend) in BREAKS {
        let own = invariant == Invariant::AppendOnly;
        audited.sql(&if own { damage.to_owned() } else { quiet(damage) });
        let looks = audited.looks_until(invariant).await;
        slowest = slowest.max(looks);
        assert!(audited.halted().starts_with("invariant "), "{invariant}: {}", audited.halted());
        audited.sql("update chain_cursors set outflow_halted_at = null, outflow_halted_reason = null");
        audited.looks_until(invariant).await;
        assert!(audited.halted().starts_with("invariant "), "what still stands halts again");
        audited.sql(&if own { mend.to_owned() } else { quiet(mend) });
        audited.calm().await;
        audited.sql("update chain_cursors set outflow_halted_at = null, outflow_halted_reason = null");
        audited.look().await;
        assert_eq!(audited.halted(), "", "{invariant}: mended");
    }
    let live = Invariant::ALL.iter().filter(|invariant| BREAKS.iter().any(|(broken, ..)| broken == *invariant)).count();
    println!("checks live: {live} of {}; the slowest was seen at look {slowest}, one every 10 s", Invariant::ALL.len());
    assert_eq!(live, 10);
    // Watching and crediting go on: only outflow was halted, and each halt is on record.
    audited.books.post(vec![detected(audited.books.payments[0], units(1), "goes-on")]).await.unwrap();
    let recorded = audited.books.base.sql("select count(*) from events where kind = 'invariant.broken'").unwrap();
    assert!(recorded.trim().parse::<usize>().unwrap() >= 2 * BREAKS.len(), "{recorded}");
}

#[tokio::test]
async fn y8_a_look_is_taken_when_it_is_time() {
    let books = Books::open(1).await;
    let auditor = Auditor::new(books.db.clone());
    assert!(auditor.tick(NOW).await.unwrap().is_some());
    assert!(auditor.tick(NOW + Duration::seconds(9)).await.unwrap().is_none());
    assert!(auditor.tick(NOW + Duration::seconds(10)).await.unwrap().is_some());
    assert!(auditor.tick(NOW - Duration::days(1)).await.unwrap().is_some(), "a clock that was set back");
}

/// A slice ends after so much work, and the next begins there: with 1,200 accounts everything is met in turn.
#[tokio::test]
async fn y8_every_account_is_looked_at_in_turn() {
    let books = Books::open(1).await;
    let fund = (0..1_200_u64).map(|number| {
        let mut entry = detected(books.payments[0], units(1), &format!("fund-{number}"));
        entry.debit = AccountKey::Custody(alloy::primitives::Address::left_padding_from(&(number + 1).to_be_bytes()));
        entry
    });
    books.post(fund.collect()).await.unwrap();
    let auditor = Auditor::new(books.db.clone());
    let mut now = NOW;
    for account in [1_i64, 600, 1_201] {
        books.base.sql(&format!("update ledger_balances set version = version + 1 where account_id = {account}")).unwrap();
        let mut looks = 0;
        let met = loop {
            now += Duration::seconds(10);
            looks += 1;
            let look = auditor.tick(now).await.unwrap().unwrap();
            if let Some(violation) = look.violations.into_iter().find(|violation| violation.invariant == Invariant::Balance) {
                break violation;
            }
            assert!(looks <= 6, "account {account} was never looked at");
        };
        assert!(met.what.starts_with(&format!("account {account}:")), "{met:?}");
        books.base.sql(&format!("update ledger_balances set version = version - 1 where account_id = {account}")).unwrap();
    }
}

// === planted faults ===

async fn self_test(books: &Books) -> Result<(), SelfTestError> {
    let mut connection = PgConnection::connect(&books.base.url(APP)).await.unwrap();
    db::self_test(&mut connection).await
}

/// The unique index is gone, as if a migration had lost it: the same credit is posted twice. A start is refused,
/// and a running daemon sees index and double credit.
#[tokio::test]
async fn w1_planted_dropped_unique_index_is_caught() {
    let audited = Audited::start().await;
    let index = "alter table funds_ledger_entries drop constraint funds_ledger_entries_idempotency_key";
    audited.sql(index);
    let payment = audited.books.payments[0];
    audited.books.post(vec![detected(payment, units(100), "verdict:1:credit")]).await.expect("the planted fault lets it through");
    let error = self_test(&audited.books).await.unwrap_err();
    assert!(matches!(&error, SelfTestError::Index { index, .. } if index == "funds_ledger_entries_idempotency_key"), "{error:?}");
    assert!(audited.looks_until(Invariant::Credit).await <= LOOKS_MAX);
    assert!(audited.looks_until(Invariant::AppendOnly).await <= LOOKS_MAX);
    // An index of the same name that lets doubles in is none.
    audited.sql("create index funds_ledger_entries_idempotency_key on funds_ledger_entries (idempotency_key)");
    assert!(matches!(self_test(&audited.books).await.unwrap_err(), SelfTestError::Index { .. }));
}

/// The balance is a sum in a SELECT instead of a row with a CHECK: rivals read the same sum, and each takes it. A
/// start is refused, and the race that guards L3 has more than one winner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l3_planted_sum_check_in_place_of_the_balance_row_is_caught() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    // The account that the rivals credit is open, or they would wait for each other to open it.
    books
        .post(vec![detected(payment, units(110), "a-1"), held(payment, units(110), "a-2"), reserved(payment, units(10), "a-3")])
        .await
        .unwrap();
    let planted = "create or replace function funds_ledger_entries_apply() returns trigger \
         language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$ begin \
         if exists (select from posted p where (select sum(case when credit_account_id = p.debit_account_id then amount_units::numeric \
                    else -(amount_units::numeric) end) from funds_ledger_entries \
                    where p.debit_account_id in (debit_account_id, credit_account_id)) < 0 \
                    and p.debit_account_id in (select id from ledger_accounts where not debit_normal)) then \
             raise exception using errcode = 'check_violation', constraint = 'ledger_balances_no_overdraft', message = 'too little'; \
         end if; perform pg_sleep(0.05); return null; end $$";
    books.base.sql(planted).unwrap();
    let (won, _) = race(&books, (0..8).map(|rival| vec![reserved(payment, units(100), &format!("rival-{rival}"))]).collect()).await;
    println!("with a sum in place of the balance row, {won} of 8 took one hold");
    assert!(won > 1, "the planted fault must show, or the race proves nothing");
    let error = self_test(&books).await.unwrap_err();
    assert!(matches!(&error, SelfTestError::Function { function } if function == "funds_ledger_entries_apply"), "{error:?}");
    let look = Auditor::new(books.db.clone()).tick(NOW).await.unwrap().unwrap();
    let met: Vec<Invariant> = look.violations.iter().map(|violation| violation.invariant).collect();
    assert!(met.contains(&Invariant::AppendOnly) && met.contains(&Invariant::Balance), "{met:?}");
    // The row with its CHECK is itself looked after.
    books.base.sql("alter table ledger_balances drop constraint ledger_balances_no_overdraft").unwrap();
    books.base.sql("alter table ledger_balances add constraint ledger_balances_no_overdraft check (balance > -1)").unwrap();
    let error = self_test(&books).await.unwrap_err();
    assert!(matches!(&error, SelfTestError::Constraint { constraint, .. } if constraint == "ledger_balances_no_overdraft"), "{error:?}");
}

/// The posting trigger is off: entries come and balances stay. A start is refused, and a running daemon sees both.
#[tokio::test]
async fn l2_planted_disabled_trigger_is_caught() {
    let audited = Audited::start().await;
    audited.sql("alter table funds_ledger_entries disable trigger funds_ledger_entries_apply");
    let payment = audited.books.payments[0];
    audited.books.post(vec![detected(payment, units(9), "unseen")]).await.expect("the planted fault lets it through");
    assert_eq!(audited.books.balance(crate::ledger::usdc(), AccountKey::Custody(DEPOSIT)).await, U256::from(160));
    let error = self_test(&audited.books).await.unwrap_err();
    assert!(
        matches!(&error, SelfTestError::Trigger { trigger, found, .. } if trigger == "funds_ledger_entries_apply" && *found == "disabled"),
        "{error:?}"
    );
    audited.looks_until(Invariant::Balance).await;
    audited.looks_until(Invariant::AppendOnly).await;
    assert!(audited.halted().starts_with("invariant "), "{CHAIN}: {}", audited.halted());
}
