//! The pictures of a device in docs/officer.md: drawn from what the station says that a Trezor One will show, which
//! tests/it/signing holds against a device. `UPDATE_PICTURES=1` draws them anew.

use std::path::Path;

use alloy::primitives::U256;
use amanatd::account::{AccountIndex, AddressIndex, Branch, DerivationPath};
use amanatd::chains::ChainBook;
use amanatd::signing::{Definitions, ExpectedScreens, FeeCaps, TransactionDraft, TransactionRequest, Transfer};
use amanatd::units::{Asset, ChainId};

/// Characters that fit into a line of the display.
const LINE: usize = 22;
const WIDTH: usize = 288;
const HEIGHT: usize = 144;
const GAP: usize = 16;

/// What is signed in the pictures: 25 units of a token to a seller.
fn screens(chain: u64, symbol: &str) -> Vec<Vec<String>> {
    let book = ChainBook::parse(include_str!("../../chains.toml")).unwrap();
    let spec = book.get(ChainId::new(chain).unwrap()).unwrap();
    let token = spec.token(symbol).unwrap();
    let request = TransactionRequest::check(
        TransactionDraft {
            chain: spec.id,
            from: DerivationPath::new(AccountIndex::new(0).unwrap(), Branch::Operator, AddressIndex::new(1).unwrap()),
            sender: "0x84a8FdB81aB8C43a1e9f3Ed9D38218d632a0d071".parse().unwrap(),
            nonce: 2,
            transfer: Transfer {
                asset: Asset::Token(token.contract),
                to: "0x3333333333333333333333333333333333333333".parse().unwrap(),
                amount: U256::from(25_000_000),
            },
            fees: FeeCaps { gas_limit: 65_000, max_fee_per_gas: 30_000_000_000, max_priority_fee_per_gas: 1_000_000_000 },
        },
        spec,
    )
    .unwrap();
    let none = Definitions::load(None, spec, Asset::Token(token.contract));
    ExpectedScreens::of(&request, spec, &none).screens.into_iter().map(|screen| screen.lines).collect()
}

/// A line as the display breaks it.
fn broken(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let mut word = word;
        let last = lines.last_mut().unwrap();
        if !last.is_empty() && last.len() + 1 + word.len() <= LINE {
            last.push(' ');
            last.push_str(word);
            continue;
        }
        if !last.is_empty() {
            lines.push(String::new());
        }
        while word.len() > LINE {
            let (part, rest) = word.split_at(LINE);
            lines.last_mut().unwrap().push_str(part);
            lines.push(String::new());
            word = rest;
        }
        lines.last_mut().unwrap().push_str(word);
    }
    lines
}

fn drawn(screens: &[Vec<String>]) -> String {
    let (width, height) = (2 * WIDTH + 3 * GAP, screens.len().div_ceil(2) * (HEIGHT + GAP) + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"monospace\" font-size=\"17\">\n"
    );
    for (place, screen) in screens.iter().enumerate() {
        let (x, y) = (GAP + place % 2 * (WIDTH + GAP), GAP + place / 2 * (HEIGHT + GAP));
        svg += &format!("<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"#000\"/>\n");
        let lines = screen.iter().flat_map(|line| broken(line));
        for (row, line) in lines.enumerate() {
            let weight = if row == 0 { " font-weight=\"bold\"" } else { "" };
            let line = line.replace('&', "&amp;").replace('<', "&lt;");
            svg += &format!("<text x=\"{}\" y=\"{}\" fill=\"#fff\"{weight}>{line}</text>\n", x + 12, y + 24 + row * 20);
        }
        svg += &format!(
            "<text x=\"{}\" y=\"{}\" fill=\"#fff\" font-size=\"13\">{} of {}: Confirm</text>\n",
            x + WIDTH - 120,
            y + HEIGHT - 8,
            place + 1,
            screens.len()
        );
    }
    svg + "</svg>\n"
}

#[test]
fn s11_the_pictures_of_the_device_show_what_it_shows() {
    let officer = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/officer.md")).unwrap();
    for (name, chain, symbol, first) in
        [("release-named.svg", 1, "USDC", "25 USDC"), ("release-unknown.svg", 137, "USDC", "25,000,000 Wei UNKN")]
    {
        let screens = screens(chain, symbol);
        assert_eq!(screens.len(), 4, "one press each");
        assert_eq!(screens[0][1], first);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures").join(name);
        let drawn = drawn(&screens);
        if std::env::var_os("UPDATE_PICTURES").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &drawn).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap() == drawn, "docs/pictures/{name} is old; UPDATE_PICTURES=1 draws it anew");
        assert!(officer.contains(&format!("](pictures/{name})")), "docs/officer.md does not show {name}");
    }
}
