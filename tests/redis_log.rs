//! The Redis log beyond the contract: what it costs, and what it does when Redis fails. On a real redis-server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/redis_node.rs"]
mod redis_node;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/waiting.rs"]
mod waiting;

use std::time::Duration;

use bytes::Bytes;
use commits::{EPOCH, after, created, ended, head, room};
use futures_util::StreamExt;
use proxy::Proxy;
use redis_node::{RedisNode, committed};
use redis_server::{RedisServer, options, short_lives};
use tandem::clock::Clock;
use tandem::commit::Snapshot;
use tandem::domain::{Head, NodeId, RoomId, RoomTime};
use tandem::log::redis::RedisLog;
use tandem::log::{Followed, Log, Outcome};
use tandem::redis::RedisOptions;
use tokio_util::sync::CancellationToken;
use waiting::{DEADLINE, until, within};

#[tokio::test]
async fn a_commit_costs_one_round_trip() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", server.options()).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port())).unwrap();
    let mut monitor = client.get_async_monitor().await.unwrap().into_on_message::<String>();
    for seq in 1..=20 {
        committed(&node, after(&friday, head(EPOCH, seq))).await;
    }
    server.shell().await.ask::<()>("SET friday done").await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|line: &String| !line.contains("done")) {
        let line = within(monitor.next()).await.unwrap();
        if line.contains("friday") && !line.contains(" lua]") {
            seen.push(line);
        }
    }
    assert_eq!(seen.len(), 21, "{seen:#?}");
    assert!(seen[..20].iter().all(|line| line.contains("EVALSHA")), "{seen:#?}");
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_took_effect_once_and_is_reported_so() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let node = RedisNode::at("a", options(&format!("redis://{}", proxy.address()))).await;
    let other = RedisNode::at("b", server.options()).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    proxy.mute();
    let trouble = async {
        until(async || other.load(&friday).await.unwrap().unwrap().head == head(EPOCH, 2)).await;
        // Others go on meanwhile: the room's head is no longer the lost commit's.
        committed(&other, after(&friday, head(EPOCH, 2))).await;
        proxy.heal();
        proxy.hang_up();
    };
    let (outcome, ()) = tokio::join!(node.commit(after(&friday, head(EPOCH, 1))), trouble);
    assert!(matches!(outcome, Ok(Outcome::Committed)), "{outcome:?}");
    let entries: u64 = server.shell().await.ask("XLEN tandem:{p50}:outbox").await;
    assert_eq!(entries, 3, "each commit once");
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_or_asked_for_again() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", RedisOptions { patience: Duration::from_millis(500), ..server.options() }).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    server.freeze().await;
    let commit = node.commit(after(&friday, head(EPOCH, 1)));
    let thaw = async {
        // Longer than one answer may take.
        tokio::time::sleep(Duration::from_millis(800)).await;
        server.thaw().await;
    };
    let (outcome, ()) = tokio::join!(commit, thaw);
    assert!(matches!(outcome, Ok(Outcome::Committed)), "{outcome:?}");
    assert_eq!(node.load(&friday).await.unwrap().unwrap().head, head(EPOCH, 2));
    let entries: u64 = server.shell().await.ask("XLEN tandem:{p50}:outbox").await;
    assert_eq!(entries, 2, "each commit once");
}

#[tokio::test]
async fn a_redis_that_says_nothing_costs_a_bounded_wait_and_an_error() {
    let server = RedisServer::start().await;
    let (patience, deadline) = (Duration::from_millis(300), Duration::from_millis(1500));
    let node = RedisNode::at("a", RedisOptions { patience, deadline, ..server.options() }).await;
    server.freeze().await;
    assert!(within(node.commit(created(&room("friday"), Head::default(), EPOCH))).await.is_err());
    assert!(within(node.load(&room("friday"))).await.is_err());
    assert!(within(node.subscribe(&room("friday"))).await.is_err());
    until(async || !node.bus_alive()).await;
    server.thaw().await;
    within(node.bus_up()).await;
    node.subscribe(&room("friday")).await.unwrap();
}

