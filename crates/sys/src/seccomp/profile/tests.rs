use std::os::fd::{AsRawFd as _, OwnedFd};

use super::*;
use crate::seccomp::install_with;
use crate::seccomp::simulator::{Dice, run};

fn profile(default: &str, architectures: &[&str], calls: Vec<Call>) -> Profile {
    Profile {
        default_action: default.into(),
        architectures: architectures.iter().map(|&name| name.into()).collect(),
        calls,
        ..Profile::default()
    }
}

fn call(names: &[&str], action: &str, arguments: Vec<Argument>) -> Call {
    let names = names.iter().map(|&name| name.into()).collect();
    Call { names, action: action.into(), errno: None, arguments }
}

fn when(index: u32, operator: &str, value: u64, value_two: u64) -> Argument {
    Argument { index, value, value_two, operator: operator.into() }
}

/// The rules of the module's documentation once more, straight from the profile's words, a call at a time: not a line
/// is shared with what is tested.
fn plain(profile: &Profile, architecture: Architecture, number: u32, arguments: [u64; 6]) -> u32 {
    let code = |action: &str, errno: Option<u32>| match action {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno.unwrap_or(1),
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | errno.unwrap_or(1),
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        other => panic!("{other}"),
    };
    let default = code(&profile.default_action, profile.default_errno);
    let wide = !matches!(architecture, Architecture::X86 | Architecture::Arm);
    let holds = |argument: &Argument| {
        let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
        let (found, value) = (arguments[argument.index as usize], cut(argument.value));
        match argument.operator.as_str() {
            "SCMP_CMP_NE" => found != value,
            "SCMP_CMP_LT" => found < value,
            "SCMP_CMP_LE" => found <= value,
            "SCMP_CMP_EQ" => found == value,
            "SCMP_CMP_GE" => found >= value,
            "SCMP_CMP_GT" => found > value,
            "SCMP_CMP_MASKED_EQ" => found & value == cut(argument.value_two) & value,
            other => panic!("{other}"),
        }
    };
    let meant: Vec<&Call> = profile
        .calls
        .iter()
        .filter(|call| call.names.iter().any(|name| architecture.number(name) == Some(number)))
        .filter(|call| code(&call.action, call.errno) != default)
        .collect();
    if let Some(call) = meant.iter().find(|call| call.arguments.is_empty()) {
        return code(&call.action, call.errno);
    }
    for call in meant {
        let twice = (0..6).any(|index| call.arguments.iter().filter(|argument| argument.index == index).count() > 1);
        let matches = if twice { call.arguments.iter().any(holds) } else { call.arguments.iter().all(holds) };
        if matches {
            return code(&call.action, call.errno);
        }
    }
    let names = profile.calls.iter().flat_map(|call| &call.names);
    let highest = names.filter_map(|name| architecture.number(name)).max();
    let permits = matches!(profile.default_action.as_str(), "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE");
    if !permits && highest.is_some_and(|highest| number > highest) { 0x0005_0000 | 38 } else { default }
}

const NAMES: &[&str] = &[
    "read",
    "openat",
    "ioctl",
    "clone",
    "clone3",
    "personality",
    "execve",
    "setns",
    "mount_setattr",
    "pwritev2",
    "fchmodat2",
    "set_tls",
    "no_such_call",
];

fn roll(dice: &mut Dice) -> Profile {
    let pick = |dice: &mut Dice, from: &[&str]| from[dice.below(from.len() as u64) as usize].to_owned();
    let errno = |dice: &mut Dice| (dice.below(2) == 0).then(|| dice.below(200) as u32);
    let defaults = ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"];
    let mut calls = Vec::new();
    for _ in 0..dice.below(14) {
        let names = (0..1 + dice.below(3)).map(|_| pick(dice, NAMES)).collect();
        let arguments = (0..dice.below(4))
            .map(|_| Argument {
                index: dice.below(6) as u32,
                value: dice.value(),
                value_two: dice.value(),
                operator: pick(dice, OPERATORS),
            })
            .collect();
        calls.push(Call { names, action: pick(dice, ACTIONS), errno: errno(dice), arguments });
    }
    Profile {
        default_action: pick(dice, &defaults),
        default_errno: errno(dice),
        architectures: (0..dice.below(4)).map(|_| pick(dice, ARCHITECTURES)).collect(),
        flags: Vec::new(),
        calls,
    }
}

