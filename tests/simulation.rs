//! Several nodes at one log, clients that come and go, and faults between them: every client's view is compared with
//! the log afterwards.
//!
//! `SIM_SEEDS=500 cargo test --test simulation` runs more of them; `SIM_SEED=17` runs one, and prints its transcript.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/memory_transport.rs"]
mod memory_transport;
#[path = "support/sim/mod.rs"]
mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::json;
use sim::{Asking, Heard, LARGE_ABOVE, ROOMS, World};
use tandem::domain::{MemberSlot, Namespace, NodeId, RoomId, SessionRef, StatusReport, UserId};
use tandem::hub::delivery::Signal;
use tandem::hub::digest::DigestPart;
use tandem::hub::relay::Relay;

const NODES: usize = 3;
const STEPS: usize = 120;
const SEEDS: u64 = 60;
/// The default seeds contain at least this many of each thing that the simulation claims to cover.
const FLOORS: &[(&str, usize)] = &[
    ("bans_changed", 4),
    ("chat", 300),
    ("commit failed", 200),
    ("conflict", 150),
    ("conflict with an end", 5),
    ("correction", 15),
    ("custom", 20),
    ("gap in all rooms", 30),
    ("gap in one room", 5),
    ("gate_progress", 1),
    ("grace_expired", 200),
    ("guest_control", 10),
    ("host_changed", 100),
    ("late: Delivery", 250),
    ("load failed", 250),
    ("lost: Answer", 30),
    ("lost: Commit", 30),
    ("lost: Delivery", 50),
    ("lost: Ephemeral", 4),
    ("member_banned", 1),
    ("member_disconnected", 200),
    ("member_kicked", 5),
    ("member_resumed", 60),
    ("node: back under its name", 7),
    ("node: crash", 40),
    ("node: cut off", 30),
    ("pause", 12),
    ("pin_changed", 10),
    ("play", 40),
    ("playback_adopted", 10),
    ("player", 50),
    ("rate", 8),
    ("resync", 15),
    ("room_ended", 50),
    ("room_kept", 50),
    ("roster: judged", 3),
    ("seek", 20),
    ("twice: Delivery", 100),
    ("url_changed", 12),
];
/// Of the judgements of a kind, one in this many may be excused: an auditor that excuses much sees little.
const EXCUSED_AT_MOST: usize = 20;

/// A number from the environment of the test.
fn option(name: &str) -> Option<u64> {
    let (_, value) = std::env::vars().find(|(key, _)| key == name)?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {value}")))
}

/// Runs a scenario on one thread, under tokio's paused time.
fn play<T>(transcript: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(transcript)
}

/// Faults, then none, then the final checks.
async fn one_life(world: &mut World) {
    for _ in 0..STEPS {
        world.step().await;
    }
    world.calm();
    world.settle(Duration::from_secs(60)).await;
    let truth = world.truth();
    truth.check_views(world);
    truth.check_answers(world);

    world.whoever_is_connected_can_speak().await;
    world.everybody_is_here().await;
    world.everybody_hears_everybody().await;
    let truth = world.truth();
    truth.check_views(world);
    truth.check_answers(world);
    truth.check_membership(world);
    truth.check_convergence(world);
    world.a_new_node_reads_the_same_rooms().await;

    let judgements = truth.judgements();
    world.everybody_goes().await;
    let truth = world.truth();
    truth.check_views(world);
    assert!(ROOMS.iter().all(|room| truth.room(room).is_none()), "a room outlived its members");
    for node in world.nodes.iter().flatten() {
        assert_eq!(node.hub.status().rooms, 0, "{} keeps a room in which nobody is", node.name);
    }
    for kind in truth.kinds() {
        world.tally.count(kind);
    }
    for (what, (made, excused)) in judgements {
        world.tally.add(format!("{what}: judged"), made);
        world.tally.add(format!("{what}: excused"), excused);
    }
    world.tally.add("resync", world.resyncs());
}

