//! A QR code as the path of an SVG.
//!
//! It holds the plain address and nothing else. Payment URIs (EIP-681) are read by few wallets, and by some
//! of them wrongly: a token transfer becomes one of the chain's coin. What to pay with is said in words.

use qrcode::{Color, EcLevel, QrCode};

/// Dark modules in a square of `side` modules, the quiet zone included.
#[derive(Clone, Debug)]
pub(super) struct Qr {
    pub side: usize,
    pub path: String,
}

/// Light modules that scanners want around a code.
const QUIET: usize = 4;

impl Qr {
    /// `None` if the text does not fit, which an address does.
    pub(super) fn of(text: &str) -> Option<Self> {
        let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
        let width = code.width();
        let modules = code.to_colors();
        let mut path = String::new();
        for (y, row) in modules.chunks(width).enumerate() {
            let mut x = 0;
            while x < width {
                let run = row[x..].iter().take_while(|module| **module == Color::Dark).count();
                if run > 0 {
                    path.push_str(&format!("M{} {}h{run}v1h-{run}z", x + QUIET, y + QUIET));
                }
                x += run.max(1);
            }
        }
        Some(Self { side: width + 2 * QUIET, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dark_module_is_drawn_once() {
        let text = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
        let qr = Qr::of(text).unwrap();
        let code = QrCode::with_error_correction_level(text, EcLevel::M).unwrap();
        let dark = code.to_colors().into_iter().filter(|module| *module == Color::Dark).count();
        let drawn: usize = qr.path.split('h').skip(1).filter_map(|rest| rest.split('v').next()?.parse::<usize>().ok()).sum();
        assert_eq!(drawn, dark);
        assert_eq!(qr.side, code.width() + 8);
    }
}
