//! From a profile to a classic BPF program over `struct seccomp_data` (seccomp(2)).

use std::collections::BTreeMap;
use std::str::FromStr;

use super::profile::{Action, Argument, Operator, Profile};
use crate::error::RuntimeError;
use crate::sys::Filter;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
/// System calls of the x32 ABI carry this bit on x86-64.
const X32_BIT: u32 = 0x4000_0000;
const ENOSYS: u32 = 38;
/// BPF_MAXINSNS
const MAX_LENGTH: usize = 4096;

pub(super) fn compile(profile: &Profile, capabilities: u64) -> Result<Vec<Filter>, RuntimeError> {
    let mut blocks: BTreeMap<u32, Vec<Filter>> = BTreeMap::new();
    for rule in profile.syscalls.iter().filter(|rule| rule.applies(capabilities)) {
        let verdict = verdict(rule.action, rule.errno_ret);
        let mut code = Vec::new();
        for argument in &rule.args {
            code.extend(check(argument)?);
        }
        // Each check jumps past the verdict when it does not hold.
        let length = code.len();
        for (index, filter) in code.iter_mut().enumerate() {
            resolve(filter, length - index);
        }
        code.push(verdict);
        for name in &rule.names {
            // A name that this machine's kernel interface does not have can't be called.
            if let Ok(number) = syscalls::Sysno::from_str(name) {
                blocks.entry(number.id() as u32).or_default().extend(&code);
            }
        }
    }
    let default = verdict(profile.default_action, profile.default_errno_ret);
    let mut program = vec![
        op(LOAD, OFFSET_ARCH),
        jump(JUMP_EQ, AUDIT_ARCH, 1, 0),
        op(RETURN, errno(ENOSYS)),
        op(LOAD, OFFSET_NR),
    ];
    if cfg!(target_arch = "x86_64") {
        program.extend([jump(JUMP_GE, X32_BIT, 0, 1), op(RETURN, errno(ENOSYS))]);
    }
    for (number, mut block) in blocks {
        // Argument checks load over the number, so what falls through a block ends in the default.
        if block.last().is_some_and(|last| last.code != RETURN) || block.len() > 1 {
            block.push(default);
        }
        match u8::try_from(block.len()) {
            Ok(length) => program.push(jump(JUMP_EQ, number, 0, length)),
            Err(_) => {
                program.push(jump(JUMP_EQ, number, 1, 0));
                program.push(op(JUMP, block.len() as u32));
            }
        }
        program.extend(block);
    }
    program.push(default);
    if program.len() > MAX_LENGTH {
        let rule = format!("seccomp profile: {} instructions, over {MAX_LENGTH}", program.len());
        return Err(RuntimeError::Invalid(rule));
    }
    Ok(program)
}

fn op(code: u16, k: u32) -> Filter {
    Filter { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Filter {
    Filter { code, jt, jf, k }
}

fn errno(number: u32) -> u32 {
    0x0005_0000 | number
}

fn verdict(action: Action, errno_ret: Option<u16>) -> Filter {
    const EPERM: u16 = 1;
    op(
        RETURN,
        match action {
            Action::Allow => 0x7fff_0000,
            Action::Errno => errno(errno_ret.unwrap_or(EPERM).into()),
            Action::KillThread => 0,
            Action::KillProcess => 0x8000_0000,
            Action::Trap => 0x0003_0000,
            Action::Log => 0x7ffc_0000,
        },
    )
}

/// In a check, jumps with this target leave for the end of the rule.
const FAIL: u8 = u8::MAX;

/// Points the jumps that leave the rule `distance` instructions on, past its verdict.
fn resolve(filter: &mut Filter, distance: usize) {
    // Rules have at most six arguments of eight instructions, so it always fits.
    let target = distance.min(usize::from(FAIL) - 1) as u8;
    if filter.code == LOAD || filter.code == AND {
        return;
    }
    if filter.jt == FAIL {
        filter.jt = target;
    }
    if filter.jf == FAIL {
        filter.jf = target;
    }
}

/// Falls through when the argument compares as asked, else jumps to [`FAIL`]. Arguments are 64
/// bits, the machine has 32: high half first.
fn check(argument: &Argument) -> Result<Vec<Filter>, RuntimeError> {
    if argument.index > 5 {
        let rule = format!("seccomp profile: system calls have no argument {}", argument.index);
        return Err(RuntimeError::Invalid(rule));
    }
    let low = OFFSET_ARGS + argument.index * 8;
    let high = low + 4;
    let split = |value: u64| ((value >> 32) as u32, value as u32);
    let (value_high, value_low) = split(argument.value);
    let order = |code: u16, low_true: u8, low_false: u8, above: bool| {
        // Above or below is decided by the high half unless it is equal.
        let (greater, less) = if above { (3, FAIL) } else { (FAIL, 2) };
        vec![
            op(LOAD, high),
            jump(JUMP_GT, value_high, greater, 0),
            jump(JUMP_EQ, value_high, 0, less),
            op(LOAD, low),
            jump(code, value_low, low_true, low_false),
        ]
    };
    Ok(match argument.op {
        Operator::Equal => vec![
            op(LOAD, high),
            jump(JUMP_EQ, value_high, 0, FAIL),
            op(LOAD, low),
            jump(JUMP_EQ, value_low, 0, FAIL),
        ],
        Operator::NotEqual => vec![
            op(LOAD, high),
            jump(JUMP_EQ, value_high, 0, 2),
            op(LOAD, low),
            jump(JUMP_EQ, value_low, FAIL, 0),
        ],
        Operator::MaskedEqual => {
            let (mask_high, mask_low) = (value_high, value_low);
            let (want_high, want_low) = split(argument.value_two);
            vec![
                op(LOAD, high),
                op(AND, mask_high),
                jump(JUMP_EQ, want_high, 0, FAIL),
                op(LOAD, low),
                op(AND, mask_low),
                jump(JUMP_EQ, want_low, 0, FAIL),
            ]
        }
        Operator::Greater => order(JUMP_GT, 0, FAIL, true),
        Operator::GreaterOrEqual => order(JUMP_GE, 0, FAIL, true),
        Operator::Less => order(JUMP_GE, FAIL, 0, false),
        Operator::LessOrEqual => order(JUMP_GT, FAIL, 0, false),
    })
}
