use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};

use ::tar::EntryType;
use proptest::prelude::*;

use super::*;
use crate::testing::{Tar, digest, gzip};
use crate::tree::{is_opaque, is_whiteout};

struct Unpacked {
    dir: tempfile::TempDir,
    result: Result<UnpackStats, UnpackError>,
}

impl Unpacked {
    fn root(&self) -> PathBuf {
        self.dir.path().join("fs")
    }

    fn stats(&self) -> UnpackStats {
        *self.result.as_ref().unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root().join(name)).unwrap()
    }

    fn stat(&self, name: &str) -> fs::Metadata {
        fs::symlink_metadata(self.root().join(name)).unwrap()
    }

    fn is_whiteout(&self, name: &str) -> bool {
        rustix::fs::lstat(self.root().join(name)).is_ok_and(|stat| is_whiteout(&stat))
    }

    fn is_opaque(&self, name: &str) -> bool {
        is_opaque(&File::open(self.root().join(name)).unwrap().into())
    }
}

/// Unpacks a tar beside a file that nothing may touch.
fn unpack(tar: &[u8]) -> Unpacked {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("fs")).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/sentinel"), "untouched").unwrap();
    let before = picture(&dir.path().join("outside"));
    fs::write(dir.path().join("blob"), tar).unwrap();
    let blob = File::open(dir.path().join("blob")).unwrap();
    let result = unpack_layer(blob, LayerMediaType::Tar, &digest(tar), &dir.path().join("fs"));
    assert_eq!(picture(&dir.path().join("outside")), before);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    Unpacked { dir, result }
}

fn picture(dir: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, Vec<u8>)> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            (path.clone(), (stat.mode(), stat.nlink(), stat.mtime_nsec(), fs::read(&path).unwrap_or_default()))
        })
        .collect()
}

#[test]
fn what_a_layer_has_is_there() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let tar = Tar::new()
        .dir("./")
        .dir("bin/")
        .file("bin/a", "hello")
        .hard_link("bin/b", "bin/a")
        .symlink("bin/c", "/etc/passwd")
        .entry(EntryType::Fifo, "pipe", "", b"")
        .entry(EntryType::Char, "null", "", b"")
        .pax(&[("SCHILY.xattr.user.note", "kept"), ("SCHILY.xattr.security.selinux", "dropped"), ("mtime", "7.25")])
        .owned_file("owned", 65_535)
        .file(&long, "long")
        .dir("last/")
        .finish();
    let unpacked = unpack(&tar);
    let stats = unpacked.stats();
    assert_eq!((stats.entries, stats.devices_skipped, stats.bytes), (10, 1, tar.len() as u64));
    assert_eq!(unpacked.read("bin/b"), "hello");
    assert_eq!(unpacked.stat("bin/a").ino(), unpacked.stat("bin/b").ino());
    assert_eq!(fs::read_link(unpacked.root().join("bin/c")).unwrap(), Path::new("/etc/passwd"));
    assert!(unpacked.stat("pipe").file_type().is_fifo());
    assert!(!unpacked.root().join("null").exists());
    let owned = unpacked.stat("owned");
    assert_eq!((owned.uid(), owned.mtime(), owned.mtime_nsec()), (65_535, 7, 250_000_000));
    let mut note = [0; 8];
    let file = File::open(unpacked.root().join("owned")).unwrap();
    let length = rustix::fs::fgetxattr(&file, "user.note", &mut note).unwrap();
    assert_eq!(&note[..length], b"kept");
    assert_eq!(unpacked.read(&long), "long");
    // set last of all, though entries came after
    assert_eq!(unpacked.stat("bin").mtime(), 1_700_000_000);
    assert_eq!(unpacked.stat("bin").permissions().mode() & 0o7777, 0o755);
}

#[test]
fn setuid_is_kept() {
    let mut header = ::tar::Header::new_gnu();
    header.set_path("su").unwrap();
    header.set_mode(0o4755);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.resize(512 * 3, 0);
    let unpacked = unpack(&tar);
    unpacked.stats();
    let stat = unpacked.stat("su");
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o4755, 7, 8));
}

#[test]
fn times_before_1970_and_blank_fields() {
    let mut header = ::tar::Header::new_gnu();
    header.set_path("old").unwrap();
    header.set_mode(0o644);
    header.set_size(0);
    let fields = header.as_gnu_mut().unwrap();
    fields.mtime = [0xff; 12];
    (fields.uid, fields.gid) = ([0; 8], [b' '; 8]);
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.resize(512 * 3, 0);
    let unpacked = unpack(&tar);
    unpacked.stats();
    let stat = unpacked.stat("old");
    assert_eq!((stat.mtime(), stat.uid(), stat.gid()), (-1, 0, 0));
}

