//! The black-box tests: what a person or a program sees of Sampan, from outside, on a real kernel.
//!
//! By theme: `up` (source to URL), `inside` (what a container is shut in by), `bad_input` (every way to be wrong has
//! its answer and leaves nothing), `processes` (what is killed, and what goes on), `images` (out of here into other
//! programs, and back), `under_load` (nothing is dropped), `openapi` (the API's page compared with what is answered),
//! `sdk` and `courses` (the examples), `containers` and `logs` (from the shell), `ordinary_user` (who is not root),
//! `confinement` (what else it may), `escapes` (known ways out, tried), `volumes`, `cp` and `disk` (files), `streams` (attach, exec, terminals), `mistakes` (the commonest, by
//! `docs/mistakes.md`), `help`, `install` (systemd's part), `package` (what is given away), `tidy` (nothing stays),
//! `pool` (servers that wait ready), `runtimes` (runc and crun in the place of ours), `pass` (one instance's whole way, for the
//! guest too), `figures` (what is promised in `SPECIFICATION.md`). Each test has an instance of its own; the harness asserts at
//! its end that `purge` left nothing.

#![forbid(unsafe_code)]

mod bad_input;
mod confinement;
mod containers;
mod courses;
mod cp;
mod disk;
mod escapes;
mod figures;
mod help;
mod images;
mod inside;
mod install;
mod interrupted;
mod logs;
mod mistakes;
mod oci_bundles;
mod oci_callers;
mod oci_escapes;
mod oci_life;
mod openapi;
mod operations;
mod ordinary_user;
mod package;
mod pass;
mod pool;
mod ports;
mod processes;
mod reproducible;
mod roots;
mod runtimes;
mod sdk;
mod servers;
mod sources;
mod streams;
mod survives;
mod tidy;
mod timing;
mod under_load;
mod up;
mod volumes;
