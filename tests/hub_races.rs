//! Two nodes that commit to one room, and a node that catches up with thousands: members hear events, and the whole
//! state only after a real gap.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/around.rs"]
mod around;
#[path = "support/hub_fixture.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use around::{Around, Doings};
use support::faulty_log::{Fate, What};
use support::{HubFixture, RecordingSubscriber, room, until};
use tandem::clock::Clock;
use tandem::domain::{Dialect, NodeId, RoomId, UserId};
use tandem::hub::{Departure, Hub};
use tandem::room::Ask;

fn texts(subscriber: &RecordingSubscriber, kind: &str) -> Vec<u64> {
    let heard = subscriber.heard.lock();
    heard.iter().filter(|message| message["type"] == kind).map(|message| message["seq"].as_u64().unwrap()).collect()
}

/// A node whose log answers late, or panics.
fn around(fixture: &HubFixture, name: &str) -> (Hub, Arc<Doings>) {
    let node = NodeId::parse(name).unwrap();
    let (log, doings) = Around::of(fixture.log.attach(node.clone()));
    let hub = fixture.hub_on(node, log);
    (hub, doings)
}

#[tokio::test(start_paused = true)]
async fn a_commit_conflict_takes_no_event_from_anybody() {
    let fixture = HubFixture::new();
    let far = fixture.far();
    let (ann, anns) = fixture.join("ann").await;
    let (bob, bobs) = fixture.join_at(&far, "bob").await;
    // Answers are late: meanwhile each node decides on a state that the other has changed.
    fixture.log.faults().decide_by(|crossing| match crossing.what {
        What::Answer => Fate::Late(Duration::from_millis(3)),
        What::Delivery => Fate::Late(Duration::from_millis(7)),
        _ => Fate::Arrives,
    });
    for reference in 0..40 {
        fixture.chat(&ann, reference);
        HubFixture::chat_at(&far, &bob, reference);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until("all of it everywhere", || texts(&anns, "CHAT").len() == 80 && texts(&bobs, "CHAT").len() == 80).await;
    until("all answers", || texts(&anns, "ACK").len() == 40 && texts(&bobs, "ACK").len() == 40).await;
    assert_eq!(texts(&anns, "CHAT"), texts(&bobs, "CHAT"), "one order");
    assert!(texts(&anns, "CHAT").is_sorted());
    for subscriber in [&anns, &bobs] {
        assert_eq!(texts(subscriber, "ROOM_STATE").len(), 1, "the JOIN's alone");
        // Replies follow the events that they are about.
        let mut seen = 0;
        for message in subscriber.heard.lock().iter().filter(|message| message["seq"].is_u64()) {
            let seq = message["seq"].as_u64().unwrap();
            match message["type"].as_str().unwrap() {
                "ACK" => assert!(seq <= seen, "ACK of {seq} after {seen}"),
                _ => seen = seq,
            }
        }
    }
}

/// An event that ROOM_STATE can't replace for a v2 client: it is host now.
#[tokio::test(start_paused = true)]
async fn a_v2_member_whose_node_loses_a_race_hears_who_is_host() {
    let fixture = HubFixture::new();
    let far = fixture.far();
    let (ann, _) = fixture.join("ann").await;
    let (session, bobs) = (far.new_session(), Arc::new(RecordingSubscriber::default()));
    let mut request = fixture.request("bob", &session);
    request.dialect = Dialect::V2;
    let joined = far.join(request, bobs.clone()).await;
    let bob = joined.map_err(|refusal| refusal.to_string()).unwrap();
    // The event is under way to bob's node while that node decides bob's command.
    fixture.log.faults().decide_by(|crossing| match crossing.what {
        What::Delivery if crossing.node.as_str() == "node-2" => Fate::Late(Duration::from_millis(20)),
        _ => Fate::Arrives,
    });
    let ask = Ask::TransferHost { target: UserId::parse("bob").unwrap() };
    fixture.hub.submit(&ann, ask, "TRANSFER_HOST", None);
    until("ann's to be committed", || fixture.hub.inspect(&room()).unwrap().head().seq == 3).await;
    HubFixture::chat_at(&far, &bob, 1);
    until("bob's answer", || bobs.heard.lock().iter().any(|message| message["type"] == "ACK")).await;
    assert_eq!(bobs.heard(), ["ROOM_STATE", "HOST_CHANGED", "CHAT", "ACK"]);
}

/// A real gap: the delivery of the winner's commit is lost.
#[tokio::test(start_paused = true)]
async fn what_a_lost_race_has_shown_and_never_comes_is_read() {
    let fixture = HubFixture::new();
    let far = fixture.far();
    let (ann, _) = fixture.join("ann").await;
    let (bob, bobs) = fixture.join_at(&far, "bob").await;
    fixture.log.faults().decide_by(|crossing| match crossing.what {
        What::Delivery if crossing.node.as_str() == "node-2" => Fate::Lost,
        _ => Fate::Arrives,
    });
    fixture.chat(&ann, 1);
    until("ann's to be committed", || fixture.hub.inspect(&room()).unwrap().head().seq == 3).await;
    HubFixture::chat_at(&far, &bob, 1);
    until("bob's answer", || bobs.heard.lock().iter().any(|message| message["type"] == "ACK")).await;
    assert_eq!(bobs.heard(), ["ROOM_STATE", "ROOM_STATE", "CHAT", "ACK"]);
}

/// JOINs that lose their race, and JOINs into a room that ends meanwhile.
#[tokio::test(start_paused = true)]
async fn joins_and_ends_that_race_leave_one_order_and_no_ghost() {
    for delay in 0..8 {
        let fixture = HubFixture::new();
        let far = fixture.far();
        let (ann, _) = fixture.join("ann").await;
        fixture.log.faults().decide_by(move |crossing| match crossing.what {
            What::Answer => Fate::Late(Duration::from_millis(delay)),
            What::Delivery => Fate::Late(Duration::from_millis(2)),
            _ => Fate::Arrives,
        });
        let leaving = async {
            tokio::time::sleep(Duration::from_millis(delay / 2)).await;
            fixture.hub.depart(ann, Departure::Left);
        };
        let ((bob, bobs), ()) = tokio::join!(fixture.join_at(&far, "bob"), leaving);
        let host = || far.inspect(&room()).and_then(|room| room.host().map(ToString::to_string));
        until("bob to be the host", || host().as_deref() == Some("bob")).await;
        assert_eq!(texts(&bobs, "ROOM_STATE").len(), 1, "{delay}: {:?}", bobs.heard());
        far.depart(bob, Departure::Left);
        until("the room to be over", || far.status().rooms == 0 && fixture.hub.status().rooms == 0).await;
    }
}

/// After a break of the bus each of 5,000 rooms has a gap, each read takes 2 ms, and 800 commits a second go on.
#[tokio::test(start_paused = true)]
async fn a_node_with_thousands_of_rooms_catches_up_within_seconds() {
    const ROOMS: usize = 5000;
    let fixture = HubFixture::new();
    let far = fixture.far();
    let names: Vec<_> = (0..ROOMS).map(|number| RoomId::parse(&format!("room-{number}")).unwrap()).collect();
    let mut members = Vec::new();
    for name in &names {
        let join = async |hub: &Hub, user: &str| {
            let mut request = fixture.request(user, &hub.new_session());
            request.room = name.clone();
            hub.join(request, Arc::new(RecordingSubscriber::default()))
                .await
                .map_err(|refusal| refusal.to_string())
                .unwrap()
        };
        members.push((join(&fixture.hub, "ann").await, join(&far, "bob").await));
    }
    let node = NodeId::parse("node-2").unwrap();
    fixture.log.faults().partition(&node);
    for (ann, _) in &members {
        fixture.chat(ann, 1);
    }
    fixture.hub.settled().await;
    fixture.log.faults().heal(&node);
    fixture.log.faults().decide_by(|crossing| match crossing.what {
        What::Load => Fate::Late(Duration::from_millis(2)),
        _ => Fate::Arrives,
    });
    let healed = Clock::instant();
    let mut next = 0;
    while healed.elapsed() < Duration::from_secs(3) {
        for _ in 0..4 {
            fixture.chat(&members[next % ROOMS].0, 2);
            next += 7;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fixture.hub.settled().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let head = |hub: &Hub, name: &RoomId| hub.inspect(name).map(|room| room.head());
    let behind = names.iter().filter(|name| head(&far, name) != head(&fixture.hub, name)).count();
    assert_eq!(behind, 0, "rooms are behind, {next} commits later");
}

/// While one room is read slowly, members of other rooms hear their events.
#[tokio::test(start_paused = true)]
async fn a_slow_read_of_one_room_stops_no_other() {
    let fixture = HubFixture::new();
    let (far, doings) = around(&fixture, "node-2");
    let (ann, _) = fixture.join("ann").await;
    let (_bob, bobs) = fixture.join_at(&far, "bob").await;
    let sunday = RoomId::parse("sunday").unwrap();
    let in_sunday = async |hub: &Hub, user: &str| {
        let mut request = fixture.request(user, &hub.new_session());
        request.room = sunday.clone();
        let subscriber = Arc::new(RecordingSubscriber::default());
        (hub.join(request, subscriber.clone()).await.map_err(|refusal| refusal.to_string()).unwrap(), subscriber)
    };
    let (cat, _) = in_sunday(&fixture.hub, "cat").await;
    let (_dan, dans) = in_sunday(&far, "dan").await;
    *doings.load_takes.lock() = Duration::from_secs(5);
    let mut lost = false;
    fixture.log.faults().decide_by(move |crossing| {
        let first = !lost && crossing.what == What::Delivery && crossing.node.as_str() == "node-2";
        lost |= first;
        if first { Fate::Lost } else { Fate::Arrives }
    });
    for reference in 1..=2 {
        fixture.chat(&ann, reference);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fixture.chat(&cat, 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(texts(&dans, "CHAT").len(), 1, "sunday waits for friday's read");
    until("friday to be read", || bobs.heard.lock().len() > 1).await;
    assert_eq!(bobs.heard(), ["ROOM_STATE", "ROOM_STATE"]);
}

/// Between the subscription and the answer to the read a room's commits come in: the read has some of them, the others
/// follow.
#[tokio::test(start_paused = true)]
async fn commits_that_come_while_a_room_is_opened_are_no_gap() {
    let fixture = HubFixture::new();
    let (far, doings) = around(&fixture, "node-2");
    let (ann, _) = fixture.join("ann").await;
    *doings.load_takes.lock() = Duration::from_millis(100);
    fixture.log.faults().decide_by(|crossing| match crossing.what {
        What::Delivery if crossing.node.as_str() == "node-2" => Fate::Late(Duration::from_millis(30)),
        _ => Fate::Arrives,
    });
    let speaking = async {
        for reference in 0..30 {
            fixture.chat(&ann, reference);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ((_bob, bobs), ()) = tokio::join!(fixture.join_at(&far, "bob"), speaking);
    until("bob to know all", || texts(&bobs, "CHAT").len() == 30).await;
    assert_eq!(texts(&bobs, "ROOM_STATE").len(), 1, "the JOIN's alone");
    assert_eq!(doings.loads.load(Ordering::Relaxed), 1, "the room was read once");
}

/// More commits than a cell keeps come while the room is opened, and nothing is said after them.
#[tokio::test(start_paused = true)]
async fn a_flood_of_commits_while_a_room_is_opened_is_read_without_another_command() {
    let fixture = HubFixture::new();
    let (far, doings) = around(&fixture, "node-2");
    let (ann, _) = fixture.join("ann").await;
    *doings.load_takes.lock() = Duration::from_secs(1);
    // A node that takes over a room of which it has no member.
    let alive = [NodeId::parse("node-1").unwrap(), NodeId::parse("node-2").unwrap()];
    let opening = async { assert_eq!(far.adopt(&room(), &alive).await.map_err(|refusal| refusal.to_string()), Ok(0)) };
    let speaking = async {
        for reference in 0..200 {
            fixture.chat(&ann, reference);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::join!(opening, speaking);
    let head = || fixture.hub.inspect(&room()).unwrap().head();
    until("the other node to know all", || far.inspect(&room()).is_some_and(|it| it.head() == head())).await;
}

/// Another commit is missed while the answer to a read is under way.
#[tokio::test(start_paused = true)]
async fn what_is_missed_while_a_room_is_read_is_read_too() {
    let fixture = HubFixture::new();
    let (far, doings) = around(&fixture, "node-2");
    let (ann, _) = fixture.join("ann").await;
    let (_bob, bobs) = fixture.join_at(&far, "bob").await;
    *doings.load_takes.lock() = Duration::from_millis(100);
    // Of six deliveries the second and the last arrive.
    let mut count = 0;
    fixture.log.faults().decide_by(move |crossing| {
        let delivery = crossing.what == What::Delivery && crossing.node.as_str() == "node-2";
        count += u32::from(delivery);
        if delivery && !matches!(count, 2 | 6) { Fate::Lost } else { Fate::Arrives }
    });
    for reference in 1..=2 {
        fixture.chat(&ann, reference);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The read shows the second commit. Three more deliveries are lost, and the sixth arrives before the answer does.
    for reference in 3..=6 {
        fixture.chat(&ann, reference);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until("node-2 to know all", || {
        far.inspect(&room()).unwrap().head() == fixture.hub.inspect(&room()).unwrap().head()
    })
    .await;
    let states = texts(&bobs, "ROOM_STATE");
    assert_eq!(states, [2, 4, 8], "the JOIN's, and one for each gap");
}
