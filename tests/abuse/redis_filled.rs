//! Item 14a: one address tries to fill the Redis of a cluster, which then would refuse everybody's JOINs on every node.

use std::time::Duration;

use futures_util::future::join_all;
use secrecy::ExposeSecret;
use serde_json::json;
use tandem::clock::Clock;

use crate::attacker::Attacker;
use crate::postgres_server::Database;
use crate::redis_server::RedisServer;
use crate::support::client::Carrier;
use crate::support::server::TestProcess;

/// As small a Redis as anybody runs for this.
const MAXMEMORY: &str = "768mb";
/// Half as long again as the first product needed to fill it.
const WHILE: Duration = Duration::from_secs(22);
const SESSIONS: usize = 100;

/// Real nodes, real stores: films, chat and CUSTOM of the largest size, as fast as the connections take them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, half a minute: ./test abuse"]
async fn a_hundred_sessions_of_one_address_cannot_fill_redis() {
    let redis = RedisServer::start_with(&["--maxmemory", MAXMEMORY, "--maxmemory-policy", "noeviction"]).await;
    let database = Database::create().await;
    let (url, postgres) = (format!("redis://{}", redis.address()), database.settings().url.expose_secret().to_owned());
    let mut nodes = Vec::new();
    for name in ["node-1", "node-2"] {
        let settings = [
            ("NODE_ID", name),
            ("REDIS_URL", &url),
            ("DATABASE_URL", &postgres),
            ("POSTGRES_POOL_SIZE", "4"),
            ("MAX_JOINS_PER_MINUTE", "1000"),
        ];
        nodes.push(TestProcess::start(&settings).await);
    }
    let until = Clock::instant() + WHILE;
    let place = nodes[0].place();
    let floods = (0..SESSIONS).map(|n| {
        let place = &place;
        async move {
            let joined =
                Attacker::join(place, [127, 0, 0, 66], &format!("flood-{n}"), &format!("mallory-{n}"), json!({})).await;
            let mut mallory = joined.expect("the flood begins with a JOIN");
            let mut said = 0;
            while Clock::instant() < until {
                let url = format!("https://example.com/{said}/{}", "x".repeat(2000));
                mallory.say(&json!({"type": "URL_CHANGE", "url": url, "currentTime": 0})).await;
                mallory.say(&json!({"type": "CHAT", "text": "x".repeat(500)})).await;
                mallory.say(&json!({"type": "CUSTOM", "namespace": "a.b", "payload": "x".repeat(15_000)})).await;
                said += 3;
                mallory.read_up().await;
            }
            said
        }
    });
    let said: usize = join_all(floods).await.into_iter().sum();
    let memory: String = redis.shell().await.ask("INFO memory").await;
    let figure = |name: &str| -> u64 {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)).expect("a figure of INFO memory");
        line.trim().parse().expect("bytes")
    };
    let (peak, most) = (figure("used_memory_peak:"), figure("maxmemory:"));
    println!("{said} messages; Redis' peak {} MiB of {} MiB", peak >> 20, most >> 20);
    assert!(peak < most / 2, "{peak} of {most} bytes");
    for (number, node) in nodes.iter().enumerate() {
        let mut newcomer = node.place().connect(Carrier::WebSocket).await;
        newcomer.join(&format!("honest-{number}"), "ann").await;
        let health = node.place().get_json("/health", &[]).await;
        assert_eq!(health["status"], "ok", "{health}");
    }
}
