//! Quotas that nodes share through Redis, when Redis or a node is away.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/quota_backends.rs"]
mod quota_backends;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/waiting.rs"]
mod waiting;

use std::time::Duration;

use quota_backends::{Node, plenty, room, visitor, wait};
use redis_server::{RedisServer, Shell, short_lives};
use tandem::quota::{Allowances, Exceeded, Quotas};
use tandem::redis::RedisOptions;
use waiting::{DEADLINE, until, within};

const LEASE: Duration = Duration::from_millis(400);

fn one_session() -> Allowances {
    Allowances { user_sessions: 1, ..plenty() }
}

/// Of a server that will be away.
fn impatient(server: &RedisServer) -> RedisOptions {
    RedisOptions { quota_patience: Duration::from_millis(250), ..server.options() }
}

#[tokio::test]
async fn a_join_costs_one_request_and_one_that_this_node_refuses_costs_none() {
    let server = RedisServer::start().await;
    let a = Node::start("a", server.options(), Allowances { joins: 11, ..plenty() }).await;
    let ann = visitor("ann", "192.0.2.1");
    let mut shell = server.shell().await;
    // The first one loads the script.
    let mut places = vec![a.quotas.take_place(&ann).await.unwrap()];
    let before = shell.calls("zadd").await;
    for _ in 0..10 {
        places.push(a.quotas.take_place(&ann).await.unwrap());
    }
    // One script each, which adds to two sets; probes and keepers don't.
    assert_eq!(shell.calls("zadd").await - before, 20);
    let asked = shell.calls("zremrangebyscore").await;
    for _ in 0..50 {
        assert!(a.quotas.take_place(&ann).await.is_err());
    }
    assert_eq!(shell.calls("zremrangebyscore").await, asked);
}

#[tokio::test]
async fn no_key_names_an_address_or_a_user_and_each_has_a_life() {
    let server = RedisServer::start().await;
    let a = Node::start("a", server.options(), plenty()).await;
    let ann = visitor("very-special-ann", "192.0.2.77");
    let _place = a.quotas.take_place(&ann).await.unwrap();
    a.quotas.guess(&room("friday-at-anns"), ann.address()).await.unwrap();
    let mut shell = server.shell().await;
    let keys = shell.keys().await;
    for kind in [":joins:", ":pins:", ":user:", ":address:", ":salt"] {
        assert!(keys.iter().any(|key| key.contains(kind)), "{kind} is not in {keys:?}");
    }
    for key in keys {
        let life: i64 = shell.ask(&format!("PTTL {key}")).await;
        assert!(life > 0, "{key} lives for ever");
        let dump: Vec<u8> = shell.ask(&format!("DUMP {key}")).await;
        let text = String::from_utf8_lossy(&dump).into_owned() + &key;
        assert!(!text.contains("special") && !text.contains("192.0.2") && !text.contains("friday"), "{text}");
    }
}

#[tokio::test]
async fn when_redis_is_gone_a_node_goes_by_its_own_counts() {
    let mut server = RedisServer::start().await;
    let allowances = Allowances { joins: 6, pin_attempts: 2, user_sessions: 2, ..plenty() };
    let a = Node::start("a", impatient(&server), allowances).await;
    let (ann, friday) = (visitor("ann", "192.0.2.1"), room("friday"));
    let _first = a.quotas.take_place(&ann).await.unwrap();
    a.quotas.guess(&friday, ann.address()).await.unwrap();
    server.kill().await;
    // What was used up before counts.
    let second = within(a.quotas.take_place(&ann)).await.unwrap();
    assert!(!a.quotas.is_shared());
    assert_eq!(within(a.quotas.take_place(&ann)).await.err(), Some(Exceeded::UserSessions));
    drop(second);
    assert!(within(a.quotas.take_place(&ann)).await.is_ok(), "places come back here too");
    within(a.quotas.guess(&friday, ann.address())).await.unwrap();
    assert!(wait(within(a.quotas.guess(&friday, ann.address())).await).is_some());
    within(a.quotas.guessed_right(&friday, ann.address())).await;
    assert!(within(a.quotas.guess(&friday, ann.address())).await.is_ok());
    within(a.quotas.count_join(ann.address())).await.unwrap();
    within(a.quotas.count_join(ann.address())).await.unwrap();
    assert!(wait(within(a.quotas.count_join(ann.address())).await).is_some());
    server.up().await;
    until(async || {
        let _ = a.quotas.guess(&room("sunday"), visitor("bob", "192.0.2.9").address()).await;
        a.quotas.is_shared()
    })
    .await;
}

