//! What runs once more on another kernel and on cgroup version 2, in a machine of its own each (see
//! `sampan_e2e::guest`, which also says how to add to it).

#![forbid(unsafe_code)]

use sampan_e2e::guest::Guest;

/// Every unit test of `sys`: control groups, seccomp, mounts, netlink; but for long computations that ask no kernel.
#[test]
fn sys() {
    let left_out = ["random_filters_compile_to_what_they_say", "programs_do_what_profiles_say", "borders"];
    let words: Vec<&str> = left_out.iter().flat_map(|name| ["--skip", name]).collect();
    Guest::shared().run("sampan_sys", &words);
}

/// The tests of the sealed start, but for those of figures and of crowds, which say nothing of a kernel where every
/// instruction is emulated.
#[test]
fn sealed() {
    let left_out = [
        "it_stays_small",
        "joining_is_quick",
        "many_",
        "ids_come_back",
        "what_is_kept_from_its_program_is_given_up",
        "input_is_piped_to_its_end",
    ];
    let words: Vec<&str> = left_out.iter().flat_map(|name| ["--skip", name]).collect();
    Guest::shared().run("sealed", &words);
}

/// Every test of the network.
#[test]
fn network() {
    Guest::shared().run("network", &[]);
}

/// Containers of a daemon: what they are kept from, and what is opened to them.
#[test]
fn containers() {
    Guest::shared().run("e2e", &["confinement::", "escapes::cve_2022", "escapes::cve_2024", "escapes::cve_2025"]);
}

/// `sampan oci`, beside runc.
#[test]
fn oci() {
    Guest::shared().run("e2e", &["oci_bundles::", "oci_escapes::"]);
}
