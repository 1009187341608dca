//! Work that is taken back where nobody waits for it any more.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::ClientError;

/// The taking back.
pub(crate) type Undoing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Work on a task of its own, which goes on to its end whatever becomes of this future: half-done it could not be
/// taken back. Where the future is dropped before it has told what came of the work, `undo` is given that.
///
/// Undoing needs the runtime to run on: where that ends with the program, what was begun stays.
pub(crate) struct OrUndone<T, U>
where
    T: Send + 'static,
    U: FnOnce(T) -> Undoing + Send + 'static,
{
    work: Option<(JoinHandle<Result<T, ClientError>>, U)>,
}

impl<T, U> OrUndone<T, U>
where
    T: Send + 'static,
    U: FnOnce(T) -> Undoing + Send + 'static,
{
    pub(crate) fn new(work: impl Future<Output = Result<T, ClientError>> + Send + 'static, undo: U) -> Self {
        Self { work: Some((tokio::spawn(work), undo)) }
    }
}

// neither half is ever pinned in place: a `JoinHandle` may be moved, and `undo` is only called
impl<T, U> Unpin for OrUndone<T, U>
where
    T: Send + 'static,
    U: FnOnce(T) -> Undoing + Send + 'static,
{
}

impl<T, U> Future for OrUndone<T, U>
where
    T: Send + 'static,
    U: FnOnce(T) -> Undoing + Send + 'static,
{
    type Output = Result<T, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (task, _) = self.work.as_mut().expect("it is not polled after its end");
        let joined = ready!(Pin::new(task).poll(context));
        self.work = None;
        Poll::Ready(match joined {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // nobody aborts it but the runtime's end, and then nobody polls this
                Err(error) => panic!("the task of a request was cancelled: {error}"),
            },
        })
    }
}

impl<T, U> Drop for OrUndone<T, U>
where
    T: Send + 'static,
    U: FnOnce(T) -> Undoing + Send + 'static,
{
    fn drop(&mut self) {
        if let (Some((task, undo)), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            drop(runtime.spawn(async move {
                if let Ok(Ok(done)) = task.await {
                    undo(done).await;
                }
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Work that ends when it is let, and the value that was undone.
    fn work() -> (oneshot::Sender<()>, oneshot::Receiver<u8>, impl Future<Output = Result<u8, ClientError>>) {
        let (let_end, end) = oneshot::channel();
        let (undone, undone_was) = oneshot::channel();
        let work = async move {
            let _: Result<(), _> = end.await;
            Ok(7)
        };
        let future = OrUndone::new(work, move |value| Box::pin(async move { undone.send(value).unwrap() }) as Undoing);
        (let_end, undone_was, future)
    }

    #[tokio::test]
    async fn what_is_waited_for_stays() {
        let (let_end, undone, future) = work();
        let_end.send(()).unwrap();
        assert_eq!(future.await.unwrap(), 7);
        assert!(undone.await.is_err(), "nothing is undone");
    }

    #[tokio::test]
    async fn what_is_dropped_is_undone_when_it_has_ended() {
        let (let_end, undone, future) = work();
        drop(future);
        let_end.send(()).unwrap();
        assert_eq!(undone.await.unwrap(), 7);
    }
}
