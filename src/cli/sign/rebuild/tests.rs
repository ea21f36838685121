//! What a daemon that lies would send, and that none of it is rebuilt.

use alloy::primitives::Address;

use super::*;
use crate::api::wire::IntentView;
use crate::units::{IntentId, PaymentId};

const XPUB: &str = "xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke";
const USDT: &str = "0xdAC17F958D2ee523a2206206994597C13D831ec7";
const OUTSIDE: Address = Address::repeat_byte(0x22);
const DEPOSIT: &str = "m/44'/60'/0'/0/7";
const GAS: &str = "m/44'/60'/0'/1/0";
const TREASURY: &str = "m/44'/60'/0'/1/1";

fn xpub() -> AccountXpub {
    XPUB.parse().unwrap()
}

fn at(path: &str) -> Address {
    derive(&xpub(), path.parse().unwrap()).unwrap()
}

fn rules() -> Rules {
    let book = ChainBook::parse(include_str!("../../../../chains.toml")).unwrap();
    Rules { book, max_fee: "0.05".to_owned() }.check().unwrap()
}

/// A sweep of 123.456789 USDT, without a digest yet.
fn fields() -> IntentView {
    IntentView {
        id: IntentId(Uuid::from_u128(1)),
        kind: "sweep".to_owned(),
        state: "approved".to_owned(),
        state_version: 2,
        revision: 1,
        chain_id: 1,
        from_path: DEPOSIT.to_owned(),
        from_address: at(DEPOSIT),
        to_address: at(TREASURY),
        to_path: Some(TREASURY.to_owned()),
        asset: USDT.to_owned(),
        symbol: "USDT".to_owned(),
        amount: "123.456789".to_owned(),
        amount_units: "123456789".to_owned(),
        nonce: 3,
        gas_limit: 65_000,
        max_fee_per_gas: "30000000000".to_owned(),
        max_priority_fee_per_gas: "1000000000".to_owned(),
        payment_id: Some(PaymentId(Uuid::from_u128(9))),
        destination_id: Some(Uuid::from_u128(10)),
        digest: Default::default(),
        approvals: 1,
        approvals_required: 1,
        approvals_expire_minutes: 1_440,
        policy_id: None,
        revised_by: None,
        cancels: None,
        tx_hash: None,
    }
}

/// With the digest of its fields: a daemon that lies everywhere alike.
fn approved(edit: impl FnOnce(&mut IntentView)) -> IntentView {
    let mut view = fields();
    edit(&mut view);
    let told = intent_of(&view).unwrap_err().to_string();
    let digest = told.strip_prefix("the digest of these fields is ").and_then(|rest| rest.get(..66)).unwrap();
    view.digest = digest.parse().unwrap();
    view
}

fn refusal(view: &IntentView) -> String {
    let rules = rules();
    format!("{:#}", rules.rebuild(&xpub(), view).unwrap_err())
}

#[test]
fn s6_a_field_that_was_not_approved_is_refused() {
    let edits: [fn(&mut IntentView); 12] = [
        |view| view.id = IntentId(Uuid::from_u128(2)),
        |view| view.kind = "release".to_owned(),
        |view| view.revision = 2,
        |view| view.chain_id = 56,
        |view| view.from_path = "m/44'/60'/0'/0/8".to_owned(),
        |view| view.to_address = OUTSIDE,
        |view| view.asset = "native".to_owned(),
        |view| view.amount_units = "123456790".to_owned(),
        |view| view.nonce = 4,
        |view| view.max_fee_per_gas = "30000000001".to_owned(),
        |view| view.payment_id = None,
        |view| view.destination_id = None,
    ];
    rules().rebuild(&xpub(), &approved(|_| {})).unwrap();
    for edit in edits {
        let mut view = approved(|_| {});
        edit(&mut view);
        let told = refusal(&view);
        assert!(told.contains("they are not what was approved"), "{told}");
    }
}

#[test]
fn what_is_shown_is_this_stations_reading() {
    let rules = rules();
    let view = approved(|view| {
        view.amount = "1".to_owned();
        view.symbol = "\u{1b}[2KUSDC".to_owned();
    });
    let text = rules.rebuild(&xpub(), &view).unwrap().lines().join("\n");
    for shown in ["sweep 0", "123.456789 USDT (123456789 base units)", "Ethereum (1)", "0.00195 ETH", TREASURY, "(treasury, derived here)"]
    {
        assert!(text.contains(shown), "{shown} in\n{text}");
    }
    assert!(!text.contains("USDC") && !text.contains('\u{1b}'), "{text}");
    let release = approved(|view| {
        view.kind = "release".to_owned();
        (view.from_path, view.from_address) = (TREASURY.to_owned(), at(TREASURY));
        (view.to_address, view.to_path) = (OUTSIDE, None);
    });
    let text = rules.rebuild(&xpub(), &release).unwrap().lines().join("\n");
    assert!(text.contains("0x2222222222222222222222222222222222222222  (as approved; not derived here)"), "{text}");
}

