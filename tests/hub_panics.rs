//! Injected panics: each costs one connection or one room, or ends the process (docs/ARCHITECTURE.md, "Panics").

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/around.rs"]
mod around;
#[path = "support/hub_fixture.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use around::Around;
use bytes::Bytes;
use support::{HubFixture, RecordingSubscriber, room, until};
use tandem::domain::{CloseCode, Head, NodeId, RoomId};
use tandem::hub::delivery::{
    DigestDelivery, EventDelivery, Joined, Notice, Refusal, Reply, StatusDelivery, TickDelivery,
};
use tandem::hub::subscriber::Subscriber;
use tandem::hub::subscriber::{RoomDelivery, SessionControl, SessionMeasurements};
use tandem::hub::{Departure, Hub, JoinRequest, Membership};
use tandem::room::{ChatLine, Room};
use tokio_util::sync::CancellationToken;

/// Panics once, in the method that the test names.
#[derive(Default)]
struct Faulty {
    subscriber: RecordingSubscriber,
    at_event: AtomicBool,
    at_message: AtomicBool,
    at_rtt: AtomicBool,
}

impl RoomDelivery for Faulty {
    fn state(&self, room: &Room, joined: &Joined<'_>) {
        self.subscriber.state(room, joined);
    }

    fn event(&self, delivery: &EventDelivery<'_>) {
        assert!(!self.at_event.swap(false, Ordering::Relaxed), "injected");
        self.subscriber.event(delivery);
    }

    fn encode(&self, delivery: &EventDelivery<'_>) -> Option<Bytes> {
        self.subscriber.encode(delivery)
    }

    fn message(&self, message: &Bytes) {
        assert!(!self.at_message.swap(false, Ordering::Relaxed), "injected");
        self.subscriber.message(message);
    }

    fn notice(&self, notice: &Notice<'_>) {
        self.subscriber.notice(notice);
    }

    fn tick(&self, report: &TickDelivery) {
        self.subscriber.tick(report);
    }

    fn status(&self, delivery: &StatusDelivery) {
        self.subscriber.status(delivery);
    }

    fn digest(&self, delivery: &DigestDelivery) {
        self.subscriber.digest(delivery);
    }

    fn replay(&self, head: Head, line: &ChatLine) {
        self.subscriber.replay(head, line);
    }

    fn reply(&self, reply: Reply<'_>) {
        self.subscriber.reply(reply);
    }
}

impl SessionControl for Faulty {
    fn close(&self, code: CloseCode, reason: &str) {
        self.subscriber.close(code, reason);
    }

    fn probe(&self) {}
}

impl SessionMeasurements for Faulty {
    fn rtt(&self) -> Option<Duration> {
        assert!(!self.at_rtt.swap(false, Ordering::Relaxed), "injected");
        None
    }
}

async fn join(fixture: &HubFixture, hub: &Hub, name: &str, user: &str, subscriber: Arc<dyn Subscriber>) -> Membership {
    let mut request = fixture.request(user, &hub.new_session());
    request.room = RoomId::parse(name).unwrap();
    hub.join(request, subscriber).await.map_err(|refusal| refusal.to_string()).unwrap()
}

fn live(fixture: &HubFixture, name: &str) -> usize {
    fixture.hub.inspect(&RoomId::parse(name).unwrap()).map_or(0, |room| room.live_sessions().len())
}