fn life_of(seed: u64) -> (BTreeMap<String, usize>, String) {
    play(async {
        let mut world = World::new(seed, NODES, &[3, 3, 2, 3, 2, 3]).await;
        AssertUnwindSafe(one_life(&mut world)).catch_unwind().await.unwrap_or_else(|panic| {
            if option("SIM_SEED").is_some() {
                println!("{}", world.transcript());
            }
            println!("seed {seed} fails; SIM_SEED={seed} cargo test --test simulation whatever");
            std::panic::resume_unwind(panic)
        });
        let (counts, transcript) = (world.tally.counts(), world.transcript());
        world.end();
        (counts, transcript)
    })
}

#[test]
fn whatever_happens_between_nodes_everybody_sees_one_order() {
    let seeds = match option("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..option("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut seen = BTreeMap::new();
    for seed in seeds.clone() {
        for (kind, times) in life_of(seed).0 {
            *seen.entry(kind).or_insert(0) += times;
        }
    }
    println!("seeds {seeds:?}: {seen:#?}");
    let count = |kind: &str| seen.get(kind).copied().unwrap_or(0);
    for what in ["disconnected", "answered", "seen", "speaker"] {
        let (judged, excused) = (count(&format!("{what}: judged")), count(&format!("{what}: excused")));
        assert!(excused * EXCUSED_AT_MOST <= judged, "{what}: {excused} of {judged} judgements are excused");
    }
    if seeds.end - seeds.start >= SEEDS {
        let rare = FLOORS.iter().filter(|(kind, least)| count(kind) < *least);
        let rare: Vec<_> = rare.map(|(kind, least)| format!("{kind}: {} < {least}", count(kind))).collect();
        assert!(rare.is_empty(), "the simulation no longer covers what it claims to: {rare:?}");
    }
}

#[test]
fn without_a_fault_every_member_hears_every_event_and_nobody_is_told_the_whole_room_instead() {
    for seed in 0..12 {
        play(async {
            let mut world = World::new(seed, NODES, &[3, 2, 3, 2, 3, 3]).await;
            world.be_slow();
            for _ in 0..STEPS {
                world.fair_step().await;
            }
            world.settle(Duration::from_secs(2)).await;
            let truth = world.truth();
            truth.check_views(&world);
            truth.check_answers(&world);
            assert_eq!(world.resyncs(), 0, "seed {seed}");
            world.end();
        });
    }
}

#[test]
fn a_seed_repeats_its_run() {
    let (first, again) = (life_of(7).1, life_of(7).1);
    let differs = first.lines().zip(again.lines()).find(|(a, b)| a != b);
    assert_eq!(differs, None);
}

// ---- the lane between nodes, without faults

/// A world of two nodes, and a client into the first room for each place.
async fn clients(dialects: &[u8], places: &[usize]) -> (World, Vec<usize>) {
    let mut world = World::new(1, 2, dialects).await;
    let mut clients = Vec::new();
    for (person, place) in places.iter().enumerate() {
        let client = world.dial(person, *place);
        world.join(client, ROOMS[0]).await;
        world.pass(MOMENT).await;
        assert!(world.clients[client].is_in());
        clients.push(client);
    }
    (world, clients)
}

const MOMENT: Duration = Duration::from_millis(100);

fn notices<'a>(world: &'a World, client: usize, kind: &'a str) -> Vec<&'a serde_json::Value> {
    let of_kind = |heard: &'a Heard| match heard {
        Heard::Notice(json) if json["type"] == kind => Some(json),
        _ => None,
    };
    world.clients[client].heard.iter().filter_map(of_kind).collect()
}

fn ticks(world: &World, client: usize) -> Vec<(u16, u32, bool)> {
    let tick = |heard: &Heard| match heard {
        Heard::Tick { slot, seq, from_host } => Some((*slot, *seq, *from_host)),
        _ => None,
    };
    world.clients[client].heard.iter().filter_map(tick).collect()
}

fn statuses(world: &World, client: usize) -> Vec<(u16, u32, i32, bool)> {
    let status = |heard: &Heard| match heard {
        Heard::Status { slot, seq, rtt, buffering } => Some((*slot, *seq, *rtt, *buffering)),
        _ => None,
    };
    world.clients[client].heard.iter().filter_map(status).collect()
}

