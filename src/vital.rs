//! Tasks without which the process must not live on: listeners.
//!
//! ```text
//! QUIC endpoint, TCP listener, … ── guard ──► Vital ── lost() ──► app: drains, then ends with an exit code
//! ```
//! tokio catches a panic in a task and ends that task only. That suits a connection's task; a listener that is gone
//! leaves a process whose `/health` is green and that no client can reach. So the loss of a vital task is reported
//! here, and the process ends for its supervisor to restart it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

/// Takes reports of lost vital tasks; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Vital(Arc<SetOnce<Lost>>);

/// A vital task that ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{task} is gone ({why}); the process can't serve without it")]
pub struct Lost {
    pub task: &'static str,
    pub why: String,
}

impl Vital {
    /// Runs `work` to its end. A panic, an error, or an end before `stop` is reported.
    pub async fn guard<E: fmt::Display>(
        self,
        task: &'static str,
        stop: CancellationToken,
        work: impl Future<Output = Result<(), E>>,
    ) {
        let why = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(())) if stop.is_cancelled() => return,
            Ok(Ok(())) => "it ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("panic: {}", words(&*panic)),
        };
        tracing::error!(task, why, "a vital task is gone; the process ends");
        // Only the first loss is kept.
        let _ = self.0.set(Lost { task, why });
    }

    /// Resolves when a vital task is lost.
    pub async fn lost(&self) -> Lost {
        self.0.wait().await.clone()
    }
}

/// Message of a panic.
pub fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn reported(stopping: bool, work: impl Future<Output = Result<(), &'static str>>) -> Option<String> {
        let (vital, stop) = (Vital::default(), CancellationToken::new());
        if stopping {
            stop.cancel();
        }
        vital.clone().guard("the test's task", stop, work).await;
        vital.lost().now_or_never().map(|lost| lost.why)
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_is_reported_unless_it_was_told_to_end() {
        assert_eq!(reported(true, async { Ok(()) }).await, None);
        assert_eq!(reported(false, async { Ok(()) }).await.as_deref(), Some("it ended"));
        assert_eq!(reported(true, async { Err("no socket") }).await.as_deref(), Some("no socket"));
        assert_eq!(reported(true, async { panic!("a {}", "bug") }).await.as_deref(), Some("panic: a bug"));
    }

    #[tokio::test]
    async fn the_first_loss_stays() {
        let (vital, stop) = (Vital::default(), CancellationToken::new());
        for task in ["one", "two"] {
            vital.clone().guard(task, stop.clone(), async { Ok::<_, Infallible>(()) }).await;
        }
        assert_eq!(vital.lost().await.task, "one");
    }
}