#[test]
fn whiteouts() {
    let unpacked = unpack(
        &Tar::new()
            .file("dir/.wh.gone", "")
            .file("dir/.wh..wh..opq", "")
            .file(".wh..wh.plnk", "")
            // of a name that this layer has too: before it, and after it
            .file(".wh.first", "")
            .dir("first/")
            .file("first/a", "")
            .dir("second/")
            .file(".wh.second", "")
            .file("third", "stays")
            .file(".wh.third", "")
            .file(".wh.fourth", "")
            .file("fourth/below", "")
            .finish(),
    );
    unpacked.stats();
    assert!(unpacked.is_whiteout("dir/gone"));
    for (directory, opaque) in [("dir", true), ("first", true), ("second", true), ("fourth", true), (".", false)] {
        assert_eq!(unpacked.is_opaque(directory), opaque, "{directory}");
    }
    assert_eq!(unpacked.read("third"), "stays");
    assert!(!unpacked.root().join(".wh..wh.plnk").exists());
}

#[test]
fn later_entries_replace_earlier_ones() {
    let unpacked = unpack(
        &Tar::new()
            .file("a", "one")
            .hard_link("b", "a")
            .file("a", "two")
            .hard_link("b", "b")
            .symlink("link", "nowhere")
            .dir("link/")
            .file("link/in", "")
            .dir("empty/")
            .file("empty", "")
            .finish(),
    );
    unpacked.stats();
    assert_eq!((unpacked.read("a").as_str(), unpacked.read("b").as_str()), ("two", "one"));
    assert!(unpacked.stat("link").is_dir());
    assert!(unpacked.stat("empty").is_file());
}

#[test]
fn links_within_a_layer_are_followed_with_the_layer_as_root() {
    let unpacked = unpack(
        &Tar::new()
            .dir("usr/lib/")
            .symlink("lib", "/usr/lib")
            .symlink("up", "../../../usr")
            .file("lib/a", "a")
            .file("up/b", "b")
            .hard_link("c", "lib/a")
            .finish(),
    );
    unpacked.stats();
    assert_eq!(unpacked.read("usr/lib/a") + &unpacked.read("usr/b") + &unpacked.read("c"), "aba");
}

#[test]
fn what_is_refused() {
    let check = |tar: Tar, words: &str| {
        let unpacked = unpack(&tar.finish());
        let error = unpacked.result.as_ref().unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        assert!(text.contains(words), "{text}");
    };
    check(Tar::new().file("../outside/x", ""), "leads out of the layer");
    check(Tar::new().file("a/../../outside/x", ""), "leads out of the layer");
    check(Tar::new().hard_link("x", "../outside/sentinel"), "leads out of the layer");
    check(Tar::new().symlink("d", "../outside").hard_link("x", "d/sentinel"), "\"x\"");
    check(Tar::new().symlink("d", "../outside").file("d/x", ""), "\"d/x\"");
    check(Tar::new().file("a", "").file("a/b", ""), "\"a/b\"");
    check(Tar::new().dir("a/").file("a/b", "").file("a", ""), "\"a\"");
    check(Tar::new().file("a/.wh...", ""), "whiteout of no name");
    check(Tar::new().file(".wh.", ""), "whiteout of no name");
    check(Tar::new().symlink("/", "x"), "root of the layer");
    check(Tar::new().owned_file("a", 65_536), "belongs to user 65536");
    check(Tar::new().pax(&[("uid", "4294967296")]).file("a", ""), "belongs to user 4294967296");
    check(Tar::new().pax(&[("SCHILY.xattr.trusted.overlay.redirect", "/etc")]).dir("a"), "trusted.overlay.redirect");
    check(Tar::new().pax(&[("SCHILY.xattr.user.overlay.opaque", "y")]).dir("a"), "user.overlay.opaque");
    check(Tar::new().pax(&[("path", "a\0b")]).file("a", ""), "zero byte");
    check(Tar::new().pax(&[("size", "-1")]).file("a", ""), "size");
    check(Tar::new().pax(&[("size", "18446744073709551615")]).file("a", "x"), "size");
    check(Tar::new().pax(&[("size", "4096")]).file("a", "x"), "cut off");
    check(Tar::new().pax(&[("GNU.sparse.major", "1")]).file("a", ""), "sparse");
    check(Tar::new().raw(EntryType::XHeader, "p", "", b"99 path=a\n", 0).file("a", ""), "PAX");
    check(Tar::new().entry(EntryType::GNUSparse, "a", "", b""), "sparse");
    check(Tar::new().entry(EntryType::new(b'V'), "a", "", b""), "'V'");
    check(Tar::new().raw(EntryType::GNULongName, "p", "", &vec![b'a'; (1 << 20) + 1], 0), "the limit is");
    check(Tar::new().file(&"a".repeat(256), ""), "255 in one part");
    check(Tar::new().file(&"a/".repeat(200), ""), "directories deep");
}

