//! Waiting for what must come, and not for ever. No test sleeps.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::time::Duration;

/// After this time a test gives up. Long, for machines under load.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Asks again and again.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(wait).await;
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it hangs")
}
