use std::collections::BTreeMap;

use super::*;
use crate::cgroup::{HugePages, Rdma, WeightDevice};

/// A machine that is only told of.
struct Told {
    version: Version,
    lacking: &'static [&'static str],
    files: BTreeMap<&'static str, &'static str>,
}

impl Told {
    fn of(version: Version) -> Self {
        Self { version, lacking: &[], files: BTreeMap::new() }
    }
}

impl Ground for Told {
    fn version(&self, controller: &str) -> Option<Version> {
        let other = if self.version == Version::One { "io" } else { "blkio" };
        (controller != other && !self.lacking.contains(&controller)).then_some(self.version)
    }

    fn unified_alone(&self) -> bool {
        self.version == Version::Two
    }

    fn read(&self, _: &str, file: &str) -> Result<Option<String>, CgroupError> {
        Ok(self.files.get(file).map(|&text| text.to_owned()))
    }
}

/// `file=value`, with `?` where it may be missing and `|file=value` for what is written instead.
fn written(resources: &Resources, ground: &Told) -> Vec<String> {
    let plan = plan(resources, ground).unwrap();
    let text = |write: &Write| {
        let rest = match &write.missing {
            Missing::Refused => String::new(),
            Missing::Skipped => "?".into(),
            Missing::Instead { file, value } => format!("|{file}={value}"),
        };
        format!("{}={}{rest}", write.file, write.value)
    };
    plan.writes.iter().map(text).collect()
}

fn both(resources: &Resources, one: &[&str], two: &[&str]) {
    assert_eq!(written(resources, &Told::of(Version::One)), one, "version 1");
    assert_eq!(written(resources, &Told::of(Version::Two)), two, "version 2");
}

fn memory(memory: Memory) -> Resources {
    Resources { memory, ..Resources::default() }
}

fn cpu(cpu: Cpu) -> Resources {
    Resources { cpu, ..Resources::default() }
}

#[test]
fn nothing_asked_nothing_written() {
    both(&Resources::default(), &[], &[]);
    let zeros = Resources {
        memory: Memory { limit: Some(0), swap: Some(0), reservation: Some(0), ..Memory::default() },
        cpu: Cpu { shares: Some(0), quota: Some(0), period: Some(0), cpus: Some(String::new()), ..Cpu::default() },
        pids: Some(0),
        ..Resources::default()
    };
    both(&zeros, &[], &[]);
}

#[test]
fn memory_and_swap() {
    both(
        &memory(Memory { limit: Some(100), swap: Some(150), reservation: Some(50), ..Memory::default() }),
        &["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=150", "memory.soft_limit_in_bytes=50"],
        &["memory.swap.max=50", "memory.max=100", "memory.low=50"],
    );
    both(
        &memory(Memory { limit: Some(100), swap: Some(100), ..Memory::default() }),
        &["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=100?"],
        &["memory.swap.max=0?", "memory.max=100"],
    );
    both(
        &memory(Memory { limit: Some(-1), ..Memory::default() }),
        &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1?"],
        &["memory.swap.max=max?", "memory.max=max"],
    );
    both(
        &memory(Memory { limit: Some(-1), swap: Some(70), ..Memory::default() }),
        &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=70"],
        &["memory.swap.max=70", "memory.max=max"],
    );
    // only swap: version 2 has to know the limit that is there
    let swap = memory(Memory { swap: Some(150), ..Memory::default() });
    let mut told = Told::of(Version::Two);
    told.files.insert("memory.max", "100");
    assert_eq!(written(&swap, &told), ["memory.swap.max=50"]);
    told.files.insert("memory.max", "max");
    assert!(matches!(plan(&swap, &told), Err(CgroupError::SwapWithoutLimit(150))));
    let below = memory(Memory { limit: Some(100), swap: Some(99), ..Memory::default() });
    assert!(matches!(plan(&below, &told), Err(CgroupError::SwapBelowLimit { both: 99, limit: 100 })));
    let much = memory(Memory { swappiness: Some(101), ..Memory::default() });
    assert!(matches!(plan(&much, &told), Err(CgroupError::Swappiness(101))));
}

#[test]
fn memorys_rest() {
    let rest = memory(Memory {
        swappiness: Some(7),
        disable_oom_killer: Some(true),
        kernel: Some(1),
        kernel_tcp: Some(1),
        use_hierarchy: Some(true),
        ..Memory::default()
    });
    both(&rest, &["memory.oom_control=1", "memory.swappiness=7"], &[]);
    let ignored = |version| plan(&rest, &Told::of(version)).unwrap().ignored;
    assert_eq!(ignored(Version::One), ["memory.kernel", "memory.kernelTCP"]);
    assert_eq!(
        ignored(Version::Two),
        ["memory.kernel", "memory.kernelTCP", "memory.disableOOMKiller", "memory.swappiness"]
    );
    let mut told = Told::of(Version::One);
    told.files.insert("memory.use_hierarchy", "0");
    assert_eq!(written(&rest, &told)[0], "memory.use_hierarchy=1");
}

#[test]
fn a_limit_below_what_is_used() {
    let mut told = Told::of(Version::Two);
    told.files.insert("memory.current", "101");
    let asked = |check| memory(Memory { limit: Some(100), check_before_update: check, ..Memory::default() });
    assert!(matches!(plan(&asked(Some(true)), &told), Err(CgroupError::MemoryUsed { used: 101, limit: 100 })));
    assert_eq!(written(&asked(None), &told), ["memory.max=100"]);
}

