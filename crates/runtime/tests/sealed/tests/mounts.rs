//! What is mounted in a container, where it may be, and whose its files are.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;

use sampan_runtime::mounts::{self, Attributes, IdMap};
use sampan_runtime::rootfs::{self, Layers};
use sampan_runtime::wire::{Failure, MountKind, MountPoint, Request};

use super::{Layer, Machine, Test, check_spec};

pub(super) const TESTS: &[Test] = &[
    ("mounts_lie_in_their_order_and_the_root_is_read_only", mounts_lie_in_their_order_and_the_root_is_read_only),
    ("a_place_cannot_be_led_astray", a_place_cannot_be_led_astray),
    ("a_caller_s_bind_gives_no_more_than_the_caller_has", a_caller_s_bind_gives_no_more_than_the_caller_has),
    ("a_first_process_of_ours", a_first_process_of_ours),
];

fn point(target: &str, kind: MountKind) -> MountPoint {
    MountPoint { target: target.into(), read_only: false, kind }
}

const DIRECTORY: MountKind = MountKind::Handed { file: false };
const FILE: MountKind = MountKind::Handed { file: true };
const MEMORY: MountKind =
    MountKind::Tmpfs { size_bytes: Some(64 << 10), mode: 0o1777, owner: (0, 0), executable: false };

fn file(text: &str) -> MountKind {
    MountKind::File { text: text.to_owned() }
}

/// A detached mount of a place of the host.
fn bind(path: &Path, namespace: BorrowedFd<'_>) -> OwnedFd {
    let place = std::fs::File::open(path).expect("the source");
    let mount = mounts::clone_at(place.as_fd()).expect("a mount");
    mounts::part_tree(mount.as_fd()).expect("parted");
    mounts::map_ids(mount.as_fd(), namespace).expect("mapped");
    mounts::restrict_tree(mount.as_fd(), Attributes::MOUNT_ATTR_NODEV).expect("restricted");
    mount
}

