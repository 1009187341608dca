//! For tests: the kernel's interpreter, and chance that is the same every time.

use super::Program;
use super::compile::{
    AND, ARCHITECTURE, ARGUMENTS, IF_EQUAL, IF_GREATER, IF_GREATER_EQUAL, JUMP, LOAD, NUMBER, RETURN,
};

/// What the kernel does with a program: `kernel/seccomp.c`, classic BPF as far as filters may use it.
pub(super) fn run(program: &Program, audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let word = |at: u32| match at {
        NUMBER => number,
        ARCHITECTURE => audit,
        _ => {
            assert!(at >= ARGUMENTS && at.is_multiple_of(4) && at < 64, "load at {at}");
            let argument = arguments[((at - ARGUMENTS) / 8) as usize];
            if at.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
        }
    };
    let (mut accumulator, mut at) = (0u32, 0usize);
    loop {
        let instruction = program.instructions()[at];
        let jump = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
        at += 1;
        match u32::from(instruction.code) {
            LOAD => accumulator = word(instruction.k),
            AND => accumulator &= instruction.k,
            RETURN => return instruction.k,
            JUMP => at += instruction.k as usize,
            IF_EQUAL => at += jump(accumulator == instruction.k),
            IF_GREATER => at += jump(accumulator > instruction.k),
            IF_GREATER_EQUAL => at += jump(accumulator >= instruction.k),
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// xorshift: enough chance for a test, and the same every time.
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Numbers near each other and near the borders of words, so that every comparison has its equal cases.
    pub fn value(&mut self) -> u64 {
        let base = [0, 1 << 31, 1 << 32, 0xffff_ffff, 5 << 32, u64::MAX][self.below(6) as usize];
        base.wrapping_add(self.below(3)).wrapping_sub(1)
    }
}
