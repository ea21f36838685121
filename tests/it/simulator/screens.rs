//! What the officer sees: amounts, units, recipients, and what no screen says.

use amanatd::devkit::trezor::{Press, Safety, SimulatorOptions, button};
use trezor_client::protos::{
    ApplySettings, EthereumAddress, EthereumGetPublicKey, EthereumSignMessage, EthereumSignTypedHash, Features, Success,
};

use super::client::{
    ADDRESS, APPLY_SETTINGS, FEATURES, GET_ADDRESS, GET_FEATURES, GET_PUBLIC_KEY, PUBLIC_KEY, SIGN_MESSAGE, SIGN_TX, SIGN_TX_EIP1559,
    SIGN_TYPED_HASH, SUCCESS, TX_REQUEST, minimal, path,
};
use super::{FIRST, FIRST_PATH, PAYEE, USDT, eip1559, get_address, legacy, open, transfer};

/// The texts that one request shows.
fn shown<M: protobuf::Message>(id: u16, request: &M, options: SimulatorOptions) -> Vec<String> {
    let (trezor, host) = open(options);
    let (_answer, codes) = host.talk(id, request);
    let screens = trezor.screens();
    let logged: Vec<u8> = screens.iter().filter_map(|screen| screen.button()).map(|code| code as u8).collect();
    assert_eq!(logged, codes, "each button has its screen");
    let numbers: Vec<usize> = screens.iter().map(|screen| screen.number).collect();
    assert_eq!(numbers, (1..=screens.len()).collect::<Vec<_>>());
    screens.iter().map(|screen| screen.text()).collect()
}

fn sent(chain_id: u64, token: &str, amount: u128) -> Vec<String> {
    shown(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, chain_id, token, &transfer(amount)), SimulatorOptions::default())
}

#[test]
fn a_known_token_has_its_name_and_decimals() {
    assert_eq!(
        sent(1, USDT, 123_456_789),
        [
            format!("Send 123.456789 USDT to {PAYEE}?"),
            "Confirm fee Maximum fee per gas 0.00000003 ETH".to_owned(),
            "Confirm fee Priority fee per gas 0.000000001 ETH".to_owned(),
            "Confirm fee Maximum fee 0.003 ETH".to_owned(),
        ]
    );
    let dai = "0x6B175474E89094C44Da98b954EedeAC495271d0F";
    assert_eq!(sent(1, dai, 1_234_567_000_000_000_000_000_001)[0], format!("Send 1,234,567.000000000000000001 DAI to {PAYEE}?"));
}

#[test]
fn unknown_tokens_are_raw_integers_and_the_unit_of_the_fee_is_the_only_hint() {
    for (chain_id, unit) in
        [(1, "ETH"), (56, "BNB"), (137, "POL"), (10, "ETH"), (8453, "ETH"), (42161, "ETH"), (31337, "UNKN"), (43114, "UNKN")]
    {
        let token = if chain_id == 1 { PAYEE } else { USDT };
        let texts = sent(chain_id, token, 123_456_789);
        assert_eq!(texts[0], format!("Send 123,456,789 Wei UNKN to {PAYEE}?"), "{chain_id}");
        assert_eq!(texts[3], format!("Confirm fee Maximum fee 0.003 {unit}"), "{chain_id}");
    }
}

#[test]
fn legacy_has_two_screens() {
    assert_eq!(
        shown(SIGN_TX, &legacy(FIRST_PATH, 56, PAYEE), SimulatorOptions::default()),
        [format!("Send 1 BNB to {PAYEE}?"), "Really send 1 BNB paying up to 0.0005 BNB for gas?".to_owned()]
    );
    let mut little = legacy(FIRST_PATH, 56, PAYEE);
    little.set_value(minimal(999_999_999));
    assert_eq!(shown(SIGN_TX, &little, SimulatorOptions::default())[0], format!("Send 999,999,999 Wei to {PAYEE}?"));
    let mut token = legacy(FIRST_PATH, 1, USDT);
    token.set_value(Vec::new());
    token.set_data_initial_chunk(transfer(5_000_000));
    token.set_data_length(68);
    assert_eq!(
        shown(SIGN_TX, &token, SimulatorOptions::default()),
        [format!("Send 5 USDT to {PAYEE}?"), "Really send token paying up to 0.0005 ETH for gas?".to_owned()]
    );
}

#[test]
fn calldata_is_shown_in_part() {
    let texts = shown(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[0xab; 121]), SimulatorOptions::default());
    assert_eq!(texts.len(), 10);
    assert_eq!(texts[0], format!("Send message to {PAYEE}?"));
    assert_eq!(texts[5], format!("Transaction data {} bytes 97 to 120 of 121", "ab".repeat(24)));
    assert_eq!(texts[6], "Transaction data 1 more bytes are not shown");
}

