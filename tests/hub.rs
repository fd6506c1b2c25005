//! The hub where no client can reach it: dropped futures, a failing log, stale replicas.

#[path = "support/hub_fixture.rs"]
mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use support::faulty_log::{Fate, What};
use support::{HubFixture, RecordingSubscriber, room, until};
use tandem::commit::{Commit, Entry, Patch, RoomRow};
use tandem::domain::{Dialect, Head, Limits, MediaTime, NodeId, Pin, Rate, ResumeToken, RoomId, RoomTime, TickReport};
use tandem::hub::delivery::{Refusal, Signal};
use tandem::hub::{Departure, Hub, JoinRequest};
use tandem::log::Outcome;
use tandem::protocol;
use tandem::room::{Ask, Reject};
use tandem::telemetry::Metrics;

#[tokio::test(start_paused = true)]
async fn members_are_told_the_whole_state_when_room_time_is_put_right_in_one_step() {
    let fixture = HubFixture::new();
    let (_ann, subscriber) = fixture.join("ann").await;
    subscriber.heard.lock().clear();
    let before = fixture.clock.now();
    fixture.clock.step(5_000_000);
    until("the new time", || subscriber.heard.lock().iter().any(|message| message["type"] == "ROOM_STATE")).await;
    assert!(fixture.clock.now() >= before + std::time::Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_position_report_counts_as_a_delivery_to_each_member_who_is_told_of_it() {
    let fixture = HubFixture::new();
    let (ann, _) = fixture.join("ann").await;
    fixture.join("bob").await;
    let session = fixture.hub.new_session();
    let request = JoinRequest { dialect: Dialect::V2, ..fixture.request("old", &session) };
    fixture.hub.join(request, Arc::new(RecordingSubscriber::default())).await.unwrap();
    let (recorder, metrics) = Metrics::recorder().unwrap();
    metrics::with_local_recorder(&recorder, || {
        for seq in 1..=2 {
            let at = fixture.clock.now();
            let report = TickReport { seq, playing: false, position: MediaTime::ZERO, at, rate: Rate::NORMAL };
            fixture.hub.tick(&ann, report);
        }
    });
    // Bob hears both, and the member of v2 the first one: its heartbeats are seldom. Ann knows where she is.
    let counted = ("tandem_deliveries_total{class=\"tick\"}".to_owned(), 3.0);
    assert!(metrics.values().contains(&counted), "{:?}", metrics.values());
}

#[tokio::test(start_paused = true)]
async fn a_join_dropped_before_or_during_its_commit_leaves_no_ghost() {
    let fixture = HubFixture::new();
    let (_ann, anns) = fixture.join("ann").await;
    // The commit takes 50 ms; the JOIN is dropped before, during, and just after it.
    for (step, patience) in [0, 1, 25, 49, 50, 51, 60].into_iter().enumerate() {
        fixture.log.faults().decide_by(|crossing| match crossing.what {
            What::Commit => Fate::Late(Duration::from_millis(50)),
            _ => Fate::Arrives,
        });
        let user = format!("bob-{step}");
        let session = fixture.hub.new_session();
        let joining = fixture.hub.join(fixture.request(&user, &session), Arc::new(RecordingSubscriber::default()));
        let joined = tokio::time::timeout(Duration::from_millis(patience), joining).await;
        if let Ok(Ok(membership)) = joined {
            fixture.hub.depart(membership, Departure::Lost);
        }
        fixture.log.faults().calm();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(fixture.members().iter().all(|(name, live)| *name == "ann" || !live), "{:?}", fixture.members());
    }
    until("the grace times to be over", || fixture.members() == [("ann".to_owned(), true)]).await;
    assert!(anns.heard().iter().all(|kind| kind != "DEGRADED true"));
}

/// The session ends after the answer was sent and before it is read: a failed write is noticed in the same turn.
#[tokio::test(start_paused = true)]
async fn a_join_dropped_with_its_answer_unread_leaves_no_ghost() {
    let fixture = HubFixture::new();
    let (_ann, _) = fixture.join("ann").await;
    let (session, subscriber) = (fixture.hub.new_session(), Arc::new(RecordingSubscriber::default()));
    {
        let mut joining = Box::pin(fixture.hub.join(fixture.request("bob", &session), subscriber.clone()));
        // The first poll puts it into the queue …
        assert!(futures_util::poll!(joining.as_mut()).is_pending());
        // … and before the next one it is committed, and bob's ROOM_STATE is sent.
        until("the commit", || subscriber.heard() == ["ROOM_STATE"]).await;
    }
    until("bob to be gone", || fixture.members().contains(&("bob".to_owned(), false))).await;
}

/// A session that is `ann` asks to be `bob` and is reset at some moment of that JOIN: no live member stays behind.
#[tokio::test(start_paused = true)]
async fn a_session_reset_while_it_becomes_somebody_else_leaves_no_ghost() {
    for patience in [0, 1, 25, 49, 50, 51, 60] {
        for kind in [What::Commit, What::Answer] {
            let fixture = HubFixture::new();
            let (session, subscriber) = (fixture.hub.new_session(), Arc::new(RecordingSubscriber::default()));
            let joined = fixture.hub.join(fixture.request("ann", &session), subscriber.clone()).await;
            let ann = joined.map_err(|refusal| refusal.to_string()).unwrap();
            fixture.log.faults().decide_by(move |crossing| match crossing.what {
                what if what == kind => Fate::Late(Duration::from_millis(50)),
                _ => Fate::Arrives,
            });
            let joining = fixture.hub.join(fixture.request("bob", &session), subscriber.clone());
            let joined = tokio::time::timeout(Duration::from_millis(patience), joining).await;
            // A session that ends gives back the membership that it knows of.
            let known = if let Ok(Ok(bob)) = joined { bob } else { ann };
            fixture.hub.depart(known, Departure::Lost);
            fixture.log.faults().calm();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let live = fixture.members().into_iter().filter(|(_, live)| *live).collect::<Vec<_>>();
            assert_eq!(live, [], "{kind:?} after {patience} ms");
        }
    }
}

/// The answer is sent, and the session ends in the same turn: it still counts itself as `ann`.
#[tokio::test(start_paused = true)]
async fn a_session_that_became_somebody_else_and_never_heard_of_it_leaves_no_ghost() {
    let fixture = HubFixture::new();
    let (session, subscriber) = (fixture.hub.new_session(), Arc::new(RecordingSubscriber::default()));
    let joined = fixture.hub.join(fixture.request("ann", &session), subscriber.clone()).await;
    let ann = joined.map_err(|refusal| refusal.to_string()).unwrap();
    {
        let mut joining = Box::pin(fixture.hub.join(fixture.request("bob", &session), subscriber.clone()));
        assert!(futures_util::poll!(joining.as_mut()).is_pending());
        until("bob's ROOM_STATE", || subscriber.heard.lock().len() >= 2).await;
    }
    fixture.hub.depart(ann, Departure::Lost);
    until("nobody to be live", || fixture.members().iter().all(|(_, live)| !live)).await;
}

/// The log refuses the JOIN as `bob`: the session stays `ann`, is told so, and `ann` is lost when it ends.
#[tokio::test(start_paused = true)]
async fn a_session_that_could_not_become_somebody_else_is_who_it_was() {
    let fixture = HubFixture::new();
    let (session, subscriber) = (fixture.hub.new_session(), Arc::new(RecordingSubscriber::default()));
    let joined = fixture.hub.join(fixture.request("ann", &session), subscriber.clone()).await;
    let ann = joined.map_err(|refusal| refusal.to_string()).unwrap();
    fixture.fail(&[What::Commit]);
    let refused = fixture.hub.join(fixture.request("bob", &session), subscriber.clone()).await;
    assert!(matches!(refused, Err(Refusal::Unavailable)), "it is not bob");
    fixture.log.faults().calm();
    fixture.hub.depart(ann, Departure::Lost);
    until("nobody to be live", || fixture.members().iter().all(|(_, live)| !live)).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_dropped_while_its_pin_is_hashed_leaves_no_room() {
    let fixture = HubFixture::with(Limits { rooms: 1, ..Limits::default() });
    for _ in 0..3 {
        let session = fixture.hub.new_session();
        let mut request = fixture.request("ann", &session);
        request.pin = Some(Pin::parse("4711").unwrap());
        let mut joining = Box::pin(fixture.hub.join(request, Arc::new(RecordingSubscriber::default())));
        assert!(futures_util::poll!(joining.as_mut()).is_pending());
        assert_eq!(fixture.hub.status().rooms, 1);
        drop(joining);
        assert_eq!(fixture.hub.status().rooms, 0, "an empty room stays for ever");
    }
    fixture.join("bob").await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_join_leaves_no_room_either_and_its_number_holds() {
    let fixture = HubFixture::with(Limits { rooms: 1, ..Limits::default() });
    let (ann, _) = fixture.join("ann").await;
    let session = fixture.hub.new_session();
    let mut request = fixture.request("bob", &session);
    request.room = RoomId::parse("saturday").unwrap();
    let refused = fixture.hub.join(request, Arc::new(RecordingSubscriber::default())).await;
    assert!(matches!(refused, Err(Refusal::RoomLimit)));
    fixture.hub.depart(ann, Departure::Left);
    until("the room to be over", || fixture.hub.status().rooms == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_pin_that_changes_while_it_is_checked_is_checked_again() {
    let fixture = HubFixture::new();
    let (ann, _) = fixture.join("ann").await;
    let set_pin = async |text: &str| {
        let pin = fixture
            .hub
            .hash_pin(Pin::parse(text).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST))
            .await
            .map_err(|refusal| refusal.to_string())
            .unwrap();
        fixture.hub.submit(&ann, Ask::SetPin { pin: Some(pin) }, "SET_PIN", None);
    };
    set_pin("1111").await;
    until("the PIN", || fixture.hub.inspect(&room()).unwrap().head().seq == 2).await;
    let outcome = async |typed: &str, user: &str| {
        let session = fixture.hub.new_session();
        let mut request = fixture.request(user, &session);
        request.pin = Some(Pin::parse(typed).unwrap());
        let mut joining = Box::pin(fixture.hub.join(request, Arc::new(RecordingSubscriber::default())));
        // It has read the current hash, and runs its argon2.
        assert!(futures_util::poll!(joining.as_mut()).is_pending());
        set_pin("2222").await;
        let outcome = joining.await;
        set_pin("1111").await;
        let back = fixture.hub.inspect(&room()).unwrap().head().seq;
        until("the PIN of before", || fixture.hub.inspect(&room()).unwrap().head().seq > back).await;
        outcome.map(|_| ()).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(outcome("1111", "bob").await, Err(Reject::PinWrong.to_string()));
    assert_eq!(outcome("2222", "cat").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_committed_is_refused_and_everybody_is_told_how_it_stands() {
    let fixture = HubFixture::new();
    let ((ann, anns), (_bob, bobs)) = (fixture.join("ann").await, fixture.join("bob").await);
    anns.heard();
    bobs.heard();
    fixture.fail(&[What::Commit]);
    fixture.chat(&ann, 1);
    until("the refusal", || anns.heard.lock().len() >= 2).await;
    assert_eq!(
        (anns.heard(), bobs.heard()),
        (vec!["DEGRADED true".into(), "UNAVAILABLE".into()], vec!["DEGRADED true".to_owned()])
    );
    // Told once, however often commits fail.
    fixture.chat(&ann, 2);
    until("the refusal", || !anns.heard.lock().is_empty()).await;
    assert_eq!((anns.heard(), bobs.heard()), (vec!["UNAVAILABLE".to_owned()], vec![]));
    fixture.log.faults().calm();
    fixture.chat(&ann, 3);
    until("the answer", || anns.heard.lock().len() >= 3).await;
    assert_eq!(
        (anns.heard(), bobs.heard()),
        (vec!["DEGRADED false".into(), "CHAT".into(), "ACK".into()], vec!["DEGRADED false".to_owned(), "CHAT".into()])
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_hub_must_see_through_is_tried_until_the_log_is_back() {
    let fixture = HubFixture::new();
    let ((_ann, anns), (bob, _), (cat, _)) =
        (fixture.join("ann").await, fixture.join("bob").await, fixture.join("cat").await);
    fixture.fail(&[What::Commit, What::Load]);
    fixture.hub.depart(bob, Departure::Lost);
    fixture.hub.depart(cat, Departure::Left);
    // Ten minutes without a log: the hub's commands neither multiply nor get lost.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(fixture.members().len(), 3);
    fixture.log.faults().calm();
    until("both to be gone", || fixture.members() == [("ann".to_owned(), true)]).await;
    let heard = anns.heard();
    let count = |kind: &str| heard.iter().filter(|heard| *heard == kind).count();
    assert_eq!((count("MEMBER_CONNECTION false"), count("USER_LEFT"), count("DEGRADED false")), (1, 2, 1), "{heard:?}");
}

/// The answer of a commit is lost: JOIN is refused with UNAVAILABLE, and no live member may stay behind.
#[tokio::test(start_paused = true)]
async fn a_join_that_was_committed_without_anybody_knowing_leaves_no_ghost() {
    let fixture = HubFixture::new();
    let (_ann, _) = fixture.join("ann").await;
    // Neither the delivery nor a read tells the outcome.
    fixture.fail(&[What::Answer, What::Load, What::Delivery]);
    let session = fixture.hub.new_session();
    let subscriber = Arc::new(RecordingSubscriber::default());
    let refused = fixture.hub.join(fixture.request("bob", &session), subscriber.clone()).await;
    assert!(matches!(refused, Err(Refusal::Unavailable)));
    fixture.log.faults().calm();
    until("bob not to be live", || !fixture.members().contains(&("bob".to_owned(), true))).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!fixture.members().contains(&("bob".to_owned(), true)), "{:?}", fixture.members());
}

/// Found by the chaos run: the client had come back over another connection, which its own old JOIN then superseded.
#[tokio::test(start_paused = true)]
async fn a_join_that_was_given_up_takes_nothing_over_when_the_log_is_back() {
    let fixture = HubFixture::new();
    let (ann, subscriber) = fixture.join("ann").await;
    let token = subscriber.heard.lock()[0]["resumeToken"].as_str().unwrap().to_owned();
    fixture.fail(&[What::Commit]);
    fixture.chat(&ann, 1);
    until("the log to be away", || subscriber.heard().contains(&"UNAVAILABLE".to_owned())).await;
    let mut request = fixture.request("ann", &fixture.hub.new_session());
    request.token = Some(ResumeToken::presented(&token));
    // It waits in the queue for the next attempt.
    let joining = fixture.hub.join(request, Arc::new(RecordingSubscriber::default()));
    assert!(tokio::time::timeout(Duration::from_millis(1), joining).await.is_err());
    fixture.log.faults().calm();
    fixture.chat(&ann, 2);
    until("the log to be back", || subscriber.heard().contains(&"CHAT".to_owned())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((*subscriber.closed.lock(), fixture.members()), (None, vec![("ann".to_owned(), true)]));
}

#[tokio::test(start_paused = true)]
async fn a_room_takes_so_many_commands_and_no_more() {
    let fixture = HubFixture::with(Limits { room_queue: 16, ..Limits::default() });
    let (ann, anns) = fixture.join("ann").await;
    anns.heard();
    fixture.log.faults().decide_by(|crossing| match crossing.what {
        What::Commit => Fate::Late(Duration::from_secs(1)),
        _ => Fate::Arrives,
    });
    fixture.chat(&ann, 0);
    tokio::time::sleep(Duration::from_millis(10)).await;
    for reference in 1..=20 {
        fixture.chat(&ann, reference);
    }
    assert_eq!(anns.heard(), ["OVERLOADED"; 4]);
    // A JOIN is refused, too; a loss never is.
    let session = fixture.hub.new_session();
    assert!(matches!(
        fixture.hub.join(fixture.request("bob", &session), Arc::new(RecordingSubscriber::default())).await,
        Err(Refusal::Overloaded)
    ));
    fixture.hub.depart(ann, Departure::Lost);
    until("ann to be gone", || fixture.members() == [("ann".to_owned(), false)]).await;
    let room = fixture.hub.inspect(&room()).unwrap();
    assert_eq!(room.head().seq, 1 + 17 + 1, "a join, the accepted ones, the loss");
}

#[tokio::test(start_paused = true)]
async fn fault_13_what_is_committed_on_one_node_the_members_of_another_hear() {
    let fixture = HubFixture::new();
    let far = fixture.far();
    let (ann, anns) = fixture.join("ann").await;
    let (_bob, bobs) = fixture.join_at(&far, "bob").await;
    for reference in 0..50 {
        fixture.chat(&ann, reference);
    }
    let chats = |subscriber: &RecordingSubscriber| {
        subscriber.heard.lock().iter().filter(|message| message["type"] == "CHAT").count()
    };
    until("all of it on both nodes", || chats(&anns) == 50 && chats(&bobs) == 50).await;
    let order = |subscriber: &RecordingSubscriber| -> Vec<Value> {
        let heard = subscriber.heard.lock();
        heard.iter().filter(|message| message["type"] == "CHAT").map(|message| message["seq"].clone()).collect()
    };
    assert_eq!(order(&anns), order(&bobs));
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_its_target_has_no_room_for_is_refused_to_its_sender_from_another_node_too() {
    let fixture = HubFixture::new();
    let far = fixture.far();
    let (ann, anns) = fixture.join("ann").await;
    let (bob, bobs) = fixture.join_at(&far, "bob").await;
    anns.full.store(true, Ordering::Relaxed);
    until("bob to be known", || anns.heard().contains(&"USER_JOINED".to_owned())).await;
    bobs.heard();
    let signal = Signal::Offer { offer: "{}".to_owned() };
    far.signal(&bob, &ann.actor().user, &signal, "OFFER", Some(7)).unwrap();
    until("the answer", || !bobs.heard.lock().is_empty()).await;
    let answer = bobs.heard.lock()[0].clone();
    assert_eq!((&answer["code"], &answer["ref"]), (&"RATE_LIMITED".into(), &7.into()), "{answer}");
    assert!(answer["retryAfterMs"].as_u64().is_some());
    // Only this node's answer arrives.
    let (cat, _) = fixture.join("cat").await;
    assert!(matches!(fixture.hub.signal(&cat, &ann.actor().user, &signal, "OFFER", None), Err(Refusal::TargetBusy)));
    assert!(!anns.heard().contains(&"OFFER".to_owned()));
    anns.full.store(false, Ordering::Relaxed);
    far.signal(&bob, &ann.actor().user, &signal, "OFFER", None).unwrap();
    until("the next offer", || anns.heard().contains(&"OFFER".to_owned())).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_missed_something_reads_the_room_again_and_tells_its_members() {
    let fixture = HubFixture::new();
    let far = fixture.far();
    let (ann, _) = fixture.join("ann").await;
    let (bob, subscriber) = fixture.join_at(&far, "bob").await;
    assert_eq!(subscriber.heard(), ["ROOM_STATE"]);
    // Two deliveries to bob's node are lost, the third arrives.
    fixture.log.faults().decide_by(|crossing| match crossing.what {
        What::Delivery if crossing.node.as_str() == "node-2" => Fate::Lost,
        _ => Fate::Arrives,
    });
    fixture.chat(&ann, 1);
    fixture.chat(&ann, 2);
    until("both to be committed", || fixture.hub.inspect(&room()).unwrap().head().seq == 4).await;
    fixture.log.faults().calm();
    fixture.chat(&ann, 3);
    let head = || far.inspect(&room()).unwrap().head().seq;
    until("node-2 to know", || head() == 5).await;
    let heard = subscriber.heard();
    assert!(heard.contains(&"ROOM_STATE".to_owned()), "{heard:?}");
    assert!(heard.iter().filter(|kind| *kind == "CHAT").count() <= 1, "{heard:?}");
    // bob is a member as before.
    far.depart(bob, Departure::Left);
    until("bob to be gone", || fixture.members() == [("ann".to_owned(), true)]).await;
}

/// No other commit of the room follows, so no later gap would be noticed.
#[tokio::test(start_paused = true)]
async fn what_was_missed_is_read_again_until_the_log_answers() {
    let fixture = HubFixture::new();
    let far = fixture.far();
    let (ann, _) = fixture.join("ann").await;
    let (_bob, bobs) = fixture.join_at(&far, "bob").await;
    let (mut deliveries, mut loads) = (0, 0);
    fixture.log.faults().decide_by(move |crossing| {
        let lost = match crossing.what {
            What::Delivery if crossing.node.as_str() == "node-2" => {
                deliveries += 1;
                deliveries == 1
            }
            What::Load => {
                loads += 1;
                loads <= 3
            }
            _ => false,
        };
        if lost { Fate::Lost } else { Fate::Arrives }
    });
    fixture.chat(&ann, 1);
    until("the first to be committed", || fixture.hub.inspect(&room()).unwrap().head().seq == 3).await;
    fixture.chat(&ann, 2);
    until("node-2 to know both", || far.inspect(&room()).unwrap().head().seq == 4).await;
    assert_eq!(bobs.heard(), ["ROOM_STATE", "ROOM_STATE"]);
}

/// A snapshot overtakes the JOIN's own event: the joiner gets its ROOM_STATE and all later events.
#[tokio::test(start_paused = true)]
async fn a_join_that_a_snapshot_brings_is_a_join() {
    let fixture = HubFixture::new();
    let (ann, _) = fixture.join("ann").await;
    // The commit is durable and its answer late; meanwhile a gap makes the node load the room.
    fixture.log.faults().decide_by(|crossing| match crossing.what {
        What::Answer => Fate::Late(Duration::from_millis(100)),
        What::Delivery => Fate::Lost,
        _ => Fate::Arrives,
    });
    let (session, subscriber) = (fixture.hub.new_session(), Arc::new(RecordingSubscriber::default()));
    let joining = fixture.hub.join(fixture.request("bob", &session), subscriber.clone());
    let gap = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        fixture.log.faults().calm();
    };
    let (joined, ()) = tokio::join!(joining, gap);
    let bob = joined.map_err(|refusal| refusal.to_string()).unwrap();
    fixture.chat(&ann, 1);
    fixture.chat(&bob, 2);
    until("both chats and the ACK", || subscriber.heard.lock().len() >= 4).await;
    assert_eq!(subscriber.heard(), ["ROOM_STATE", "CHAT", "CHAT", "ACK"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_committed_before_a_stop_closes_the_log() {
    let fixture = HubFixture::new();
    let ((ann, _), (bob, _)) = (fixture.join("ann").await, fixture.join("bob").await);
    fixture.log.faults().decide_by(|crossing| match crossing.what {
        What::Commit => Fate::Late(Duration::from_millis(200)),
        _ => Fate::Arrives,
    });
    // The first is in flight; the others wait for it.
    fixture.chat(&ann, 1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    fixture.chat(&ann, 2);
    fixture.hub.depart(bob, Departure::Left);
    fixture.hub.settled().await;
    fixture.log.close().await;
    assert_eq!(fixture.members(), [("ann".to_owned(), true)]);
    assert_eq!(fixture.hub.inspect(&room()).unwrap().head().seq, 5);
}

#[tokio::test(start_paused = true)]
async fn a_planned_stop_takes_nobody_s_membership() {
    let fixture = HubFixture::new();
    let ((ann, anns), (_bob, bobs)) = (fixture.join("ann").await, fixture.join("bob").await);
    fixture.hub.drain(Duration::from_millis(1500));
    assert_eq!((anns.heard().pop().unwrap(), bobs.heard().pop().unwrap()), ("RECONNECT".into(), "RECONNECT".into()));
    fixture.hub.depart(ann, Departure::Lost);
    let session = fixture.hub.new_session();
    assert!(matches!(
        fixture.hub.join(fixture.request("cat", &session), Arc::new(RecordingSubscriber::default())).await,
        Err(Refusal::Draining)
    ));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.members(), [("ann".to_owned(), true), ("bob".to_owned(), true)]);
    assert_eq!(bobs.heard(), Vec::<String>::new());
}

/// An IPv6 customer has 2^64 addresses: guesses from all of them are counted as one guesser's.
#[tokio::test(start_paused = true)]
async fn guesses_from_one_network_are_counted_together() {
    let mut fixture = HubFixture::new();
    fixture.hub =
        HubFixture::limited(&fixture.log, &fixture.tracker, &fixture.clock, Limits::default(), "node-2", true);
    let knock = async |fixture: &HubFixture, user: &str, pin: &str, address: &str| {
        let session = fixture.hub.new_session();
        let mut request = fixture.request(user, &session);
        request.pin = Some(Pin::parse(pin).unwrap());
        request.address = address.parse().unwrap();
        let joined = fixture.hub.join(request, Arc::new(RecordingSubscriber::default())).await;
        joined.map(|_| ()).map_err(|refusal| protocol::refusal_code(&refusal).0.as_str())
    };
    assert_eq!(knock(&fixture, "ann", "4711", "192.0.2.1").await, Ok(()));
    for guess in 0..5 {
        let address = format!("2001:db8::{guess}");
        assert_eq!(knock(&fixture, "bob", "0000", &address).await, Err("PIN_WRONG"));
    }
    assert_eq!(knock(&fixture, "bob", "4711", "2001:db8::99").await, Err("PIN_THROTTLED"));
    assert_eq!(knock(&fixture, "bob", "4711", "2001:db8:0:1::1").await, Ok(()));
}

/// The failed commit was the room's last: no later commit would show that the log is back.
#[tokio::test(start_paused = true)]
async fn a_room_in_which_nothing_more_is_said_does_not_stay_degraded() {
    let fixture = HubFixture::new();
    let (ann, anns) = fixture.join("ann").await;
    anns.heard();
    fixture.fail(&[What::Commit]);
    fixture.chat(&ann, 1);
    until("the refusal", || anns.heard.lock().len() >= 2).await;
    assert_eq!(fixture.hub.status().degraded_rooms, 1);
    fixture.log.faults().calm();
    until("the room to be well again", || fixture.hub.status().degraded_rooms == 0).await;
    assert_eq!(anns.heard(), ["DEGRADED true", "UNAVAILABLE", "DEGRADED false"]);
}

/// As a node of a newer version may write it: this affects the room's members here, not the node.
#[tokio::test(start_paused = true)]
async fn a_room_that_can_not_be_read_does_not_make_the_node_unready() {
    let fixture = HubFixture::new();
    let (ann, anns) = fixture.join("ann").await;
    anns.heard();
    let newer = fixture.log.attach(NodeId::parse("node-9").unwrap());
    let expected = fixture.hub.inspect(&room()).unwrap().head();
    let next = Head { seq: expected.seq + 1, ..expected };
    let entry = Entry {
        head: next,
        at: RoomTime::from_millis(0),
        kind: "teleport",
        user: None,
        body: "{}".into(),
        audit: "{}".into(),
    };
    let row = RoomRow {
        host: None,
        url: None,
        position: 0.0,
        playing: false,
        at: RoomTime::from_millis(0),
        guest_control: false,
        ended: false,
        users: Vec::new(),
    };
    let patch = Patch { clear: false, fields: [("core".to_owned(), Some("?".into()))].into() };
    let commit = Commit { room: room(), expected, next, entries: [entry].into(), patch, row };
    assert!(matches!(newer.commit(commit).await, Ok(Outcome::Committed)));
    fixture.chat(&ann, 1);
    until("the refusal", || anns.heard.lock().iter().any(|message| message["code"] == "UNAVAILABLE")).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let status = fixture.hub.status();
    assert_eq!((status.degraded_rooms, status.unreadable_rooms), (0, 1));
}

/// Members in their grace time are counted by the node of their last session, not by every node with a replica.
#[tokio::test(start_paused = true)]
async fn a_node_counts_its_own_members_in_their_grace_time_and_no_others() {
    let fixture = HubFixture::new();
    let far = fixture.far();
    let ((ann, _), (_bob, _), (cat, _)) =
        (fixture.join("ann").await, fixture.join("bob").await, fixture.join_at(&far, "cat").await);
    let counts = |hub: &Hub| (hub.status().attached, hub.status().in_grace);
    assert_eq!((counts(&fixture.hub), counts(&far)), ((2, 0), (1, 0)));
    fixture.hub.depart(ann, Departure::Lost);
    far.depart(cat, Departure::Lost);
    let lost = |hub: &Hub| hub.inspect(&room()).unwrap().members().values().filter(|member| !member.is_live()).count();
    until("both nodes to know of both", || lost(&fixture.hub) == 2 && lost(&far) == 2).await;
    assert_eq!((counts(&fixture.hub), counts(&far)), ((1, 1), (0, 1)));
    until("it to be over", || counts(&fixture.hub) == (1, 0) && counts(&far) == (0, 0)).await;
}

/// A client leaves a room behind for one JOIN; `MAX_KEPT_ROOMS_PER_ADDRESS` bounds what a node keeps of them.
#[tokio::test(start_paused = true)]
async fn a_node_keeps_so_many_rooms_of_one_address_and_no_more() {
    let limits = Limits { kept_rooms: 2, grace_secs: 5, room_keep_minutes: 60, ..Limits::default() };
    let fixture = HubFixture::with(limits.clone());
    let hub = HubFixture::limited(&fixture.log, &fixture.tracker, &fixture.clock, limits, "node-2", true);
    let [here, elsewhere] = [[192, 0, 2, 1], [198, 51, 100, 7]].map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    let enter = async |name: &str, address: IpAddr| {
        let mut request = fixture.request("ann", &hub.new_session());
        (request.room, request.address) = (RoomId::parse(name).unwrap(), address);
        hub.join(request, Arc::new(RecordingSubscriber::default()))
            .await
            .map_err(|refusal| refusal.to_string())
            .unwrap()
    };
    let left_behind = async |names: &[&str], address: IpAddr| {
        for name in names {
            hub.depart(enter(name, address).await, Departure::Lost);
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    };
    let kept = |names: &[&'static str]| {
        let is_kept =
            |name: &&&str| hub.inspect(&RoomId::parse(name).unwrap()).is_some_and(|room| room.kept().is_some());
        names.iter().filter(is_kept).count()
    };
    let first = ["a", "b", "c", "d"];
    // Their grace times end in one moment.
    left_behind(&first, here).await;
    assert_eq!((kept(&first), hub.status().rooms), (2, 2), "the others ended with their grace time");
    left_behind(&["e", "f", "g"], elsewhere).await;
    assert_eq!((kept(&["e", "f", "g"]), hub.status().rooms), (2, 4), "another address has a bound of its own");
    left_behind(&["h"], here).await;
    assert_eq!(kept(&["h"]), 0);
    // A kept room that is over gives its place back.
    tokio::time::sleep(Duration::from_secs(3700)).await;
    assert_eq!(hub.status().rooms, 0);
    left_behind(&["i", "j", "k"], here).await;
    assert_eq!((kept(&["i", "j", "k"]), hub.status().rooms), (2, 2));
}
