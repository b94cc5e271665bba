//! Which devices a container may make and open: a list of files in v1, a small BPF program in v2.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::{Hierarchy, attach_program, has_v2_devices};
use crate::error::RuntimeError;

pub(super) fn restrict(
    hierarchy: &Hierarchy,
    path: &Path,
    limits: Option<&LinuxResources>,
) -> Result<(), RuntimeError> {
    let Some(rules) = limits.and_then(|limits| limits.devices().as_ref()) else { return Ok(()) };
    if hierarchy.v2 {
        return match has_v2_devices(path) {
            true => attach_program(path, &program(rules)),
            false => Ok(()),
        };
    }
    if !hierarchy.controllers.iter().any(|name| name == "devices") {
        return Ok(());
    }
    // One write a rule, in their order; a file is opened once for those that follow each other.
    for rules in rules.chunk_by(|a, b| a.allow() == b.allow()) {
        let name = if rules[0].allow() { "devices.allow" } else { "devices.deny" };
        let path = path.join(name);
        let mut file =
            OpenOptions::new().write(true).open(&path).map_err(RuntimeError::io("open", &path))?;
        for rule in rules {
            file.write_all(line(rule).as_bytes()).map_err(RuntimeError::io("write", &path))?;
        }
    }
    Ok(())
}

/// `c 1:3 rwm`
fn line(rule: &LinuxDeviceCgroup) -> String {
    let number = |number: Option<i64>| match number {
        Some(number) if number >= 0 => number.to_string(),
        _ => "*".to_owned(),
    };
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => "b",
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => "c",
        Some(LinuxDeviceType::A | LinuxDeviceType::P) | None => "a",
    };
    let access = rule.access().as_deref().unwrap_or("rwm");
    format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()))
}

/// The rules as a program of eBPF, the last that matches decides, so they are tried from the end.
/// The context is `struct bpf_cgroup_dev_ctx`: access << 16 | type, major, minor.
fn program(rules: &[LinuxDeviceCgroup]) -> Vec<u64> {
    const TYPE: u8 = 2;
    const ACCESS: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    let load = |register: u8, offset: u16| instruction(0x61, register, 1, offset, 0);
    let mut code = vec![
        load(TYPE, 0),
        instruction(0xbf, ACCESS, TYPE, 0, 0), // r3 = r2
        instruction(0x57, TYPE, 0, 0, 0xffff), // r2 &= 0xffff
        instruction(0x77, ACCESS, 0, 0, 16),   // r3 >>= 16
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    let mut decided = false;
    for rule in rules.iter().rev() {
        // The kernel takes no program with instructions that can't be reached.
        if decided {
            break;
        }
        let mut checks: Vec<(u8, i32)> = Vec::new();
        match rule.typ() {
            Some(LinuxDeviceType::B) => checks.push((TYPE, 1)),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => checks.push((TYPE, 2)),
            Some(LinuxDeviceType::A | LinuxDeviceType::P) | None => {}
        }
        checks.extend(rule.major().filter(|n| *n >= 0).map(|number| (MAJOR, number as i32)));
        checks.extend(rule.minor().filter(|n| *n >= 0).map(|number| (MINOR, number as i32)));
        let access = rule.access().as_deref().unwrap_or("rwm");
        let bits = [('m', 1), ('r', 2), ('w', 4)];
        let allowed: i32 =
            bits.iter().filter(|(c, _)| access.contains(*c)).map(|(_, bit)| bit).sum();
        let some_access = (allowed != 7).then_some(allowed);
        decided = checks.is_empty() && some_access.is_none();
        // Instructions from the first check to past the verdict, which is two.
        let length = checks.len() + if some_access.is_some() { 3 } else { 0 } + 2;
        let mut left = length as u16;
        for (register, value) in checks {
            left -= 1;
            code.push(instruction(0x55, register, 0, left, value)); // if r != value, next rule
        }
        if let Some(allowed) = some_access {
            // What is asked for beyond `allowed` is not this rule's to decide.
            code.push(instruction(0xbf, 0, ACCESS, 0, 0)); // r0 = r3
            code.push(instruction(0x57, 0, 0, 0, !allowed & 7)); // r0 &= !allowed
            code.push(instruction(0x55, 0, 0, 2, 0)); // if r0 != 0, next rule
        }
        code.push(instruction(0xb7, 0, 0, 0, rule.allow().into()));
        code.push(instruction(0x95, 0, 0, 0, 0));
    }
    if !decided {
        code.push(instruction(0xb7, 0, 0, 0, 0));
        code.push(instruction(0x95, 0, 0, 0, 0));
    }
    code
}

/// One eBPF instruction: opcode, destination and source register, jump or memory offset, number.
fn instruction(code: u8, to: u8, from: u8, offset: u16, number: i32) -> u64 {
    u64::from(code)
        | u64::from(from << 4 | to) << 8
        | u64::from(offset) << 16
        | u64::from(number as u32) << 32
}