#[test]
fn a_tick_reaches_v3_members_of_another_node_as_a_tick_and_v2_members_as_a_heartbeat_of_the_host() {
    play(async {
        let (mut world, clients) = clients(&[3, 3, 2], &[0, 1, 1]).await;
        let of_host = world.tick(clients[0]).await as u32;
        world.pass(MOMENT).await;
        assert_eq!(ticks(&world, clients[1]), [(1, of_host, true)]);
        assert_eq!(notices(&world, clients[2], "HOST_HEARTBEAT").len(), 1);
        let of_guest = world.tick(clients[1]).await as u32;
        world.pass(MOMENT).await;
        assert_eq!(ticks(&world, clients[0]), [(2, of_guest, false)]);
        assert_eq!(notices(&world, clients[2], "HOST_HEARTBEAT").len(), 1, "a guest's tick is no heartbeat");
    });
}

#[test]
fn a_v2_hosts_heartbeat_reaches_the_other_node() {
    play(async {
        let (mut world, clients) = clients(&[2, 3, 2], &[0, 1, 1]).await;
        let beat = json!({ "type": "HOST_HEARTBEAT", "currentTime": 3.5, "isPlaying": false });
        world.ask(clients[0], ROOMS[0], Asking::Other, beat).await;
        world.pass(MOMENT).await;
        assert_eq!(ticks(&world, clients[1]).len(), 1);
        assert_eq!(notices(&world, clients[2], "HOST_HEARTBEAT")[0]["currentTime"], 3.5);
    });
}

#[test]
fn a_status_reaches_v3_members_of_another_node() {
    play(async {
        let (mut world, clients) = clients(&[3, 3, 2], &[0, 1, 1]).await;
        let seq = world.status(clients[0], true).await;
        world.pass(MOMENT).await;
        assert_eq!(statuses(&world, clients[1]), [(1, seq, 12_500, true)]);
        assert!(statuses(&world, clients[0]).is_empty(), "never back to its sender");
        assert!(statuses(&world, clients[2]).is_empty(), "v2 knows none");
    });
}

/// Members of a room that is large above three.
async fn crowd(dialects: &[u8], places: &[usize]) -> (World, Vec<usize>) {
    let mut world = World::new(3, 2, dialects).await;
    assert_eq!(world.limits.full_presence_members, LARGE_ABOVE);
    let mut clients = Vec::new();
    for (person, place) in places.iter().enumerate() {
        let client = world.dial(person, *place);
        world.join(client, ROOMS[0]).await;
        world.pass(MOMENT).await;
        clients.push(client);
    }
    (world, clients)
}

fn last_digest(world: &World, client: usize) -> Option<(u16, u32, u32, Vec<u16>)> {
    let digest = |heard: &Heard| match heard {
        Heard::Digest { members, measured, buffering, stand_outs, .. } => {
            Some((*members, *measured, *buffering, stand_outs.clone()))
        }
        _ => None,
    };
    world.clients[client].heard.iter().rev().find_map(digest)
}

#[test]
fn a_large_room_hears_one_digest_of_all_nodes_and_nobody_s_status() {
    play(async {
        let (mut world, clients) = crowd(&[3, 3, 3, 3, 2], &[0, 0, 1, 1, 1]).await;
        for client in &clients[..4] {
            world.status(*client, *client == clients[1] || *client == clients[2]).await;
        }
        world.pass(Duration::from_millis(2500)).await;
        let before = world.plan.ephemeral();
        for client in &clients[..4] {
            assert_eq!(last_digest(&world, *client), Some((5, 2, 2, vec![2, 3])), "both who buffer are measured");
            assert!(statuses(&world, *client).is_empty(), "nobody's own status crosses, or is relayed");
        }
        assert_eq!(last_digest(&world, clients[4]), None, "v2 knows none");
        // Whatever they say of themselves: each node publishes its part, once a second.
        for round in 0..20 {
            world.status(clients[round % 4], false).await;
            world.tick(clients[1 + round % 3]).await;
            world.pass(Duration::from_millis(500)).await;
        }
        let parts = world.plan.ephemeral() - before;
        assert!((18..=22).contains(&parts), "{parts} messages crossed in ten seconds");
        let guests: Vec<_> =
            clients[..4].iter().flat_map(|client| ticks(&world, *client)).filter(|tick| !tick.2).collect();
        assert_eq!(guests, [], "a guest's position is nobody's business here");
    });
}

