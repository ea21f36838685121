//! What the display says. Texts are the simulator's own; amounts, units and the order of screens
//! are the device's. No screen shows the chain's name, the token's contract or the nonce.

use alloy::primitives::{Address, U256, hex};

use super::definition::Known;
use super::network::{Network, Token};
use super::path;
use super::transaction::{Fee, Payment, Transaction};

/// Bytes of calldata on one screen, and how many such screens there are at most.
const DATA_BYTES: usize = 24;
const DATA_SCREENS_MAX: usize = 5;

/// Below this, native amounts are shown in wei, and without the coin.
const NATIVE_MIN: u64 = 1_000_000_000;

const NATIVE_DECIMALS: usize = 18;
const UNKNOWN: &str = "UNKN";

/// Lines of one screen.
pub(super) type Lines = Vec<String>;

/// Amount and recipient.
pub(super) fn send(tx: &Transaction, known: &Known) -> Lines {
    let (amount, to) = match tx.payment() {
        Payment::Token { amount, to } => (token(amount, known.token.as_ref()), Some(to)),
        Payment::Native => {
            let value = number(&tx.value);
            let amount = if value.is_zero() { "message".to_owned() } else { native(value, known.network.as_ref()) };
            (amount, tx.to)
        }
    };
    let to = to.map_or_else(|| "to new contract?".to_owned(), |to| format!("to {to}?"));
    lines(["Send", &amount, &to])
}

/// The fee screens: two more for EIP-1559 than for legacy.
pub(super) fn fees(tx: &Transaction, known: &Known) -> Vec<Lines> {
    let network = known.network.as_ref();
    let limit = number(&tx.gas_limit);
    match &tx.fee {
        Fee::Legacy { gas_price } => {
            let what = match tx.payment() {
                Payment::Token { .. } => "token".to_owned(),
                Payment::Native if number(&tx.value).is_zero() => "message".to_owned(),
                Payment::Native => native(number(&tx.value), network),
            };
            let most = native(number(gas_price).saturating_mul(limit), network);
            vec![lines(["Really send", &what, "paying up to", &most, "for gas?"])]
        }
        Fee::Eip1559 { max, priority } => [
            ("Maximum fee per gas", number(max)),
            ("Priority fee per gas", number(priority)),
            ("Maximum fee", number(max).saturating_mul(limit)),
        ]
        .map(|(which, amount)| lines(["Confirm fee", which, &native(amount, network)]))
        .into(),
    }
}

/// The beginning of calldata that is no token transfer.
pub(super) fn data(initial: &[u8], length: usize) -> Vec<Lines> {
    let pages = initial.chunks(DATA_BYTES).take(DATA_SCREENS_MAX).enumerate();
    pages
        .map(|(page, bytes)| {
            let from = page * DATA_BYTES + 1;
            let place = format!("bytes {from} to {} of {length}", from + bytes.len() - 1);
            lines(["Transaction data", &hex::encode(bytes), &place])
        })
        .collect()
}

/// The warning that calldata goes on where the screens end.
pub(super) fn more_data(length: usize) -> Option<Lines> {
    let hidden = length.checked_sub(DATA_BYTES * DATA_SCREENS_MAX).filter(|hidden| *hidden > 0)?;
    Some(lines(["Transaction data", &format!("{hidden} more bytes are not shown")]))
}

/// A message, page by page: 72 characters if all of it is ASCII, else 32 bytes in hex.
pub(super) fn message(signer: Address, message: &[u8]) -> Vec<Lines> {
    let ascii = message.iter().all(|byte| (0x20..0x7f).contains(byte));
    let pages: Vec<String> = if message.is_empty() {
        vec![String::new()]
    } else if ascii {
        message.chunks(72).map(|page| String::from_utf8_lossy(page).into_owned()).collect()
    } else {
        message.chunks(32).map(hex::encode).collect()
    };
    let count = pages.len();
    let pages = pages.iter().enumerate().map(|(page, text)| lines([&format!("Message {}/{count}", page + 1), text]));
    std::iter::once(lines(["Sign message with", &format!("{signer}?")])).chain(pages).collect()
}

/// Who signs typed data, and the two hashes which are all the device knows of it.
pub(super) fn typed_hash(signer: Address, domain: &[u8], message: Option<&[u8]>) -> Vec<Lines> {
    let hash = |title, bytes| lines([title, &format!("0x{}", hex::encode(bytes))]);
    let mut screens = vec![lines(["Sign typed data with", &format!("{signer}?")]), hash("Domain hash", domain)];
    screens.extend(message.map(|message| hash("Message hash", message)));
    screens
}

/// A path outside the rules.
pub(super) fn unusual_path(steps: &[u32]) -> Lines {
    lines(["Unusual key path", &path::text(steps), "Continue at your own risk?"])
}

/// Lines from text, for screens that are said in one place only.
pub(super) fn lines<const N: usize>(lines: [&str; N]) -> Lines {
    lines.map(str::to_owned).into()
}

/// An integer as the device reads it: big-endian, any padding.
pub(super) fn number(bytes: &[u8]) -> U256 {
    U256::try_from_be_slice(bytes).expect("the fields were checked to have at most 32 bytes")
}

fn native(amount: U256, network: Option<&Network>) -> String {
    if amount < U256::from(NATIVE_MIN) {
        return format!("{} Wei", decimal(amount, 0));
    }
    let symbol = network.map_or(UNKNOWN, |network| &network.symbol);
    format!("{} {symbol}", decimal(amount, NATIVE_DECIMALS))
}

fn token(amount: U256, token: Option<&Token>) -> String {
    match token {
        Some(token) => {
            let decimals = usize::try_from(token.decimals).unwrap_or(usize::MAX);
            format!("{} {}", decimal(amount, decimals.min(78)), token.symbol)
        }
        None => format!("{} Wei {UNKNOWN}", decimal(amount, 0)),
    }
}

/// Digits with the point in its place, commas between thousands, no zeros at the end.
fn decimal(amount: U256, decimals: usize) -> String {
    let digits = amount.to_string();
    let digits = format!("{digits:0>width$}", width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_commas_and_no_trailing_zeros() {
        let cases = [
            (0_u64, 0, "0"),
            (0, 18, "0"),
            (1, 6, "0.000001"),
            (123_456_789, 6, "123.456789"),
            (123_456_789, 0, "123,456,789"),
            (1_234_500_000, 6, "1,234.5"),
            (999, 0, "999"),
            (1_000, 0, "1,000"),
            (1_000_000, 3, "1,000"),
        ];
        for (amount, decimals, text) in cases {
            assert_eq!(decimal(U256::from(amount), decimals), text);
        }
        let max = decimal(U256::MAX, 78);
        assert!(max.starts_with("0.115792089"), "{max}");
    }
}