/// A task that begins to connect may not be polled for a while: a sweep, say, while its `select!` renews the lease.
#[tokio::test]
async fn a_request_that_nobody_polls_keeps_no_other_from_redis() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let node = RedisNode::at("a", options(&format!("redis://{}", proxy.address()))).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    // A new connection is needed, and nothing comes over it yet.
    proxy.stall();
    proxy.hang_up();
    let mut unpolled = Box::pin(node.load(&friday));
    let begun = tokio::time::timeout(Duration::from_millis(300), unpolled.as_mut()).await;
    assert!(begun.is_err(), "it connects");
    proxy.heal();
    assert_eq!(within(node.load(&friday)).await.unwrap().unwrap().head, head(EPOCH, 1));
    assert_eq!(within(unpolled).await.unwrap().unwrap().head, head(EPOCH, 1));
}

#[tokio::test]
async fn a_server_that_forgot_its_scripts_is_told_them_again() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", server.options()).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    server.shell().await.ask::<()>("SCRIPT FLUSH").await;
    committed(&node, after(&friday, head(EPOCH, 1))).await;
}

#[tokio::test]
async fn a_subscriber_that_is_cut_off_comes_back_and_counts_everything_as_missed() {
    let server = RedisServer::start().await;
    let (node, other) = (RedisNode::at("a", server.options()).await, RedisNode::at("b", server.options()).await);
    let friday = room("friday");
    node.subscribe(&friday).await.unwrap();
    committed(&other, created(&friday, Head::default(), EPOCH)).await;
    assert_eq!(hear_head(&node).await, head(EPOCH, 1));
    let mut shell = server.shell().await;
    assert_eq!(shell.ask::<u64>("CLIENT KILL TYPE pubsub").await, 2);
    committed(&other, after(&friday, head(EPOCH, 1))).await;
    assert!(matches!(hear_past_commits(&node).await, Followed::Gap(None)));
    assert_eq!(node.load(&friday).await.unwrap().unwrap().head, head(EPOCH, 2));
    committed(&other, after(&friday, head(EPOCH, 2))).await;
    assert_eq!(hear_head(&node).await, head(EPOCH, 3));
}

/// Found by the chaos run: among near ones it never won, and its members waited for half a minute.
#[tokio::test]
async fn a_node_that_is_far_from_redis_gets_its_turn_among_near_ones() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let far = RedisNode::at("far", options(&format!("redis://{}", proxy.address()))).await;
    let near = RedisNode::at("near", server.options()).await;
    let friday = room("friday");
    // A room of that size takes longer on the way than a turn lasts: what a lost race costs must not grow with the
    // room.
    let mut whole = created(&friday, Head::default(), EPOCH);
    whole.patch.fields.insert("chat".into(), Some(vec![b'x'; 1 << 20].into()));
    committed(&near, whole).await;
    proxy.delay(Duration::from_millis(30));
    let done = CancellationToken::new();
    let always = async {
        let mut known = head(EPOCH, 1);
        while !done.is_cancelled() {
            match near.commit(after(&friday, known)).await.unwrap() {
                Outcome::Committed => known.seq += 1,
                Outcome::Conflict(latest) => known = latest.unwrap(),
            }
        }
    };
    let sometimes = async {
        let mut known = head(EPOCH, 1);
        for _ in 0..5 {
            let mut conflicts = 0;
            while let Outcome::Conflict(latest) = far.commit(after(&friday, known)).await.unwrap() {
                known = latest.unwrap();
                conflicts += 1;
                assert!(conflicts < 10, "it does not get its turn");
            }
            known.seq += 1;
        }
        done.cancel();
    };
    within(async { tokio::join!(always, sometimes) }).await;
}

/// Redis lost everything a moment after one node's commit, of which the other has not heard yet.
#[tokio::test]
async fn what_a_node_acknowledged_is_not_overwritten_by_one_that_knew_less_and_was_first_to_write_back() {
    let server = RedisServer::start().await;
    let recovery_wait = Duration::from_secs(2);
    let at = async |name: &str| RedisNode::at(name, RedisOptions { recovery_wait, ..server.options() }).await;
    let (knows, behind) = (at("knows").await, at("behind").await);
    let friday = room("friday");
    committed(&knows, created(&friday, Head::default(), EPOCH)).await;
    let less = knows.load(&friday).await.unwrap().unwrap();
    committed(&knows, after(&friday, head(EPOCH, 1))).await;
    let more = knows.load(&friday).await.unwrap().unwrap();
    server.shell().await.ask::<()>("FLUSHALL").await;
    assert_eq!(behind.restore(less.clone()).await.unwrap(), Some(less));
    let (outcome, written) = tokio::join!(behind.commit(after(&friday, head(EPOCH, 1))), knows.restore(more.clone()));
    assert_eq!(written.unwrap(), Some(more.clone()));
    let outcome = outcome.unwrap();
    assert!(matches!(outcome, Outcome::Conflict(Some(_))), "another event at the same place: {outcome:?}");
    assert_eq!(behind.load(&friday).await.unwrap(), Some(more));
    committed(&behind, after(&friday, head(EPOCH, 2))).await;
    let frozen: Option<String> = server.shell().await.ask("HGET tandem:{p50}:room:friday @frozen_until").await;
    assert_eq!(frozen, None);
}

