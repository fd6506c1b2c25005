//! Panics on demand: one costs one connection or one room, or ends the process (docs/ARCHITECTURE.md, "Panics").

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/around.rs"]
mod around;
#[path = "support/hub_fixture.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use around::Around;
use support::{Ear, House, room, until};
use tandem::domain::{CloseCode, Head, Limits, NodeId, RoomId};
use tandem::hub::subscriber::{Happening, Notice, Outlet, Refusal, Reply, TickReport, Welcome};
use tandem::hub::{Departure, Hub, HubParts, Membership};
use tandem::room::{ChatLine, Room};
use tokio_util::sync::CancellationToken;

/// Panics where it is told to, once.
#[derive(Default)]
struct Faulty {
    ear: Ear,
    at_event: AtomicBool,
    at_rtt: AtomicBool,
}

impl Outlet for Faulty {
    fn state(&self, room: &Room, welcome: &Welcome<'_>) {
        self.ear.state(room, welcome);
    }

    fn event(&self, happening: &Happening<'_>) {
        assert!(!self.at_event.swap(false, Ordering::Relaxed), "injected");
        self.ear.event(happening);
    }

    fn notice(&self, notice: &Notice<'_>) {
        self.ear.notice(notice);
    }

    fn tick(&self, report: &TickReport) {
        self.ear.tick(report);
    }

    fn replay(&self, head: Head, line: &ChatLine) {
        self.ear.replay(head, line);
    }

    fn reply(&self, reply: Reply<'_>) {
        self.ear.reply(reply);
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.ear.close(code, reason);
    }

    fn probe(&self) {}

    fn rtt(&self) -> Option<Duration> {
        assert!(!self.at_rtt.swap(false, Ordering::Relaxed), "injected");
        None
    }
}

async fn join(house: &House, hub: &Hub, name: &str, user: &str, outlet: Arc<dyn Outlet>) -> Membership {
    let mut request = house.request(user, &hub.new_session());
    request.room = RoomId::parse(name).unwrap();
    hub.join(request, outlet).await.map_err(|refusal| refusal.to_string()).unwrap()
}

fn live(house: &House, name: &str) -> usize {
    house.hub.inspect(&RoomId::parse(name).unwrap()).map_or(0, |room| room.live_sessions().len())
}

/// Friday's members lose their connections and nothing else; sunday's hear nothing of it.
async fn friday_is_read_again(house: &House, outlets: &[&Ear]) {
    until("friday's sessions to be closed", || outlets.iter().all(|ear| ear.closed.lock().is_some())).await;
    for ear in outlets {
        assert_eq!(*ear.closed.lock(), Some(CloseCode::Internal));
    }
    until("its members to be in their grace time", || live(house, "friday") == 0).await;
    let ear = Arc::new(Ear::default());
    let back = join(house, &house.hub, "friday", "new", ear.clone()).await;
    house.chat(&back, 1);
    until("the room to work", || ear.heard.lock().iter().any(|message| message["type"] == "ACK")).await;
}

