//! Somebody else reads the outbox, as docs/EVENTS.md tells them to, and must get everything that the audit gets.

use std::collections::BTreeMap;

use serde_json::Value;
use tandem::domain::Head;

use super::audit::{self, Fact};
use super::population::Size;
use super::scenario::Scenario;
use super::stores::{Url, database, redis};
use crate::redis_server::Shell;

const STREAMS: usize = 64;

pub(crate) async fn others_read_every_event(size: Size) {
    let (redis, database) = (redis().await, database().await);
    let mut shell = redis.shell().await;
    for stream in 0..STREAMS {
        shell.ask::<()>(&format!("XGROUP CREATE tandem:{{p{stream:02}}}:outbox shipper $ MKSTREAM")).await;
    }
    let scenario = Scenario::open(&redis.url(), &database.url(), size).await;
    scenario.population.stretch().await;
    let report = scenario.close("somebody else reads the outbox").await;
    let mut shipped = BTreeMap::new();
    for stream in 0..STREAMS {
        while ship(&mut shell, &format!("tandem:{{p{stream:02}}}:outbox"), &mut shipped).await {}
    }
    let heads = report.heads();
    shipped.retain(|(room, head), _| *head <= heads[room]);
    let stored = audit::read(&database.url(), &heads).await;
    assert_eq!(shipped.len(), stored.len());
    for (place, fact) in &stored {
        assert_eq!(shipped.get(place), Some(fact), "{place:?}");
    }
}

/// A batch; whether there was one.
async fn ship(shell: &mut Shell, stream: &str, shipped: &mut BTreeMap<(String, Head), Fact>) -> bool {
    type Entries = Vec<(String, BTreeMap<String, redis::Value>)>;
    let line = format!("XREADGROUP GROUP shipper one COUNT 100 STREAMS {stream} >");
    let answer: Option<Vec<(String, Entries)>> = shell.ask(&line).await;
    let Some((_, entries)) = answer.and_then(|mut streams| streams.pop()) else { return false };
    for (entry, fields) in entries {
        let text = |name: &str| redis::from_redis_value_ref::<String>(&fields[name]).unwrap();
        let events: Vec<Value> = serde_json::from_str(&text("events")).unwrap();
        for event in events {
            let head = Head { epoch: event["epoch"].as_u64().unwrap(), seq: event["seq"].as_u64().unwrap() };
            let fact = Fact {
                kind: event["kind"].as_str().unwrap().to_owned(),
                user: event["user"].as_str().map(str::to_owned),
                data: event["data"].clone(),
            };
            assert!(shipped.insert((text("room"), head), fact).is_none(), "{head:?} twice");
        }
        assert_eq!(shell.ask::<u64>(&format!("XACK {stream} shipper {entry}")).await, 1);
    }
    true
}
