//! One entry in the ring and its completion.

use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use io_uring::{cqueue, opcode, squeue, types};
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

use super::{Fd, runtime};

/// An operation that was submitted. Yields the kernel's result and what was lent to the kernel.
///
/// Dropping it cancels nothing: the ring keeps the data until the completion, which is then thrown
/// away. [`Guarded`] withdraws.
pub(super) struct Operation<D: 'static> {
    in_flight: InFlightOneshot<Lent<D>, Completion<D>>,
}

/// Submits an entry.
///
/// # Safety
/// All memory the entry points to must be owned by `data`, must not move when `data` does, and must
/// be left alone by everybody else until the operation yields `data`. The descriptors the entry
/// names must be kept open by `data`. Dropping `data` must not submit to the ring: that happens
/// while the driver dispatches completions.
pub(super) unsafe fn submit<D: Unpin + 'static>(data: D, entry: squeue::Entry) -> Operation<D> {
    let operation = UnsubmittedOneshot::new(Lent::new(data), Completion::new(), entry);
    Operation {
        in_flight: operation.submit(),
    }
}

impl<D: Unpin + 'static> Future for Operation<D> {
    type Output = (io::Result<u32>, D);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.in_flight).poll(context)
    }
}

/// An operation on a file that may wait for ever, which is withdrawn when it is dropped.
pub(super) struct Guarded<D: Unpin + 'static> {
    operation: Option<Operation<D>>,
    target: Fd,
}

impl<D: Unpin + 'static> Guarded<D> {
    /// `target` is the file the entry's `fd` names.
    pub(super) fn new(operation: Operation<D>, target: Fd) -> Self {
        Self {
            operation: Some(operation),
            target,
        }
    }
}

impl<D: Unpin + 'static> Future for Guarded<D> {
    type Output = (io::Result<u32>, D);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Invariant: the operation is there until it has yielded, and a future is not polled then.
        let operation = self.operation.as_mut().expect("polled after completion");
        let output = ready!(Pin::new(operation).poll(context));
        self.operation = None;
        Poll::Ready(output)
    }
}

impl<D: Unpin + 'static> Drop for Guarded<D> {
    fn drop(&mut self) {
        if self.operation.take().is_some() {
            withdraw(&self.target);
        }
    }
}

/// Whether an operation ended because a sibling on the same file was withdrawn: cancelled before it
/// ran, or interrupted on a worker.
///
/// Nothing was transferred then, and the operation can be submitted again. This cannot spin: each
/// such end is caused by the drop of another operation, whose cancel went out before.
pub(super) fn hit_by_withdrawal(result: &io::Result<u32>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EINTR)))
}

/// Cancels everything in flight on a file. Does nothing when the ring has ended, which cancels all.
fn withdraw(target: &Fd) {
    if !runtime::is_running() {
        return;
    }
    // Linux 5.19: IORING_ASYNC_CANCEL_FD and _ALL, io_uring_enter(2). By descriptor, because the
    // runtime keeps the user_data to itself. ENOENT (it was just completing) is fine.
    let cancel = types::CancelBuilder::fd(types::Fd(target.as_raw_fd())).all();
    let entry = opcode::AsyncCancel2::new(cancel).build();
    // SAFETY: the entry points to no memory and `data` keeps its descriptor open.
    drop(unsafe { submit(Fd::clone(target), entry) });
}

/// What the kernel may use until the operation completes.
///
/// tokio-uring 0.5 drops it at the completion, with one exception: when the driver itself ends
/// (`Driver::drop`), it first drops the data of abandoned operations and only then cancels them
/// and waits. What is dropped then, the runtime keeps.
struct Lent<D: 'static>(ManuallyDrop<D>);

impl<D: 'static> Lent<D> {
    fn new(data: D) -> Self {
        Self(ManuallyDrop::new(data))
    }

    fn into_inner(self) -> D {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so the data is taken exactly once.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl<D: 'static> Drop for Lent<D> {
    fn drop(&mut self) {
        // SAFETY: `self` is being dropped, so the data is taken exactly once.
        let data = unsafe { ManuallyDrop::take(&mut self.0) };
        runtime::drop_or_keep(data);
    }
}

struct Completion<D>(std::marker::PhantomData<D>);

impl<D> Completion<D> {
    fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<D: 'static> OneshotOutputTransform for Completion<D> {
    type Output = (io::Result<u32>, D);
    type StoredData = Lent<D>;

    fn transform_oneshot_output(self, data: Lent<D>, entry: cqueue::Entry) -> Self::Output {
        let result = u32::try_from(entry.result())
            .map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        (result, data.into_inner())
    }
}
