//! Which CPUs this process may use, and binding a thread to one: sched_setaffinity(2).

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The CPUs the calling thread may run on, ascending: what cgroup, taskset and container allow.
///
/// # Errors
/// As sched_getaffinity(2), such as on a machine with more CPUs than a `cpu_set_t` counts (1024).
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect())
}

/// Binds the calling thread to one CPU.
///
/// # Errors
/// EINVAL when that CPU does not exist or is not allowed.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_sees_its_cpu_only() {
        let allowed = allowed_cpus().unwrap();
        assert!(!allowed.is_empty());
        for cpu in allowed {
            std::thread::spawn(move || {
                pin(cpu).unwrap();
                assert_eq!(allowed_cpus().unwrap(), [cpu]);
            })
            .join()
            .unwrap();
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        assert!(pin(CpuSet::count() - 1).is_err());
        assert!(pin(CpuSet::count()).is_err());
    }
}
