//! Whether this host lets the server have its rings, and if not, what to change.

use std::fs;
use std::io;
use std::sync::PoisonError;

use io_uring::{IoUring, Probe, opcode};
use thiserror::Error;

use super::runtime::{CREATION, flags};
use crate::sys;
use crate::sys::flag::{O_DIRECTORY, O_PATH, RESOLVE_IN_ROOT};
use crate::sys::kernel::Release;

/// The oldest kernel that has everything: SINGLE_ISSUER (6.0), cancel by descriptor and
/// COOP_TASKRUN (5.19), SUBMIT_ALL (5.18). 6.1 is the first long-term kernel with all of them.
pub const KERNEL_MIN: Release = Release { major: 6, minor: 1 };

/// Why there can be no ring, and what to do.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The kernel is older than [`KERNEL_MIN`].
    #[error(
        "Linux {KERNEL_MIN} or newer is needed, this is Linux {0}; run a newer kernel (all current \
         distributions have one; in a container it is the host's)"
    )]
    KernelTooOld(Release),
    /// sysctl kernel.io_uring_disabled is 2.
    #[error(
        "io_uring is disabled on this host; enable it with 'sysctl -w kernel.io_uring_disabled=0' \
         (and in /etc/sysctl.d to keep it so)"
    )]
    Disabled,
    /// sysctl kernel.io_uring_disabled is 1 and the process is not in kernel.io_uring_group.
    #[error(
        "io_uring is disabled for unprivileged processes on this host; enable it with 'sysctl -w \
         kernel.io_uring_disabled=0', or set 'kernel.io_uring_group' to a group of the server's user"
    )]
    DisabledForUnprivileged,
    /// EPERM though the sysctl allows it: a seccomp filter or a security module.
    #[error(
        "io_uring is forbidden here, most likely by a seccomp filter; allow io_uring_setup, \
         io_uring_enter and io_uring_register: docker and podman need '--security-opt \
         seccomp=FILE' with a profile that has them (or seccomp=unconfined), systemd \
         'SystemCallFilter=@system-service'; with SELinux see 'ausearch -m avc -c ringftpd'"
    )]
    Forbidden,
    /// ENOSYS: built without io_uring, or a filter or sandbox that pretends so.
    #[error(
        "this kernel has no io_uring: it was built without CONFIG_IO_URING, or a sandbox (such as \
         gVisor or a seccomp filter) hides it; run the server on a kernel that has it"
    )]
    Absent,
    /// ENOMEM: no memory for the ring.
    #[error(
        "there is no memory for an io_uring; raise the memory limit of the service or container \
         (systemd: MemoryMax=) or the limit of locked memory (systemd: LimitMEMLOCK=, ulimit -l)"
    )]
    OutOfMemory,
    /// EMFILE, ENFILE: no descriptor for the ring.
    #[error(
        "there is no descriptor for an io_uring; raise the limit of open files (systemd: \
         LimitNOFILE=, ulimit -n, sysctl fs.file-max)"
    )]
    OutOfDescriptors,
    /// The ring lacks an operation.
    #[error(
        "this kernel's io_uring lacks {0}; run an unrestricted Linux {KERNEL_MIN} or newer, or look \
         for what restricts it"
    )]
    OperationMissing(&'static str),
    /// openat2(2) itself is filtered, although the ring is not.
    #[error(
        "openat2 is forbidden here, by which every path is kept inside its root: allow it in the \
         seccomp profile; in a systemd unit remove RestrictSUIDSGID=, which blocks it altogether"
    )]
    OpenForbidden,
    /// Something this program has no advice for.
    #[error("io_uring cannot be set up: {0}")]
    Other(#[source] io::Error),
}

/// Tries everything the server's rings need, on a small ring that is closed again.
///
/// # Errors
/// What is missing, with what to change in its text.
pub fn probe() -> Result<(), ProbeError> {
    let release = Release::running().map_err(ProbeError::Other)?;
    if release < KERNEL_MIN {
        return Err(ProbeError::KernelTooOld(release));
    }
    let _one_at_a_time = CREATION.lock().unwrap_or_else(PoisonError::into_inner);
    let ring: IoUring = flags(ENTRIES)
        .build(ENTRIES)
        .map_err(|error| explain(error, disabled_setting()))?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| explain(error, None))?;
    match OPERATIONS
        .iter()
        .find(|(code, _)| !probe.is_supported(*code))
    {
        Some((_, name)) => Err(ProbeError::OperationMissing(name)),
        None => probe_open(),
    }
}

