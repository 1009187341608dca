use std::path::Path;
use std::process::Command;

use super::super::{DOCKER_DEVICES, DeviceRule, EVERY_DEVICE, Nodes};
use super::*;

/// What the kernel does with a program, as far as these go.
fn run(code: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [kind | access << 16, major, minor];
    let mut registers = [0_u64; 6];
    let mut at = 0;
    loop {
        let Instruction { operation, registers: both, distance, constant } = code[at];
        let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
        let value = i64::from(constant) as u64;
        at += 1;
        let jumps = match operation {
            LOAD_WORD => {
                registers[to] = u64::from(context[usize::try_from(distance).unwrap() / 4]);
                continue;
            }
            AND => {
                registers[to] = u64::from(registers[to] as u32 & constant as u32);
                continue;
            }
            SHIFT_RIGHT => {
                registers[to] = u64::from(registers[to] as u32 >> constant);
                continue;
            }
            COPY => {
                registers[to] = registers[from];
                continue;
            }
            SET => {
                registers[to] = value;
                continue;
            }
            EXIT => return registers[0] == 1,
            IF_NOT_EQUAL => registers[to] != value,
            IF_NOT_EQUAL_REGISTERS => registers[to] != registers[from],
            IF_EQUAL => registers[to] == value,
            other => panic!("operation {other:#x}"),
        };
        if jumps {
            at += usize::try_from(distance).unwrap();
        }
    }
}

/// The rules of `devcgroup_check_permission` (security/device_cgroup.c): what is allowed must be so by one exception as
/// a whole, what is denied need only be so in part.
fn allowed(set: &Set, kind: DeviceKind, access: Access, major: u32, minor: u32) -> bool {
    let about = |nodes: &Nodes| {
        nodes.kind == kind && nodes.major.is_none_or(|own| own == major) && nodes.minor.is_none_or(|own| own == minor)
    };
    let mut exceptions = set.exceptions.iter().filter(|(nodes, _)| about(nodes)).map(|(_, access)| *access);
    if set.allowed_by_default {
        !exceptions.any(|denied| access.without(denied) != access)
    } else {
        exceptions.any(|allowed| allowed.covers(access))
    }
}

#[test]
fn programs_do_what_sets_say() {
    let mut state = 0x5eed_u64;
    let mut below = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    for _ in 0..200 {
        let mut set = Set { allowed_by_default: below(2) == 0, ..Set::default() };
        let number = |roll: u64| [None, Some(1), Some(5), Some(1 << 20)][roll as usize];
        for _ in 0..below(6) {
            let kind = [DeviceKind::Character, DeviceKind::Block][below(2) as usize];
            let nodes = Nodes { kind, major: number(below(4)), minor: number(below(4)) };
            let bits = 1 + below(7);
            let access = Access { read: bits & 1 != 0, write: bits & 2 != 0, mknod: bits & 4 != 0 };
            set.exceptions.insert(nodes, access);
        }
        let code = assemble(&set).unwrap();
        for (kind, kernel) in [(DeviceKind::Block, 1), (DeviceKind::Character, 2)] {
            for letters in ["r", "w", "m", "rw", "rwm"] {
                let access = Access::of_letters(letters).unwrap();
                for (major, minor) in [(0, 0), (1, 1), (1, 5), (5, 1), (5, 1 << 20), (1 << 20, 7)] {
                    let found = run(&code, kernel, access.bits().unsigned_abs(), major, minor);
                    let expected = allowed(&set, kind, access, major, minor);
                    assert_eq!(found, expected, "{kind:?} {major}:{minor} {letters} in {set:?}");
                }
            }
        }
    }
}

/// A cgroup of the unified hierarchy that goes when the test ends.
struct TestCgroup(std::path::PathBuf);

impl TestCgroup {
    fn of(name: &str) -> Self {
        let cgroups = crate::cgroup::Cgroups::detect().unwrap();
        let mount = cgroups.unified().expect("a unified hierarchy, with or without controllers").mount.clone();
        let path = mount.join(format!("sampan-test-bpf-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn set(&self, rules: &[DeviceRule]) {
        let program = Program::load(&Set::of(rules).unwrap()).unwrap();
        program.attach(open(&self.0).as_fd()).unwrap();
    }

    /// What a shell in it that was told to open these can open.
    fn opens(&self, paths: &[&str]) -> Vec<bool> {
        let attempts: String =
            paths.iter().map(|path| format!("(: {path}) 2>/dev/null && echo yes || echo no; ")).collect();
        let script = format!("echo 0 > '{}'/cgroup.procs; {attempts}", self.0.display());
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line == "yes").collect()
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        crate::cgroup::remove::trees(
            [self.0.clone()].into_iter(),
            std::time::Instant::now() + std::time::Duration::from_secs(5),
        )
        .unwrap();
    }
}

fn open(path: &Path) -> OwnedFd {
    crate::cgroup::path::open(path).unwrap()
}

/// In the kernel, in whatever unified hierarchy there is: the program is asked there without any controller.
#[test]
fn the_kernel_asks_the_program() {
    let cgroup = TestCgroup::of("rules");
    let paths = ["</dev/null", ">/dev/full", "</dev/urandom", "</dev/kmsg"];
    assert_eq!(cgroup.opens(&paths), [true; 4], "without rules");
    cgroup.set(DOCKER_DEVICES);
    assert_eq!(cgroup.opens(&paths), [true, true, true, false]);
    let null = DeviceRule::allow(DeviceKind::Character, Some(1), Some(3), Access::ALL);
    let kmsg = DeviceRule::allow(DeviceKind::Character, Some(1), Some(11), Access::of_letters("r").unwrap());
    // /dev/null is where the shell sends its complaints to
    cgroup.set(&[null, kmsg]);
    assert_eq!(cgroup.opens(&["</dev/null", ">/dev/full", "</dev/kmsg", ">/dev/kmsg"]), [true, false, true, false]);
    cgroup.set(EVERY_DEVICE);
    assert_eq!(cgroup.opens(&paths), [true; 4]);
    let full = DeviceRule { allow: false, ..DeviceRule::allow(DeviceKind::Character, Some(1), Some(7), Access::ALL) };
    cgroup.set(&[DeviceRule::all(true), full]);
    assert_eq!(cgroup.opens(&paths), [true, false, true, true]);
    assert_eq!(attached(open(&cgroup.0).as_fd()).unwrap().len(), 1, "each took the place of the one before");
}
