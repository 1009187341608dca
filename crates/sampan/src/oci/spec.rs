//! What this runtime reads and can do.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use lexopt::prelude::*;
use sampan_runtime::oci;

use super::Done;
use super::arguments::Arguments;

/// Writes a configuration to begin with; one that is there stays.
pub fn spec(mut words: Arguments) -> Result<Done> {
    let (mut bundle, mut rootless) = (PathBuf::from("."), false);
    while let Some(word) = words.next()? {
        match word {
            Short('b') | Long("bundle") => bundle = words.value()?.into(),
            Long("rootless") => rootless = words.switch()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let path = bundle.join("config.json");
    let text = if rootless {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        format!("{:#}\n", oci::rootless(uid, gid))
    } else {
        oci::SPEC.to_owned()
    };
    let file = File::options().write(true).create_new(true).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {} (one that is there is not replaced)", path.display()))?;
    Ok(Done::Well)
}

pub fn features(mut words: Arguments) -> Result<Done> {
    if let Some(word) = words.next()? {
        return Err(word.unexpected().into());
    }
    println!("{:#}", oci::features());
    Ok(Done::Well)
}
