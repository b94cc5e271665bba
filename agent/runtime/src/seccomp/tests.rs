use super::*;

/// Runs a classic BPF program over `struct seccomp_data`, as the kernel does.
fn run(program: &Program, number: u32, args: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    let arch: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    for (index, arg) in args.iter().enumerate() {
        data[16 + index * 8..24 + index * 8].copy_from_slice(&arg.to_ne_bytes());
    }
    let mut at = 0;
    let mut register = 0u32;
    loop {
        let (code, jt, jf, k) = program.0[at];
        at += 1;
        let mut jump = |yes: bool| at += usize::from(if yes { jt } else { jf });
        match code {
            0x20 => {
                let place = k as usize;
                register = u32::from_ne_bytes(data[place..place + 4].try_into().unwrap());
            }
            0x54 => register &= k,
            0x15 => jump(register == k),
            0x25 => jump(register > k),
            0x35 => jump(register >= k),
            0x05 => at += k as usize,
            0x06 => return k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

const ALLOW: u32 = 0x7fff_0000;

fn errno(number: i32) -> u32 {
    0x0005_0000 | number as u32
}

fn default_capabilities() -> u64 {
    crate::capability::set(&[], &[]).unwrap()
}

#[test]
fn programs_get_what_they_need_and_no_more() {
    let program = default_program(default_capabilities()).unwrap();
    let call =
        |number: libc::c_long, first: u64| run(&program, number as u32, [first, 0, 0, 0, 0, 0]);
    for allowed in [libc::SYS_read, libc::SYS_execve, libc::SYS_futex, libc::SYS_openat2] {
        assert_eq!(call(allowed, 0), ALLOW, "{allowed}");
    }
    for refused in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_setns, libc::SYS_bpf] {
        assert_eq!(call(refused, 0), errno(libc::EPERM), "{refused}");
    }
    assert_eq!(call(libc::SYS_clone3, 0), errno(libc::ENOSYS));
    assert_eq!(call(100_000, 0), errno(libc::ENOSYS));
}

#[test]
fn arguments_are_compared_in_all_their_bits() {
    let program = default_program(default_capabilities()).unwrap();
    let call =
        |number: libc::c_long, first: u64| run(&program, number as u32, [first, 0, 0, 0, 0, 0]);
    assert_eq!(call(libc::SYS_clone, libc::SIGCHLD as u64), ALLOW);
    assert_ne!(call(libc::SYS_clone, libc::CLONE_NEWUSER as u64), ALLOW);
    assert_eq!(call(libc::SYS_personality, 0), ALLOW);
    assert_eq!(call(libc::SYS_personality, 8), ALLOW);
    assert_eq!(call(libc::SYS_personality, 0xffff_ffff), ALLOW);
    assert_ne!(call(libc::SYS_personality, 1 << 32), ALLOW);
    assert_ne!(call(libc::SYS_personality, 4), ALLOW);
}

#[test]
fn rules_follow_the_capabilities() {
    let admin = default_capabilities() | 1 << 21;
    let program = default_program(admin).unwrap();
    assert_eq!(run(&program, libc::SYS_mount as u32, [0; 6]), ALLOW);
    assert_eq!(run(&program, libc::SYS_clone3 as u32, [0; 6]), ALLOW);
}
