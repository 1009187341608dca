//! The black-box tests: what a person or a program sees of Sampan, from outside, on a real kernel.
//!
//! By theme: `up` (source to URL), `inside` (what a container is shut in by), `bad_input` (every way to be wrong has its
//! answer and leaves nothing), `processes` (what is killed, and what goes on), `under_load` (nothing is dropped),
//! `tidy` (nothing stays), `figures` (what is promised in `SPECIFICATION.md`). Each test has an instance of its own;
//! the harness asserts at its end that `purge` left nothing.

#![forbid(unsafe_code)]

mod bad_input;
mod figures;
mod inside;
mod interrupted;
mod processes;
mod tidy;
mod under_load;
mod up;
