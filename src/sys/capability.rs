//! The capabilities of a thread: capget(2), capset(2), as bit sets (capabilities(7)).

use std::io;

use super::check;

/// What a thread has of root's rights.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Capabilities {
    /// What the kernel asks for.
    pub(super) effective: u64,
    /// What the thread may make effective.
    pub(super) permitted: u64,
    /// What exec(2) hands on.
    pub(super) inheritable: u64,
}

/// `CAP_SETGID` of linux/capability.h.
pub(super) const SETGID: u64 = 1 << 6;

/// `CAP_SETUID` of linux/capability.h.
pub(super) const SETUID: u64 = 1 << 7;

/// `CAP_NET_BIND_SERVICE` of linux/capability.h.
pub(super) const NET_BIND_SERVICE: u64 = 1 << 10;

impl Capabilities {
    /// Those of the calling thread.
    pub(super) fn of_thread() -> io::Result<Self> {
        let (mut header, mut data) = (HEADER, [Data::default(); 2]);
        // SAFETY: version 3 of capget(2) takes one header and fills two data structs, laid out as
        // below.
        let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
        check(result as libc::c_int)?;
        let [low, high] = data;
        Ok(Self {
            effective: joined(low.effective, high.effective),
            permitted: joined(low.permitted, high.permitted),
            inheritable: joined(low.inheritable, high.inheritable),
        })
    }

    /// Makes them those of the calling thread, and of no other.
    pub(super) fn set(self) -> io::Result<()> {
        let part = |shift: u32| Data {
            effective: (self.effective >> shift) as u32,
            permitted: (self.permitted >> shift) as u32,
            inheritable: (self.inheritable >> shift) as u32,
        };
        let (header, data) = (HEADER, [part(0), part(32)]);
        // SAFETY: version 3 of capset(2) reads one header and two data structs, laid out as below.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
        check(result as libc::c_int).map(drop)
    }
}

fn joined(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// `struct __user_cap_header_struct` of capset(2).
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct` of capset(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h; process 0 is the calling thread.
const HEADER: Header = Header {
    version: 0x2008_0522,
    pid: 0,
};
