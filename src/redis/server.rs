//! Where Redis is: one server, the master that Sentinels name, or a cluster. Resolved anew for each connection.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline,
    ProtocolVersion, RedisError, RedisFuture, RedisResult, TlsCertificates, Value,
};
use url::Url;

use super::keys::{Partition, slot};

/// How long a TCP connection may take.
const CONNECT: Duration = Duration::from_secs(2);

/// As the settings give it.
#[derive(Clone)]
pub(crate) struct RedisServerAddress {
    /// The server to connect to; with Sentinels, only its credentials and database.
    info: ConnectionInfo,
    sentinels: Option<Sentinels>,
    root: Option<Vec<u8>>,
    /// How long an answer may take.
    patience: Duration,
}

#[derive(Clone)]
struct Sentinels {
    at: Vec<ConnectionInfo>,
    service: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedisKind {
    Single,
    Cluster,
}

/// A connection for commands; clones share it.
#[derive(Clone)]
pub(crate) enum RedisConnection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(conn) => conn.req_packed_command(cmd),
            Self::Cluster(conn) => conn.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(conn) => conn.req_packed_commands(pipeline, offset, count),
            Self::Cluster(conn) => conn.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(conn) => conn.get_db(),
            Self::Cluster(conn) => conn.get_db(),
        }
    }
}

impl RedisServerAddress {
    /// `redis://`, `rediss://` (also `valkey`, `valkeys`), or
    /// `redis-sentinel://[user:password@]sentinel:port/service[/db]?sentinel=host:port&sentinel_password=…&tls=true`.
    /// `root`: CA certificates (PEM) to trust instead of the machine's.
    pub(crate) fn parse(url: &str, root: Option<Vec<u8>>, patience: Duration) -> RedisResult<Self> {
        let tcp = TcpSettings::default().set_nodelay(true);
        if !url.starts_with("redis-sentinel://") {
            let info = url.into_connection_info()?.set_tcp_settings(tcp);
            return Ok(Self { info, sentinels: None, root, patience });
        }
        let wrong = |what| RedisError::from((ErrorKind::InvalidClientConfig, what));
        let url = Url::parse(url).map_err(|_| wrong("not a URL"))?;
        let option = |name| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let scheme = if option("tls").as_deref() == Some("true") { "rediss" } else { "redis" };
        let host = url.host_str().ok_or_else(|| wrong("no sentinel"))?;
        let mut path = url.path_segments().into_iter().flatten();
        let service = path.next().filter(|name| !name.is_empty()).ok_or_else(|| wrong("no service after the host"))?;
        let mut template = Url::parse(&format!("{scheme}://placeholder/{}", path.next().unwrap_or("0")))
            .map_err(|_| wrong("not a database number"))?;
        let credentials = template.set_username(url.username()).and_then(|()| template.set_password(url.password()));
        credentials.map_err(|()| wrong("not a user and password"))?;
        let also = url.query_pairs().filter(|(key, _)| key == "sentinel").map(|(_, place)| place.into_owned());
        let at = std::iter::once(format!("{host}:{}", url.port().unwrap_or(26_379))).chain(also).map(|place| {
            let mut place =
                Url::parse(&format!("{scheme}://{place}")).map_err(|_| wrong("not a sentinel's address"))?;
            place.set_password(option("sentinel_password").as_deref()).map_err(|()| wrong("not a password"))?;
            Ok(place.into_connection_info()?.set_tcp_settings(tcp.clone()))
        });
        let sentinels = Sentinels { at: at.collect::<RedisResult<_>>()?, service: service.to_owned() };
        let info = template.into_connection_info()?.set_tcp_settings(tcp);
        Ok(Self { info, sentinels: Some(sentinels), root, patience })
    }

    /// A connection for commands.
    pub(crate) async fn connect(&self) -> RedisResult<RedisConnection> {
        let info = self.find().await?;
        let mut conn = self.open(info.clone(), self.config()).await?;
        if is_cluster(&mut conn).await? {
            return Ok(RedisConnection::Cluster(self.cluster_client(info)?.get_async_connection().await?));
        }
        self.refuse_replica(&mut conn).await?;
        Ok(RedisConnection::Single(conn))
    }

