//! Money at our own addresses that belongs to no payment, and losses: out of suspense by two officers, and by nothing else.

use alloy::primitives::{Address, U256, address};
use amanatd::api::wire::{AdjustmentAsked, RefundPayment, SuspendedView};
use amanatd::db::DbError;
use amanatd::ledger::{self, AccountKey, Entry, EntryType, LedgerError};
use amanatd::units::{PaymentId, ProposalId, TokenAmount};
use uuid::Uuid;

use super::Way;

const HOME: Address = address!("0x4444444444444444444444444444444444444444");

impl Way {
    /// Tokens that come to an operator address without a payment.
    async fn stray(&self, purpose: &str, amount: &str) -> SuspendedView {
        let to = self.operator(purpose).await;
        self.pay(self.usdc, to, amount).await;
        self.deepen().await;
        let mut suspended = self.marketplace.suspended(None).await.unwrap().suspended;
        assert_eq!(suspended.len(), 1, "{suspended:?}");
        let suspended = suspended.remove(0);
        assert_eq!((suspended.address, suspended.amount.as_str(), suspended.proposal), (Some(to), amount, None));
        suspended
    }

    async fn of_nobody(&self) -> U256 {
        self.balance(self.token(self.usdc), AccountKey::Suspense(None)).await
    }
}

fn about(act: &str, entry: i64, payment: Option<PaymentId>) -> AdjustmentAsked {
    AdjustmentAsked {
        act: act.to_owned(),
        entry: Some(entry),
        payment_id: payment,
        reason: "looked into".to_owned(),
        ..AdjustmentAsked::default()
    }
}

fn loss(act: &str, amount: &str, address: Option<Address>) -> AdjustmentAsked {
    AdjustmentAsked {
        act: act.to_owned(),
        chain_id: Some(31_337),
        asset: Some("USDC".to_owned()),
        amount: Some(amount.to_owned()),
        address: address.map(|address| address.to_string()),
        reason: "looked into".to_owned(),
        ..AdjustmentAsked::default()
    }
}

fn key() -> String {
    Uuid::new_v4().to_string()
}

#[tokio::test]
async fn s6_money_that_came_for_nobody_goes_back_to_its_sender_by_two_officers() {
    let way = Way::start().await;
    let second = way.another("second").await;
    let payment = way.payment("USDC", "40", 0).await;
    let suspended = way.stray("treasury", "25").await;
    assert_eq!(way.of_nobody().await, U256::from(25_000_000));
    // One officer alone moves nothing, whatever the route; nor does the marketplace.
    let asked = about("attribute", suspended.entry, Some(payment.id));
    assert!(way.marketplace.adjust(&asked, &key()).await.is_err());
    let first = way.officer.adjust(&asked, &key()).await.unwrap();
    let rival = second.adjust(&about("own", suspended.entry, None), &key()).await.unwrap();
    assert!(way.officer.confirm(ProposalId(first.id), first.digest).await.is_err());
    assert_eq!(way.of_nobody().await, U256::from(25_000_000));
    assert_eq!(way.marketplace.suspended(None).await.unwrap().suspended[0].proposal, Some(rival.id));
    let past = Entry {
        entry_type: EntryType::Adjustment,
        payment: None,
        amount: TokenAmount::new(way.token(way.usdc), U256::from(1)),
        decimals: 6,
        debit: AccountKey::Suspense(None),
        credit: AccountKey::Operator,
        reverses: None,
        key: format!("adjustment:{}", first.id),
        memo: "mine".to_owned(),
    };
    let refused =
        way.api.db.unit::<_, LedgerError, _>(move |connection| Box::pin(async move { ledger::store::append(connection, &[past]).await }));
    match refused.await {
        Err(LedgerError::Db(error)) => assert_eq!(error.constraint(), Some("funds_ledger_entries_adjustment_decided"), "{error:?}"),
        other => panic!("{other:?}"),
    }
    let unconfirmed =
        format!("insert into ledger_adjustments (proposal_id, act, entry_id) values ({}, 'attribute', {})", first.id, suspended.entry);
    let refused: Result<(), DbError> = way
        .api
        .db
        .unit(move |connection| {
            Box::pin(async move {
                sqlx::query(sqlx::AssertSqlSafe(unconfirmed)).execute(connection).await?;
                Ok(())
            })
        })
        .await;
    assert_eq!(refused.unwrap_err().constraint(), Some("ledger_adjustments_confirmed"));

    second.confirm(ProposalId(first.id), first.digest).await.unwrap();
    assert_eq!(way.of_nobody().await, U256::ZERO);
    assert_eq!(way.balance(way.token(way.usdc), AccountKey::Suspense(Some(payment.id))).await, U256::from(25_000_000));
    assert_eq!(way.exceptions(payment.id).await, ["held"]);
    // The same money is decided about once.
    let twice = way.officer.confirm(ProposalId(rival.id), rival.digest).await.unwrap_err();
    assert_eq!(twice.code(), Some("nothing_to_accept"), "{twice}");
    let again = way.officer.adjust(&about("own", suspended.entry, None), &key()).await.unwrap_err();
    assert_eq!(again.code(), Some("nothing_to_accept"), "{again}");
    assert!(way.marketplace.suspended(None).await.unwrap().suspended.is_empty());

    // From there it goes like any refund: ordered, planned from where it is, approved, signed.
    let back = RefundPayment { from: "suspense".to_owned(), to: HOME.to_string(), ..RefundPayment::default() };
    way.marketplace.refund(payment.id, &back, &key()).await.unwrap();
    way.rounds().await;
    let refund = way.outflow("refund").await;
    assert_eq!((refund.from_address, refund.to_address), (way.operator("treasury").await, HOME));
    assert_eq!(way.chain.balance_of(way.usdc, HOME).await.unwrap(), U256::from(25_000_000));
    assert_eq!((way.read(payment.id).await.status, way.exceptions(payment.id).await), ("pending".to_owned(), Vec::new()));
    way.assert_sound().await;
}

