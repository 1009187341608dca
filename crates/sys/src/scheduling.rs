//! How a process comes by its turn: at the processors (`sched_setattr(2)`), at the disks (`ioprio_set(2)`).

use std::io;
use std::str::FromStr;

use rustix::process::Pid;

/// Who goes first at the processors (sched(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of sched(7), SCHED_ before each")]
pub enum Policy {
    Other,
    Fifo,
    Rr,
    Batch,
    Iso,
    Idle,
    Deadline,
}

const POLICIES: [(&str, Policy, u32); 7] = [
    ("SCHED_OTHER", Policy::Other, 0),
    ("SCHED_FIFO", Policy::Fifo, 1),
    ("SCHED_RR", Policy::Rr, 2),
    ("SCHED_BATCH", Policy::Batch, 3),
    ("SCHED_ISO", Policy::Iso, 4),
    ("SCHED_IDLE", Policy::Idle, 5),
    ("SCHED_DEADLINE", Policy::Deadline, 6),
];

/// `SCHED_FLAG_…` (linux/sched.h); the first has its own name.
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// The bit of a flag, by its name: with `SCHED_FLAG_` before it, or as the man page has it.
pub fn flag(name: &str) -> Option<u64> {
    let known = |own: &str| own == name || own.replace("SCHED_RESET", "SCHED_FLAG_RESET") == name;
    FLAGS.iter().find(|(own, _)| known(own)).map(|&(_, bit)| bit)
}

/// The word is none that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of those that there are")]
pub struct Unknown(String);

impl FromStr for Policy {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let found = POLICIES.iter().find(|(name, ..)| *name == text);
        found.map(|&(_, policy, _)| policy).ok_or_else(|| Unknown(text.to_owned()))
    }
}

/// A process's turn at the processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduler {
    /// By which rule.
    pub policy: Policy,
    /// [`flag`]s.
    pub flags: u64,
    /// From -20 to 19, with `Other` and `Batch`.
    pub nice: i32,
    /// From 1 to 99, with `Fifo` and `Rr`.
    pub priority: u32,
    /// With `Deadline`.
    pub runtime_ns: u64,
    /// With `Deadline`.
    pub deadline_ns: u64,
    /// With `Deadline`.
    pub period_ns: u64,
}

/// `struct sched_attr`, its first version: 48 bytes.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets it, of a process (`None`: this thread).
///
/// # Errors
/// The kernel's: `EPERM` where more is asked for than this process may give.
pub fn set_scheduler(process: Option<Pid>, scheduler: &Scheduler) -> io::Result<()> {
    let policy = POLICIES.iter().find(|(_, policy, _)| *policy == scheduler.policy).map_or(0, |&(.., number)| number);
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime_ns,
        deadline: scheduler.deadline_ns,
        period: scheduler.period_ns,
    };
    // SAFETY: a structure that says how large it is; no flags.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, number(process), &raw const attributes, 0) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Who goes first at the disks (ioprio_set(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of ioprio_set(2), IOPRIO_CLASS_ before each")]
pub enum IoClass {
    Rt,
    Be,
    Idle,
}

impl FromStr for IoClass {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        match text {
            "IOPRIO_CLASS_RT" => Ok(Self::Rt),
            "IOPRIO_CLASS_BE" => Ok(Self::Be),
            "IOPRIO_CLASS_IDLE" => Ok(Self::Idle),
            _ => Err(Unknown(text.to_owned())),
        }
    }
}

/// A process's turn at the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority {
    /// By which rule.
    pub class: IoClass,
    /// From 0, first, to 7.
    pub level: u8,
}

/// Sets it, of a process (`None`: this thread).
///
/// # Errors
/// The kernel's: `EPERM` where this process may not.
pub fn set_io_priority(process: Option<Pid>, priority: IoPriority) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let class: libc::c_int = match priority.class {
        IoClass::Rt => 1,
        IoClass::Be => 2,
        IoClass::Idle => 3,
    };
    let value = class << IOPRIO_CLASS_SHIFT | libc::c_int::from(priority.level);
    // SAFETY: takes numbers.
    let set = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, number(process), value) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn number(process: Option<Pid>) -> libc::c_int {
    process.map_or(0, |pid| pid.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!("SCHED_BATCH".parse(), Ok(Policy::Batch));
        assert!("batch".parse::<Policy>().is_err());
        assert_eq!("IOPRIO_CLASS_BE".parse(), Ok(IoClass::Be));
        assert_eq!(flag("SCHED_FLAG_RESET_ON_FORK"), flag("SCHED_RESET_ON_FORK"));
        assert_eq!(flag("SCHED_FLAG_RECLAIM"), Some(2));
        assert_eq!(flag("x"), None);
    }

    #[test]
    fn a_thread_of_its_own_is_changed() {
        std::thread::spawn(|| {
            let batch = Scheduler {
                policy: Policy::Batch,
                flags: 0,
                nice: 5,
                priority: 0,
                runtime_ns: 0,
                deadline_ns: 0,
                period_ns: 0,
            };
            set_scheduler(None, &batch).unwrap();
            // SAFETY: takes a number; 0 is the calling thread.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_BATCH);
            set_io_priority(None, IoPriority { class: IoClass::Be, level: 6 }).unwrap();
            // SAFETY: takes numbers.
            assert_eq!(unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) }, 2 << 13 | 6);
        })
        .join()
        .unwrap();
    }
}
