//! Commands: one connection that is made anew when it breaks, and requests that are tried again, a bounded time.
//!
//! Whoever asks while there is none makes it, and all who ask meanwhile wait for the same attempt. Each of them drives it:
//! were it the first one's alone, a request that is not polled for a while (a branch of a `select!` that is at work
//! elsewhere) would keep all others from Redis.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
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
    state: Mutex<State>,
    /// All attempts together take no longer.
    deadline: Duration,
}

#[derive(Default)]
struct State {
    /// Of the present connection, or the attempt at one.
    generation: u64,
    conn: Option<Conn>,
    /// Gone when nobody waits for it any more.
    attempt: Option<WeakShared<Attempt>>,
}

/// A connection and its generation.
pub(super) type Door = (u64, Conn);

type Attempt = BoxFuture<'static, RedisResult<Conn>>;

impl Link {
    pub(super) fn new(server: Server, deadline: Duration) -> Arc<Self> {
        Arc::new(Self { server, state: Mutex::default(), deadline })
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
        matches!(self.state.lock().conn, Some(Conn::Cluster(_)))
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
        let door = self.connection().await?;
        self.once_through(door, request).await
    }

    /// One attempt, on this connection and no other: its first poll puts the request on the connection.
    pub(super) async fn once_through(&self, (generation, mut conn): Door, request: &Request<'_>) -> RedisResult<Value> {
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

    /// The present connection; made, if there is none.
    pub(super) async fn connection(&self) -> RedisResult<Door> {
        let (generation, attempt) = {
            let mut state = self.state.lock();
            if let Some(conn) = &state.conn {
                return Ok((state.generation, conn.clone()));
            }
            let under_way = state.attempt.as_ref().and_then(WeakShared::upgrade);
            let attempt = under_way.unwrap_or_else(|| self.begin(&mut state));
            (state.generation, attempt)
        };
        let made = attempt.await;
        let mut state = self.state.lock();
        // The first to hear of it notes it for all.
        if state.generation == generation && state.conn.is_none() {
            state.conn = made.as_ref().ok().cloned();
            state.attempt = None;
        }
        Ok((generation, made?))
    }

    fn begin(&self, state: &mut State) -> Shared<Attempt> {
        let server = self.server.clone();
        let attempt = async move { server.connect().await }.boxed().shared();
        state.generation += 1;
        state.attempt = attempt.downgrade();
        attempt
    }

    fn drop_connection(&self, generation: u64) {
        let mut state = self.state.lock();
        if state.generation == generation {
            state.conn = None;
            state.generation += 1;
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