/// Chance's profiles, each as a program in the kernel's interpreter and read by [`plain`].
#[test]
fn programs_do_what_profiles_say() {
    let mut dice = Dice(0x0c1_5ec);
    for round in 0..120 {
        let machine = [Architecture::X86_64, Architecture::Aarch64][round % 2];
        let profile = roll(&mut dice);
        let program = profile.filter(machine).unwrap().compile().unwrap();
        let on = |name| profile.architectures.iter().any(|named| named == name);
        let architectures: &[(Architecture, bool)] = match machine {
            Architecture::X86_64 => &[
                (Architecture::X86_64, true),
                (Architecture::X86, on("SCMP_ARCH_X86")),
                (Architecture::X32, on("SCMP_ARCH_X32")),
            ],
            _ => &[(Architecture::Aarch64, true), (Architecture::Arm, on("SCMP_ARCH_ARM"))],
        };
        for &(architecture, named) in architectures {
            let bit = if architecture == Architecture::X32 { 0x4000_0000 } else { 0 };
            let numbers = NAMES.iter().filter_map(|name| architecture.number(name));
            for number in numbers.flat_map(|number| [number.saturating_sub(1), number, number + 1]).chain([0, 1000]) {
                for _ in 0..12 {
                    let arguments = std::array::from_fn(|_| {
                        let value = dice.value();
                        // the kernel extends a 32-bit program's arguments with zeros
                        if matches!(architecture, Architecture::X86 | Architecture::Arm) {
                            value & 0xffff_ffff
                        } else {
                            value
                        }
                    });
                    let expected = match architecture {
                        _ if named => plain(&profile, architecture, number, arguments),
                        Architecture::X32 => 0x0005_0000 | 38,
                        _ => 0x8000_0000,
                    };
                    assert_eq!(
                        run(&program, architecture.audit(), number | bit, arguments),
                        expected,
                        "{architecture:?} {number} {arguments:x?} in {profile:#?}"
                    );
                }
            }
        }
    }
}

#[test]
fn calls_within_calls_of_32_bit_x86() {
    let decide = |profile: &Profile, name: &str, first: u64| {
        let filter = profile.filter(Architecture::X86_64).unwrap();
        filter.action(Architecture::X86, Architecture::X86.number(name).unwrap(), [first, 7, 0, 0, 0, 0])
    };
    let allow = "SCMP_ACT_ALLOW";
    let open = profile("SCMP_ACT_ERRNO", &["SCMP_ARCH_X86"], vec![call(&["socket", "shmget"], allow, vec![])]);
    let family = when(0, "SCMP_CMP_EQ", 2, 0);
    let some = profile("SCMP_ACT_ERRNO", &["SCMP_ARCH_X86"], vec![call(&["socket"], allow, vec![family.clone()])]);
    let closed = profile(allow, &["SCMP_ARCH_X86"], vec![call(&["socket"], "SCMP_ACT_ERRNO", vec![family])]);
    for (profile, name, first, expected) in [
        (&open, "socket", 9, Action::Allow),
        (&open, "socketcall", 1, Action::Allow),
        (&open, "socketcall", 2, Action::Errno(1)),
        (&open, "ipc", 23, Action::Allow),
        (&open, "ipc", 1, Action::Errno(1)),
        (&some, "socket", 2, Action::Allow),
        // what family is asked for is behind a pointer
        (&some, "socketcall", 1, Action::Errno(1)),
        (&closed, "socket", 2, Action::Errno(1)),
        (&closed, "socket", 3, Action::Allow),
        (&closed, "socketcall", 1, Action::Errno(1)),
        (&closed, "socketcall", 3, Action::Allow),
    ] {
        assert_eq!(decide(profile, name, first), expected, "{name} {first}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let allow = || call(&["read"], "SCMP_ACT_ALLOW", vec![]);
    let with = |calls| profile("SCMP_ACT_ERRNO", &[], calls);
    let flagged = |flag: &str| Profile { flags: vec![flag.into()], ..with(vec![allow()]) };
    for (profile, expected) in [
        (profile("SCMP_ACT_MAYBE", &[], vec![]), ProfileError::Action("SCMP_ACT_MAYBE".into())),
        (profile("", &[], vec![]), ProfileError::Action(String::new())),
        (profile("SCMP_ACT_NOTIFY", &[], vec![]), ProfileError::Notify("every call".into())),
        (with(vec![call(&["write"], "SCMP_ACT_NOTIFY", vec![])]), ProfileError::Notify("write".into())),
        (with(vec![call(&["read", "sendmsg"], "SCMP_ACT_NOTIFY", vec![])]), ProfileError::Notify("sendmsg".into())),
        (with(vec![call(&["read"], "ALLOW", vec![])]), ProfileError::Action("ALLOW".into())),
        (with(vec![call(&[], "SCMP_ACT_ALLOW", vec![])]), ProfileError::Nameless),
        (with(vec![call(&[""], "SCMP_ACT_ALLOW", vec![])]), ProfileError::Nameless),
        (with(vec![call(&["read"], "SCMP_ACT_ALLOW", vec![when(0, "==", 1, 0)])]), ProfileError::Operator("==".into())),
        (
            with(vec![call(&["read"], "SCMP_ACT_ALLOW", vec![when(6, "SCMP_CMP_EQ", 1, 0)])]),
            ProfileError::Index { name: "read".into(), index: 6 },
        ),
        (flagged("SECCOMP_FILTER_FLAG_X"), ProfileError::Flag("SECCOMP_FILTER_FLAG_X".into())),
        (
            profile("SCMP_ACT_ERRNO", &["SCMP_ARCH_Z80"], vec![]),
            ProfileError::Architecture(UnknownArchitecture("SCMP_ARCH_Z80".into())),
        ),
    ] {
        assert_eq!(profile.compile().unwrap_err(), expected);
    }
    // other machines' mean nothing, and neither do names that nobody has
    let foreign =
        profile("SCMP_ACT_ERRNO", &["SCMP_ARCH_S390X"], vec![call(&["no_such_call"], "SCMP_ACT_ALLOW", vec![])]);
    assert_eq!(foreign.compile().unwrap().flags, Flags::default());
}

#[test]
fn flags_are_what_they_are_called() {
    let mut profile = profile("SCMP_ACT_ALLOW", &[], vec![]);
    profile.flags = FLAGS.iter().map(|&flag| flag.into()).collect();
    let all = profile.compile().unwrap().flags;
    assert_eq!(all, Flags { log: true, speculation_allowed: true, listener: false, wait_killable: true });
    assert_eq!(Flags::from_number(all.to_number()), all);
    profile.calls = vec![call(&["getppid"], "SCMP_ACT_NOTIFY", vec![])];
    assert!(profile.compile().unwrap().flags.listener);
    // all of them are older than the kernels we run on (5.19)
    assert_eq!(supported_flags(), FLAGS);
}

/// In a thread of its own, which takes it to its grave.
fn under<T: Send + 'static>(profile: Profile, then: impl FnOnce(Option<OwnedFd>) -> T + Send + 'static) -> T {
    let compiled = profile.compile().unwrap();
    std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        then(install_with(&compiled.program, compiled.flags).unwrap())
    })
    .join()
    .unwrap()
}

