//! Archives that mean no good, and trees that come back as they went.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use tar::{Builder, EntryType, Header};

use super::{Become, Owners, Pack, Unpack};

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).expect("open")
}

/// An archive of entries as no honest program writes them: the names go in unchecked.
fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (kind, name, text) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o4755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        let content = match kind {
            EntryType::Symlink | EntryType::Link => {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
                ""
            }
            _ => text,
        };
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content.as_bytes()).expect("an entry");
    }
    archive.into_inner().expect("an archive")
}

fn unpack(root: &Path, at: &str, rename: Option<&str>, bytes: &[u8]) -> Result<usize, String> {
    let root = open(root);
    let rename = rename.map(str::as_bytes);
    let unpack = Unpack { root: &root, at: at.as_bytes(), rename, owners: Become::Mine, refuse_kernel: false };
    unpack.unpack(bytes).map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    })
}

#[test]
fn no_name_and_no_link_leads_out() {
    use EntryType::{Directory, Link, Regular, Symlink};
    fn check(entries: &[(EntryType, &str, &str)], expected: &str) {
        let home = tempfile::tempdir().expect("a directory");
        let (root, outside) = (home.path().join("root"), home.path().join("outside"));
        fs::create_dir_all(root.join("in")).expect("a directory");
        fs::create_dir(&outside).expect("a directory");
        fs::write(outside.join("file"), "outside").expect("a file");
        symlink(&outside, root.join("in/link")).expect("a link");
        symlink("../../outside", root.join("in/up")).expect("a link");
        symlink("/", root.join("in/top")).expect("a link");
        let result = unpack(&root, "/in", None, &archive(entries));
        match expected {
            "" => drop(result.unwrap_or_else(|error| panic!("{entries:?}: {error}"))),
            words => assert!(result.as_ref().is_err_and(|error| error.contains(words)), "{entries:?}: {result:?}"),
        }
        assert_eq!(fs::read_to_string(outside.join("file")).expect("the file"), "outside", "{entries:?}");
        assert_eq!(fs::read_dir(&outside).expect("outside").count(), 1, "{entries:?}");
        assert_eq!(fs::metadata(outside.join("file")).expect("the file").nlink(), 1, "{entries:?}");
        assert_eq!(fs::read_dir(home.path()).expect("the home").count(), 2, "{entries:?}");
    }
    check(&[(Regular, "../file", "x")], "leads upwards");
    check(&[(Regular, "a/../../../outside/new", "x")], "leads upwards");
    check(&[(Regular, "/../outside/new", "x")], "leads upwards");
    check(&[(Regular, "/abs", "x")], "");
    check(&[(Link, "hard", "../outside/file")], "leads upwards");
    check(&[(Link, "hard", "link/file")], "No such file");
    // through links that are there: they lead to what is not there below the root, or to the root itself
    check(&[(Regular, "link/file", "x")], "leads nowhere");
    check(&[(Regular, "up/file", "x")], "leads nowhere");
    check(&[(Regular, "top/new", "x")], "");
    // a link of the archive's own, and then something through it or in its place
    check(&[(Symlink, "s", "../../outside"), (Regular, "s/new", "x")], "leads nowhere");
    check(&[(Symlink, "s", "../../outside/file"), (Regular, "s", "x")], "");
    check(&[(Symlink, "s", "../../outside/file"), (Link, "t", "s"), (Regular, "t", "x")], "");
    check(&[(Symlink, "s", "../../outside"), (Directory, "s", "")], "something else");
    check(&[(Directory, "d", ""), (Regular, "d", "x")], "place of a directory");
    check(&[(EntryType::Block, "disk", "")], "devices");
}

#[test]
fn a_tree_comes_back_as_it_went() {
    let home = tempfile::tempdir().expect("a directory");
    let source = home.path().join("source");
    fs::create_dir_all(source.join("deep/empty")).expect("directories");
    let long = "n".repeat(150);
    fs::write(source.join(&long), "long").expect("a file");
    fs::write(source.join("deep/hole"), [vec![0; 200_000], b"end".to_vec()].concat()).expect("a file");
    fs::set_permissions(source.join(&long), fs::Permissions::from_mode(0o640)).expect("a mode");
    fs::hard_link(source.join(&long), source.join("deep/same")).expect("a name");
    symlink(&long, source.join("deep/link")).expect("a link");
    std::os::unix::net::UnixListener::bind(source.join("socket")).expect("a socket");
    let _ = rustix::fs::setxattr(source.join(&long), "user.note", b"hello", rustix::fs::XattrFlags::empty());

    let pack = Pack { owners: Owners::Kept, refuse_kernel: false };
    let bytes = pack.pack(&open(&source), b"source", Vec::new()).expect("an archive");
    let into = home.path().join("into");
    fs::create_dir(&into).expect("a directory");
    unpack(&into, "", Some("other"), &bytes).expect("unpacked");
    let other = into.join("other");
    assert_eq!(fs::read_to_string(other.join(&long)).expect("a file"), "long");
    assert_eq!(fs::metadata(other.join(&long)).expect("a file").permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::metadata(other.join("deep/same")).expect("a file").nlink(), 2);
    assert_eq!(fs::read_link(other.join("deep/link")).expect("a link"), Path::new(&long));
    let hole = fs::metadata(other.join("deep/hole")).expect("a file");
    assert!(hole.len() == 200_003 && hole.blocks() * 512 < 150_000, "{} blocks", hole.blocks());
    assert!(other.join("deep/empty").is_dir() && !other.join("socket").exists());
    assert_eq!(hole.mtime(), fs::metadata(source.join("deep/hole")).expect("a file").mtime());
    let mut note = [0; 8];
    if rustix::fs::getxattr(source.join(&long), "user.note", &mut note).is_ok() {
        let length = rustix::fs::getxattr(other.join(&long), "user.note", &mut note).expect("an attribute");
        assert_eq!(&note[..length], b"hello");
    }
    // once more, without its first name, over what is there
    unpack(&into, "/other", Some(""), &bytes).expect("unpacked");
    assert_eq!(fs::read_dir(&other).expect("a directory").count(), 2);
    // broken off
    assert!(unpack(&into, "", None, &bytes[..bytes.len() / 2]).is_err());
    assert!(unpack(&into, "", None, &[7; 1024]).is_err());
}

#[test]
fn what_others_could_act_by_is_not_kept() {
    let home = tempfile::tempdir().expect("a directory");
    unpack(home.path(), "", None, &archive(&[(EntryType::Regular, "setuid", "x")])).expect("unpacked");
    let mode = fs::metadata(home.path().join("setuid")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}
