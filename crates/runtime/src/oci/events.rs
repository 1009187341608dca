//! What a container has used, in the form of `runc events --stats`.

use sampan_sys::cgroup::{IoEntry, MemoryUse, Pressure, Stats};
use serde_json::{Map, Value, json};

use super::error::OciError;
use super::lifecycle::Container;

/// One event of the kind `stats`.
///
/// # Errors
/// Its cgroup's, as when it is gone.
pub fn stats(container: &Container) -> Result<Value, OciError> {
    let stats = container.cgroups()?.stats()?;
    Ok(json!({"type": "stats", "id": container.record().id, "data": data(&stats)}))
}

fn data(stats: &Stats) -> Value {
    let Stats { cpu, memory, pids, pids_limit, io_bytes, io_requests, huge_pages, pressure } = stats;
    let [of_cpu, of_memory, of_io] = pressure;
    let huge_pages: Map<String, Value> = huge_pages
        .iter()
        .map(|(size, use_)| (size.clone(), json!({"usage": use_.used, "max": use_.most, "failcnt": use_.failures})))
        .collect();
    json!({
        "cpu": {
            "usage": {"total": cpu.total, "percpu": cpu.each, "kernel": cpu.kernel, "user": cpu.user},
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled,
            },
            "psi": of_cpu.map(waits),
        },
        "cpuset": {},
        "memory": {
            "cache": memory.cache,
            "usage": of(memory.memory),
            "swap": of(memory.with_swap),
            "kernel": of(memory.kernel),
            "kernelTCP": of(memory.kernel_tcp),
            "raw": memory.details,
            "psi": of_memory.map(waits),
        },
        "pids": {"current": pids, "limit": pids_limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": entries(io_bytes),
            "ioServicedRecursive": entries(io_requests),
            "psi": of_io.map(waits),
        },
        "hugetlb": huge_pages,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn of(memory: MemoryUse) -> Value {
    json!({"limit": memory.limit, "usage": memory.used, "max": memory.most, "failcnt": memory.failures})
}

fn entries(list: &[IoEntry]) -> Vec<Value> {
    list.iter()
        .map(|entry| json!({"major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value}))
        .collect()
}

fn waits(pressure: Pressure) -> Value {
    let line = |line: sampan_sys::cgroup::PressureLine| {
        let [avg10, avg60, avg300] = line.averages;
        json!({"avg10": avg10, "avg60": avg60, "avg300": avg300, "total": line.total})
    };
    json!({"some": line(pressure.some), "full": line(pressure.full)})
}