#[test]
fn a_transfer_that_is_split_or_has_a_padded_value_is_raw_data() {
    let mut padded = eip1559(FIRST_PATH, 1, USDT, &transfer(1));
    padded.set_value(vec![0]);
    let (_trezor, host) = open(SimulatorOptions::default());
    assert_eq!(host.talk(SIGN_TX_EIP1559, &padded).1, [8; 7]);
    let mut split = eip1559(FIRST_PATH, 1, USDT, &transfer(1));
    split.set_data_initial_chunk(transfer(1)[..67].to_vec());
    assert_eq!(host.talk(SIGN_TX_EIP1559, &split).1, [8; 7]);
}

#[test]
fn a_recipient_that_is_no_address_creates_a_contract() {
    let not_hex = format!("0x{}zz", "22".repeat(19));
    for to in ["", &not_hex, "0x1234", &format!("0x{}", "2".repeat(38))] {
        let texts = shown(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, to, &[1]), SimulatorOptions::default());
        assert_eq!(texts[0], "Send message to new contract?", "{to}");
    }
    let (_trezor, host) = open(SimulatorOptions::default());
    assert_eq!(host.call(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, "", &[])).failure(), 3);
}

#[test]
fn padded_integers_are_signed_as_they_came() {
    let (_trezor, host) = open(SimulatorOptions::default());
    let (minimal_one, _) = host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[]));
    let mut padded = eip1559(FIRST_PATH, 1, PAYEE, &[]);
    padded.set_nonce(vec![0, 1]);
    let (padded_one, _) = host.talk(SIGN_TX_EIP1559, &padded);
    assert_eq!((minimal_one.id, padded_one.id), (TX_REQUEST, TX_REQUEST));
    assert_ne!(minimal_one.payload, padded_one.payload, "the hash is over the bytes, not over the number");
}

#[test]
fn d1_paths_end_where_the_device_ends() {
    let allowed =
        ["m/44'/60'/0'/0/1000000", "m/44'/60'/100'/1/0", "m/44'/60'/100'", "m/44'/60'/0'/100", "m/44'/1'/0'/0/0", "m/45'/60/2/1/1"];
    let forbidden = [
        "m/44'/60'/0'/0/1000001",
        "m/44'/60'/101'/0/0",
        "m/44'/60'/0'/2/0",
        "m/44'/60/0'/0/0",
        "m/44'/60'/0/0/0",
        "m/44'/60'",
        "m/44'/60'/1'/5",
        "m/44'/60'/0'/0/0/0",
        "m/44'/966'/0'/0/0",
        "m/45'/60'/2/1/1",
    ];
    let (_trezor, host) = open(SimulatorOptions::default());
    for at in allowed {
        assert_eq!(host.talk(SIGN_TX_EIP1559, &eip1559(at, 1, PAYEE, &[])).0.id, TX_REQUEST, "{at}");
    }
    for at in forbidden {
        let (answer, codes) = host.talk(SIGN_TX_EIP1559, &eip1559(at, 1, PAYEE, &[]));
        assert_eq!((answer.failure(), codes.len()), (3, 0), "{at}");
    }
    for (chain_id, at, ok) in [
        (56, "m/44'/714'/0'/0/0", true),
        (137, "m/44'/966'/0'/0/0", true),
        (56, "m/44'/1'/0'/0/0", false),
        (137, "m/44'/714'/0'/0/0", false),
        (11_155_111, "m/44'/1'/0'/0/0", true),
        (999, "m/44'/60'/0'/0/0", true),
    ] {
        let (answer, _) = host.talk(SIGN_TX_EIP1559, &eip1559(at, chain_id, PAYEE, &[]));
        assert_eq!(answer.id == TX_REQUEST, ok, "{chain_id} {at}");
    }
    let prompt = SimulatorOptions { safety: Safety::Prompt, ..SimulatorOptions::default() };
    let texts = shown(SIGN_TX_EIP1559, &eip1559(forbidden[0], 1, PAYEE, &[]), prompt);
    assert_eq!((texts.len(), texts[0].as_str()), (5, "Unusual key path m/44'/60'/0'/0/1000001 Continue at your own risk?"));
}

#[test]
fn an_address_on_display_is_left_by_confirming_only() {
    let (trezor, host) = open(SimulatorOptions::default());
    trezor.officer().script([Press::Reject, Press::Reject, Press::Reject, Press::Confirm]);
    let mut request = get_address(FIRST_PATH);
    request.set_show_display(true);
    let (answer, codes) = host.talk(GET_ADDRESS, &request);
    assert_eq!(answer.expect::<EthereumAddress>(ADDRESS).address(), FIRST);
    assert_eq!(codes, [10; 4]);
    let texts: Vec<String> = trezor.screens().iter().map(|screen| screen.text()).collect();
    assert_eq!(texts[0], format!("Confirm address {FIRST}"));
    assert_eq!(texts[1], format!("Address as QR code {FIRST}"));
    assert_eq!(texts[2], texts[0]);
}

