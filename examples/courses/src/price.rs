//! Prices: exact amounts with their currency.
//!
//! A price is kept as a whole number of the currency's smallest unit (cents, øre, yen) and is text everywhere else,
//! `"49.90"`: a JSON number would pass through floating point in many clients, and 49.90 is none.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// The largest amount, in smallest units: above what any course costs, and far below what overflows a sum.
pub const LARGEST: i64 = 100_000_000;

/// The currencies (ISO 4217) and how many digits each has behind the point.
const CURRENCIES: &[(&str, usize)] = &[
    ("AUD", 2),
    ("BRL", 2),
    ("CAD", 2),
    ("CHF", 2),
    ("CNY", 2),
    ("CZK", 2),
    ("DKK", 2),
    ("EUR", 2),
    ("GBP", 2),
    ("INR", 2),
    ("JPY", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("NOK", 2),
    ("NZD", 2),
    ("PLN", 2),
    ("SEK", 2),
    ("USD", 2),
];

/// A currency that courses are sold in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Currency {
    code: &'static str,
    digits: usize,
}

impl Currency {
    /// The currency of this ISO 4217 code.
    pub fn parse(code: &str) -> Option<Self> {
        CURRENCIES.iter().find(|(known, _)| *known == code).map(|&(code, digits)| Self { code, digits })
    }

    /// Its code.
    pub fn code(self) -> &'static str {
        self.code
    }

    /// All codes, for those who asked for another one.
    pub fn all() -> impl Iterator<Item = &'static str> {
        CURRENCIES.iter().map(|(code, _)| *code)
    }

    /// An amount in this currency's smallest units: digits, and behind a point at most as many as it has.
    ///
    /// # Errors
    /// What is wrong with the text, for people.
    pub fn amount(self, text: &str) -> Result<i64, String> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(fraction) || text.ends_with('.') {
            return Err("use digits and a point, such as \"49.90\", and nothing else".to_owned());
        }
        if fraction.len() > self.digits {
            return Err(match self.digits {
                0 => format!("{} has no digits behind a point", self.code),
                digits => format!("{} has {digits} digits behind the point, not {}", self.code, fraction.len()),
            });
        }
        let padded = format!("{whole}{fraction:0<digits$}", digits = self.digits);
        let largest = Price { amount_minor: LARGEST, currency: self };
        match padded.parse() {
            Ok(amount) if amount <= LARGEST => Ok(amount),
            _ => Err(format!("the highest price is {largest}")),
        }
    }
}

/// A price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// In the currency's smallest units, from 0 (free) to [`LARGEST`].
    pub amount_minor: i64,
    /// The currency.
    pub currency: Currency,
}

impl Price {
    /// The amount alone: `49.90`.
    pub fn amount(&self) -> String {
        let digits = self.currency.digits;
        if digits == 0 {
            return self.amount_minor.to_string();
        }
        let unit = 10_i64.pow(digits as u32);
        format!("{}.{:0digits$}", self.amount_minor / unit, self.amount_minor % unit)
    }
}

/// For people: `49.90 EUR`.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount(), self.currency.code)
    }
}

/// For programs: `{"amount": "49.90", "currency": "EUR"}`.
impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut price = serializer.serialize_struct("Price", 2)?;
        price.serialize_field("amount", &self.amount())?;
        price.serialize_field("currency", self.currency.code)?;
        price.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(currency: &str, text: &str, expected: Result<i64, &str>) {
        let currency = Currency::parse(currency).expect("a currency");
        match (currency.amount(text), expected) {
            (Ok(amount), Ok(expected)) => assert_eq!(amount, expected, "{text}"),
            (Err(message), Err(word)) => assert!(message.contains(word), "{text}: {message}"),
            (other, _) => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn amounts_are_exact() {
        check("EUR", "49.90", Ok(4990));
        check("EUR", "49.9", Ok(4990));
        check("EUR", "49", Ok(4900));
        check("EUR", "0", Ok(0));
        check("EUR", "0.07", Ok(7));
        check("JPY", "5000", Ok(5000));
        check("KWD", "1.234", Ok(1234));
        check("EUR", "1000000.00", Ok(LARGEST));
    }

    #[test]
    fn what_is_no_amount_is_told() {
        for text in ["", ".", ".5", "5.", "-1", "+1", "1e3", "1,50", " 1", "NaN", "１"] {
            check("EUR", text, Err("use digits"));
        }
        check("EUR", "1.999", Err("2 digits"));
        check("JPY", "1.5", Err("no digits"));
        check("EUR", "1000000.01", Err("highest price is 1000000.00 EUR"));
        check("EUR", "99999999999999999999", Err("highest price"));
    }

    #[test]
    fn prices_are_shown_as_they_were_written() {
        for (currency, minor, text) in [("EUR", 4990, "49.90 EUR"), ("JPY", 7, "7 JPY"), ("KWD", 5, "0.005 KWD")] {
            let currency = Currency::parse(currency).expect("a currency");
            assert_eq!(Price { amount_minor: minor, currency }.to_string(), text);
        }
    }
}