/// Starts it with mounts that `make` makes of its user namespace.
fn start(
    machine: &Machine<'_>,
    spec: &crate::harness::Spec,
    make: impl FnOnce(BorrowedFd<'_>) -> Vec<OwnedFd>,
) -> Result<(), Failure> {
    let (_, fds) = machine.create(spec)?;
    let userns = fds[1].as_fd();
    let root = rootfs::mount_overlay(
        Layers { places: None, image: &[machine.layer.path()] },
        &machine.upper(&spec.id),
        userns,
        spec.ids,
    );
    let handed = [vec![root.expect("a root")], make(userns)].concat_fds();
    let handed: Vec<BorrowedFd<'_>> = handed.iter().map(|fd| fd.as_fd()).collect();
    machine.call(spec.go(), &handed).map(drop)
}

trait ConcatFds {
    fn concat_fds(self) -> Vec<OwnedFd>;
}

impl<const N: usize> ConcatFds for [Vec<OwnedFd>; N] {
    fn concat_fds(self) -> Vec<OwnedFd> {
        self.into_iter().flatten().collect()
    }
}

/// Runs it to its end and compares what it printed.
fn check(
    machine: &Machine<'_>,
    spec: &mut crate::harness::Spec,
    make: impl FnOnce(BorrowedFd<'_>) -> Vec<OwnedFd>,
    cases: &[(&str, &str)],
) {
    spec.process.args.extend(cases.iter().map(|(word, _)| (*word).to_owned()));
    start(machine, spec, make).unwrap_or_else(|failure| panic!("{failure}"));
    let ended = machine.exited(&spec.id);
    machine.logged(&spec.id);
    machine.call(Request::Forget { id: spec.id.clone() }, &[]).expect("forget");
    let lines = machine.output(&spec.id);
    let name = |word: &str| word.split_once('=').map_or(word.to_owned(), |(what, _)| what.to_owned());
    let expected: Vec<String> = cases.iter().map(|(word, found)| format!("{}: {found}", name(word))).collect();
    assert_eq!((ended.exit_code, lines), (Some(0), expected), "{:?}", spec.process.args);
}

fn mounts_lie_in_their_order_and_the_root_is_read_only(layer: &Layer) {
    let machine = Machine::start(layer);
    let host = tempfile::tempdir().expect("a directory");
    std::fs::write(host.path().join("there"), "from outside").expect("a file");
    let mut spec = machine.spec(&[]);
    spec.read_only = true;
    spec.mounts = vec![
        point("/data", DIRECTORY),
        point("/data/made/memory", MEMORY),
        point("/etc/one", FILE),
        MountPoint { read_only: true, ..point("/memory", MEMORY) },
        point("/dev/shm", MEMORY),
        point("/etc/own", file("its own")),
        MountPoint { read_only: true, ..point("/etc/fixed", file("for good")) },
    ];
    check(
        &machine,
        &mut spec,
        |userns| vec![bind(host.path(), userns), bind(&host.path().join("there"), userns)],
        &[
            ("read=/data/there", "from outside"),
            ("read=/etc/one", "from outside"),
            ("read=/etc/own", "its own"),
            ("owner=/etc/own", "0:0 100644"),
            ("write=/etc/own", "ok"),
            ("read=/etc/fixed", "for good"),
            ("write=/etc/fixed", "read-only filesystem or storage medium"),
            ("write=/data/new", "ok"),
            ("write=/data/made/memory/x", "ok"),
            ("owner=/data/made/memory", "0:0 41777"),
            ("write=/dev/shm/x", "ok"),
            ("write=/memory/x", "read-only filesystem or storage medium"),
            ("write=/x", "read-only filesystem or storage medium"),
            ("write=/etc/secret", "read-only filesystem or storage medium"),
            ("cwd", "/work/here"),
        ],
    );
    // what the container made is owned by 0 here too; what was mounted in its mount is not here
    let made = std::fs::metadata(host.path().join("new")).expect("what it wrote");
    assert_eq!((made.uid(), made.gid()), (0, 0));
    assert!(!host.path().join("made/memory/x").exists());
}

fn a_place_cannot_be_led_astray(layer: &Layer) {
    let machine = Machine::start(layer);
    let outside = tempfile::tempdir().expect("a directory");
    let refused = |target: &str, kind: MountKind, link: Option<(&str, &str)>, why: &str| {
        let mut spec = machine.spec(&["exit=0"]);
        spec.mounts = vec![point(target, kind.clone())];
        let upper = machine.upper(&spec.id);
        rootfs::prepare(layer.path(), &upper).expect("an upper directory");
        if let Some((name, to)) = link {
            symlink(to, upper.join("u").join(name)).expect("a link");
        }
        let make = |userns: BorrowedFd<'_>| match kind {
            MountKind::Handed { file: false } => vec![bind(outside.path(), userns)],
            MountKind::Handed { file: true } => vec![bind(&layer.path().join("etc/secret"), userns)],
            MountKind::Tmpfs { .. } | MountKind::File { .. } => vec![],
        };
        let result = start(&machine, &spec, make);
        machine.call(Request::Forget { id: spec.id.clone() }, &[]).expect("forget");
        let found = result.err().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(found.contains(why) && found.is_empty() == why.is_empty(), "{target} {link:?}: {found:?}");
    };
    refused("/link/x", MEMORY, Some(("link", "/bin")), "");
    refused("/link", MEMORY, Some(("link", "../../../../bin")), "");
    refused("/link", MEMORY, Some(("link", "nowhere")), "leads nowhere");
    refused("/link", MEMORY, Some(("link", "/")), "root file system itself");
    refused("/link/self/attr", MEMORY, Some(("link", "/proc")), "/proc or /sys");
    refused("/link", DIRECTORY, Some(("link", "/sys/fs/cgroup")), "/proc or /sys");
    refused("/link", MEMORY, Some(("link", "/dev")), "/dev as a whole");
    refused("/link/version", file("x"), Some(("link", "/proc")), "/proc or /sys");
    refused("/link/own", file("x"), Some(("link", "../../../../etc")), "");
    refused("/link", file("x"), Some(("link", "/nowhere/at/all")), "leads nowhere");
    refused("/dev/null", FILE, None, "only files and directories");
    refused("/etc", FILE, None, "a file cannot be mounted on a directory");
    refused("/probe", DIRECTORY, None, "a directory cannot be mounted on a file");
    refused("/probe/x", MEMORY, None, "Not a directory");
    refused("/a/../b", MEMORY, None, "without '..'");
    refused("a", MEMORY, None, "absolute");
    assert_eq!(std::fs::read_dir(outside.path()).expect("outside").count(), 0);
}

fn a_caller_s_bind_gives_no_more_than_the_caller_has(layer: &Layer) {
    const CALLER: u32 = 54_321;
    let machine = Machine::start(layer);
    let host = tempfile::tempdir().expect("a directory");
    let make = |name: &str, owner: u32, mode: u32| {
        let path = host.path().join(name);
        if name.ends_with('/') {
            std::fs::create_dir(&path).expect("a directory");
            std::fs::write(path.join("inner"), "secret").expect("a file");
        } else {
            std::fs::write(&path, "secret").expect("a file");
        }
        chown(&path, Some(owner), Some(owner)).expect("an owner");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    for (name, owner, mode) in [
        ("shadow", 0, 0o600),
        ("group-shadow", 0, 0o640),
        ("closed/", 0, 0o700),
        ("another", CALLER + 1, 0o600),
        ("public", 0, 0o644),
        ("own", CALLER, 0o600),
        ("own-dir/", CALLER, 0o700),
    ] {
        make(name, owner, mode);
    }
    chown(host.path(), Some(CALLER), Some(CALLER)).expect("an owner");
    let no = "permission denied";
    // as root inside, with all the capabilities a container has, and as a user
    for user in [0, 1000] {
        let mut spec = machine.spec(&[]);
        (spec.process.uid, spec.process.gid) = (user, user);
        spec.mounts = vec![point("/x", DIRECTORY)];
        let ids = spec.ids;
        let one = |outside| IdMap { inside: CALLER, outside: ids.start + outside, length: 1 };
        let written = format!("/x/written-{user}");
        let owner = format!("{user}:{user} 100644");
        check(
            &machine,
            &mut spec,
            |_| {
                let namespace = mounts::user_namespace(one(user), one(user)).expect("a namespace");
                vec![bind(host.path(), namespace.as_fd())]
            },
            &[
                ("read=/x/shadow", no),
                ("read=/x/group-shadow", no),
                ("read=/x/closed/inner", no),
                ("list=/x/closed", no),
                ("read=/x/another", no),
                ("open=/x/another", no),
                ("open=/x/public", no),
                ("read=/x/public", "secret"),
                ("read=/x/own", "secret"),
                ("read=/x/own-dir/inner", "secret"),
                ("owner=/x/shadow", "65534:65534 100600"),
                (&format!("write={written}"), "ok"),
                (&format!("owner={written}"), &owner),
            ],
        );
        let made = std::fs::metadata(host.path().join(&written[3..])).expect("what it wrote");
        assert_eq!((made.uid(), made.gid()), (CALLER, CALLER));
    }
}

fn a_first_process_of_ours(layer: &Layer) {
    let machine = Machine::start(layer);
    let with_init = |words: &[&str]| {
        let mut spec = machine.spec(words);
        spec.init = true;
        spec
    };
    for (word, code) in [("exit=0", 0), ("exit=3", 3), ("kill", 137)] {
        assert_eq!(machine.run(&with_init(&[word])).0, Some(code), "{word}");
    }
    let cases = [
        ("pid", "2"),
        ("processes", "2"),
        ("fds", "0 1 2 3"),
        ("list=/proc/1/fd", "permission denied"),
        ("read=/proc/1/comm", "sampan-init"),
        ("read=/proc/1/environ", "permission denied"),
        ("read=/proc/1/maps", "permission denied"),
        // of nobody who is known here
        ("owner=/proc/1/exe", "65534:65534 120777"),
        // they become zombies of the first process's, which reaps them
        ("orphans=8", "ok"),
        ("zombies", "0"),
    ];
    let words: Vec<&str> = cases.iter().map(|(word, _)| *word).collect();
    check_spec(&machine, &with_init(&words), &cases);

    let spec = with_init(&["read=/proc/1/cmdline"]);
    let (_, lines) = machine.run(&spec);
    assert_eq!(lines.join("").trim_end_matches('\0'), "read: sampan-init");

    // handed on: the program has no handler, and its end is what ends it
    let spec = with_init(&["wait"]);
    machine.start_container(&spec).expect("a start");
    machine.call(Request::Signal { id: spec.id.clone(), signal: 15 }, &[]).expect("a signal");
    assert_eq!(machine.exited(&spec.id).exit_code, Some(143));

    let mut spec = with_init(&[]);
    spec.process.args = vec!["/none".into()];
    let failure = machine.start_container(&spec).expect_err("there is no such program");
    assert_eq!(failure.errno, 2, "{failure}");
    machine.call(Request::Forget { id: spec.id }, &[]).expect("forget");
}