fn errno_of(number: libc::c_long, arguments: [u64; 2]) -> i32 {
    // SAFETY: only for calls without pointers
    let result = unsafe { libc::syscall(number, arguments[0], arguments[1]) };
    if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap() } else { 0 }
}

#[test]
fn the_kernel_obeys_a_profile() {
    let mut profile = profile(
        "SCMP_ACT_ALLOW",
        ARCHITECTURES,
        vec![
            call(&["getpgid"], "SCMP_ACT_ERRNO", vec![when(0, "SCMP_CMP_MASKED_EQ", 0xff00, 0x1200)]),
            // two conditions on one argument: either
            call(&["getsid"], "SCMP_ACT_ERRNO", vec![when(0, "SCMP_CMP_EQ", 70, 0), when(0, "SCMP_CMP_EQ", 71, 0)]),
            // without a tracer: ENOSYS
            call(&["getppid"], "SCMP_ACT_TRACE", vec![]),
        ],
    );
    profile.calls[0].errno = Some(77);
    profile.calls[1].errno = Some(78);
    profile.flags = FLAGS.iter().map(|&flag| flag.into()).collect();
    let found = under(profile, |listener| {
        assert!(listener.is_none());
        [
            errno_of(libc::SYS_getpgid, [0x1234, 0]),
            errno_of(libc::SYS_getpgid, [0, 0]),
            errno_of(libc::SYS_getsid, [70, 0]),
            errno_of(libc::SYS_getsid, [71, 0]),
            errno_of(libc::SYS_getsid, [0, 0]),
            errno_of(libc::SYS_getppid, [0, 0]),
        ]
    });
    assert_eq!(found, [77, 0, 78, 78, 0, libc::ENOSYS]);
}

/// The listener is told of the call, and its answer is what the call gives.
#[test]
fn a_listener_decides() {
    let mut profile = profile("SCMP_ACT_ALLOW", &[], vec![call(&["getpriority"], "SCMP_ACT_NOTIFY", vec![])]);
    profile.flags = vec![WAIT_KILLABLE.into()];
    let found = under(profile, |listener| {
        let listener = listener.expect("a listener");
        let answering = std::thread::spawn(move || {
            // SAFETY: plain numbers, for which zero is good
            let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
            const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
            // SAFETY: the structure is of the size that the request has in it
            assert_eq!(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut asked) }, 0);
            let mut answer = libc::seccomp_notif_resp { id: asked.id, val: 0, error: -99, flags: 0 };
            // SAFETY: likewise
            assert_eq!(unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw mut answer) }, 0);
            (asked.data.nr, asked.data.args[0])
        });
        let errno = errno_of(libc::SYS_getpriority, [0, 0]);
        (errno, answering.join().unwrap())
    });
    assert_eq!(found, (99, (libc::SYS_getpriority as i32, 0)));
}