/// While commits waited for the others' turn, what this node lacked may have come through the bus.
#[tokio::test]
async fn what_was_decided_before_a_lost_room_was_whole_again_is_decided_anew() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", RedisOptions { recovery_wait: Duration::from_millis(300), ..server.options() }).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    let known = node.load(&friday).await.unwrap().unwrap();
    server.shell().await.ask::<()>("FLUSHALL").await;
    assert_eq!(node.restore(known.clone()).await.unwrap(), Some(known));
    committed_anew(&node, after(&friday, head(EPOCH, 1))).await;
}

/// The hash came from a replica that had not heard of the commit which deleted the field.
#[tokio::test]
async fn a_room_that_is_written_back_waits_although_an_earlier_wait_is_still_noted() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", server.options()).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    let known = node.load(&friday).await.unwrap().unwrap();
    for field in ["@frozen_until", "@hold"] {
        let head = Head { seq: node.load(&friday).await.unwrap().unwrap().head.seq + 1, ..known.head };
        server.shell().await.ask::<()>(&format!("HSET tandem:{{p50}}:room:friday {field} 1000")).await;
        let later = Snapshot { head, ..known.clone() };
        assert_eq!(node.restore(later.clone()).await.unwrap(), Some(later));
        committed_anew(&node, after(&friday, head)).await;
    }
}

/// Rooms begin [`RedisOptions::recovery_wait`] after this moment.
#[tokio::test]
async fn the_id_of_new_data_says_to_the_millisecond_since_when_it_is_there() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", server.options()).await;
    committed(&node, created(&room("friday"), Head::default(), EPOCH)).await;
    let now = || Clock::start().now().as_millis();
    // Late in a second, whose beginning would be too early a moment.
    until(async || (300..600).contains(&(now() % 1000))).await;
    let lost_at = now();
    server.shell().await.ask::<()>("FLUSHALL").await;
    // The probe names the data of the first partition, the commit that goes into the outbox again that of its own.
    for partition in ["p00", "p50"] {
        let mut shell = server.shell().await;
        let mut era_id = None;
        until(async || {
            era_id = shell.ask::<Option<String>>(&format!("GET tandem:{{{partition}}}:era")).await;
            era_id.is_some()
        })
        .await;
        let since: i64 = era_id.as_deref().unwrap().rsplit_once('@').unwrap().1.parse().unwrap();
        assert!(since >= lost_at, "{partition}: {since}, and the data was lost at {lost_at}");
    }
}

/// A node that has the turn and dies delays the others for a moment only.
#[tokio::test]
async fn a_turn_that_is_not_taken_passes() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", server.options()).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    let end = Clock::start().now().as_millis() + 300;
    server.shell().await.ask::<()>(&format!("EVAL return(redis.call('HSET',KEYS[1],'@turn','dead'..string.char(32)..ARGV[1])) 1 tandem:{{p50}}:room:friday {end}")).await;
    committed(&node, after(&friday, head(EPOCH, 1))).await;
    assert!(Clock::start().now().as_millis() >= end, "it waited for the other");
    let turn: Option<String> = server.shell().await.ask("HGET tandem:{p50}:room:friday @turn").await;
    assert_eq!(turn, None);
}

