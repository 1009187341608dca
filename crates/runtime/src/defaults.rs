//! What a container may and sees where nobody says otherwise: Docker's defaults
//! (moby `daemon/pkg/oci/defaults.go` and `daemon/pkg/oci/caps/defaults.go`, version 29).

use std::ffi::OsString;
use std::sync::LazyLock;

/// The capabilities of a container's root, bit N for capability N: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID,
/// SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
pub const DEFAULT_CAPABILITIES: u64 = bits(&[0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]);

/// How large `/dev/shm` is, in bytes.
pub const SHM_BYTES: u64 = 64 << 20;

/// What this process itself may hand on, bit N for capability N: what it could ever have.
pub fn held() -> u64 {
    static HELD: LazyLock<u64> = LazyLock::new(sampan_sys::identity::bounding_capabilities);
    *HELD
}

const fn bits(numbers: &[u32]) -> u64 {
    let mut all = 0;
    let mut at = 0;
    while at < numbers.len() {
        all |= 1 << numbers[at];
        at += 1;
    }
    all
}

/// Which bits of new files' modes a program begins with cleared.
pub const UMASK: u32 = 0o022;

/// Where a program without `PATH` in its environment is searched.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the kernel would tell a container about its host: hidden. A processor that is plugged in later counts from the
/// next start of this process, as with Docker.
pub fn masked_paths() -> Vec<String> {
    static PATHS: LazyLock<Vec<String>> = LazyLock::new(find_masked_paths);
    PATHS.clone()
}

fn find_masked_paths() -> Vec<String> {
    let fixed = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ];
    // how hot each processor has been: what the neighbours do
    let throttles = processors().into_iter().map(|number| format!("{PROCESSORS}/cpu{number}/thermal_throttle"));
    fixed.into_iter().map(str::to_owned).chain(throttles).collect()
}

const PROCESSORS: &str = "/sys/devices/system/cpu";

/// The numbers of this machine's processors, as the kernel lists them now; none where it does not.
fn processors() -> Vec<u32> {
    let entries = std::fs::read_dir(PROCESSORS).into_iter().flatten().flatten();
    let number = |name: OsString| name.to_str()?.strip_prefix("cpu")?.parse().ok();
    let mut numbers: Vec<u32> = entries.filter_map(|entry| number(entry.file_name())).collect();
    numbers.sort_unstable();
    numbers
}

/// What a container may read of the kernel but not change.
pub fn readonly_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_is_masked() {
        let paths = masked_paths();
        assert!(paths.iter().any(|path| path == "/proc/kcore"));
        let throttles: Vec<_> = paths.iter().filter(|path| path.ends_with("/thermal_throttle")).collect();
        assert_eq!(throttles.len(), processors().len());
        assert!(throttles.iter().all(|path| path.starts_with("/sys/devices/system/cpu/cpu")), "{throttles:?}");
        assert!(throttles.len() >= std::thread::available_parallelism().unwrap().get(), "{throttles:?}");
    }
}
