//! Sizes: bytes, CPUs, and a server's size.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a {what}: {rule}")]
pub struct SizeError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

/// A number of bytes. Text: a whole or decimal number with `B`, `KiB`/`K`, `MiB`/`M`, `GiB`/`G`, `TiB`/`T` (powers
/// of 1024, as Docker has it), or `KB`, `MB`, `GB`, `TB` (powers of 1000). JSON: the plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `count` times 1,048,576 bytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` times 1,073,741,824 bytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError {
            what: "size",
            value: text.chars().take(40).collect(),
            rule: "use a number and a unit, such as 512MiB or 8GiB",
        };
        let trimmed = text.trim();
        let unit_at = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let number: f64 = trimmed[..unit_at].parse().map_err(|_| error())?;
        let factor: u64 = match trimmed[unit_at..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(error()),
        };
        let bytes = number * factor as f64;
        if bytes.is_finite() && bytes < 9e18 { Ok(Self(bytes as u64)) } else { Err(error()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            bytes if bytes < 1 << 10 => format!("{bytes}B"),
            bytes => {
                let (unit, name) = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
                    .into_iter()
                    .find(|(s, _)| bytes >> s > 0)
                    .unwrap_or((10, "KiB"));
                let tenths = (bytes as f64 * 10.0 / (1u64 << unit) as f64).round() as u64;
                if tenths.is_multiple_of(10) {
                    format!("{}{name}", tenths / 10)
                } else {
                    format!("{}.{}{name}", tenths / 10, tenths % 10)
                }
            }
        };
        f.pad(&text)
    }
}

/// A share of the machine's processors, in thousandths of one. Text and JSON: a decimal number, `0.5`, `2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
pub struct Cpus(u32);

impl Cpus {
    /// One whole processor.
    pub const ONE: Self = Self(1000);

    /// So many thousandths of a processor.
    pub const fn from_milli(milli: u32) -> Self {
        Self(milli)
    }

    /// In thousandths of a processor.
    pub const fn milli(self) -> u32 {
        self.0
    }
}

const CPUS_RULE: &str = "use a number of processors of at least 0.01, such as 0.5 or 2";

impl TryFrom<f64> for Cpus {
    type Error = SizeError;
    fn try_from(value: f64) -> Result<Self, SizeError> {
        if (0.01..=100_000.0).contains(&value) {
            Ok(Self((value * 1000.0).round() as u32))
        } else {
            Err(SizeError { what: "number of CPUs", value: value.to_string(), rule: CPUS_RULE })
        }
    }
}

impl From<Cpus> for f64 {
    fn from(cpus: Cpus) -> f64 {
        f64::from(cpus.0) / 1000.0
    }
}

impl FromStr for Cpus {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError { what: "number of CPUs", value: text.chars().take(40).collect(), rule: CPUS_RULE };
        text.trim().parse::<f64>().map_err(|_| error()).and_then(|value| Self::try_from(value).map_err(|_| error()))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&f64::from(*self).to_string())
    }
}

/// The size of a server: ceilings, not reservations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSize {
    /// Processors.
    pub cpus: Cpus,
    /// Memory, swap included.
    pub memory_bytes: ByteSize,
    /// Processes and threads.
    pub pids: u32,
}

impl Default for ServerSize {
    fn default() -> Self {
        Self { cpus: Cpus::ONE, memory_bytes: ByteSize::mib(512), pids: 4096 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes() {
        for (text, bytes) in
            [("512MiB", 512 << 20), ("8GiB", 8 << 30), ("1g", 1 << 30), ("1.5K", 1536), ("7", 7), ("2MB", 2_000_000)]
        {
            assert_eq!(text.parse::<ByteSize>().expect(text).0, bytes);
        }
        for bad in ["", "GiB", "1 parsec", "-1", "1e3", "9999999999TiB", "1..2"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        for (bytes, text) in [(0, "0B"), (1536, "1.5KiB"), (512 << 20, "512MiB"), (8 << 30, "8GiB")] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn cpus() {
        assert_eq!("0.5".parse::<Cpus>().expect("half").milli(), 500);
        for bad in ["", "0", "-1", "NaN", "inf", "0.001", "x"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&Cpus::ONE).expect("json"), "1.0");
    }
}