#[tokio::test(start_paused = true)]
async fn an_outlet_that_panics_costs_its_room_a_reconnect_and_no_other_room_anything() {
    let house = House::new();
    let (faulty, anns, suns) = (Arc::new(Faulty::default()), Arc::new(Ear::default()), Arc::new(Ear::default()));
    let ann = join(&house, &house.hub, "friday", "ann", anns.clone()).await;
    let _bob = join(&house, &house.hub, "friday", "bob", faulty.clone()).await;
    let sun = join(&house, &house.hub, "sunday", "sun", suns.clone()).await;
    faulty.at_event.store(true, Ordering::Relaxed);
    house.chat(&ann, 1);
    friday_is_read_again(&house, &[&anns, &faulty.ear]).await;
    house.chat(&sun, 1);
    until("sunday to go on", || suns.heard.lock().len() == 3).await;
    assert_eq!(suns.heard(), ["ROOM_STATE", "CHAT", "ACK"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_follower_in_one_room_leaves_the_others_followed() {
    let house = House::new();
    let far = house.far();
    let (faulty, suns) = (Arc::new(Faulty::default()), Arc::new(Ear::default()));
    let _bob = join(&house, &house.hub, "friday", "bob", faulty.clone()).await;
    let cat = join(&house, &far, "friday", "cat", Arc::new(Ear::default())).await;
    let _sun = join(&house, &house.hub, "sunday", "sun", suns.clone()).await;
    let dan = join(&house, &far, "sunday", "dan", Arc::new(Ear::default())).await;
    until("both to be there", || live(&house, "friday") == 2 && live(&house, "sunday") == 2).await;
    faulty.at_event.store(true, Ordering::Relaxed);
    far.depart(cat, Departure::Left);
    far.depart(dan, Departure::Left);
    friday_is_read_again(&house, &[&faulty.ear]).await;
    until("sunday to hear", || suns.heard.lock().iter().any(|message| message["type"] == "USER_LEFT")).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_one_room_s_deadline_leaves_the_others_their_deadlines() {
    let house = House::new();
    let faulty = Arc::new(Faulty::default());
    let ann = join(&house, &house.hub, "friday", "ann", Arc::new(Ear::default())).await;
    let _bob = join(&house, &house.hub, "friday", "bob", faulty.clone()).await;
    let sun = join(&house, &house.hub, "sunday", "sun", Arc::new(Ear::default())).await;
    let _mon = join(&house, &house.hub, "sunday", "mon", Arc::new(Ear::default())).await;
    house.hub.depart(ann, Departure::Lost);
    house.hub.depart(sun, Departure::Lost);
    until("both to be committed", || live(&house, "friday") == 1 && live(&house, "sunday") == 1).await;
    faulty.at_rtt.store(true, Ordering::Relaxed);
    let members = |name: &str| house.hub.inspect(&RoomId::parse(name).unwrap()).map_or(0, |room| room.members().len());
    until("sunday's grace time to be over", || members("sunday") == 1).await;
    until("friday's, and bob's", || members("friday") == 0).await;
    assert_eq!(*faulty.ear.closed.lock(), Some(CloseCode::Internal));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_panics_costs_the_room_that_asked() {
    let house = House::new();
    let node = NodeId::parse("node-1").unwrap();
    let (log, doings) = Around::of(house.log.attach(node.clone()));
    let mut house = house;
    house.hub = Hub::start(HubParts {
        node,
        clock: house.clock.clone(),
        quotas: None,
        limits: Arc::new(Limits::default()),
        log,
        tracker: house.tracker.clone(),
        stop: CancellationToken::new(),
    });
    let anns = Arc::new(Ear::default());
    let ann = join(&house, &house.hub, "friday", "ann", anns.clone()).await;
    doings.commit_panics.store(true, Ordering::Relaxed);
    house.chat(&ann, 1);
    friday_is_read_again(&house, &[&anns]).await;
    // A JOIN that waits for such a commit is refused, and leaves nobody behind.
    doings.commit_panics.store(true, Ordering::Relaxed);
    let refused = house.hub.join(house.request("bob", &house.hub.new_session()), Arc::new(Ear::default())).await;
    assert!(matches!(refused, Err(Refusal::Unavailable)));
    until("everybody to be gone", || house.hub.inspect(&room()).is_none_or(|room| room.is_vacant())).await;
}

// ---- what serves everybody ends the process

/// The name of the fault, in the process that is to die of it.
const FAULT: &str = "HUB_PANICS_FAULT";

/// Runs this test alone in a process of its own, with a fault; answers how it ended, and what it wrote.
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
async fn a_follower_that_panics_ends_the_process() {
    if fault().is_none() {
        let (signal, stderr) = dies_of("follower", "a_follower_that_panics_ends_the_process").await;
        assert_eq!(signal, Some(SIGABRT), "{stderr}");
        assert!(stderr.contains("the task \"follower\" panicked; the process ends"), "{stderr}");
        return;
    }
    let house = House::new();
    let node = NodeId::parse("node-2").unwrap();
    let (log, doings) = Around::of(house.log.attach(node.clone()));
    doings.follow_panics.store(true, Ordering::Relaxed);
    let far = Hub::start(HubParts {
        node,
        clock: house.clock.clone(),
        quotas: None,
        limits: Arc::new(Limits::default()),
        log,
        tracker: house.tracker.clone(),
        stop: CancellationToken::new(),
    });
    let _ann = join(&house, &house.hub, "friday", "ann", Arc::new(Ear::default())).await;
    let _bob = join(&house, &far, "friday", "bob", Arc::new(Ear::default())).await;
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