#[test]
fn a_node_s_part_names_its_own_members_alone() {
    play(async {
        let (mut world, clients) = crowd(&[3, 3, 3, 3], &[0, 0, 1, 1]).await;
        let mut part = DigestPart::default();
        for slot in 1..=4 {
            part.add(Some(MemberSlot(slot)), &StatusReport { buffering: true, ..StatusReport::default() });
        }
        let forged = Relay::Digest { node: NodeId::parse("mallory").unwrap(), part: part.clone() };
        world.publish_as("mallory", ROOMS[0], &forged.encode());
        world.pass(Duration::from_millis(1500)).await;
        assert_eq!(
            last_digest(&world, clients[0]),
            Some((4, 4, 4, vec![])),
            "it is counted, and believed about nobody"
        );
        // A node that speaks for its own members, so that the one above is known to be well formed.
        let node = world.clients[clients[2]].node.clone();
        world.publish_as("mallory", ROOMS[0], &Relay::Digest { node, part }.encode());
        world.pass(Duration::from_millis(900)).await;
        let named = world.clients[clients[0]].heard.iter().any(|heard| match heard {
            Heard::Digest { stand_outs, .. } => *stand_outs == [3, 4],
            _ => false,
        });
        assert!(named);
    });
}

#[test]
fn the_host_of_a_large_room_is_heard_once_a_second() {
    play(async {
        let (mut world, clients) = crowd(&[3, 3, 3, 3, 2], &[0, 0, 1, 1, 1]).await;
        for _ in 0..40 {
            world.tick(clients[0]).await;
            world.pass(Duration::from_millis(250)).await;
        }
        for client in &clients[1..4] {
            let heard = ticks(&world, *client);
            assert_eq!(heard.len(), 10, "{heard:?}");
            assert!(heard.iter().all(|(slot, _, from_host)| (*slot, *from_host) == (1, true)));
        }
        assert_eq!(notices(&world, clients[4], "HOST_HEARTBEAT").len(), 10);
    });
}

#[test]
fn a_room_that_becomes_small_again_hears_everybody_again() {
    play(async {
        let (mut world, clients) = crowd(&[3, 3, 3, 3], &[0, 0, 1, 1]).await;
        world.pass(Duration::from_secs(2)).await;
        assert!(last_digest(&world, clients[0]).is_some());
        world.ask(clients[3], ROOMS[0], Asking::Other, json!({ "type": "LEAVE" })).await;
        world.pass(MOMENT).await;
        world.clients[clients[0]].heard.clear();
        let seq = world.status(clients[2], true).await;
        let tick = world.tick(clients[1]).await as u32;
        world.pass(Duration::from_secs(3)).await;
        assert_eq!(statuses(&world, clients[0]), [(3, seq, 12_500, true)]);
        assert_eq!(ticks(&world, clients[0]), [(2, tick, false)]);
        assert_eq!(last_digest(&world, clients[0]), None);
    });
}

#[test]
fn the_part_of_a_node_that_is_silent_is_forgotten() {
    play(async {
        let (mut world, clients) = crowd(&[3, 3, 3, 3], &[0, 0, 1, 1]).await;
        let measured = async |world: &mut World| {
            for client in &clients[..] {
                if world.clients[*client].is_in() {
                    world.status(*client, true).await;
                }
            }
            world.pass(Duration::from_secs(2)).await;
            last_digest(world, clients[0]).unwrap().1
        };
        assert_eq!(measured(&mut world).await, 4);
        world.crash(1);
        measured(&mut world).await;
        assert_eq!(measured(&mut world).await, 2, "its members still have their grace time, but nothing to say");
    });
}

#[test]
fn a_room_that_lives_on_one_node_publishes_nothing() {
    play(async {
        let (mut world, clients) = clients(&[3, 3, 3], &[0, 0, 1]).await;
        // The other node keeps its replica when its member has left: it would get what is published.
        world.ask(clients[2], ROOMS[0], Asking::Other, json!({ "type": "LEAVE" })).await;
        world.pass(MOMENT).await;
        assert_eq!(world.replicas(ROOMS[0]), BTreeSet::from([0, 1]));
        let before = world.plan.ephemeral();
        world.tick(clients[0]).await;
        world.status(clients[0], true).await;
        world.signal(clients[0], "bob").await;
        world.pass(MOMENT).await;
        assert_eq!(ticks(&world, clients[1]).len(), 1);
        assert_eq!(world.plan.ephemeral(), before);
    });
}

