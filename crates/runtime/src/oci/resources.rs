//! What a configuration allows, in the kernel's words.

use sampan_sys::cgroup as sys;

use super::config::{self, DeviceRule, Resources};
use super::error::OciError;

/// Of a new container: its device rules are whole, and end with what every container may have.
pub(super) fn of_container(asked: &Resources) -> Result<sys::Resources, OciError> {
    let rules = asked.devices.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    let devices = Some(rules.into_iter().chain(sys::DOCKER_DEVICES.iter().copied()).collect());
    Ok(sys::Resources { devices, ..of_update(asked)? })
}

/// Of a container that is there: its devices stay.
pub(super) fn of_update(asked: &Resources) -> Result<sys::Resources, OciError> {
    let network = asked.network.as_ref();
    Ok(sys::Resources {
        devices: None,
        memory: asked.memory.as_ref().map(memory).unwrap_or_default(),
        cpu: asked.cpu.as_ref().map(cpu).unwrap_or_default(),
        pids: asked.pids.as_ref().and_then(|pids| pids.limit),
        io: asked.block_io.as_ref().map(io).transpose()?.unwrap_or_default(),
        huge_pages: asked
            .hugepage_limits
            .iter()
            .map(|limit| sys::HugePages { page_size: limit.page_size.clone(), limit: limit.limit })
            .collect(),
        network_class: network.and_then(|network| network.class_id),
        network_priorities: network
            .into_iter()
            .flat_map(|network| &network.priorities)
            .map(|one| (one.name.clone(), one.priority))
            .collect(),
        rdma: asked
            .rdma
            .iter()
            .map(|(device, rdma)| sys::Rdma {
                device: device.clone(),
                handles: rdma.hca_handles,
                objects: rdma.hca_objects,
            })
            .collect(),
        unified: asked.unified.iter().map(|(file, value)| (file.clone(), value.clone())).collect(),
    })
}

fn rule(rule: &DeviceRule) -> Result<sys::DeviceRule, OciError> {
    let wrong = |why: String| OciError::config("linux.resources.devices", why);
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| wrong(format!("{number} is no device number"))),
    };
    let kind = match rule.kind.as_str() {
        "" | "a" => sys::DeviceKind::All,
        "c" | "u" => sys::DeviceKind::Character,
        "b" => sys::DeviceKind::Block,
        other => return Err(wrong(format!("{other:?} is no type of device: a, c or b"))),
    };
    let letters = if rule.access.is_empty() { "rwm" } else { &rule.access };
    let access = sys::Access::of_letters(letters).ok_or_else(|| wrong(format!("{letters:?} is no access: r, w, m")))?;
    Ok(sys::DeviceRule { allow: rule.allow, kind, major: number(rule.major)?, minor: number(rule.minor)?, access })
}

fn memory(asked: &config::Memory) -> sys::Memory {
    sys::Memory {
        limit: asked.limit,
        reservation: asked.reservation,
        swap: asked.swap,
        kernel: asked.kernel,
        kernel_tcp: asked.kernel_tcp,
        swappiness: asked.swappiness,
        disable_oom_killer: asked.disable_oom_killer,
        use_hierarchy: asked.use_hierarchy,
        check_before_update: asked.check_before_update,
    }
}

fn cpu(asked: &config::Cpu) -> sys::Cpu {
    let list = |list: &String| (!list.is_empty()).then(|| list.clone());
    sys::Cpu {
        shares: asked.shares,
        quota: asked.quota,
        burst: asked.burst,
        period: asked.period,
        realtime_runtime: asked.realtime_runtime,
        realtime_period: asked.realtime_period,
        cpus: list(&asked.cpus),
        mems: list(&asked.mems),
        idle: asked.idle,
    }
}

fn io(asked: &config::BlockIo) -> Result<sys::Io, OciError> {
    let number = |number: i64| {
        u32::try_from(number)
            .map_err(|_| OciError::config("linux.resources.blockIO", format!("{number} is no device number")))
    };
    let throttles = |list: &[config::Throttle]| {
        let one = |one: &config::Throttle| {
            Ok(sys::Throttle { major: number(one.major)?, minor: number(one.minor)?, rate: one.rate })
        };
        list.iter().map(one).collect::<Result<Vec<_>, OciError>>()
    };
    let weight = |one: &config::Weight| {
        Ok(sys::WeightDevice {
            major: number(one.major)?,
            minor: number(one.minor)?,
            weight: one.weight,
            leaf_weight: one.leaf_weight,
        })
    };
    Ok(sys::Io {
        weight: asked.weight,
        leaf_weight: asked.leaf_weight,
        weight_devices: asked.weight_device.iter().map(weight).collect::<Result<Vec<_>, OciError>>()?,
        read_bps: throttles(&asked.throttle_read_bps_device)?,
        write_bps: throttles(&asked.throttle_write_bps_device)?,
        read_iops: throttles(&asked.throttle_read_iops_device)?,
        write_iops: throttles(&asked.throttle_write_iops_device)?,
    })
}
