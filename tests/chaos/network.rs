//! Networks that are cut, slow, silent, or forget a connection: between nodes and Redis, nodes and PostgreSQL, members
//! and nodes.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;

use super::population::Size;
use super::scenario::{NODES, Report, Scenario, start_nodes};
use super::stores::{Url, database, redis};
use crate::proxy::Proxy;
use crate::support::server::Place;

/// A proxy a node.
async fn proxies(to: SocketAddr) -> Vec<Proxy> {
    join_all((0..NODES).map(|_| Proxy::to(to))).await
}

/// One node loses Redis, the others don't. On a slow machine that may last longer than its lease, and then its members
/// are told to come back: nothing is said of that here.
pub(crate) async fn node_and_redis(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let proxies = proxies(redis.at()).await;
    let doors: Vec<String> = proxies.iter().map(|proxy| redis.url_by(proxy.address())).collect();
    let nodes = start_nodes(&doors, &[database.url()]).await;
    let scenario = Scenario::with(nodes, &database.url(), size).await;
    let faults: [fn(&Proxy); 5] = [Proxy::cut, Proxy::stall, Proxy::mute, Proxy::hang_up, Proxy::forget];
    for (number, fault) in faults.iter().enumerate() {
        scenario.population.stretch().await;
        let (node, proxy) = (number % NODES, &proxies[number % NODES]);
        fault(proxy);
        // The proxy closes and accepts again: no member need notice.
        if number < 3 {
            scenario
                .population
                .until_each("members there to be told", |record| record.node != Some(node) || record.degraded)
                .await;
        }
        proxy.heal();
        scenario.population.struck(|record| record.node == Some(node));
    }
    scenario.population.stretch().await;
    proxies[0].delay(Duration::from_millis(60));
    scenario.population.stretch().await;
    proxies[0].heal();
    scenario.population.stretch().await;
    scenario.close("a node's network to Redis: cut, stalled, half-dead, reset, forgotten, slow").await
}

/// Partitions nodes from PostgreSQL, the drainer among them.
pub(crate) async fn nodes_and_postgres(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let proxy = Proxy::to(database.at()).await;
    let door = database.url_by(proxy.address());
    let nodes = start_nodes(&[redis.url()], &[door]).await;
    let scenario = Scenario::with(nodes, &database.url(), size).await;
    let faults: [fn(&Proxy); 5] = [Proxy::cut, Proxy::stall, Proxy::mute, Proxy::hang_up, Proxy::forget];
    for fault in faults {
        scenario.population.stretch().await;
        fault(&proxy);
        scenario.population.stretch().await;
        proxy.heal();
    }
    proxy.delay(Duration::from_millis(60));
    scenario.population.stretch().await;
    proxy.heal();
    let report = scenario.close("the nodes' network to PostgreSQL: the same").await;
    report.nobody_was_disconnected().nobody_was_told_degraded().nobody_was_resynced()
}

/// WebSocket members go through the proxies; the others don't notice.
pub(crate) async fn members_and_nodes(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let nodes = start_nodes(&[redis.url()], &[database.url()]).await;
    let proxies = join_all(nodes.iter().map(|node| Proxy::to(node.plain))).await;
    let doors: Vec<Place> = nodes.iter().zip(&proxies).map(|(node, proxy)| node.through(proxy.address())).collect();
    let scenario = Scenario::through(nodes, &doors, &database.url(), size).await;
    let faults: [fn(&Proxy); 4] = [Proxy::hang_up, Proxy::cut, Proxy::stall, Proxy::forget];
    for (number, fault) in faults.iter().enumerate() {
        scenario.population.stretch().await;
        let (node, proxy) = (number % NODES, &proxies[number % NODES]);
        let theirs = |record: &super::member_record::MemberRecord| {
            record.node == Some(node) && record.carrier == crate::support::client::Carrier::WebSocket
        };
        scenario.population.struck(theirs);
        fault(proxy);
        scenario
            .population
            .until_each("members there to have gone elsewhere, or back", |record| {
                !theirs(record) || record.waits_since.is_none()
            })
            .await;
        proxy.heal();
    }
    for proxy in &proxies {
        proxy.delay(Duration::from_millis(60));
    }
    scenario.population.stretch().await;
    proxies.iter().for_each(Proxy::heal);
    scenario.close("members' networks: reset, cut, stalled, forgotten, slow").await
}