#[test]
fn a_room_with_only_v2_members_elsewhere_publishes_heartbeats_alone() {
    play(async {
        let (mut world, clients) = clients(&[3, 3, 2], &[0, 0, 1]).await;
        let before = world.plan.ephemeral();
        world.tick(clients[1]).await;
        world.pass(MOMENT).await;
        assert_eq!(world.plan.ephemeral(), before, "a guest's tick means nothing to v2");
        world.tick(clients[0]).await;
        world.pass(MOMENT).await;
        assert_eq!(world.plan.ephemeral(), before + 1);
    });
}

#[test]
fn a_signal_goes_to_the_node_of_its_target_alone() {
    play(async {
        let mut world = World::new(1, 3, &[3, 3, 3]).await;
        let mut clients = Vec::new();
        for person in 0..3 {
            clients.push(world.dial(person, person));
            world.join(clients[person], ROOMS[0]).await;
            world.pass(MOMENT).await;
        }
        let before = world.plan.ephemeral();
        let signal = world.signal(clients[0], "cat").await;
        world.pass(MOMENT).await;
        assert_eq!((world.heard_signal(clients[1], signal), world.heard_signal(clients[2], signal)), (0, 1));
        assert_eq!(world.plan.ephemeral(), before + 1);
        world.truth().check_views(&world);
    });
}

#[test]
fn a_signal_to_a_member_that_is_nowhere_live_is_refused_with_target_gone() {
    play(async {
        let (mut world, clients) = clients(&[3, 3], &[0, 1]).await;
        world.hang_up(clients[1]);
        world.pass(MOMENT).await;
        let signal = world.signal(clients[0], "bob").await;
        world.pass(MOMENT).await;
        assert_eq!(world.refused(signal), Some("TARGET_GONE"));
    });
}

#[test]
fn a_signal_whose_target_leaves_while_it_is_under_way_is_refused_with_target_gone() {
    play(async {
        let (mut world, clients) = clients(&[3, 3], &[0, 1]).await;
        let before = world.plan.ephemeral();
        world.ask(clients[1], ROOMS[0], Asking::Other, json!({ "type": "LEAVE" })).await;
        let signal = world.signal(clients[0], "bob").await;
        world.pass(MOMENT).await;
        assert_eq!(world.plan.ephemeral(), before + 2, "the signal left, and came back");
        assert_eq!(world.refused(signal), Some("TARGET_GONE"));
    });
}

#[test]
fn a_relay_in_the_name_of_a_session_that_the_room_does_not_know_is_not_believed() {
    play(async {
        let (mut world, clients) = clients(&[3, 3], &[0, 1]).await;
        let state = world.clients[clients[0]].last_state().unwrap();
        let (node, id) = state["sessionId"].as_str().unwrap().rsplit_once('-').unwrap();
        let (node, id) = (node.to_owned(), u64::from_str_radix(id, 16).unwrap());
        let relay = |node: &str, id: u64, n: u64| {
            let (user, to) = (UserId::parse("ann").unwrap(), UserId::parse("bob").unwrap());
            let session = SessionRef { node: NodeId::parse(node).unwrap(), id };
            let (namespace, payload) = (Namespace::parse("sim").unwrap(), format!("{{\"n\":{n}}}"));
            let signal = Signal::Custom { namespace, payload };
            Relay::Signal { user, session, to, signal, request: "CUSTOM".to_owned(), reference: None }.encode()
        };
        world.publish_as("mallory", ROOMS[0], &relay(&node, id + 1, 1));
        world.publish_as("mallory", ROOMS[0], &relay("mallory", id, 2));
        world.publish_as("mallory", ROOMS[0], b"\x02nonsense");
        world.pass(MOMENT).await;
        assert!(notices(&world, clients[1], "CUSTOM").is_empty());
        // Nodes trust each other: so that the two above are known to be well formed.
        world.publish_as("mallory", ROOMS[0], &relay(&node, id, 3));
        world.pass(MOMENT).await;
        assert_eq!(notices(&world, clients[1], "CUSTOM").len(), 1);
    });
}