#[test]
fn processors() {
    both(
        &cpu(Cpu { shares: Some(1024), quota: Some(50_000), period: Some(100_000), ..Cpu::default() }),
        &["cpu.shares=1024", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"],
        &["cpu.weight=100", "cpu.max=50000 100000"],
    );
    both(
        &cpu(Cpu { quota: Some(-1), burst: Some(10), ..Cpu::default() }),
        &["cpu.cfs_quota_us=-1", "cpu.cfs_burst_us=10"],
        &["cpu.max=max", "cpu.max.burst=10"],
    );
    both(&cpu(Cpu { idle: Some(1), shares: Some(9), ..Cpu::default() }), &["cpu.idle=1"], &["cpu.idle=1"]);
    let realtime = cpu(Cpu { realtime_period: Some(100), realtime_runtime: Some(50), ..Cpu::default() });
    both(&realtime, &["cpu.rt_period_us=100", "cpu.rt_runtime_us=50"], &[]);
    assert_eq!(
        plan(&realtime, &Told::of(Version::Two)).unwrap().ignored,
        ["cpu.realtimePeriod", "cpu.realtimeRuntime"]
    );
    let set = cpu(Cpu { cpus: Some("0-1".into()), mems: Some("0".into()), ..Cpu::default() });
    both(&set, &["cpuset.cpus=0-1", "cpuset.mems=0"], &["cpuset.cpus=0-1", "cpuset.mems=0"]);
    // a period alone leaves the quota as it is
    let period = cpu(Cpu { period: Some(5000), ..Cpu::default() });
    let mut told = Told::of(Version::Two);
    assert_eq!(written(&period, &told), ["cpu.max=max 5000"]);
    told.files.insert("cpu.max", "2000 100000");
    assert_eq!(written(&period, &told), ["cpu.max=2000 5000"]);
}

#[test]
fn disks() {
    let one = |rate| vec![Throttle { major: 8, minor: 1, rate }];
    let io = Io {
        weight: Some(500),
        weight_devices: vec![WeightDevice { major: 8, minor: 0, weight: Some(100), leaf_weight: None }],
        read_bps: one(1000),
        write_bps: one(0),
        read_iops: one(5),
        write_iops: one(6),
        ..Io::default()
    };
    both(
        &Resources { io, ..Resources::default() },
        &[
            "blkio.weight=500|blkio.bfq.weight=500",
            "blkio.weight_device=8:0 100|blkio.bfq.weight_device=8:0 100",
            "blkio.throttle.read_bps_device=8:1 1000",
            "blkio.throttle.write_bps_device=8:1 0",
            "blkio.throttle.read_iops_device=8:1 5",
            "blkio.throttle.write_iops_device=8:1 6",
        ],
        &[
            "io.bfq.weight=500|io.weight=4950",
            "io.bfq.weight=8:0 100|io.weight=8:0 910",
            "io.max=8:1 rbps=1000",
            "io.max=8:1 wbps=max",
            "io.max=8:1 riops=5",
            "io.max=8:1 wiops=6",
        ],
    );
}

#[test]
fn the_others() {
    let resources = Resources {
        pids: Some(-1),
        huge_pages: vec![HugePages { page_size: "2MB".into(), limit: 4096 }],
        rdma: vec![Rdma { device: "mlx5_1".into(), handles: Some(3), objects: None }],
        network_class: Some(0x10_0001),
        network_priorities: vec![("lo".into(), 5)],
        ..Resources::default()
    };
    both(
        &resources,
        &[
            "pids.max=max",
            "hugetlb.2MB.limit_in_bytes=4096",
            "hugetlb.2MB.rsvd.limit_in_bytes=4096?",
            "net_cls.classid=1048577",
            "net_prio.ifpriomap=lo 5",
            "rdma.max=mlx5_1 hca_handle=3",
        ],
        &["pids.max=max", "hugetlb.2MB.max=4096", "hugetlb.2MB.rsvd.max=4096?", "rdma.max=mlx5_1 hca_handle=3"],
    );
    let path = Resources { huge_pages: vec![HugePages { page_size: "../x".into(), limit: 1 }], ..Resources::default() };
    assert!(matches!(plan(&path, &Told::of(Version::Two)), Err(CgroupError::PageSize(_))));
}

#[test]
fn unified_files() {
    let unified = |name: &str| Resources { unified: vec![(name.into(), "1".into())], ..Resources::default() };
    assert_eq!(written(&unified("memory.high"), &Told::of(Version::Two)), ["memory.high=1"]);
    for bad in ["../cgroup.procs", "a/b.c", "memory"] {
        assert!(matches!(plan(&unified(bad), &Told::of(Version::Two)), Err(CgroupError::Setting(_))), "{bad}");
    }
    assert!(matches!(plan(&unified("memory.high"), &Told::of(Version::One)), Err(CgroupError::NotUnified(_))));
}

#[test]
fn a_missing_controller_is_named() {
    for (controller, resources) in [
        ("pids", Resources { pids: Some(5), ..Resources::default() }),
        ("memory", memory(Memory { limit: Some(5), ..Memory::default() })),
        ("cpu", cpu(Cpu { shares: Some(5), ..Cpu::default() })),
        ("cpuset", cpu(Cpu { cpus: Some("0".into()), ..Cpu::default() })),
        ("io", Resources { io: Io { weight: Some(10), ..Io::default() }, ..Resources::default() }),
        ("rdma", Resources { rdma: vec![Rdma::default()], ..Resources::default() }),
        (
            "hugetlb",
            Resources { huge_pages: vec![HugePages { page_size: "2MB".into(), limit: 1 }], ..Resources::default() },
        ),
    ] {
        let told =
            Told { lacking: &["pids", "memory", "cpu", "cpuset", "io", "rdma", "hugetlb"], ..Told::of(Version::Two) };
        let error = plan(&resources, &told).unwrap_err();
        assert!(matches!(error, CgroupError::NoController { controller: found, .. } if found == controller), "{error}");
    }
}
