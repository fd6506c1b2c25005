//! Commands: one connection that is made anew when it breaks, and requests that are retried within a deadline.
//!
//! Requests that find no connection share one attempt to make it, and each of them drives it: driven by the first one
//! alone, the attempt would stand still whenever that request is not polled (a branch of a `select!` whose other branch
//! runs), and keep all others from Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use rand::RngExt;
use redis::{
    Cmd, ErrorKind, FromRedisValue, ParsingError, Pipeline, RedisError, RedisResult, ScriptInvocation, ServerErrorKind,
    Value,
};
use secrecy::ExposeSecret;

use super::keys::PARTITIONS;
use super::options::RedisOptions;
use super::scripts::Scripts;
use super::server::{RedisConnection, RedisServerAddress};
use crate::authorities::{self, AuthoritiesError};

/// How often a request is sent before its caller gets the error.
const ATTEMPTS: u32 = 4;

/// Every request may be sent twice.
pub(crate) enum LinkRequest<'a> {
    Command(&'a Cmd),
    Script(&'a ScriptInvocation<'a>),
    Pipeline(&'a Pipeline),
}

/// Why Redis gave no answer, or none that can be read.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("REDIS_URL: {0}")]
    Url(#[source] RedisError),
    #[error("REDIS_CA_PATH={0}")]
    Ca(#[from] AuthoritiesError),
    #[error(transparent)]
    Request(#[from] RedisError),
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    #[error("an answer of Redis can't be read: {0}")]
    Answer(#[from] ParsingError),
}

/// This node's way to Redis.
pub struct RedisLink {
    server: RedisServerAddress,
    options: RedisOptions,
    pub(super) scripts: Scripts,
    state: Mutex<LinkState>,
    /// As the last connection found it.
    cluster: AtomicBool,
    resets: AtomicU64,
}

#[derive(Default)]
struct LinkState {
    /// Of the present connection, or the attempt at one.
    generation: u64,
    conn: Option<RedisConnection>,
    /// Gone when no request waits for it.
    attempt: Option<WeakShared<ConnectAttempt>>,
}

/// A connection and its generation.
pub(crate) type LinkConnection = (u64, RedisConnection);

type ConnectAttempt = BoxFuture<'static, RedisResult<RedisConnection>>;

impl RedisLink {
    /// Connects, and returns when commands are answered.
    pub async fn connect(options: RedisOptions) -> Result<Arc<Self>, LinkError> {
        let root = options.ca.as_deref().map(authorities::read).transpose()?.map(|read| read.pem);
        let link = Self::new(options, root).map_err(LinkError::Url)?;
        link.ping().await?;
        Ok(Arc::new(link))
    }

    fn new(options: RedisOptions, root: Option<Vec<u8>>) -> RedisResult<Self> {
        Ok(Self {
            server: RedisServerAddress::parse(options.url.expose_secret(), root, options.patience)?,
            options,
            scripts: Scripts::new(),
            state: Mutex::default(),
            cluster: AtomicBool::new(false),
            resets: AtomicU64::new(0),
        })
    }

    #[cfg(test)]
    pub(super) fn unconnected() -> Self {
        Self::new(RedisOptions::new("redis://127.0.0.1:1".to_owned().into()), None).unwrap()
    }

    pub(crate) fn options(&self) -> &RedisOptions {
        &self.options
    }

    pub(crate) fn server(&self) -> &RedisServerAddress {
        &self.server
    }

    /// Bytes that one partition's outbox may hold.
    pub(crate) fn outbox_share(&self) -> u64 {
        self.options.outbox_bytes / u64::from(PARTITIONS)
    }

    /// Whether commands are answered.
    pub async fn ping(&self) -> Result<(), LinkError> {
        self.command::<()>(&redis::cmd("PING")).await
    }

    /// Sends until there is an answer, or the attempts or the deadline are used up.
    pub(crate) async fn ask(&self, request: &LinkRequest<'_>) -> Result<Value, LinkError> {
        match tokio::time::timeout(self.options.deadline, self.persist(request)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(LinkError::Deadline(self.options.deadline)),
        }
    }

    pub(crate) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        Ok(T::from_redis_value(self.ask(&LinkRequest::Command(command)).await?)?)
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.cluster.load(Ordering::Relaxed)
    }

    pub(crate) fn publish_command(&self) -> &'static str {
        if self.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Redis' time, ms.
    pub(crate) async fn millis(&self) -> Result<u64, LinkError> {
        let (seconds, micros) = self.now().run().await?;
        Ok(seconds * 1000 + micros / 1000)
    }

    /// How often Redis may have lost what this node wrote: its bus was connected, the first time included, or the id of
    /// the data is another.
    pub fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// Called by the bus, which notices first. Returns how often before.
    pub(crate) fn note_reset(&self) -> u64 {
        self.resets.fetch_add(1, Ordering::Relaxed)
    }

    async fn persist(&self, request: &LinkRequest<'_>) -> RedisResult<Value> {
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
    pub(crate) async fn once(&self, request: &LinkRequest<'_>) -> RedisResult<Value> {
        let connection = self.connection().await?;
        self.once_through(connection, request).await
    }

    /// One attempt, on this connection and no other: its first poll puts the request on the connection.
    pub(crate) async fn once_through(
        &self,
        (generation, mut conn): LinkConnection,
        request: &LinkRequest<'_>,
    ) -> RedisResult<Value> {
        let answer = match request {
            LinkRequest::Command(command) => command.query_async(&mut conn).await,
            LinkRequest::Script(script) => script.invoke_async(&mut conn).await,
            LinkRequest::Pipeline(pipeline) => pipeline.query_async(&mut conn).await,
        };
        answer.inspect_err(|error| {
            if breaks(error) {
                self.drop_connection(generation);
            }
        })
    }

    /// The present connection; made, if there is none.
    pub(crate) async fn connection(&self) -> RedisResult<LinkConnection> {
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
        // The first request to resume notes the connection for all.
        if state.generation == generation && state.conn.is_none() {
            state.conn = made.as_ref().ok().cloned();
            if let Some(conn) = &state.conn {
                self.cluster.store(matches!(conn, RedisConnection::Cluster(_)), Ordering::Relaxed);
            }
            state.attempt = None;
        }
        Ok((generation, made?))
    }

    fn begin(&self, state: &mut LinkState) -> Shared<ConnectAttempt> {
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

/// Whether the connection has to be made anew: also after a response timeout (the server may be gone without a FIN),
/// and when the server has become a replica.
fn breaks(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => !matches!(kind, ServerErrorKind::ResponseError | ServerErrorKind::NoScript),
        ErrorKind::Extension => false,
        _ => true,
    }
}