#[test]
fn a_v2_member_that_is_silent_on_another_node_gives_way_and_one_that_answers_stays() {
    play(async {
        let (mut world, clients) = clients(&[3, 2], &[0, 1]).await;
        let claim = world.dial(1, 0);
        let join = world.join(claim, ROOMS[0]).await;
        world.pass(Duration::from_secs(3)).await;
        assert_eq!(world.refused(join), Some("USER_ID_TAKEN"));
        assert!(world.clients[clients[1]].is_in());

        world.clients[clients[1]].wire.as_ref().unwrap().go_silent();
        let claim = world.dial(1, 0);
        world.join(claim, ROOMS[0]).await;
        world.pass(Duration::from_secs(3)).await;
        assert!(world.clients[claim].is_in(), "{:?}", world.clients[claim].heard);
        assert!(!world.clients[clients[1]].is_open());
    });
}

#[test]
fn members_of_a_node_that_died_have_the_grace_time_to_come_back_elsewhere() {
    play(async {
        let (mut world, clients) = clients(&[3, 3], &[0, 1]).await;
        let gone = world.crash(1).unwrap();
        world.pass(MOMENT).await;
        assert_eq!(world.node(0).hub.lose_node(&gone), 1);
        world.pass(MOMENT).await;
        assert_eq!(world.node(0).hub.lose_node(&gone), 0, "once is enough");
        let last = |world: &World| match world.clients[clients[0]].heard.last() {
            Some(Heard::Event { json, .. }) => (json["type"].clone(), json["connected"].clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(last(&world), (json!("MEMBER_CONNECTION"), json!(false)));
        let back = world.dial(1, 0);
        world.join(back, ROOMS[0]).await;
        world.pass(MOMENT).await;
        assert_eq!(last(&world), (json!("MEMBER_CONNECTION"), json!(true)));
        assert_eq!(world.clients[back].last_state().unwrap()["slot"], 2, "the same member");
    });
}

#[test]
fn a_room_that_lived_only_on_a_node_that_died_waits_for_its_members_when_it_is_swept() {
    play(async {
        let (mut world, _) = clients(&[3], &[1]).await;
        let gone = world.crash(1).unwrap();
        let room = RoomId::parse(ROOMS[0]).unwrap();
        assert_eq!(world.node(0).hub.lose_node(&gone), 0, "no replica here");
        let hub = world.node(0).hub.clone();
        assert_eq!(hub.lose_node_in(&room, &gone).await.unwrap(), 1);
        world.pass(Duration::from_secs(world.limits.grace_secs + 1)).await;
        let kept = |world: &World| world.truth().room(ROOMS[0]).map(|room| room.kept().is_some());
        assert_eq!(kept(&world), Some(true));
        // Its member finds it on the other node, and is its host as before.
        let back = world.dial(0, 0);
        world.join(back, ROOMS[0]).await;
        world.pass(MOMENT).await;
        assert_eq!((kept(&world), &world.clients[back].last_state().unwrap()["resumed"]), (Some(false), &json!(true)));
        world.hang_up(back);
        world.pass(Duration::from_secs(world.limits.grace_secs + world.limits.room_keep_minutes * 60 + 2)).await;
        assert_eq!(kept(&world), None);
        assert_eq!(world.node(0).hub.status().rooms, 0);
    });
}

#[test]
fn a_node_that_comes_back_under_its_name_finds_the_sessions_of_its_former_life() {
    play(async {
        let (mut world, clients) = clients(&[3, 2], &[0, 1]).await;
        let name = world.crash(1).unwrap();
        world.start(1, Some(name));
        // A v2 member can't prove anything: it has to be found dead before it gets its place back.
        let back = world.dial(1, 0);
        world.join(back, ROOMS[0]).await;
        world.pass(Duration::from_secs(3)).await;
        assert!(world.clients[back].is_in(), "{:?}", world.clients[back].heard);
        assert!(world.clients[clients[0]].is_in());
    });
}