#[test]
fn bytes_that_are_no_layer() {
    let tar = Tar::new().file("a", &"x".repeat(2000)).finish();
    for (bytes, words) in [
        (tar[..1000].to_vec(), "cut off"),
        (tar[..100].to_vec(), "cut off"),
        (vec![b'x'; 4096], "checksum"),
        (gzip(&tar), "checksum"),
    ] {
        let error = unpack(&bytes).result.unwrap_err().to_string();
        assert!(error.contains(words) || error.contains("cut off"), "{error}");
    }
}

#[test]
fn the_diff_id_is_verified_to_the_last_byte() {
    let mut tar = Tar::new().file("a", "x").finish();
    let dir = tempfile::tempdir().unwrap();
    let check = |media_type, blob: &[u8], diff_id: &Digest| {
        let (path, into) = (dir.path().join("blob"), dir.path().join("fs"));
        fs::write(&path, blob).unwrap();
        fs::create_dir(&into).unwrap();
        let result = unpack_layer(File::open(&path).unwrap(), media_type, diff_id, &into);
        fs::remove_dir_all(&into).unwrap();
        result
    };
    let diff_id = digest(&tar);
    check(LayerMediaType::Tar, &tar, &diff_id).unwrap();
    check(LayerMediaType::TarGzip, &gzip(&tar), &diff_id).unwrap();
    // gzip files one after the other are one
    let (first, second) = tar.split_at(700);
    check(LayerMediaType::TarGzip, &[gzip(first), gzip(second)].concat(), &diff_id).unwrap();
    check(LayerMediaType::TarGzip, &tar, &diff_id).unwrap_err();
    tar.push(0); // after the end of the tar
    let error = check(LayerMediaType::Tar, &tar, &diff_id).unwrap_err();
    assert!(matches!(error, UnpackError::DiffId { .. }), "{error}");
}

fn hostile_name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a"),
        Just("b"),
        Just("c"),
        Just(".."),
        Just("."),
        Just(""),
        Just("outside"),
        Just(".wh.a"),
        Just(".wh..wh..opq"),
        Just(".wh..."),
        Just("sentinel"),
        Just("proc"),
        Just("self"),
        Just("root"),
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

fn hostile_entry() -> impl Strategy<Value = (EntryType, String, String)> {
    let kind = prop_oneof![
        Just(EntryType::Regular),
        Just(EntryType::Directory),
        Just(EntryType::Symlink),
        Just(EntryType::Symlink),
        Just(EntryType::Link),
        Just(EntryType::Fifo),
        Just(EntryType::Char),
        Just(EntryType::Block),
    ];
    (kind, hostile_name(), hostile_name())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Whatever the names and links, nothing outside is touched (`unpack` compares), and there are no devices.
    #[test]
    fn hostile_tars_stay_inside(entries in prop::collection::vec(hostile_entry(), 1..12)) {
        let tar = entries.iter().fold(Tar::new(), |tar, (kind, name, link)| tar.entry(*kind, name, link, b""));
        let unpacked = unpack(&tar.finish());
        let mut directories = vec![unpacked.root()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let stat = fs::symlink_metadata(&path).unwrap();
                prop_assert!(!stat.file_type().is_block_device());
                prop_assert!(!stat.file_type().is_char_device() || stat.rdev() == 0);
                if stat.is_dir() {
                    directories.push(path);
                }
            }
        }
    }

    /// No bytes make it panic, or hang, or reach outside.
    #[test]
    fn damaged_tars_are_errors(at in 0usize..3584, byte: u8) {
        let mut tar = Tar::new().pax(&[("path", "p")]).file("a", "x").symlink("l", "t").dir("d").finish();
        tar[at] = byte;
        let _ = unpack(&tar);
    }
}