    /// One connection to each server that has partitions, with these partitions, for subscriptions. Pushed messages go
    /// to `push`.
    pub(crate) async fn connect_bus(
        &self,
        push: impl Fn(redis::PushInfo) -> Result<(), ()> + Clone + Send + Sync + 'static,
    ) -> RedisResult<(RedisKind, Vec<(MultiplexedConnection, Vec<Partition>)>)> {
        let found = self.find().await?;
        let info = with_protocol(found, ProtocolVersion::RESP3);
        let config = || self.config().set_push_sender(push.clone());
        let mut conn = self.open(info.clone(), config()).await?;
        if !is_cluster(&mut conn).await? {
            self.refuse_replica(&mut conn).await?;
            return Ok((RedisKind::Single, vec![(conn, Partition::all().collect())]));
        }
        let mut shards = Vec::new();
        for (addr, ranges) in masters(&mut conn).await? {
            let mine = |partition: &Partition| {
                let slot = slot(&partition.outbox());
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot))
            };
            let partitions: Vec<_> = Partition::all().filter(mine).collect();
            if !partitions.is_empty() {
                shards.push((self.open(self.elsewhere(&info, addr), config()).await?, partitions));
            }
        }
        let covered: usize = shards.iter().map(|(_, partitions)| partitions.len()).sum();
        if covered < Partition::all().count() {
            return Err(RedisError::from((ErrorKind::ClusterConnectionNotFound, "slots without a server")));
        }
        Ok((RedisKind::Cluster, shards))
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(self.patience))
    }

    async fn open(&self, info: ConnectionInfo, config: AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        let client = match (&self.root, info.addr()) {
            (Some(_), ConnectionAddr::TcpTls { .. }) => Client::build_with_tls(info, self.certificates())?,
            _ => Client::open(info)?,
        };
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: None, root_cert: self.root.clone() }
    }

    fn cluster_client(&self, info: ConnectionInfo) -> RedisResult<ClusterClient> {
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let builder = ClusterClient::builder([info])
            .connection_timeout(CONNECT)
            .response_timeout(self.patience)
            .tcp_settings(TcpSettings::default().set_nodelay(true))
            .retries(3);
        if tls && self.root.is_some() { builder.certs(self.certificates()).build() } else { builder.build() }
    }

    async fn find(&self) -> RedisResult<ConnectionInfo> {
        let Some(Sentinels { at, service }) = &self.sentinels else { return Ok(self.info.clone()) };
        let mut last = RedisError::from((ErrorKind::EmptySentinelList, "no sentinel"));
        for sentinel in at {
            match self.ask(sentinel, service).await {
                Ok((host, port)) => return Ok(self.elsewhere(&self.info, (host, port))),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, sentinel: &ConnectionInfo, service: &str) -> RedisResult<(String, u16)> {
        let mut conn = self.open(sentinel.clone(), self.config()).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(service);
        let answer: Option<(String, u16)> = question.query_async(&mut conn).await?;
        answer.ok_or_else(|| RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, "no such service")))
    }

    /// The same credentials at another address.
    fn elsewhere(&self, info: &ConnectionInfo, (host, port): (String, u16)) -> ConnectionInfo {
        let addr = match info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        info.clone().set_addr(addr)
    }

    /// A Sentinel may name a master that has just been demoted.
    async fn refuse_replica(&self, conn: &mut MultiplexedConnection) -> RedisResult<()> {
        let role: Vec<Value> = redis::cmd("ROLE").query_async(conn).await?;
        let role: String = role.into_iter().next().map(redis::from_redis_value).transpose()?.unwrap_or_default();
        if role == "master" {
            return Ok(());
        }
        Err(RedisError::from((ErrorKind::Client, "it is a replica, not the master")))
    }
}

fn with_protocol(info: ConnectionInfo, protocol: ProtocolVersion) -> ConnectionInfo {
    let settings = info.redis_settings().clone().set_protocol(protocol);
    info.set_redis_settings(settings)
}

async fn is_cluster(conn: &mut MultiplexedConnection) -> RedisResult<bool> {
    let info: String = redis::cmd("INFO").arg("cluster").query_async(conn).await?;
    Ok(info.contains("cluster_enabled:1"))
}

type Master = ((String, u16), Vec<(u16, u16)>);

async fn masters(conn: &mut MultiplexedConnection) -> RedisResult<Vec<Master>> {
    let rows: Vec<(u16, u16, (String, u16))> = {
        let rows: Vec<Vec<Value>> = redis::cmd("CLUSTER").arg("SLOTS").query_async(conn).await?;
        let row = |row: Vec<Value>| -> RedisResult<(u16, u16, (String, u16))> {
            let mut row = row.into_iter();
            let mut next = || row.next().unwrap_or(Value::Nil);
            let (first, last) = (redis::from_redis_value(next())?, redis::from_redis_value(next())?);
            let mut node: Vec<Value> = redis::from_redis_value(next())?;
            node.truncate(2);
            let mut node = node.into_iter();
            let mut next = || node.next().unwrap_or(Value::Nil);
            Ok((first, last, (redis::from_redis_value(next())?, redis::from_redis_value(next())?)))
        };
        rows.into_iter().map(row).collect::<RedisResult<_>>()?
    };
    let mut masters: Vec<Master> = Vec::new();
    for (first, last, addr) in rows {
        match masters.iter_mut().find(|(known, _)| *known == addr) {
            Some((_, ranges)) => ranges.push((first, last)),
            None => masters.push((addr, vec![(first, last)])),
        }
    }
    Ok(masters)
}
