//! Another machine: Debian's kernel (6.1 where this was written), booted in an emulator, with cgroup version 2 and
//! nothing else, where this machine may have version 1 and a kernel years younger. What passes here *and* there holds
//! on both versions of cgroups, and on the oldest kernel that is promised.
//!
//! ```text
//! Guest::run("sealed", &[])      a test of tests/guest/main.rs
//!   disk.rs                      ext4 with busybox, the test programs, `sampan`, and the libraries they are linked with
//!   initramfs.rs                 busybox and the kernel's modules; start.sh loads them and changes to the disk
//!   qemu                         two serial lines: the kernel's (a file, shown where the guest fails), and the report
//!   init.sh                      mounts, runs /programs/sealed, reports how it ended, switches the machine off
//! ```
//!
//! **To run more there**: every unit test of `sys`, every sealed test of `runtime`, every test of `network`, of `e2e`'s
//! `confinement` and of its `oci_bundles` runs in the guest anyway, so a new one there needs nothing. Another test of
//! `e2e` is named in `tests/guest/main.rs`. Another test
//! program is named in `xtask/src/programs.rs`, which builds it, and gets a test of its own in `tests/guest/main.rs`. A
//! kernel module more is named in `initramfs`. To look around, run
//! `SAMPAN_GUEST_CONSOLE=1 cargo xtask test -- --test guest NAME --nocapture`: the kernel's messages are then shown as
//! well.
//!
//! Emulated, everything takes 10 to 30 times as long as here: time-outs of tests that run there are generous, and what
//! needs a compiler, a thousand containers or somebody else's engine stays here. Deliberately absent: a network device
//! and any way back out.

mod cpio;
mod disk;
mod initramfs;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use crate::tools;

/// The longest a guest may take, in seconds. It only decides how long a broken test takes.
const SECONDS: &str = "400";
/// Memory in MiB: some more than the one server of the default size that a test has at a time.
const MEMORY: &str = "1536";
/// How much of the kernel's messages is shown where a guest failed.
const TAIL: usize = 40;
/// What `init.sh` begins its own lines with.
const OWN: &str = "guest: ";

/// A machine that can be booted, any number of times and side by side: what one writes no other sees.
pub struct Guest {
    disk: PathBuf,
    initramfs: PathBuf,
    dir: tempfile::TempDir,
}

impl Guest {
    /// The one that all tests of this process share, made at the first use.
    ///
    /// # Panics
    /// Where something it is made of is missing; it says what fetches it.
    pub fn shared() -> &'static Self {
        static GUEST: OnceLock<Guest> = OnceLock::new();
        GUEST.get_or_init(Self::make)
    }

    fn make() -> Self {
        assert_eq!(std::env::consts::ARCH, "x86_64", "the guest of the tests is an x86-64 machine");
        let dir = tempfile::tempdir_in(tools::scratch()).expect("a directory for the guest");
        let guest = Self { disk: dir.path().join("disk"), initramfs: dir.path().join("initramfs"), dir };
        disk::write(&guest.disk, guest.dir.path());
        initramfs::write(&guest.initramfs);
        guest
    }

    /// Boots, runs a test program with these words, and asserts that it passed: that it ran tests at all, that none
    /// failed, and that it was on cgroup version 2 alone. What it wrote is printed.
    ///
    /// # Panics
    /// Where it did not pass, or the machine did not answer; it shows the last of what the kernel said.
    #[track_caller]
    pub fn run(&self, program: &str, words: &[&str]) {
        let console = self.dir.path().join(format!("{program}.console"));
        let since = Instant::now();
        let report = self.boot(program, words, &console);
        let has_line = |line: &str| report.iter().any(|other| other == line);
        let ended = |how: &str| report.iter().filter(|line| line.starts_with("test ") && line.contains(how)).count();
        let (passed, failed) = (ended(" ... ok"), ended(" ... FAILED"));
        if has_line("guest: ended 0") && has_line("guest: cgroup2 alone") && passed > 0 && failed == 0 {
            println!("guest {program}: {passed} tests passed in {:.1} s", since.elapsed().as_secs_f32());
            return;
        }
        let why = match report.iter().find_map(|line| line.strip_prefix("guest: ended ")) {
            Some(code) => format!("{passed} tests passed, {failed} failed, exit code {code}"),
            None => format!("it did not come to its end, {SECONDS} s being the limit"),
        };
        let console = std::fs::read_to_string(&console).unwrap_or_default();
        let console: Vec<&str> = console.lines().collect();
        panic!(
            "guest {program}: {why}; its report is above; the last the kernel said:\n{}",
            console[console.len().saturating_sub(TAIL)..].join("\n")
        );
    }

    /// The lines that it reported.
    fn boot(&self, program: &str, words: &[&str], console: &Path) -> Vec<String> {
        let qemu = tools::tool("qemu");
        let mut command = Command::new("timeout");
        // an emulator outlives nobody who has been killed for longer than this
        command.args(["--kill-after", "5", SECONDS]).arg(tools::qemu()).current_dir(self.dir.path());
        let libraries = ["usr/lib", "lib"].map(|dir| qemu.join(dir).join(tools::multiarch()));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("paths without colons"));
        command.env("TMPDIR", self.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        for firmware in ["qemu", "seabios"] {
            command.arg("-L").arg(qemu.join("usr/share").join(firmware));
        }
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY]);
        command.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
        command.args(["-monitor", "none"]);
        // `snapshot`: what is written goes to a file that is gone with the machine
        command
            .arg("-drive")
            .arg(format!("file={},format=raw,if=virtio,snapshot=on,cache=unsafe", self.disk.display()));
        command.arg("-kernel").arg(tools::kernel()).arg("-initrd").arg(&self.initramfs);
        command.arg("-append").arg(format!("{KERNEL_OPTIONS} -- {program} {}", words.join(" ")));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
        let output = child.stdout.take().expect("it is piped");
        let mut report = Vec::new();
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line.expect("the emulator's output")).trim_end().to_owned();
            // the emulator's own words come here too
            if !line.starts_with(OWN) || line.contains("ended") || line.contains("kernel") {
                println!("{line}");
            }
            report.push(line);
        }
        let status = child.wait().expect("the emulator ends");
        if !status.success() {
            println!("the emulator: {status}");
        }
        if std::env::var_os("SAMPAN_GUEST_CONSOLE").is_some() {
            println!("{}", std::fs::read_to_string(console).unwrap_or_default());
        }
        report
    }
}

/// What costs time where every instruction is emulated is left out: randomized addresses, mitigations of a processor's
/// faults, zeroed pages.
const KERNEL_OPTIONS: &str = "console=ttyS0 nokaslr mitigations=off init_on_alloc=0 audit=0 apparmor=0 panic=-1";
