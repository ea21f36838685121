//! Numbers in JSON, as the text they are: a trip through a float is not exact.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::quote::observation::Invalid;
use crate::units::{Price, PriceError};

/// A number that a venue writes bare or in quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number(String);

impl Number {
    /// A price; `Err` for what is none or is not above zero.
    pub fn price(&self) -> Result<Price, Invalid> {
        match self.0.parse::<Price>() {
            Ok(price) if price.is_zero() => Err(Invalid::NoAnswer),
            Ok(price) => Ok(price),
            Err(PriceError::Negative(_)) => Err(Invalid::NoAnswer),
            Err(_) => Err(Invalid::Decode),
        }
    }

    /// A whole number, of seconds for example.
    pub fn whole(&self) -> Result<i64, Invalid> {
        self.0.parse().map_err(|_| Invalid::Decode)
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let quoted = text.starts_with('"');
        let text = if quoted { serde_json::from_str::<String>(text).map_err(serde::de::Error::custom)? } else { text.to_owned() };
        if !quoted && !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Err(serde::de::Error::custom("not a number"));
        }
        Ok(Self(text))
    }
}

/// Reads a whole JSON answer; HTML, half an answer or another shape is none.
pub fn json<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Invalid> {
    serde_json::from_str(body).map_err(|_| Invalid::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l9_numbers_are_read_as_their_text() {
        let read = |text: &str| json::<Number>(text).and_then(|number| number.price()).map(|price| price.to_string());
        assert_eq!(read("0.1234567890123456789012345678901"), Ok("0.1234567890123456789012345678901".to_owned()));
        assert_eq!(read("\"462485\""), Ok("462485".to_owned()));
        assert_eq!(read("4.6E5"), Ok("460000".to_owned()));
        for (text, reason) in [
            ("\"NaN\"", Invalid::Decode),
            ("NaN", Invalid::Decode),
            ("true", Invalid::Decode),
            ("null", Invalid::Decode),
            ("[1]", Invalid::Decode),
            ("\"\"", Invalid::Decode),
            ("-1", Invalid::NoAnswer),
            ("0", Invalid::NoAnswer),
            ("\"-0.5\"", Invalid::NoAnswer),
        ] {
            assert_eq!(read(text), Err(reason), "{text}");
        }
    }
}
