//! The nodes of one cluster, and their members.

use anyhow::Result;

use super::link::Carrier;
use super::population::{AT_ONCE, Plan, Population};
use super::server::{Launch, Server};
use super::stores::Stores;
use super::wire::Kind;

/// Nodes of one cluster.
pub(crate) struct Cluster(pub(crate) Vec<Server>);

impl Cluster {
    pub(crate) async fn start(launch: &Launch, stores: &Stores, count: usize) -> Result<Self> {
        let mut launch = launch.clone();
        launch.settings.extend(stores.settings());
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(launch.tandem().await?);
        }
        Ok(Self(nodes))
    }

    /// Two bare datagram relays on one Redis: a cluster without rooms.
    pub(crate) async fn bare(launch: &Launch, stores: &Stores) -> Result<Self> {
        let url = &stores.redis_url;
        Ok(Self(vec![launch.relay_on(url).await?, launch.relay_on(url).await?]))
    }

    /// The members of each room are on the nodes in turn.
    pub(crate) async fn population(
        &self,
        carrier: Carrier,
        kind: Kind,
        rooms: usize,
        members: usize,
    ) -> Result<Population> {
        let plan = Plan { carrier, kind, rooms, members, at_once: AT_ONCE };
        let places: Vec<_> = self.0.iter().map(|node| node.place).collect();
        Population::connect_all(plan, &places).await
    }

    pub(crate) fn all(&self) -> Vec<&Server> {
        self.0.iter().collect()
    }

    /// The sum of a counter over the nodes.
    pub(crate) async fn counter(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for node in &self.0 {
            sum += node.counter(name).await;
        }
        sum
    }

    pub(crate) async fn stop(self) -> Result<()> {
        for node in self.0 {
            node.stop().await?;
        }
        Ok(())
    }
}
