//! The audience of a room: who watches, what it hears, and that the room never depends on it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/hub_fixture.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use support::{HubFixture, RecordingSubscriber, room, until};
use tandem::domain::{CloseCode, Dialect, KeyHash, Limits, MediaTime, Pin, Player, PlayerState, UserId};
use tandem::hub::delivery::Refusal;
use tandem::hub::{Departure, Hub, JoinRequest, Membership};
use tandem::room::{Ask, Basis, Reject};

struct Seated {
    membership: Membership,
    heard: Arc<RecordingSubscriber>,
}

impl Seated {
    /// The places in the room's order that its messages say, with the number of events each stands for.
    fn order(&self) -> Vec<(u64, u64)> {
        let heard = self.heard.heard.lock();
        let ordered = heard.iter().filter(|message| message["seq"].is_u64());
        ordered.map(|message| (message["seq"].as_u64().unwrap(), message["events"].as_u64().unwrap_or(1))).collect()
    }

    /// Its ROOM_STATE, then every event that follows, each once.
    #[track_caller]
    fn is_in_order(&self) {
        let mut order = self.order().into_iter();
        let (mut at, _) = order.next().expect("a ROOM_STATE");
        for (seq, events) in order {
            assert_eq!(seq - events, at, "{:?}", self.order());
            at = seq;
        }
    }

    fn last(&self) -> u64 {
        self.order().last().map_or(0, |(seq, _)| *seq)
    }

    fn latest(&self, kind: &str) -> Option<Value> {
        self.heard.heard.lock().iter().rev().find(|message| message["type"] == kind).cloned()
    }

    fn closed(&self) -> Option<CloseCode> {
        *self.heard.closed.lock()
    }
}

fn as_viewer(request: JoinRequest) -> JoinRequest {
    JoinRequest { viewer: true, ..request }
}

async fn enter(hub: &Hub, request: JoinRequest) -> Result<Seated, Refusal> {
    let heard = Arc::new(RecordingSubscriber::default());
    let membership = hub.join(request, heard.clone()).await?;
    Ok(Seated { membership, heard })
}

async fn member(fixture: &HubFixture, hub: &Hub, user: &str) -> Seated {
    enter(hub, fixture.request(user, &hub.new_session())).await.map_err(|refusal| refusal.to_string()).unwrap()
}

async fn viewer(fixture: &HubFixture, hub: &Hub, user: &str) -> Seated {
    let request = as_viewer(fixture.request(user, &hub.new_session()));
    enter(hub, request).await.map_err(|refusal| refusal.to_string()).unwrap()
}