/// In the middle of an update: the field has another name there.
#[tokio::test]
async fn a_room_that_a_node_of_3_0_0_wrote_back_takes_commits_when_that_node_said() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", server.options()).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    let end = Clock::start().now().as_millis() + 300;
    let mut shell = server.shell().await;
    shell.ask::<()>(&format!("HSET tandem:{{p50}}:room:friday @hold {end}")).await;
    let early = node.commit(after(&friday, head(EPOCH, 1))).await.unwrap();
    assert!(matches!(early, Outcome::Conflict(Some(latest)) if latest == head(EPOCH, 1)), "{early:?}");
    assert!(Clock::start().now().as_millis() >= end, "the answer came when commits may go on");
    committed(&node, after(&friday, head(EPOCH, 1))).await;
    assert_eq!(shell.ask::<Option<String>>("HGET tandem:{p50}:room:friday @hold").await, None);
}

#[tokio::test]
async fn a_bus_that_hears_nothing_though_its_connection_lives_is_found_out_by_the_probe() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let node = RedisNode::at("a", options(&format!("redis://{}", proxy.address()))).await;
    proxy.deafen();
    assert!(matches!(within(node.follow()).await, Followed::Gap(None)));
}

#[tokio::test]
async fn a_server_that_was_killed_and_came_back_empty_gets_its_rooms_from_the_nodes() {
    let mut server = RedisServer::start().await;
    let (node, other) = (RedisNode::at("a", server.options()).await, RedisNode::at("b", server.options()).await);
    let friday = room("friday");
    for node in [&node, &other] {
        node.subscribe(&friday).await.unwrap();
    }
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    committed(&node, after(&friday, head(EPOCH, 1))).await;
    let known = node.load(&friday).await.unwrap().unwrap();
    // Both know the era of the data, and notice the other one as a gap of its own.
    until(async || [&node, &other].iter().all(|node| node.bus_lag() > Duration::ZERO)).await;
    server.kill().await;
    until(async || !node.bus_alive() && !other.bus_alive()).await;
    assert!(node.commit(after(&friday, head(EPOCH, 2))).await.is_err());
    server.up().await;
    for node in [&node, &other] {
        within(node.bus_up()).await;
        until(async || node.link.resets() >= 3).await;
        assert!(matches!(hear_past_commits(node).await, Followed::Gap(None)));
        assert_eq!(node.load(&friday).await.unwrap(), None);
    }
    // One is behind, one is not; whoever comes first, the later one's state holds.
    let behind = Snapshot { head: head(EPOCH, 1), ..known.clone() };
    assert_eq!(other.restore(behind.clone()).await.unwrap(), Some(behind.clone()));
    assert_eq!(node.restore(known.clone()).await.unwrap(), Some(known.clone()));
    // A machine that stalls may break the bus once more, and then every room has a gap.
    let gap = hear_past_commits(&other).await;
    assert!(matches!(&gap, Followed::Gap(room) if room.as_ref().is_none_or(|room| *room == friday)), "{gap:?}");
    assert_eq!(other.restore(behind).await.unwrap(), Some(known.clone()), "it only raises");
    committed_anew(&other, after(&friday, head(EPOCH, 2))).await;
    until(async || node.load(&friday).await.unwrap().unwrap().head == head(EPOCH, 3)).await;
}

#[tokio::test]
async fn what_ended_is_not_restored() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", server.options()).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    let known = node.load(&friday).await.unwrap().unwrap();
    committed(&node, ended(&friday, head(EPOCH, 1))).await;
    assert_eq!(node.restore(known).await.unwrap(), None);
    assert_eq!(node.load(&friday).await.unwrap(), None);
}

#[tokio::test]
async fn a_flushed_redis_is_noticed_and_unaudited_commits_go_into_the_outbox_again() {
    let server = RedisServer::start().await;
    let (node, other) = (RedisNode::at("a", server.options()).await, RedisNode::at("b", server.options()).await);
    let friday = room("friday");
    node.subscribe(&friday).await.unwrap();
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    committed(&other, after(&friday, head(EPOCH, 1))).await;
    let known = node.load(&friday).await.unwrap().unwrap();
    let mut shell = server.shell().await;
    until(async || server.shell().await.ask::<u64>("EXISTS tandem:{p00}:era").await == 1).await;
    shell.ask::<()>("FLUSHALL").await;
    assert!(matches!(hear_past_commits(&node).await, Followed::Gap(None)));
    assert_eq!(node.load(&friday).await.unwrap(), None);
    assert_eq!(node.restore(known.clone()).await.unwrap(), Some(known));
    committed_anew(&other, after(&friday, head(EPOCH, 2))).await;
    until(async || server.shell().await.ask::<u64>("XLEN tandem:{p50}:outbox").await == 3).await;
    assert_eq!((node.unaudited(), other.unaudited()), (1, 2));
}

