//! A tracing subscriber for one test, beside other tests of the same process.
//!
//! tracing-core caches per callsite, for the whole process, whether anybody is interested. While one dispatcher exists
//! it asks only the default dispatcher of the thread that reaches a callsite first: a test without a subscriber then
//! disables the callsite for the test that has one (`tracing_core::callsite`, `Rebuilder::JustOne`). With a second
//! dispatcher that lives as long as the process, each registration asks all dispatchers.

use std::sync::LazyLock;

use tracing::{Dispatch, Subscriber};

/// Keeps the process from ever having just one dispatcher. It filters nothing, so it lowers no level for others either.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

/// The dispatcher to install with `with_default` or `WithSubscriber`.
pub(crate) fn of_this_test(subscriber: impl Subscriber + Send + Sync + 'static) -> Dispatch {
    LazyLock::force(&SECOND);
    Dispatch::new(subscriber)
}