#[test]
fn a_public_key_on_display() {
    let (trezor, host) = open(SimulatorOptions::default());
    let mut request = EthereumGetPublicKey::new();
    request.address_n = path("m/44'/60'/0'");
    request.set_show_display(true);
    let (answer, codes) = host.talk(GET_PUBLIC_KEY, &request);
    assert_eq!((answer.id, codes), (PUBLIC_KEY, vec![11]));
    assert!(trezor.screens()[0].text().starts_with("Confirm public key xpub6CNFa58k"));
    trezor.officer().reject_at(1);
    assert_eq!(host.talk(GET_PUBLIC_KEY, &request).0.failure(), 4);
}

#[test]
fn messages_and_typed_hashes_name_the_signer() {
    let mut message = EthereumSignMessage::new();
    message.address_n = path(FIRST_PATH);
    message.set_message(b"I own this account".to_vec());
    assert_eq!(
        shown(SIGN_MESSAGE, &message, SimulatorOptions::default()),
        [format!("Sign message with {FIRST}?"), "Message 1/1 I own this account".to_owned()]
    );
    let mut hash = EthereumSignTypedHash::new();
    hash.address_n = path(FIRST_PATH);
    hash.set_domain_separator_hash(vec![0x11; 32]);
    let texts = shown(SIGN_TYPED_HASH, &hash, SimulatorOptions::default());
    assert_eq!(texts[2], format!("Domain hash 0x{}", "11".repeat(32)));
    hash.set_domain_separator_hash(vec![0x11; 31]);
    assert_eq!(open(SimulatorOptions::default()).1.talk(SIGN_TYPED_HASH, &hash).0.failure(), 3);
    message.set_message(vec![b'x'; 1025]);
    assert_eq!(open(SimulatorOptions::default()).1.talk(SIGN_MESSAGE, &message).0.failure(), 3);
}

#[test]
fn whoever_watches_is_told_of_each_screen() {
    let (trezor, host) = open(SimulatorOptions::default());
    let officer = trezor.officer();
    officer.absent();
    let watched = officer.watch();
    let person = std::thread::spawn(move || {
        watched.iter().take(4).inspect(|screen| assert!(officer.confirm(), "{screen:?}")).map(|screen| screen.number).collect::<Vec<_>>()
    });
    let (answer, _) = host.talk(SIGN_TX_EIP1559, &eip1559(FIRST_PATH, 1, PAYEE, &[]));
    assert_eq!(answer.id, TX_REQUEST);
    assert_eq!(person.join().unwrap(), [1, 2, 3, 4]);
}

#[test]
fn settings_are_applied_after_a_button_each() {
    let (trezor, host) = open(SimulatorOptions::default());
    let mut settings = ApplySettings::new();
    settings.set_label("Till 7".to_owned());
    settings.set_use_passphrase(true);
    settings.set_auto_lock_delay_ms(60_000);
    settings.set_safety_checks(trezor_client::protos::SafetyCheckLevel::PromptTemporarily);
    let (answer, codes) = host.talk(APPLY_SETTINGS, &settings);
    answer.expect::<Success>(SUCCESS);
    assert_eq!(codes, [button::PROTECT_CALL as u8; 4]);
    let features: Features = host.call_raw(GET_FEATURES, &[]).expect(FEATURES);
    assert_eq!((features.label(), features.passphrase_protection(), features.auto_lock_delay_ms()), ("Till 7", true, 60_000));
    assert_eq!(features.safety_checks.unwrap().value(), 2);
    trezor.plug_in();
    let features: Features = host.call_raw(GET_FEATURES, &[]).expect(FEATURES);
    assert_eq!(features.safety_checks.unwrap().value(), 0, "temporary means until power is cut");
    assert_eq!(host.call(APPLY_SETTINGS, &ApplySettings::new()).failure(), 3);
}

#[test]
fn fields_out_of_bounds_are_refused_before_any_screen() {
    let (trezor, host) = open(SimulatorOptions::default());
    let base = || eip1559(FIRST_PATH, 1, PAYEE, &[1]);
    let mut cases = vec![base(), base(), base(), base(), base(), base(), base()];
    cases[0].set_chain_id(0);
    cases[1].set_data_length(0);
    cases[2].set_data_initial_chunk(Vec::new());
    cases[3].set_data_length(16_000_001);
    cases[4].set_max_gas_fee(vec![1; 28]);
    cases[5].set_value(vec![1; 33]);
    cases[6].set_data_initial_chunk(vec![1; 1025]);
    for case in cases {
        assert_eq!(host.call(SIGN_TX_EIP1559, &case).failure(), 3);
    }
    assert!(trezor.screens().is_empty());
}
