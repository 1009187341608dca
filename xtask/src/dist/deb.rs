//! A Debian package: an `ar` of three members (deb(5)), two of them tars.

use anyhow::{Context as _, Result};

use super::Parts;
use super::archive::{Entry, Executable, tar_gz};
use crate::workspace;

/// Files that the administrator may change, and dpkg keeps.
const CONFFILES: &str = "/etc/default/sampan\n";
/// The scripts and the one configuration file.
const DIRECTORY: &str = "packaging/debian";
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// What the package says of itself.
pub struct Package<'a> {
    /// As in `Cargo.toml`.
    pub version: &'a str,
    /// As Debian has it.
    pub architecture: &'a str,
    /// Whether the binary needs no library.
    pub is_static: bool,
}

impl Package<'_> {
    /// Its file's name.
    pub fn file_name(&self) -> String {
        format!("sampan_{}_{}.deb", self.version, self.architecture)
    }

    /// Its bytes.
    pub fn build(&self, parts: &Parts, made_at: u64) -> Result<Vec<u8>> {
        let data = data(parts)?;
        let installed: u64 = data.iter().map(|entry| entry.length().div_ceil(1024)).sum();
        let mut control = vec![
            Entry::file("./control", self.control(installed).as_bytes(), Executable::No),
            Entry::file("./conffiles", CONFFILES.as_bytes(), Executable::No),
        ];
        for script in SCRIPTS {
            control.push(Entry::file(format!("./{script}"), &ours(script)?, Executable::Yes));
        }
        let members = [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.gz", tar_gz(&control, made_at)?),
            ("data.tar.gz", tar_gz(&data, made_at)?),
        ];
        Ok(ar(&members, made_at))
    }

    fn control(&self, installed_kib: u64) -> String {
        let Self { version, architecture, .. } = self;
        let depends = if self.is_static { "" } else { "Depends: libc6, libgcc-s1\n" };
        format!(
            "Package: sampan\n\
             Version: {version}\n\
             Architecture: {architecture}\n\
             Maintainer: The Sampan authors <sampan@localhost>\n\
             Installed-Size: {installed_kib}\n\
             {depends}\
             Recommends: systemd\n\
             Section: admin\n\
             Priority: optional\n\
             Description: container cloud in one binary\n \
             Sampan turns a directory of source into a healthy HTTP service on an isolated,\n \
             sized server, in one command. It compiles with your own toolchain, packs an OCI\n \
             image, runs it with its own container runtime, and routes a URL to it.\n"
        )
    }
}

/// Debian's places (Debian Policy 9 and 12; systemd's and the shells' own pages).
fn data(parts: &Parts) -> Result<Vec<Entry>> {
    let file = |path: String, bytes: &[u8]| Entry::file(path, bytes, Executable::No);
    let mut entries = vec![
        Entry::file("./usr/bin/sampan", &parts.binary, Executable::Yes),
        file("./etc/default/sampan".into(), &ours("default")?),
        file("./usr/lib/sysusers.d/sampan.conf".into(), &packaged(&parts.sysusers)),
        file("./usr/share/doc/sampan/README.md".into(), &parts.readme),
        file("./usr/share/doc/sampan/copyright".into(), &copyright(parts)),
        Entry::gz("./usr/share/doc/sampan/changelog", &parts.changelog)?,
    ];
    for (name, bytes) in &parts.units {
        entries.push(file(format!("./usr/lib/systemd/system/{name}"), &packaged(bytes)));
    }
    for (name, bytes) in &parts.manual {
        entries.push(Entry::gz(format!("./usr/share/man/man1/{name}"), bytes)?);
    }
    for (name, bytes) in &parts.completions {
        let directory = match *name {
            "_sampan" => "zsh/vendor-completions",
            "sampan.fish" => "fish/vendor_completions.d",
            _ => "bash-completion/completions",
        };
        let name = name.strip_suffix(".bash").unwrap_or(name);
        entries.push(file(format!("./usr/share/{directory}/{name}"), bytes));
    }
    Ok(entries)
}

/// A file of `daemon install` without its first line: it is dpkg that removes it.
fn packaged(bytes: &[u8]) -> Vec<u8> {
    let rest = bytes.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    if bytes.starts_with(b"#") { bytes[rest..].to_vec() } else { bytes.to_vec() }
}

fn copyright(parts: &Parts) -> Vec<u8> {
    [parts.licence.as_slice(), b"\n\n", parts.third_party.as_slice()].concat()
}

fn ours(name: &str) -> Result<Vec<u8>> {
    let path = workspace::root().join(DIRECTORY).join(name);
    std::fs::read(&path).with_context(|| format!("read {}", path.display()))
}

/// ar(5), in the form that dpkg reads: names of up to 15 bytes, members at even offsets.
fn ar(members: &[(&str, Vec<u8>)], made_at: u64) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let (owner, group, mode, length) = (0, 0, 0o100644, content.len());
        let head = format!("{name:<16}{made_at:<12}{owner:<6}{group:<6}{mode:<8o}{length:<10}`\n");
        bytes.extend(head.as_bytes());
        bytes.extend(content);
        if length % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_begin_at_even_offsets() {
        let bytes = ar(&[("a", b"x".to_vec()), ("control.tar.gz", b"yz".to_vec())], 7);
        assert_eq!(bytes.len(), 8 + 60 + 2 + 60 + 2);
        let text = String::from_utf8(bytes).unwrap();
        let heads: Vec<&str> = text.lines().filter(|line| line.ends_with('`')).collect();
        assert_eq!(heads[0], "a               7           0     0     100644  1         `");
        assert_eq!(heads[1], "control.tar.gz  7           0     0     100644  2         `");
    }

    #[test]
    fn the_mark_of_install_is_not_the_package_s() {
        assert_eq!(packaged(b"# Written by x\n[Unit]\n"), b"[Unit]\n");
        assert_eq!(packaged(b"[Unit]\n"), b"[Unit]\n");
    }
}
