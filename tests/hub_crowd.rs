//! A crowd comes in, or goes: what it costs, and what members are told. On a memory log, in paused time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/hub_fixture.rs"]
mod hub_fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use hub_fixture::{HubFixture, RecordingSubscriber, room, until};
use serde_json::{Value, json};
use tandem::commit::{Commit, Snapshot};
use tandem::domain::{Dialect, Limits, NodeId, RoomId, UserId};
use tandem::hub::{Departure, Hub, HubParts, Membership};
use tandem::log::{Followed, Log, LogError, Outcome};
use tandem::room::{Ask, Basis, Control};
use tokio_util::sync::CancellationToken;

/// A log that counts what a node makes of it.
struct CountedLog {
    inner: Arc<dyn Log>,
    counts: Arc<LogCounts>,
}

#[derive(Default)]
struct LogCounts {
    commits: AtomicUsize,
    publishes: AtomicUsize,
}

impl LogCounts {
    /// Commits and publishes since the last call.
    fn take(&self) -> (usize, usize) {
        (self.commits.swap(0, Ordering::Relaxed), self.publishes.swap(0, Ordering::Relaxed))
    }
}

impl Log for CountedLog {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Outcome, LogError>> {
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        self.inner.commit(commit)
    }

    fn load<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Option<Snapshot>, LogError>> {
        self.inner.load(room)
    }

    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), LogError>> {
        self.inner.subscribe(room)
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.inner.unsubscribe(room);
    }

    fn follow(&self) -> BoxFuture<'_, Followed> {
        self.inner.follow()
    }

    fn publish(&self, room: &RoomId, to: Option<&NodeId>, message: Bytes) {
        self.counts.publishes.fetch_add(1, Ordering::Relaxed);
        self.inner.publish(room, to, message);
    }
}

/// A node of the fixture's log.
fn counted(fixture: &HubFixture, name: &str, limits: Limits, counts: &Arc<LogCounts>) -> Hub {
    let node = NodeId::parse(name).unwrap();
    Hub::start(HubParts {
        node: node.clone(),
        clock: fixture.clock.clone(),
        quotas: None,
        limits: Arc::new(limits),
        log: Arc::new(CountedLog { inner: fixture.log.attach(node), counts: Arc::clone(counts) }),
        tracker: fixture.tracker.clone(),
        stop: CancellationToken::new(),
    })
}

type Guest = (Membership, Arc<RecordingSubscriber>);

async fn join_as(fixture: &HubFixture, hub: &Hub, user: &str, dialect: Dialect) -> Guest {
    let (session, subscriber) = (hub.new_session(), Arc::new(RecordingSubscriber::default()));
    let mut request = fixture.request(user, &session);
    request.dialect = dialect;
    let joined = hub.join(request, subscriber.clone()).await;
    (joined.map_err(|refusal| refusal.to_string()).unwrap(), subscriber)
}

/// All of them at once.
async fn crowd(fixture: &HubFixture, hub: &Hub, users: std::ops::Range<usize>) -> Vec<Guest> {
    let names: Vec<_> = users.map(|number| format!("guest-{number}")).collect();
    join_all(names.iter().map(|name| join_as(fixture, hub, name, Dialect::V3))).await
}

fn count_of(guests: &[Guest], count: impl Fn(&RecordingSubscriber) -> usize) -> usize {
    guests.iter().map(|(_, subscriber)| count(subscriber)).sum()
}

/// The events that a subscriber was told of, by their place: each once, in order, from its first ROOM_STATE on.
fn assert_whole(subscriber: &RecordingSubscriber, last: u64) {
    let heard = subscriber.heard.lock();
    let mut at = None;
    for message in heard.iter().filter(|message| message["type"] != "ACK" && message["seq"].is_u64()) {
        let seq = message["seq"].as_u64().unwrap();
        match (message["type"].as_str().unwrap(), at) {
            ("ROOM_STATE", _) => {}
            ("ROSTER", Some(before)) => assert_eq!(seq, before + message["events"].as_u64().unwrap(), "{message}"),
            (_, Some(before)) => assert_eq!(seq, before + 1, "{message}"),
            (_, None) => panic!("{message} before ROOM_STATE"),
        }
        at = Some(seq);
    }
    assert_eq!(at, Some(last));
}

fn play_pause(control: Control) -> Ask {
    Ask::PlayPause { control, position: None, true_at: None, on: Basis::default() }
}