/// Found by the chaos run: a node that put its commits again named the era as it had after the loss before, and neither
/// it nor anybody else noticed the next one.
#[tokio::test]
async fn a_redis_that_is_flushed_again_and_again_gets_the_unaudited_commits_each_time() {
    let server = RedisServer::start().await;
    // Nobody probes: the node itself is the first to find each loss.
    let node = RedisNode::at("a", RedisOptions { probe_every: Duration::from_secs(3600), ..server.options() }).await;
    committed(&node, created(&room("friday"), Head::default(), EPOCH)).await;
    for _ in 0..3 {
        server.shell().await.ask::<()>("FLUSHALL").await;
        until(async || server.shell().await.ask::<u64>("XLEN tandem:{p50}:outbox").await == 1).await;
    }
}

#[tokio::test]
async fn every_key_has_a_life_and_nothing_is_left_when_rooms_have_ended() {
    let server = RedisServer::start().await;
    let life = Duration::from_millis(1500);
    let (slow, recovery_wait) = (Duration::from_secs(3600), Duration::ZERO);
    let options = RedisOptions { lives: short_lives(life), probe_every: slow, recovery_wait, ..server.options() };
    let node = RedisNode::at("a", options).await;
    node.nodes.beat(life, life).await.unwrap();
    node.nodes.may_sweep(life).await.unwrap();
    let rooms: Vec<RoomId> = (0..20).map(|n| room(&format!("room-{n}"))).collect();
    for room in &rooms {
        node.subscribe(room).await.unwrap();
        committed(&node, created(room, Head::default(), EPOCH)).await;
        node.publish(room, None, Bytes::from_static(b"tick"));
    }
    for room in &rooms[..10] {
        committed(&node, ended(room, head(EPOCH, 1))).await;
        node.unsubscribe(room);
    }
    let mut shell = server.shell().await;
    let keys = shell.keys().await;
    assert!(keys.len() > 40, "{keys:?}");
    for key in &keys {
        let left: i64 = shell.ask(&format!("PTTL {key}")).await;
        assert!(left != -1 && left <= 3000, "{key} lives {left} ms");
    }
    // What the node follows stays for as long as it does, though nobody says anything.
    let live = format!("tandem:{{p50}}:room:{}", "friday");
    let friday = room("friday");
    node.subscribe(&friday).await.unwrap();
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    until(async || !server.shell().await.keys().await.iter().any(|key| key.contains("outbox"))).await;
    assert_eq!(shell.ask::<u64>(&format!("EXISTS {live}")).await, 1);
    for room in rooms[10..].iter().chain([&friday]) {
        node.unsubscribe(room);
    }
    until(async || {
        let keys = server.shell().await.keys().await;
        // The node's own commits are put again into an outbox that nobody has read.
        keys.iter().all(|key| key.contains(":outbox") || key.contains(":era"))
    })
    .await;
}

#[tokio::test]
async fn leaving_and_coming_back_at_once_leaves_no_silence() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", server.options()).await;
    let friday = room("friday");
    let mut at = Head::default();
    for round in 1..=50 {
        node.subscribe(&friday).await.unwrap();
        let next = if round == 1 { created(&friday, at, EPOCH) } else { after(&friday, at) };
        committed(&node, next).await;
        at = hear_head(&node).await;
        assert_eq!(at, head(EPOCH, round));
        node.unsubscribe(&friday);
    }
    until(async || {
        let channels: Vec<String> = server.shell().await.ask("PUBSUB CHANNELS *bus*").await;
        channels.is_empty()
    })
    .await;
}

#[tokio::test]
async fn room_time_is_redis_time_for_a_node_whose_clock_is_wrong() {
    let server = RedisServer::start().await;
    let node = RedisNode::at("a", server.options()).await;
    let right = Clock::start();
    let wrong = Clock::starting_at(RoomTime::from_millis(1_000_000));
    let (offset, error) = node.time().time_offset(&wrong).await.unwrap();
    wrong.set_offset(offset);
    let apart = wrong.now().seconds_since(right.now()).abs();
    assert!(apart <= error.as_secs_f64() + 0.005, "{apart} s apart, error {error:?}");
    let (again, _) = node.time().time_offset(&wrong).await.unwrap();
    assert!((again - offset).abs() < 5000, "an offset in use does not change the measurement");
}

