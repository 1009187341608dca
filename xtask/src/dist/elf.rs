//! What is to be known of the binary before it is given away: its processor, and whether it runs without a loader.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// A program.
#[derive(Debug, PartialEq, Eq)]
pub struct Elf {
    /// As Rust has it: `x86_64`, `aarch64`.
    pub architecture: &'static str,
    /// Whether it asks for no loader.
    pub is_static: bool,
}

impl Elf {
    /// As Debian has it.
    pub fn debian_architecture(&self) -> &'static str {
        match self.architecture {
            "aarch64" => "arm64",
            _ => "amd64",
        }
    }
}

/// Looks at a program's head.
pub fn look(path: &Path) -> Result<Elf> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("read {}", path.display()))
}

/// elf(5), for 64 bits in little-endian order.
fn parse(bytes: &[u8]) -> Result<Elf> {
    const PT_INTERP: u64 = 3;
    const HEADER: usize = 56;
    let number = |at: usize, length: usize| -> Result<u64> {
        let part = bytes.get(at..at + length).context("it ends too early")?;
        Ok(part.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("it is no 64-bit ELF program");
    }
    let architecture = match number(18, 2)? {
        62 => "x86_64",
        183 => "aarch64",
        other => bail!("it is for the processor {other}, which Sampan does not run on"),
    };
    let (start, count) = (usize::try_from(number(32, 8)?)?, usize::try_from(number(56, 2)?)?);
    let mut is_static = true;
    for index in 0..count {
        is_static &= number(start + index * HEADER, 4)? != PT_INTERP;
    }
    Ok(Elf { architecture, is_static })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let own = look(Path::new("/proc/self/exe")).unwrap();
        assert_eq!((own.architecture, own.is_static), (std::env::consts::ARCH, false));
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[18], bytes[32], bytes[56], bytes[64]) = (62, 64, 1, 1);
        assert_eq!(parse(&bytes).unwrap(), Elf { architecture: "x86_64", is_static: true });
        bytes[64] = 3;
        assert!(!parse(&bytes).unwrap().is_static);
        for length in [0, 5, 20, 60, 65] {
            assert!(parse(&bytes[..length]).is_err(), "{length}");
        }
        assert!(parse(b"#!/bin/sh\n").is_err());
    }
}