/// Friday's members lose their connections; sunday's members are told nothing.
async fn friday_is_read_again(fixture: &HubFixture, subscribers: &[&RecordingSubscriber]) {
    until("friday's sessions to be closed", || subscribers.iter().all(|subscriber| subscriber.closed.lock().is_some()))
        .await;
    for subscriber in subscribers {
        assert_eq!(*subscriber.closed.lock(), Some(CloseCode::Internal));
    }
    until("its members to be in their grace time", || live(fixture, "friday") == 0).await;
    let subscriber = Arc::new(RecordingSubscriber::default());
    let back = join(fixture, &fixture.hub, "friday", "new", subscriber.clone()).await;
    fixture.chat(&back, 1);
    until("the room to work", || subscriber.heard.lock().iter().any(|message| message["type"] == "ACK")).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_costs_its_room_a_reconnect_and_no_other_room_anything() {
    let fixture = HubFixture::new();
    let (faulty, anns, suns) = (
        Arc::new(Faulty::default()),
        Arc::new(RecordingSubscriber::default()),
        Arc::new(RecordingSubscriber::default()),
    );
    let ann = join(&fixture, &fixture.hub, "friday", "ann", anns.clone()).await;
    let _bob = join(&fixture, &fixture.hub, "friday", "bob", faulty.clone()).await;
    let sun = join(&fixture, &fixture.hub, "sunday", "sun", suns.clone()).await;
    faulty.at_event.store(true, Ordering::Relaxed);
    fixture.chat(&ann, 1);
    friday_is_read_again(&fixture, &[&anns, &faulty.subscriber]).await;
    fixture.chat(&sun, 1);
    until("sunday to go on", || suns.heard.lock().len() == 3).await;
    assert_eq!(suns.heard(), ["ROOM_STATE", "CHAT", "ACK"]);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_panics_in_the_fan_out_costs_its_room_a_reconnect_and_the_other_viewers_hear_of_it() {
    let fixture = HubFixture::new();
    let (faulty, anns, eves) = (
        Arc::new(Faulty::default()),
        Arc::new(RecordingSubscriber::default()),
        Arc::new(RecordingSubscriber::default()),
    );
    let ann = join(&fixture, &fixture.hub, "friday", "ann", anns.clone()).await;
    let watch = async |user: &str, subscriber: Arc<dyn Subscriber>| {
        let request = fixture.request(user, &fixture.hub.new_session());
        let joined = fixture.hub.join(JoinRequest { viewer: true, ..request }, subscriber).await;
        joined.map_err(|refusal| refusal.to_string()).unwrap()
    };
    let _faulty = watch("bob", faulty.clone()).await;
    let _eve = watch("eve", eves.clone()).await;
    faulty.at_message.store(true, Ordering::Relaxed);
    fixture.chat(&ann, 1);
    friday_is_read_again(&fixture, &[&anns, &faulty.subscriber, &eves]).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_follower_in_one_room_leaves_the_others_followed() {
    let fixture = HubFixture::new();
    let far = fixture.far();
    let (faulty, suns) = (Arc::new(Faulty::default()), Arc::new(RecordingSubscriber::default()));
    let _bob = join(&fixture, &fixture.hub, "friday", "bob", faulty.clone()).await;
    let cat = join(&fixture, &far, "friday", "cat", Arc::new(RecordingSubscriber::default())).await;
    let _sun = join(&fixture, &fixture.hub, "sunday", "sun", suns.clone()).await;
    let dan = join(&fixture, &far, "sunday", "dan", Arc::new(RecordingSubscriber::default())).await;
    until("both to be there", || live(&fixture, "friday") == 2 && live(&fixture, "sunday") == 2).await;
    faulty.at_event.store(true, Ordering::Relaxed);
    far.depart(cat, Departure::Left);
    far.depart(dan, Departure::Left);
    friday_is_read_again(&fixture, &[&faulty.subscriber]).await;
    until("sunday to hear", || suns.heard.lock().iter().any(|message| message["type"] == "USER_LEFT")).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_one_room_s_deadline_leaves_the_others_their_deadlines() {
    let fixture = HubFixture::new();
    let faulty = Arc::new(Faulty::default());
    let ann = join(&fixture, &fixture.hub, "friday", "ann", Arc::new(RecordingSubscriber::default())).await;
    let _bob = join(&fixture, &fixture.hub, "friday", "bob", faulty.clone()).await;
    let sun = join(&fixture, &fixture.hub, "sunday", "sun", Arc::new(RecordingSubscriber::default())).await;
    let _mon = join(&fixture, &fixture.hub, "sunday", "mon", Arc::new(RecordingSubscriber::default())).await;
    fixture.hub.depart(ann, Departure::Lost);
    fixture.hub.depart(sun, Departure::Lost);
    until("both to be committed", || live(&fixture, "friday") == 1 && live(&fixture, "sunday") == 1).await;
    faulty.at_rtt.store(true, Ordering::Relaxed);
    let members =
        |name: &str| fixture.hub.inspect(&RoomId::parse(name).unwrap()).map_or(0, |room| room.members().len());
    until("sunday's grace time to be over", || members("sunday") == 1).await;
    until("friday's, and bob's", || members("friday") == 0).await;
    assert_eq!(*faulty.subscriber.closed.lock(), Some(CloseCode::Internal));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_panics_costs_the_room_that_asked() {
    let fixture = HubFixture::new();
    let node = NodeId::parse("node-1").unwrap();
    let (log, doings) = Around::of(fixture.log.attach(node.clone()));
    let mut fixture = fixture;
    fixture.hub = fixture.hub_on(node, log);
    let anns = Arc::new(RecordingSubscriber::default());
    let ann = join(&fixture, &fixture.hub, "friday", "ann", anns.clone()).await;
    doings.commit_panics.store(true, Ordering::Relaxed);
    fixture.chat(&ann, 1);
    friday_is_read_again(&fixture, &[&anns]).await;
    // A JOIN that waits for such a commit is refused, and leaves no member behind.
    doings.commit_panics.store(true, Ordering::Relaxed);
    let refused = fixture
        .hub
        .join(fixture.request("bob", &fixture.hub.new_session()), Arc::new(RecordingSubscriber::default()))
        .await;
    assert!(matches!(refused, Err(Refusal::Unavailable)));
    until("everybody to be gone", || fixture.hub.inspect(&room()).is_none_or(|room| room.is_vacant())).await;
}

// ---- tasks of all rooms end the process

/// The environment variable with the fault, for the process that is to die of it.
const FAULT: &str = "HUB_PANICS_FAULT";

/// Runs this test alone in a process with the fault; returns its signal and its stderr.
async fn dies_of(fault: &str, test: &str) -> (Option<i32>, String) {
    let program = std::env::current_exe().unwrap();
    let mut command = tokio::process::Command::new(program);
    command.args([test, "--exact", "--nocapture"]).env(FAULT, fault).env("RUST_BACKTRACE", "0");
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    (signal, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn fault() -> Option<String> {
    std::env::vars().find(|(key, _)| key == FAULT).map(|(_, value)| value)
}

const SIGABRT: i32 = 6;

#[tokio::test]
async fn a_commit_feed_that_panics_ends_the_process() {
    if fault().is_none() {
        let (signal, stderr) = dies_of("commit feed", "a_commit_feed_that_panics_ends_the_process").await;
        assert_eq!(signal, Some(SIGABRT), "{stderr}");
        assert!(stderr.contains("the task \"commit feed\" panicked; the process ends"), "{stderr}");
        return;
    }
    let fixture = HubFixture::new();
    let node = NodeId::parse("node-2").unwrap();
    let (log, doings) = Around::of(fixture.log.attach(node.clone()));
    doings.follow_panics.store(true, Ordering::Relaxed);
    let far = fixture.hub_on(node, log);
    let _ann = join(&fixture, &fixture.hub, "friday", "ann", Arc::new(RecordingSubscriber::default())).await;
    let _bob = join(&fixture, &far, "friday", "bob", Arc::new(RecordingSubscriber::default())).await;
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_listener_that_ends_before_the_stop_ends_the_process() {
    if fault().is_none() {
        let (signal, stderr) = dies_of("listener", "a_listener_that_ends_before_the_stop_ends_the_process").await;
        assert_eq!(signal, Some(SIGABRT), "{stderr}");
        assert!(stderr.contains("the task \"listener\" ended; the process ends"), "{stderr}");
        return;
    }
    tandem::panics::abort_if_lost("listener", CancellationToken::new(), async {}).await;
}
