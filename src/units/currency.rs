//! The currencies in which the marketplace prices its offers.

use std::fmt;
use std::str::FromStr;

/// `offer_currency`, the marketplace's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(type_name = "offer_currency", rename_all = "UPPERCASE")]
pub enum Currency {
    Usd,
    Eur,
    /// Rial. Ten rial are one toman; no amount here is in toman.
    Irr,
    Usdt,
    Usdc,
    Try,
}

impl Currency {
    pub const ALL: [Self; 6] = [Self::Usd, Self::Eur, Self::Irr, Self::Usdt, Self::Usdc, Self::Try];

    pub const fn code(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Eur => "EUR",
            Self::Irr => "IRR",
            Self::Usdt => "USDT",
            Self::Usdc => "USDC",
            Self::Try => "TRY",
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Currency {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|known| known.code() == text).ok_or(())
    }
}