/// Opens as every path is opened. Filters see only calls made outside of the ring.
fn probe_open() -> Result<(), ProbeError> {
    let here = sys::tree::open_start("/").map_err(ProbeError::Other)?;
    match sys::file::open(&here, b".", O_PATH | O_DIRECTORY, 0, RESOLVE_IN_ROOT) {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::ENOSYS) => Err(ProbeError::OpenForbidden),
            _ => Err(ProbeError::Other(error)),
        },
    }
}

fn explain(error: io::Error, disabled: Option<u32>) -> ProbeError {
    match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM), Some(1)) => ProbeError::DisabledForUnprivileged,
        (Some(libc::EPERM), Some(2..)) => ProbeError::Disabled,
        (Some(libc::EPERM | libc::EACCES), _) => ProbeError::Forbidden,
        (Some(libc::ENOSYS), _) => ProbeError::Absent,
        (Some(libc::ENOMEM), _) => ProbeError::OutOfMemory,
        (Some(libc::EMFILE | libc::ENFILE), _) => ProbeError::OutOfDescriptors,
        (Some(libc::EINVAL), _) => {
            ProbeError::OperationMissing("the set-up flags SINGLE_ISSUER and COOP_TASKRUN")
        }
        _ => ProbeError::Other(error),
    }
}

/// Linux 6.6: kernel.io_uring_disabled; absent before.
fn disabled_setting() -> Option<u32> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Entries of the ring that is tried.
const ENTRIES: u32 = 8;

/// Every operation the server submits.
const OPERATIONS: &[(u8, &str)] = &[
    (opcode::Nop::CODE, "NOP"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel2::CODE, "ASYNC_CANCEL"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::Fallocate::CODE, "FALLOCATE"),
    (opcode::Splice::CODE, "SPLICE"),
    (opcode::OpenAt2::CODE, "OPENAT2"),
    (opcode::MkDirAt::CODE, "MKDIRAT"),
    (opcode::UnlinkAt::CODE, "UNLINKAT"),
    (opcode::RenameAt::CODE, "RENAMEAT"),
    (opcode::LinkAt::CODE, "LINKAT"),
];

#[cfg(test)]
mod tests {
    use super::super::tests::alone;
    use super::super::{RingOptions, pause, start};
    use super::*;

    /// Makes io_uring_setup(2) fail on this thread, as a container's seccomp profile does.
    fn forbid(errno: libc::c_int) {
        let load_number = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        let jump_if_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let finish = (libc::BPF_RET | libc::BPF_K) as u16;
        let filter = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut program = [
            filter(load_number, 0, 0, 0),
            filter(jump_if_equal, 0, 1, libc::SYS_io_uring_setup as u32),
            filter(
                finish,
                0,
                0,
                libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(),
            ),
            filter(finish, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog {
            len: 4,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: the kernel copies the filter program, which outlives the calls.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn this_host_has_what_is_needed() {
        alone(|| probe().unwrap_or_else(|error| panic!("{error}")));
    }

    #[test]
    fn a_forbidden_ring_is_explained() {
        let rows = [
            (
                libc::EPERM,
                &["forbidden", "seccomp", "--security-opt", "SystemCallFilter"][..],
            ),
            (libc::ENOSYS, &["no io_uring", "sandbox"]),
            (libc::ENOMEM, &["memory", "LimitMEMLOCK", "ulimit -l"]),
            (libc::EINVAL, &["SINGLE_ISSUER", "Linux 6.1"]),
            (libc::EMFILE, &["LimitNOFILE"]),
        ];
        for (errno, words) in rows {
            let text = alone(move || {
                forbid(errno);
                assert!(start(&RingOptions::default(), pause).is_err());
                probe().unwrap_err().to_string()
            });
            for word in words {
                assert!(text.contains(word), "{errno}: {text}");
            }
        }
    }

    #[test]
    fn the_sysctl_is_named_when_it_is_the_cause() {
        let refused = || io::Error::from_raw_os_error(libc::EPERM);
        let rows = [
            (Some(2), "sysctl -w kernel.io_uring_disabled=0"),
            (Some(1), "kernel.io_uring_group"),
            (Some(0), "seccomp"),
            (None, "seccomp"),
        ];
        for (setting, word) in rows {
            let text = explain(refused(), setting).to_string();
            assert!(text.contains(word), "{setting:?}: {text}");
        }
        let text = ProbeError::KernelTooOld(Release {
            major: 5,
            minor: 15,
        })
        .to_string();
        assert!(
            text.contains("Linux 6.1 or newer") && text.contains("5.15"),
            "{text}"
        );
    }
}