#[tokio::test]
async fn room_time_that_redis_clock_is_behind_goes_on_for_every_node() {
    let server = RedisServer::start().await;
    let (a, b) = (RedisNode::at("a", server.options()).await, RedisNode::at("b", server.options()).await);
    let clock = Clock::start();
    let hour = Duration::from_secs(3600);
    let floor = clock.now() + hour;
    let (offset, _) = a.time().time_offset_from(&clock, floor).await.unwrap();
    assert!((offset - 3_600_000_000).abs() < 1_000_000, "{offset}");
    // What one has said holds for all, and a lower floor changes nothing.
    let (others, _) = b.time().time_offset_from(&clock, clock.now()).await.unwrap();
    assert!((others - offset).abs() < 100_000, "{others} {offset}");
    clock.set_offset(others);
    assert!(clock.now() >= floor);
}

#[tokio::test]
async fn a_node_whose_lease_ran_out_is_gone_and_one_that_signed_off_is_not_until_its_farewell_is_over() {
    let server = RedisServer::start().await;
    let (a, b, c) = (
        RedisNode::at("a", server.options()).await,
        RedisNode::at("b", server.options()).await,
        RedisNode::at("c", server.options()).await,
    );
    let (long, short) = (Duration::from_secs(60), Duration::from_millis(50));
    a.nodes.beat(long, long).await.unwrap();
    b.nodes.beat(long, long).await.unwrap();
    c.nodes.beat(short, long).await.unwrap();
    b.nodes.sign_off(long).await.unwrap();
    until(async || !a.nodes.roster(long).await.unwrap().gone.is_empty()).await;
    let mut roster = a.nodes.beat(long, long).await.unwrap();
    roster.alive.sort();
    assert_eq!((roster.alive, roster.gone), (vec![node_id("a"), node_id("b")], vec![node_id("c")]));
    b.nodes.sign_off(Duration::ZERO).await.unwrap();
    until(async || a.nodes.roster(long).await.unwrap().gone.len() == 2).await;
    c.nodes.beat(long, long).await.unwrap();
    assert_eq!(a.nodes.roster(long).await.unwrap().alive, [node_id("a"), node_id("c")]);
}

#[tokio::test]
async fn a_room_that_no_node_follows_is_an_orphan() {
    let server = RedisServer::start().await;
    let (a, b) = (RedisNode::at("a", server.options()).await, RedisNode::at("b", server.options()).await);
    let (friday, sunday) = (room("friday"), room("sunday"));
    a.subscribe(&friday).await.unwrap();
    b.subscribe(&sunday).await.unwrap();
    for room in [&friday, &sunday] {
        committed(&a, created(room, Head::default(), EPOCH)).await;
    }
    let none = Duration::ZERO;
    let sweep = a.nodes.find_orphans(none).await.unwrap();
    assert_eq!((sweep.rooms, sweep.orphans), (2, Vec::new()));
    drop(b);
    until(async || a.nodes.find_orphans(none).await.unwrap().orphans == std::slice::from_ref(&sunday)).await;
    assert!(
        a.nodes.find_orphans(DEADLINE).await.unwrap().orphans.is_empty(),
        "not before it has been quiet for a while"
    );
    assert!(a.nodes.may_sweep(DEADLINE).await.unwrap());
}

fn node_id(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

/// A commit to a room that was written back: decided once more when others have had their turn to write.
async fn committed_anew(node: &RedisLog, commit: tandem::commit::Commit) {
    let expected = commit.expected;
    let outcome = node.commit(commit.clone()).await;
    assert!(matches!(outcome, Ok(Outcome::Conflict(Some(head))) if head == expected), "{outcome:?}");
    committed(node, commit).await;
}

async fn hear_head(node: &RedisLog) -> Head {
    match within(node.follow()).await {
        Followed::Commit { entries, .. } => entries.last().unwrap().head,
        other => panic!("{other:?}"),
    }
}

/// The next report that is not a commit.
async fn hear_past_commits(node: &RedisLog) -> Followed {
    loop {
        match within(node.follow()).await {
            Followed::Commit { .. } => {}
            other => return other,
        }
    }
}