fn head(hub: &Hub) -> u64 {
    hub.inspect(&room()).unwrap().head().seq
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

async fn until_all_heard(seated: &[&Seated], seq: u64) {
    until("all to hear the last event", || seated.iter().all(|one| one.last() >= seq)).await;
}

#[tokio::test(start_paused = true)]
async fn a_viewer_hears_the_room_and_is_no_part_of_it() {
    let fixture = HubFixture::new();
    let ann = member(&fixture, &fixture.hub, "ann").await;
    let before = head(&fixture.hub);
    let eve = viewer(&fixture, &fixture.hub, "eve").await;
    let state = eve.latest("ROOM_STATE").unwrap();
    assert_eq!((&state["role"], &state["audience"], &state["userId"]), (&"audience".into(), &1.into(), &"eve".into()));
    assert_eq!((&state["slot"], &state["resumeToken"]), (&Value::Null, &Value::Null));
    assert_eq!(state["users"].as_array().unwrap().len(), 1);
    assert_eq!(ann.latest("ROOM_STATE").unwrap()["role"], "member");
    fixture.chat(&ann.membership, 1);
    until_all_heard(&[&eve], before + 1).await;
    eve.is_in_order();
    fixture.hub.depart(eve.membership.clone(), Departure::Lost);
    fixture.hub.settled().await;
    assert_eq!(head(&fixture.hub), before + 1, "no commit to come, none to go");
    assert_eq!(fixture.members(), [("ann".to_owned(), true)]);
    assert_eq!(fixture.hub.status().audience, 0);
}

#[tokio::test(start_paused = true)]
async fn more_viewers_than_a_slice_hear_every_event_in_order_each_once_while_others_come_and_go() {
    let fixture = HubFixture::new();
    let ann = member(&fixture, &fixture.hub, "ann").await;
    let mut seated = Vec::new();
    for number in 0..300 {
        seated.push(viewer(&fixture, &fixture.hub, &format!("viewer-{number}")).await);
        fixture.chat(&ann.membership, number);
        if number % 3 == 2 {
            let gone = seated.remove(usize::try_from(number).unwrap() / 7 % seated.len());
            fixture.hub.depart(gone.membership, Departure::Lost);
        }
        if number % 5 == 0 {
            fixture.hub.sync(&seated[0].membership);
        }
    }
    fixture.hub.settled().await;
    let last = head(&fixture.hub);
    until_all_heard(&seated.iter().collect::<Vec<_>>(), last).await;
    for one in &seated {
        let states = one.heard.heard.lock().iter().filter(|message| message["type"] == "ROOM_STATE").count();
        if states == 1 {
            one.is_in_order();
        }
        let mut order = one.order();
        order.dedup();
        assert!(order.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_full_of_members_has_newcomers_as_its_audience_and_refuses_v2_clients() {
    let fixture = HubFixture::with(Limits { room_members: 2, room_audience: 2, ..Limits::default() });
    let hub = &fixture.hub;
    let _members = [member(&fixture, hub, "ann").await, member(&fixture, hub, "bob").await];
    let first = member(&fixture, hub, "cem").await;
    assert!(first.membership.is_viewer());
    let v2 = JoinRequest { dialect: Dialect::V2, ..fixture.request("old", &hub.new_session()) };
    assert!(matches!(enter(hub, v2).await, Err(Refusal::Room(Reject::Full))));
    let _second = member(&fixture, hub, "dan").await;
    let third = enter(hub, fixture.request("eve", &hub.new_session())).await;
    assert!(matches!(third, Err(Refusal::Room(Reject::Full))), "the audience is full too");
    hub.depart(first.membership, Departure::Lost);
    assert!(member(&fixture, hub, "eve").await.membership.is_viewer(), "a seat is free again");
    assert_eq!(fixture.members().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_an_audience_a_full_room_refuses_and_so_it_does_a_viewer() {
    let fixture = HubFixture::with(Limits { room_members: 1, room_audience: 0, ..Limits::default() });
    let _ann = member(&fixture, &fixture.hub, "ann").await;
    let bob = enter(&fixture.hub, fixture.request("bob", &fixture.hub.new_session())).await;
    assert!(matches!(bob, Err(Refusal::Room(Reject::Full))));
    let eve = enter(&fixture.hub, as_viewer(fixture.request("eve", &fixture.hub.new_session()))).await;
    assert!(matches!(eve, Err(Refusal::Room(Reject::Full))));
}

#[tokio::test(start_paused = true)]
async fn a_viewer_opens_no_room_and_the_room_is_over_when_its_last_member_leaves() {
    let fixture = HubFixture::new();
    let nobody = enter(&fixture.hub, as_viewer(fixture.request("eve", &fixture.hub.new_session()))).await;
    assert!(matches!(nobody, Err(Refusal::Room(Reject::NoRoom))));
    assert_eq!(fixture.hub.status().rooms, 0, "nothing is kept of it");
    let ann = member(&fixture, &fixture.hub, "ann").await;
    let eve = viewer(&fixture, &fixture.hub, "eve").await;
    fixture.hub.depart(ann.membership, Departure::Left);
    until("the end", || eve.closed() == Some(CloseCode::RoomOver)).await;
    assert!(eve.latest("USER_LEFT").is_some(), "after what it had to hear");
    fixture.hub.depart(eve.membership, Departure::Lost);
    until("the room to be gone", || fixture.hub.status().rooms == 0).await;
}

#[tokio::test(start_paused = true)]
async fn neither_a_gate_nor_the_election_of_a_host_waits_for_a_viewer() {
    let fixture = HubFixture::new();
    let (ann, bob) = (member(&fixture, &fixture.hub, "ann").await, member(&fixture, &fixture.hub, "bob").await);
    let eve = viewer(&fixture, &fixture.hub, "eve").await;
    for one in [&ann, &bob] {
        let ask = Ask::Player { player: Player::of(PlayerState::Ready), film: None };
        fixture.hub.submit(&one.membership, ask, "PLAYER", None);
    }
    let position = MediaTime::parse(90.0, &Limits::default()).unwrap();
    let seek = Ask::Seek { position, resume: Some(true), true_at: None, on: Basis::default() };
    fixture.hub.submit(&ann.membership, seek, "SEEK", None);
    fixture.hub.settled().await;
    let gate = fixture.hub.inspect(&room()).unwrap().gate().cloned().expect("a gate");
    assert_eq!(gate.awaiting, [user("ann"), user("bob")].into());
    for one in [&ann, &bob] {
        let ready = Ask::Ready { gate: Some(gate.id), target: None, film: None };
        fixture.hub.submit(&one.membership, ready, "READY", None);
    }
    fixture.hub.settled().await;
    assert!(fixture.hub.inspect(&room()).unwrap().gate().is_none(), "it opened with the members' answers");
    fixture.hub.depart(ann.membership, Departure::Left);
    fixture.hub.settled().await;
    assert_eq!(fixture.hub.inspect(&room()).unwrap().host(), Some(&user("bob")));
    until_all_heard(&[&eve], head(&fixture.hub)).await;
    eve.is_in_order();
    assert!(eve.latest("READY_GATE").is_none(), "how the gate does concerns its members");
}

#[tokio::test(start_paused = true)]
async fn a_room_s_pin_and_its_bans_hold_for_viewers() {
    let fixture = HubFixture::new();
    let pin = Pin::parse("4711").unwrap();
    let with_pin = |request: JoinRequest, pin: &str| JoinRequest { pin: Some(Pin::parse(pin).unwrap()), ..request };
    let request = |user: &str| fixture.request(user, &fixture.hub.new_session());
    let ann = enter(&fixture.hub, JoinRequest { pin: Some(pin), ..request("ann") }).await.unwrap_or_else(|_| panic!());
    let refused = |outcome: Result<Seated, Refusal>| match outcome {
        Err(Refusal::Room(reject)) => reject,
        _ => panic!("a viewer got in"),
    };
    assert_eq!(refused(enter(&fixture.hub, as_viewer(request("eve"))).await), Reject::PinRequired);
    assert_eq!(refused(enter(&fixture.hub, with_pin(as_viewer(request("eve")), "1")).await), Reject::PinWrong);
    assert_eq!(refused(enter(&fixture.hub, with_pin(as_viewer(request("ann")), "4711")).await), Reject::UserIdTaken);

    let key = KeyHash::of_key("clientKey", "Y2xpZW50IGtleSBvZiBldmU").unwrap();
    let eves = |user: &str| JoinRequest { client: Some(key), ..with_pin(as_viewer(request(user)), "4711") };
    let eve = enter(&fixture.hub, eves("eve")).await.unwrap_or_else(|_| panic!());
    let second_tab = enter(&fixture.hub, eves("eve-2")).await.unwrap_or_else(|_| panic!());
    let zoe = enter(&fixture.hub, with_pin(as_viewer(request("zoe")), "4711")).await.unwrap_or_else(|_| panic!());
    fixture.hub.submit(&ann.membership, Ask::Ban { target: user("nobody") }, "BAN", Some(1));
    fixture.hub.submit(&ann.membership, Ask::Ban { target: user("eve") }, "BAN", Some(2));
    until("the end of both tabs", || [&eve, &second_tab].iter().all(|one| one.closed() == Some(CloseCode::Banned)))
        .await;
    assert_eq!(ann.latest("ERROR").unwrap()["code"], "TARGET_GONE", "nobody who was never here is banned");
    assert_eq!(refused(enter(&fixture.hub, eves("eve-3")).await), Reject::Banned);
    assert_eq!(zoe.closed(), None);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_asks_is_let_in_by_the_host_and_hears_every_event_once() {
    let fixture = HubFixture::with(Limits { room_members: 2, ..Limits::default() });
    let hub = &fixture.hub;
    let (ann, bob) = (member(&fixture, hub, "ann").await, member(&fixture, hub, "bob").await);
    let eve = viewer(&fixture, hub, "eve").await;
    assert!(
        matches!(
            hub.invite(&ann.membership, &user("eve"), false, "INVITE_TO_MEMBER", None),
            Err(Refusal::Room(Reject::TargetGone))
        ),
        "it has not asked"
    );
    hub.raise_hand(&eve.membership, true).unwrap();
    assert_eq!(eve.latest("HAND").unwrap()["raised"], true);
    until("the host to see the hand", || ann.latest("HAND").is_some_and(|hand| hand["userId"] == "eve")).await;
    assert!(bob.latest("HAND").is_none(), "the host's alone");
    assert!(matches!(hub.raise_hand(&eve.membership, false), Err(Refusal::HandsBusy { .. })), "not at any rate");
    assert!(matches!(
        hub.invite(&bob.membership, &user("eve"), false, "INVITE_TO_MEMBER", None),
        Err(Refusal::Room(Reject::NotHost))
    ));
    assert!(
        matches!(
            hub.invite(&ann.membership, &user("eve"), false, "INVITE_TO_MEMBER", None),
            Err(Refusal::Room(Reject::Full))
        ),
        "there is no place"
    );
    assert!(eve.membership.is_viewer());
    hub.depart(bob.membership, Departure::Left);
    hub.settled().await;
    hub.invite(&ann.membership, &user("eve"), false, "INVITE_TO_MEMBER", None).unwrap();
    until("the seat among the members", || !eve.membership.is_viewer()).await;
    let state = eve.latest("ROOM_STATE").unwrap();
    assert_eq!(state["role"], "member");
    assert!(state["resumeToken"].is_string() && state["slot"].is_u64());
    until("the host to see the hand go", || ann.latest("HAND").is_some_and(|hand| hand["raised"] == false)).await;
    fixture.chat(&eve.membership, 7);
    hub.settled().await;
    assert_eq!(eve.latest("ACK").unwrap()["ref"], 7);
    assert_eq!(fixture.members().len(), 2);
    assert_eq!(hub.status().audience, 0);
    // ROOM_STATE repeats the place of the event before it; everything else comes once.
    let mut order = eve.order();
    order.dedup();
    assert!(order.windows(2).all(|pair| pair[1].0 - pair[1].1 == pair[0].0), "{order:?}");
    hub.depart(eve.membership.clone(), Departure::Lost);
    until("a grace time like any member's", || fixture.members().contains(&("eve".to_owned(), false))).await;
}

#[tokio::test(start_paused = true)]
async fn a_viewer_whose_session_ends_while_it_is_let_in_leaves_no_ghost() {
    for patience in [0, 1, 25, 49, 50, 51, 60] {
        let fixture = HubFixture::new();
        let ann = member(&fixture, &fixture.hub, "ann").await;
        let eve = viewer(&fixture, &fixture.hub, "eve").await;
        fixture.hub.raise_hand(&eve.membership, true).unwrap();
        fixture.log.faults().decide_by(|crossing| match crossing.what {
            support::faulty_log::What::Commit => support::faulty_log::Fate::Late(Duration::from_millis(50)),
            _ => support::faulty_log::Fate::Arrives,
        });
        fixture.hub.invite(&ann.membership, &user("eve"), false, "INVITE_TO_MEMBER", None).unwrap();
        tokio::time::sleep(Duration::from_millis(patience)).await;
        fixture.hub.depart(eve.membership, Departure::Lost);
        fixture.log.faults().calm();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(fixture.members().iter().all(|(name, live)| name == "ann" || !live), "{:?}", fixture.members());
        assert_eq!(fixture.hub.status().audience, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_says_not_now_lowers_the_hand() {
    let fixture = HubFixture::new();
    let ann = member(&fixture, &fixture.hub, "ann").await;
    let eve = viewer(&fixture, &fixture.hub, "eve").await;
    fixture.hub.raise_hand(&eve.membership, true).unwrap();
    fixture.hub.invite(&ann.membership, &user("eve"), true, "INVITE_TO_MEMBER", None).unwrap();
    assert_eq!(eve.latest("HAND").unwrap()["raised"], false);
    assert!(eve.membership.is_viewer());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_sits_down_among_the_audience_gives_its_place_back() {
    let fixture = HubFixture::new();
    let _ann = member(&fixture, &fixture.hub, "ann").await;
    let session = fixture.hub.new_session();
    let heard = Arc::new(RecordingSubscriber::default());
    let joined = fixture.hub.join(fixture.request("bob", &session), heard.clone()).await.unwrap_or_else(|_| panic!());
    assert!(!joined.is_viewer());
    let request = as_viewer(fixture.request("bob", &session));
    let membership = fixture.hub.join(request, heard.clone()).await.unwrap_or_else(|_| panic!());
    assert!(membership.is_viewer());
    until("the place to be free", || fixture.members() == [("ann".to_owned(), true)]).await;
    let bob = Seated { membership, heard };
    assert_eq!(bob.closed(), None, "its session goes on");
    until_all_heard(&[&bob], head(&fixture.hub)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_with_viewers_and_no_member_follows_the_room_and_all_nodes_count_them() {
    let fixture = HubFixture::new();
    let ann = member(&fixture, &fixture.hub, "ann").await;
    let far = fixture.far();
    let (eve, zoe) = (viewer(&fixture, &far, "eve").await, viewer(&fixture, &fixture.hub, "zoe").await);
    for reference in 0..20 {
        fixture.chat(&ann.membership, reference);
    }
    fixture.hub.settled().await;
    until_all_heard(&[&eve, &zoe], head(&fixture.hub)).await;
    eve.is_in_order();
    zoe.is_in_order();
    for one in [&ann, &eve, &zoe] {
        until("the count of both nodes", || one.latest("AUDIENCE").is_some_and(|told| told["count"] == 2)).await;
    }
    // The viewer that comes back, after its node was lost, is counted there and nowhere else.
    far.depart(eve.membership, Departure::Lost);
    until("the count without it", || ann.latest("AUDIENCE").is_some_and(|told| told["count"] == 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_hand_and_its_answer_cross_nodes() {
    let fixture = HubFixture::new();
    let ann = member(&fixture, &fixture.hub, "ann").await;
    let far = fixture.far();
    let (eve, zoe) = (viewer(&fixture, &far, "eve").await, viewer(&fixture, &far, "zoe").await);
    let mallory = viewer(&fixture, &far, "mallory").await;
    for one in [&eve, &zoe, &mallory] {
        far.raise_hand(&one.membership, true).unwrap();
    }
    until("all hands", || {
        let heard = ann.heard.heard.lock();
        ["eve", "zoe", "mallory"].iter().all(|name| heard.iter().any(|m| m["type"] == "HAND" && m["userId"] == *name))
    })
    .await;
    fixture.hub.invite(&ann.membership, &user("zoe"), true, "INVITE_TO_MEMBER", None).unwrap();
    fixture.hub.invite(&ann.membership, &user("eve"), false, "INVITE_TO_MEMBER", None).unwrap();
    until("eve to be a member", || !eve.membership.is_viewer()).await;
    until("zoe's hand to be down", || zoe.latest("HAND").is_some_and(|hand| hand["raised"] == false)).await;
    fixture.chat(&ann.membership, 1);
    fixture.hub.settled().await;
    until_all_heard(&[&eve, &zoe], head(&fixture.hub)).await;
    fixture.hub.submit(&ann.membership, Ask::Ban { target: user("mallory") }, "BAN", None);
    until("the ban on the other node", || mallory.closed() == Some(CloseCode::Banned)).await;
    assert_eq!((zoe.closed(), eve.closed()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn the_count_is_in_the_log_once_a_minute_when_it_has_changed() {
    let fixture = HubFixture::new();
    let ann = member(&fixture, &fixture.hub, "ann").await;
    let mut seated = Vec::new();
    for number in 0..30 {
        seated.push(viewer(&fixture, &fixture.hub, &format!("viewer-{number}")).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let before = head(&fixture.hub);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(head(&fixture.hub), before + 1, "one row for the crowd, and none as long as nothing changes");
    let told = ann.latest("AUDIENCE").unwrap();
    assert_eq!((&told["count"], told["seq"].as_u64()), (&30.into(), Some(before + 1)));
    for one in seated {
        fixture.hub.depart(one.membership, Departure::Lost);
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(head(&fixture.hub), before + 2);
    assert_eq!(ann.latest("AUDIENCE").unwrap()["count"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_planned_stop_and_a_step_of_room_time_reach_the_audience() {
    let fixture = HubFixture::new();
    let _ann = member(&fixture, &fixture.hub, "ann").await;
    let eve = viewer(&fixture, &fixture.hub, "eve").await;
    eve.heard.heard.lock().clear();
    fixture.clock.step(5_000_000);
    until("the whole state", || eve.latest("ROOM_STATE").is_some()).await;
    assert_eq!(eve.latest("ROOM_STATE").unwrap()["role"], "audience");
    fixture.hub.drain(Duration::from_secs(5));
    until("RECONNECT", || eve.latest("RECONNECT").is_some()).await;
}
