//! The guest's first file system: the modules that its kernel needs to see the disk, and those that Sampan needs. They
//! are all loaded by name, there being nobody who would load one when it is asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use crate::tools;

/// The modules, without those that they depend on.
const MODULES: &[&str] = &[
    // the disk
    "virtio_pci",
    "virtio_blk",
    // root file systems, and disks in files
    "overlay",
    "loop",
    // the network
    "veth",
    "bridge",
    "dummy",
    // its firewall: what `sys/src/net/nftables.rs` has expressions for
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "nft_nat",
];

pub(super) fn write(to: &Path) {
    let kernel = tools::kernel();
    let version = kernel.file_name().expect("a file").to_string_lossy().replace("vmlinuz-", "");
    let modules = Modules::below(&tools::tool("kernel").join("lib/modules").join(version));
    let mut archive = Archive::default();
    for name in ["bin", "dev", "modules", "root"] {
        archive.directory(name);
    }
    // what the first process writes to
    archive.character_device("dev/console", (5, 1));
    archive.program("bin/busybox", &fs::read(tools::busybox()).expect("busybox can be read"));
    for (number, name) in modules.in_order(MODULES).iter().enumerate() {
        archive.program(&format!("modules/{number:02}-{name}.ko"), &modules.content(name));
    }
    archive.program("init", include_bytes!("start.sh"));
    fs::write(to, archive.finish()).expect("the initramfs can be written");
}

/// A kernel's modules, by name; `-` in a file's name is `_` in the module's.
struct Modules(BTreeMap<String, PathBuf>);

impl Modules {
    fn below(dir: &Path) -> Self {
        let mut found = BTreeMap::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(entry.path());
                } else if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".ko") {
                    found.insert(name.replace('-', "_"), entry.path());
                }
            }
        }
        Self(found)
    }

    fn content(&self, name: &str) -> Vec<u8> {
        let path = self.0.get(name).unwrap_or_else(|| panic!("the guest's kernel has no module {name}"));
        fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// These and what they depend on, each after what it depends on.
    fn in_order(&self, names: &[&str]) -> Vec<String> {
        let mut order = Vec::new();
        for name in names {
            self.add(name, &mut order);
        }
        order
    }

    fn add(&self, name: &str, order: &mut Vec<String>) {
        if order.iter().any(|other| other == name) {
            return;
        }
        for needed in depends(&self.content(name)) {
            self.add(&needed, order);
        }
        order.push(name.to_owned());
    }
}

/// The modules that one names in its section `.modinfo`: `depends=llc,stp` between zeros.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}
