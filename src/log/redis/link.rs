//! Commands: one connection that is made anew when it breaks, and requests that are tried again, a bounded time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ScriptInvocation, ServerErrorKind, Value};

use super::server::{Conn, Server};
use crate::log::LogError;

/// How often a request is sent before its caller hears of the trouble.
const ATTEMPTS: u32 = 4;

/// What is asked. Everything asked here may be asked twice.
pub(super) enum Request<'a> {
    Command(&'a Cmd),
    Script(&'a ScriptInvocation<'a>),
    Pipeline(&'a Pipeline),
}

pub(super) struct Link {
    server: Server,
    current: Mutex<Option<(u64, Conn)>>,
    connecting: tokio::sync::Mutex<()>,
    generation: AtomicU64,
    /// All attempts together take no longer.
    deadline: Duration,
}

impl Link {
    pub(super) fn new(server: Server, deadline: Duration) -> Arc<Self> {
        let (current, connecting) = (Mutex::new(None), tokio::sync::Mutex::new(()));
        Arc::new(Self { server, current, connecting, generation: AtomicU64::new(0), deadline })
    }

    /// Asks until there is an answer, or it is hopeless.
    pub(super) async fn ask(&self, request: &Request<'_>) -> Result<Value, LogError> {
        match tokio::time::timeout(self.deadline, self.persist(request)).await {
            Ok(answer) => answer.map_err(|error| LogError(error.to_string())),
            Err(_) => Err(LogError(format!("no answer within {:?}", self.deadline))),
        }
    }

    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, LogError> {
        self.ask(&Request::Command(command)).await
    }

    pub(super) async fn script(&self, script: &ScriptInvocation<'_>) -> Result<Value, LogError> {
        self.ask(&Request::Script(script)).await
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(&*self.current.lock(), Some((_, Conn::Cluster(_))))
    }

    async fn persist(&self, request: &Request<'_>) -> RedisResult<Value> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.once(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) if attempt >= ATTEMPTS => return Err(error),
                Err(error) => tracing::debug!(%error, attempt, "Redis did not answer"),
            }
            let pause = rand::rng().random_range(5..=20 * (1 << attempt));
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// One attempt.
    pub(super) async fn once(&self, request: &Request<'_>) -> RedisResult<Value> {
        let (generation, mut conn) = self.connection().await?;
        let answer = match request {
            Request::Command(command) => command.query_async(&mut conn).await,
            Request::Script(script) => script.invoke_async(&mut conn).await,
            Request::Pipeline(pipeline) => pipeline.query_async(&mut conn).await,
        };
        answer.inspect_err(|error| {
            if breaks(error) {
                self.drop_connection(generation);
            }
        })
    }

    async fn connection(&self) -> RedisResult<(u64, Conn)> {
        if let Some(current) = &*self.current.lock() {
            return Ok(current.clone());
        }
        // One connects, the others wait for it.
        let _turn = self.connecting.lock().await;
        if let Some(current) = &*self.current.lock() {
            return Ok(current.clone());
        }
        let conn = self.server.connect().await?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        *self.current.lock() = Some((generation, conn.clone()));
        Ok((generation, conn))
    }

    fn drop_connection(&self, generation: u64) {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(|(current, _)| *current == generation) {
            *current = None;
        }
    }
}

/// Whether the connection is of no more use. An answer that doesn't come in time counts: what is behind it may be a
/// server that is gone without a word. So does a server that has become a replica.
fn breaks(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => !matches!(kind, ServerErrorKind::ResponseError | ServerErrorKind::NoScript),
        ErrorKind::Extension => false,
        _ => true,
    }
}