#[tokio::test]
async fn s6_tokens_at_the_gas_address_are_refunded_from_there_or_are_the_operators_own() {
    let way = Way::start().await;
    let second = way.another("second").await;
    let payment = way.payment("USDC", "40", 0).await;
    let suspended = way.stray("gas", "5").await;
    let proposal = way.officer.adjust(&about("attribute", suspended.entry, Some(payment.id)), &key()).await.unwrap();
    second.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
    let back = RefundPayment { from: "suspense".to_owned(), to: HOME.to_string(), ..RefundPayment::default() };
    way.marketplace.refund(payment.id, &back, &key()).await.unwrap();
    way.rounds().await;
    assert_eq!(way.outflow("refund").await.from_address, way.operator("gas").await);

    let suspended = way.stray("treasury", "7").await;
    let proposal = way.officer.adjust(&about("own", suspended.entry, None), &key()).await.unwrap();
    second.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
    let usdc = way.token(way.usdc);
    assert_eq!((way.of_nobody().await, way.balance(usdc, AccountKey::Operator).await), (U256::ZERO, U256::from(7_000_000)));
    way.assert_sound().await;

    // A loss is booked and borne by two officers each time; never more than there is.
    let treasury = way.operator("treasury").await;
    assert_eq!(way.officer.adjust(&loss("lost", "8", Some(treasury)), &key()).await.unwrap_err().code(), Some("not_enough"));
    assert!(way.officer.adjust(&loss("lost", "1", Some(HOME)), &key()).await.is_err(), "no address of ours");
    assert_eq!(way.officer.adjust(&loss("cover", "1", None), &key()).await.unwrap_err().code(), Some("not_enough"), "nothing is lost");
    for (asked, shortfall, operator) in
        [(loss("lost", "2", Some(treasury)), 2_000_000_u64, 7_000_000_u64), (loss("cover", "2", None), 0, 5_000_000)]
    {
        let proposal = way.officer.adjust(&asked, &key()).await.unwrap();
        second.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
        assert_eq!(way.balance(usdc, AccountKey::Shortfall).await, U256::from(shortfall));
        assert_eq!(way.balance(usdc, AccountKey::Operator).await, U256::from(operator));
    }
    way.assert_books().await;
}

#[tokio::test]
async fn w3_money_that_is_only_credited_is_not_decided_about() {
    let way = Way::start().await;
    let treasury = way.operator("treasury").await;
    way.pay(way.usdc, treasury, "5").await;
    way.chain.mine(2).await.unwrap();
    way.rounds().await;
    let suspended = way.marketplace.suspended(None).await.unwrap().suspended.remove(0);
    let refused = way.officer.adjust(&about("own", suspended.entry, None), &key()).await.unwrap_err();
    assert_eq!(refused.code(), Some("only_credited"), "{refused}");
}