#[tokio::test]
async fn when_redis_says_nothing_nobody_waits_for_it_for_long() {
    let server = RedisServer::start().await;
    let a = Node::start("a", impatient(&server), one_session()).await;
    server.freeze().await;
    let _places: Vec<_> = within(async {
        let mut places = Vec::new();
        // A hundred that each waited for a stalled server would take longer than the deadline.
        for n in 0..200 {
            places.push(a.quotas.take_place(&visitor(&format!("user-{n}"), "192.0.2.1")).await.unwrap());
        }
        places
    })
    .await;
    assert!(a.quotas.take_place(&visitor("user-0", "192.0.2.1")).await.is_err());
    server.thaw().await;
}

#[tokio::test]
async fn a_place_taken_without_redis_is_known_to_the_others_when_it_is_back() {
    let mut server = RedisServer::start().await;
    let a = Node::start("a", impatient(&server), one_session()).await;
    let b = Node::start("b", impatient(&server), one_session()).await;
    server.kill().await;
    let ann = visitor("ann", "192.0.2.1");
    let place = within(a.quotas.take_place(&ann)).await.unwrap();
    server.up().await;
    until(async || b.quotas.is_shared() && full(&b, "ann").await).await;
    drop(place);
    until(async || b.quotas.take_place(&ann).await.is_ok()).await;
}

#[tokio::test]
async fn places_that_redis_lost_are_written_again_under_the_same_names() {
    let server = RedisServer::start().await;
    let (a, b) = (
        Node::start("a", server.options(), one_session()).await,
        Node::start("b", server.options(), one_session()).await,
    );
    let _ann = a.quotas.take_place(&visitor("ann", "192.0.2.1")).await.unwrap();
    let _bob = b.quotas.take_place(&visitor("bob", "192.0.2.1")).await.unwrap();
    let mut shell = server.shell().await;
    let sets = async |shell: &mut Shell| -> Vec<String> {
        shell.keys().await.into_iter().filter(|key| key.contains(":user:")).collect()
    };
    let before = sets(&mut shell).await;
    assert_eq!(before.len(), 2);
    shell.ask::<()>("FLUSHALL").await;
    until(async || sets(&mut shell).await == before).await;
    until(async || full(&a, "bob").await && full(&b, "ann").await).await;
    // Also one who comes only now uses the same names.
    let c = Node::start("c", server.options(), one_session()).await;
    assert!(full(&c, "ann").await && full(&c, "bob").await);
}

#[tokio::test]
async fn the_places_of_a_node_that_died_come_back() {
    let server = RedisServer::start().await;
    let (a, b) = (
        Node::start("a", server.options(), one_session()).await,
        Node::start("b", server.options(), one_session()).await,
    );
    a.nodes.beat(LEASE, DEADLINE).await.unwrap();
    let ann = visitor("ann", "192.0.2.1");
    std::mem::forget(a.quotas.take_place(&ann).await.unwrap());
    b.nodes.beat(LEASE, DEADLINE).await.unwrap();
    assert_eq!(b.quotas.take_place(&ann).await.err(), Some(Exceeded::UserSessions), "its lease runs");
    drop(a);
    until(async || {
        b.nodes.beat(LEASE, DEADLINE).await.unwrap();
        b.quotas.take_place(&ann).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_place_that_is_held_outlives_its_entry_and_one_that_got_lost_does_not() {
    let server = RedisServer::start().await;
    let options = RedisOptions { lives: short_lives(Duration::from_millis(1500)), ..server.options() };
    let a = Node::start("a", options.clone(), one_session()).await;
    let b = Node::start("b", options, one_session()).await;
    let _ann = a.quotas.take_place(&visitor("ann", "192.0.2.1")).await.unwrap();
    let mut shell = server.shell().await;
    let lapses = async |shell: &mut Shell| -> f64 {
        let key = shell.keys().await.into_iter().find(|key| key.contains(":user:")).unwrap();
        shell.ask::<Vec<(String, f64)>>(&format!("ZRANGE {key} 0 -1 WITHSCORES")).await[0].1
    };
    let first = lapses(&mut shell).await;
    until(async || lapses(&mut shell).await > first + 2000.0).await;
    assert!(full(&b, "ann").await);
    // Nothing is known of a lease; nobody renews it.
    drop(a);
    until(async || !full(&b, "ann").await).await;
}

/// Whether that user, at home, has no place left.
async fn full(node: &Node, user: &str) -> bool {
    matches!(node.quotas.take_place(&visitor(user, "192.0.2.1")).await, Err(Exceeded::UserSessions))
}