#[test]
fn n9_a_cancel_pays_nobody_and_is_of_what_it_names() {
    let cancel = |edit: fn(&mut IntentView)| {
        approved(|view| {
            (view.kind, view.asset, view.amount_units) = ("cancel".to_owned(), "native".to_owned(), "0".to_owned());
            (view.to_address, view.to_path) = (view.from_address, None);
            (view.destination_id, view.cancels) = (None, Some(IntentId(Uuid::from_u128(7))));
            edit(view);
        })
    };
    let rules = rules();
    let view = cancel(|_| {});
    let text = rules.rebuild(&xpub(), &view).unwrap().lines().join("\n");
    assert!(text.contains("(itself)") && text.contains(&Uuid::from_u128(7).to_string()), "{text}");
    let other = IntentView { cancels: Some(IntentId(Uuid::from_u128(8))), ..view };
    assert!(refusal(&other).contains("not what was approved"), "{}", refusal(&other));
    let paying = cancel(|view| view.amount_units = "1".to_owned());
    assert!(refusal(&paying).contains("only a cancel of amount 0"), "{}", refusal(&paying));
    let elsewhere = cancel(|view| view.to_address = OUTSIDE);
    assert!(!refusal(&elsewhere).is_empty());
    let token = cancel(|view| view.asset = USDT.to_owned());
    assert!(!refusal(&token).is_empty());
}

#[test]
fn a_sweep_goes_to_the_treasury_and_nowhere_else() {
    for (to, path, told) in [
        (OUTSIDE, None, "a sweep to an address that is not ours"),
        (OUTSIDE, Some(TREASURY), "of this account is"),
        (at(GAS), Some(GAS), "which is no treasury address"),
        (at("m/44'/60'/0'/0/8"), Some("m/44'/60'/0'/0/8"), "which is no treasury address"),
        (at("m/44'/60'/0'/1/2"), Some("m/44'/60'/0'/1/2"), "which is no treasury address"),
        (at(TREASURY), Some("m/44'/60'/1'/1/1"), "of this account is"),
    ] {
        let view = approved(|view| (view.to_address, view.to_path) = (to, path.map(str::to_owned)));
        assert!(refusal(&view).contains(told), "{told}: {}", refusal(&view));
    }
    let from_gas = approved(|view| (view.from_path, view.from_address) = (GAS.to_owned(), at(GAS)));
    assert!(refusal(&from_gas).contains("a sweep from m/44'/60'/0'/1/0, which is no deposit address"));
}

#[test]
fn fuel_goes_from_the_gas_address_to_a_deposit_address() {
    let fuel = |view: &mut IntentView| {
        view.kind = "fuel".to_owned();
        view.asset = "native".to_owned();
        (view.from_path, view.from_address) = (GAS.to_owned(), at(GAS));
        (view.to_address, view.to_path) = (at(DEPOSIT), Some(DEPOSIT.to_owned()));
    };
    let rules = rules();
    assert_eq!(rules.rebuild(&xpub(), &approved(fuel)).unwrap().to.unwrap().1, Purpose::Deposit);
    let from_treasury = approved(|view| {
        fuel(view);
        (view.from_path, view.from_address) = (TREASURY.to_owned(), at(TREASURY));
    });
    assert!(refusal(&from_treasury).contains("which is no gas address"));
    let to_treasury = approved(|view| {
        fuel(view);
        (view.to_address, view.to_path) = (at(TREASURY), Some(TREASURY.to_owned()));
    });
    assert!(refusal(&to_treasury).contains("which is no deposit address"));
    let of_tokens = approved(|view| {
        fuel(view);
        view.asset = USDT.to_owned();
    });
    assert!(refusal(&of_tokens).contains("fuel is the chain's own coin"));
}

#[test]
fn fees_above_the_limit_are_refused_with_both_numbers() {
    let dear = approved(|view| view.max_fee_per_gas = "800000000000".to_owned());
    let told = refusal(&dear);
    assert!(told.contains("0.052 ETH") && told.contains("0.05 ETH") && told.contains("--max-fee"), "{told}");
    let patient = Rules { max_fee: "0.052".to_owned(), ..rules() };
    patient.rebuild(&xpub(), &dear).unwrap();
    for slip in ["", "-1", "1e3", "0,05", "0.0000000000000000001"] {
        assert!(Rules { max_fee: slip.to_owned(), ..rules() }.check().is_err(), "{slip:?}");
    }
}

#[test]
fn foreign_senders_chains_and_kinds_are_refused() {
    let told = refusal(&approved(|view| view.from_address = OUTSIDE));
    assert!(told.contains("on this account, not 0x2222"), "{told}");
    let told = refusal(&approved(|view| view.from_path = "m/44'/60'/1'/0/7".to_owned()));
    assert!(told.contains("on this account, not"), "{told}");
    assert!(refusal(&approved(|view| view.chain_id = 4)).contains("not in this station's chains.toml"));
    assert!(refusal(&approved(|view| view.asset = OUTSIDE.to_string())).contains("is not a listed token"));
    for edit in
        [|view: &mut IntentView| view.kind = "gift".to_owned(), |view: &mut IntentView| view.from_path = "m/44'/60'/0'/1/2".to_owned()]
    {
        let mut view = fields();
        edit(&mut view);
        assert!(intent_of(&view).is_err());
    }
    let cancel = approved(|view| view.kind = "cancel".to_owned());
    assert!(refusal(&cancel).contains("only a cancel pays its own sender"));
}
