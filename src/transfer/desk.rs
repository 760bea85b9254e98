//! Writes: the uploads of a core give their pieces to the disk one after the other.
//!
//! A write into the page cache is work for a CPU, done by a worker of the ring, and the kernel does not
//! interrupt it for the core's thread before its next tick (4 ms, Linux 6.18 with PREEMPT_LAZY). As many as
//! there are uploads would keep a command waiting for as long; after one, the core's thread has its turn.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Where the uploads of a core queue to write, first come, first served.
#[derive(Debug)]
pub struct Desk {
    one: Semaphore,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            one: Semaphore::new(WRITES_AT_ONCE),
        }
    }
}

impl Desk {
    /// Does a write when it is its turn. One that takes long waits for a disk, and keeps others no longer
    /// from theirs.
    pub(super) async fn write<T>(&self, write: impl Future<Output = T>) -> T {
        // Never closed. Without it a write would only be less well timed.
        let permit = self.one.acquire().await;
        let mut write = pin!(write);
        match tokio::time::timeout(TURN_MAX, &mut write).await {
            Ok(written) => written,
            Err(_) => {
                drop(permit);
                write.await
            }
        }
    }
}

/// Writes of a core that may be under way, but for those that take long.
const WRITES_AT_ONCE: usize = 1;

/// What a write may take before the next one begins. A MiB takes some 300 µs if the disk is not waited for;
/// the runtime's timer knows no less than a millisecond.
const TURN_MAX: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::sync::Notify;

    use super::*;
    use crate::uring::{self, RingOptions};

    #[test]
    fn writes_come_one_after_the_other() {
        let log = uring::start(&RingOptions::default(), || async {
            let desk = Rc::new(Desk::default());
            let log: Rc<RefCell<Vec<(u32, &str)>>> = Rc::default();
            let uploads: Vec<_> = (0..8)
                .map(|number| {
                    let (desk, log) = (Rc::clone(&desk), Rc::clone(&log));
                    uring::spawn(async move {
                        desk.write(async {
                            log.borrow_mut().push((number, "begins"));
                            uring::pause().await;
                            log.borrow_mut().push((number, "ends"));
                        })
                        .await;
                    })
                })
                .collect();
            for upload in uploads {
                upload.await.unwrap();
            }
            log.take()
        })
        .unwrap();
        let expected = (0..8).flat_map(|number| [(number, "begins"), (number, "ends")]);
        assert_eq!(log, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_write_that_waits_for_its_disk_lets_others_pass() {
        uring::start(&RingOptions::default(), || async {
            let (desk, disk) = (Desk::default(), Notify::new());
            let slow = desk.write(disk.notified());
            let others = async {
                for _ in 0..3 {
                    desk.write(std::future::ready(())).await;
                }
                disk.notify_one();
            };
            let both = async { tokio::join!(slow, others) };
            let both = tokio::time::timeout(Duration::from_secs(30), both);
            both.await.expect("the slow write keeps the others waiting");
        })
        .unwrap();
    }
}