fn head_of(hub: &Hub) -> u64 {
    hub.inspect(&room()).unwrap().head().seq
}

/// Commits, messages and encodings when so many come in at once.
async fn cost_of(guests: usize, full_presence_members: u64) -> (usize, usize, usize) {
    let (fixture, counts) = (HubFixture::new(), Arc::<LogCounts>::default());
    let limits = Limits { full_presence_members, ..Limits::default() };
    let hub = counted(&fixture, "node-3", limits, &counts);
    let all = crowd(&fixture, &hub, 0..guests).await;
    let last = head_of(&hub);
    for (_, subscriber) in &all {
        assert_whole(subscriber, last);
    }
    let messages = count_of(&all, |subscriber| subscriber.heard.lock().len());
    let encodings = count_of(&all, |subscriber| subscriber.encodings.load(Ordering::Relaxed));
    (counts.take().0, messages, encodings)
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_comes_in_costs_messages_and_encodings_by_the_commit_and_not_by_the_pair() {
    const GUESTS: usize = 120;
    let one_by_one = cost_of(GUESTS, 10_000).await;
    let (commits, messages, encodings) = cost_of(GUESTS, 32).await;
    println!("{GUESTS} guests: {one_by_one:?} commits, messages and encodings one by one,");
    println!("{commits}, {messages} and {encodings} together");
    assert_eq!(one_by_one.1, GUESTS + GUESTS * (GUESTS - 1) / 2, "a ROOM_STATE each, and each hears of those after it");
    assert!(messages <= GUESTS * (1 + commits), "a ROOM_STATE each, and one message a commit: {messages}");
    assert!(
        encodings <= 1 + 2 * commits,
        "of the founder's, and a commit what newcomers and others share: {encodings}"
    );
    assert!(commits <= 4, "they waited together: {commits}");
}

#[tokio::test(start_paused = true)]
async fn in_a_large_room_joins_and_leaves_that_follow_others_share_a_commit_and_a_lone_one_waits_for_nothing() {
    let (fixture, counts) = (HubFixture::new(), Arc::<LogCounts>::default());
    let hub = counted(&fixture, "node-3", Limits::default(), &counts);
    let mut guests = crowd(&fixture, &hub, 0..40).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    counts.take();

    let began = tandem::clock::Clock::instant();
    guests.extend(crowd(&fixture, &hub, 40..41).await);
    assert!(began.elapsed() < Duration::from_millis(20), "alone: {:?}", began.elapsed());
    assert_eq!(counts.take(), (1, 0));

    // One after the other, while the room is told of the first.
    let (departed, _) = guests.remove(7);
    hub.depart(departed, Departure::Left);
    let mut late = Vec::new();
    for number in 41..45_usize {
        let (fixture, hub) = (&fixture, &hub);
        late.push(async move {
            tokio::time::sleep(Duration::from_millis(number as u64 - 40)).await;
            crowd(fixture, hub, number..number + 1).await
        });
    }
    guests.extend(join_all(late).await.into_iter().flatten());
    assert_eq!(counts.take(), (1, 0));
    let (last, told) = (head_of(&hub), guests[0].1.heard.lock().last().cloned().unwrap());
    assert_eq!((told["type"].as_str(), told["events"].as_u64()), (Some("ROSTER"), Some(5)));
    assert_eq!(told["left"], json!([{"userId": "guest-7", "reason": "left"}]));
    for (_, subscriber) in &guests {
        assert_whole(subscriber, last);
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_does_not_wait_with_the_newcomers() {
    let (fixture, counts) = (HubFixture::new(), Arc::<LogCounts>::default());
    let hub = counted(&fixture, "node-3", Limits::default(), &counts);
    let guests = crowd(&fixture, &hub, 0..40).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _first = crowd(&fixture, &hub, 40..41).await;
    counts.take();

    let began = tandem::clock::Clock::instant();
    let mut newcomer = std::pin::pin!(crowd(&fixture, &hub, 41..42));
    assert!(futures_util::poll!(newcomer.as_mut()).is_pending());
    tokio::time::sleep(Duration::from_millis(5)).await;
    HubFixture::chat_at(&hub, &guests[0].0, 7);
    let heard = &guests[0].1;
    until("the ACK", || heard.heard.lock().iter().any(|message| message["type"] == "ACK")).await;
    newcomer.await;
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
    assert_eq!(counts.take(), (1, 0), "together, in their order");
}

#[tokio::test(start_paused = true)]
async fn members_of_v2_hear_of_each_one_and_a_removal_is_told_by_itself() {
    let (fixture, counts) = (HubFixture::new(), Arc::<LogCounts>::default());
    let hub = counted(&fixture, "node-3", Limits::default(), &counts);
    let (host, told) = fixture.join_at(&hub, "host").await;
    let (_v2, of_v2) = join_as(&fixture, &hub, "old", Dialect::V2).await;
    let guests = crowd(&fixture, &hub, 0..40).await;
    let last = head_of(&hub);
    for subscriber in [&told, &of_v2] {
        assert_whole(subscriber, last);
    }
    let kinds = |subscriber: &RecordingSubscriber| {
        let kinds = subscriber.heard();
        (
            kinds.iter().filter(|kind| *kind == "USER_JOINED").count(),
            kinds.iter().filter(|kind| *kind == "ROSTER").count(),
        )
    };
    assert_eq!(kinds(&of_v2), (40, 0));
    let (alone, together) = kinds(&told);
    assert!(alone <= 2 && together >= 1, "{alone} {together}");

    let target = UserId::parse("guest-3").unwrap();
    hub.submit(&host, Ask::Kick { target }, "KICK", Some(1));
    until("the kick", || guests[3].1.closed.lock().is_some()).await;
    for subscriber in [&told, &of_v2, &guests[4].1] {
        let heard = subscriber.heard.lock();
        let left: Vec<&Value> = heard.iter().filter(|message| message["type"] == "USER_LEFT").collect();
        assert_eq!(left.len(), 1);
        assert_eq!((&left[0]["userId"], &left[0]["reason"]), (&json!("guest-3"), &json!("kicked")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_to_a_room_on_five_nodes_is_one_commit_and_no_further_message_between_them() {
    let (fixture, counts) = (HubFixture::new(), Arc::<LogCounts>::default());
    let hubs: Vec<_> = (10..15).map(|n| counted(&fixture, &format!("node-{n}"), Limits::default(), &counts)).collect();
    let mut guests = Vec::new();
    for (number, hub) in hubs.iter().enumerate() {
        guests.extend(crowd(&fixture, hub, 3 * number..3 * number + 3).await);
    }
    let everywhere = |seq: u64| {
        let arrived = |(_, subscriber): &Guest| {
            subscriber.heard.lock().iter().any(|message| message["type"] == "PLAY_PAUSE" && message["seq"] == seq)
        };
        guests.iter().all(arrived)
    };
    until("all replicas", || hubs.iter().all(|hub| head_of(hub) == head_of(&hubs[0]))).await;
    counts.take();
    hubs[0].submit(&guests[0].0, play_pause(Control::Play), "PLAY_PAUSE", None);
    let seq = head_of(&hubs[0]) + 1;
    until("the command", || everywhere(seq)).await;
    assert_eq!(counts.take(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_slowest_phone_does_not_set_the_lead_of_a_command() {
    let fixture = HubFixture::new();
    let mut guests = crowd(&fixture, &fixture.hub, 0..12).await;
    for (_, subscriber) in &guests {
        *subscriber.rtt.lock() = Some(Duration::from_millis(40));
    }
    let lead = async |guests: &[Guest]| {
        let now = fixture.clock.now();
        fixture.hub.submit(&guests[0].0, play_pause(Control::Play), "PLAY_PAUSE", None);
        until("the start", || fixture.hub.inspect(&room()).unwrap().playback().at > now).await;
        fixture.hub.inspect(&room()).unwrap().playback().at.saturating_since(now)
    };
    *guests[5].1.rtt.lock() = Some(Duration::from_millis(900));
    let near = |lead: Duration, millis: u64| lead.abs_diff(Duration::from_millis(millis)) <= Duration::from_millis(10);
    let with_a_phone = lead(&guests).await;
    assert!(near(with_a_phone, 190), "{with_a_phone:?}");

    // A room of two is as slow as its slower one.
    for (membership, _) in guests.drain(2..) {
        fixture.hub.depart(membership, Departure::Left);
    }
    until("two", || fixture.members().len() == 2).await;
    *guests[1].1.rtt.lock() = Some(Duration::from_millis(300));
    fixture.hub.submit(&guests[0].0, play_pause(Control::Pause), "PLAY_PAUSE", None);
    until("the pause", || !fixture.hub.inspect(&room()).unwrap().playback().playing).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let of_two = lead(&guests).await;
    assert!(near(of_two, 450), "{of_two:?}");
}
