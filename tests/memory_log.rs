//! The memory log's own promises: durable before `Committed`, and what a failing repository means.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/disk.rs"]
mod disk;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use commits::{EPOCH, after, commit, created, ended, head, room, text_of};
use disk::{Answer, Disk};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tandem::commit::Commit;
use tandem::domain::{Head, NodeId, RoomId};
use tandem::log::memory::MemoryLog;
use tandem::log::{Followed, Log, LogError, Outcome};
use tandem::repository::Repository;
use tandem::repository::sqlite::SqliteRepository;
use tokio_util::task::TaskTracker;

// ---- durable before acknowledged ----------------------------------------------------------------------------------

const CHILD_DIR: &str = "TANDEM_TEST_CRASH_DIR";

#[tokio::test]
async fn whatever_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    // Killed twice: the second life continues from what the first one left.
    for _ in 0..2 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["the_process_that_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut note = |line: &str| {
            // The test harness speaks on the same line at times: the acknowledgement is at its end.
            let Some((room, seq)) = line.rsplit_once("ack ").and_then(|(_, ack)| ack.split_once(' ')) else { return 0 };
            acknowledged.insert(room.to_owned(), seq.parse().unwrap());
            1
        };
        let mut count = 0;
        while count < 300 {
            count += note(&lines.next().expect("the child ended by itself"));
        }
        child.0.kill().unwrap();
        // What was in the pipe when it died was acknowledged as well. The last line may be torn: it ends the lines.
        let rest: Vec<String> = lines.collect();
        for line in rest.iter().take(rest.len().saturating_sub(1)) {
            note(line);
        }
    }
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    assert_eq!(acknowledged.len(), 4);
    let live = repository.live_rooms().await.unwrap();
    for (name, seq) in acknowledged {
        let room = room(&name);
        let snapshot = live.iter().find(|snapshot| snapshot.room == room).unwrap();
        assert!(snapshot.head >= head(EPOCH, seq), "{name}: {seq} was acknowledged, {:?} is stored", snapshot.head);
        assert_eq!(snapshot.fields["head"], text_of(snapshot.head), "state and head moved together");
        let events = repository.events(&room, Head::default(), u32::MAX).await.unwrap();
        let expected: Vec<Head> = (1..=snapshot.head.seq).map(|seq| head(EPOCH, seq)).collect();
        assert_eq!(events.iter().map(|event| event.head).collect::<Vec<_>>(), expected, "each event once");
    }
}

/// Endless by itself: dies with the test, also with one that fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started, and killed, by whatever_was_acknowledged_survives_kill_9"]
async fn the_process_that_is_killed() {
    #[expect(clippy::disallowed_methods, reason = "no setting: the parent test's message")]
    let dir = PathBuf::from(std::env::var(CHILD_DIR).unwrap());
    let repository: Arc<dyn Repository> = Arc::new(SqliteRepository::open(&dir).await.unwrap());
    let initial = repository.live_rooms().await.unwrap();
    let log = MemoryLog::new(Some(repository), initial, &TaskTracker::new());
    let node = attach(&log, "a");
    let writers = ["r0", "r1", "r2", "r3"].map(|name| {
        let node = Arc::clone(&node);
        async move {
            let room = room(name);
            let mut at = node.load(&room).await.unwrap().map_or(Head::default(), |snapshot| snapshot.head);
            loop {
                let next = if at == Head::default() { created(&room, at, EPOCH) } else { after(&room, at) };
                at = next.next;
                committed(&node, next).await;
                println!("ack {name} {}", at.seq);
                std::io::stdout().flush().unwrap();
            }
        }
    });
    let endless: Vec<()> = join_all(writers).await;
    drop(endless);
}

#[tokio::test]
async fn nobody_is_told_before_the_disk_has_it() {
    let (friday, rig) = (room("friday"), Rig::new());
    let (a, b) = (attach(&rig.log, "a"), attach(&rig.log, "b"));
    b.subscribe(&friday).await.unwrap();
    let mut writing = a.commit(created(&friday, Head::default(), EPOCH));
    // The loser of the race is not shown what may still be taken back either.
    let mut losing = b.commit(created(&friday, Head::default(), EPOCH + 1));
    let mut following = b.follow();
    assert!((&mut writing).now_or_never().is_none());
    assert!((&mut losing).now_or_never().is_none());
    rig.disk.asked().await;
    assert!((&mut writing).now_or_never().is_none());
    assert!((&mut losing).now_or_never().is_none());
    assert!((&mut following).now_or_never().is_none());
    assert_eq!(b.load(&friday).await.unwrap(), None);

    rig.disk.answer(Answer::Stored);
    assert!(matches!(writing.await, Ok(Outcome::Committed)));
    assert!(matches!(losing.await, Ok(Outcome::Conflict(Some(latest))) if latest == head(EPOCH, 1)));
    assert!(matches!(following.await, Followed::Commit { expected, .. } if expected == Head::default()));
    assert_eq!(b.load(&friday).await.unwrap().unwrap().head, head(EPOCH, 1));
}

#[tokio::test]
async fn what_gathers_while_the_disk_works_goes_in_one_append() {
    let rig = Rig::new();
    let node = attach(&rig.log, "a");
    let rooms: Vec<RoomId> = (0..10).map(|number| room(&format!("room-{number}"))).collect();
    let mut all = Vec::new();
    for room in &rooms {
        all.push(node.commit(created(room, Head::default(), EPOCH)));
        assert!(all.last_mut().unwrap().now_or_never().is_none());
        if all.len() == 1 {
            rig.disk.asked().await;
        }
    }
    // Decided on what is accepted and not durable yet.
    all.push(node.commit(after(&rooms[3], head(EPOCH, 1))));
    assert!(all.last_mut().unwrap().now_or_never().is_none());
    rig.disk.answer(Answer::Stored);
    rig.disk.answer(Answer::Stored);
    for outcome in join_all(all).await {
        assert!(matches!(outcome, Ok(Outcome::Committed)));
    }
    assert_eq!(*rig.disk.batches.lock(), [1, 10]);
}

#[tokio::test]
async fn a_failed_append_takes_back_what_was_accepted_and_all_that_was_built_on_it() {
    let (friday, sunday, rig) = (room("friday"), room("sunday"), Rig::new());
    let node = attach(&rig.log, "a");
    node.subscribe(&friday).await.unwrap();
    let mut first = node.commit(created(&friday, Head::default(), EPOCH));
    assert!((&mut first).now_or_never().is_none());
    rig.disk.asked().await;
    let mut on_top = node.commit(after(&friday, head(EPOCH, 1)));
    let mut elsewhere = node.commit(created(&sunday, Head::default(), EPOCH));
    let mut lost = node.commit(created(&friday, Head::default(), EPOCH + 1));
    for waiting in [&mut on_top, &mut elsewhere, &mut lost] {
        assert!(waiting.now_or_never().is_none());
    }
    rig.disk.answer(Answer::Refused);
    assert!(first.await.is_err());
    assert!(on_top.await.is_err());
    rig.disk.answer(Answer::Stored);
    assert!(matches!(elsewhere.await, Ok(Outcome::Committed)), "another room is not concerned");
    assert!(matches!(lost.await, Ok(Outcome::Conflict(None))), "what beat it was taken back");
    assert_eq!(node.load(&friday).await.unwrap(), None);
    assert!(node.follow().now_or_never().is_none(), "nobody hears of what was taken back");

    rig.disk.answer(Answer::Stored);
    committed(&node, created(&friday, Head::default(), EPOCH + 1)).await;
    assert_eq!(node.load(&friday).await.unwrap().unwrap().head, head(EPOCH + 1, 1));
}

#[tokio::test]
async fn an_append_that_failed_but_took_effect_is_found_out_before_the_next_one() {
    let (friday, over, rig) = (room("friday"), room("over"), Rig::new());
    let node = attach(&rig.log, "a");
    for name in [&friday, &over] {
        rig.disk.answer(Answer::Stored);
        committed(&node, created(name, Head::default(), EPOCH)).await;
    }
    node.subscribe(&friday).await.unwrap();
    rig.disk.answer(Answer::StoredButLost);
    let both = [node.commit(after(&friday, head(EPOCH, 1))), node.commit(ended(&over, head(EPOCH, 1)))];
    for outcome in join_all(both).await {
        assert!(outcome.is_err());
    }
    assert_eq!(node.load(&friday).await.unwrap().unwrap().head, head(EPOCH, 1), "not known to be stored");

    // Decided without it: at the same place there is something already.
    let Ok(Outcome::Conflict(Some(latest))) = node.commit(after(&friday, head(EPOCH, 1))).await else {
        panic!("an acknowledged commit would overwrite a stored one");
    };
    assert_eq!(latest, head(EPOCH, 2));
    assert!(matches!(node.follow().await, Followed::Commit { expected, .. } if expected == head(EPOCH, 1)));
    assert_eq!(node.load(&over).await.unwrap(), None);
    rig.disk.answer(Answer::Stored);
    committed(&node, after(&friday, head(EPOCH, 2))).await;
    assert_eq!(*rig.disk.heads.lock(), BTreeMap::from([(friday, head(EPOCH, 3)), (over, head(EPOCH, 2))]));
}

#[tokio::test]
async fn nothing_is_appended_while_the_fate_of_a_failed_append_is_unknown() {
    let (friday, rig) = (room("friday"), Rig::new());
    let node = attach(&rig.log, "a");
    rig.disk.answer(Answer::StoredButLost);
    assert!(node.commit(created(&friday, Head::default(), EPOCH)).await.is_err());
    *rig.disk.unreachable.lock() = true;
    assert!(node.commit(created(&friday, Head::default(), EPOCH + 1)).await.is_err());
    assert!(node.commit(created(&room("sunday"), Head::default(), EPOCH)).await.is_err());
    assert_eq!(rig.disk.batches.lock().len(), 1);
    *rig.disk.unreachable.lock() = false;
    let outcome = node.commit(created(&friday, Head::default(), EPOCH + 1)).await;
    assert!(matches!(outcome, Ok(Outcome::Conflict(Some(latest))) if latest == head(EPOCH, 1)));
}

#[tokio::test]
async fn a_database_that_is_closed_underneath_means_errors_and_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Arc::new(SqliteRepository::open(dir.path()).await.unwrap());
    let log = MemoryLog::new(Some(repository.clone()), Vec::new(), &TaskTracker::new());
    let (friday, node) = (room("friday"), attach(&log, "a"));
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    repository.close().await;
    for _ in 0..3 {
        assert!(node.commit(after(&friday, head(EPOCH, 1))).await.is_err());
    }
    assert_eq!(node.load(&friday).await.unwrap().unwrap().head, head(EPOCH, 1));
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    assert_eq!(repository.live_rooms().await.unwrap()[0].head, head(EPOCH, 1));
}

// ---- starting and ending -------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_restarted_log_continues_live_rooms_and_begins_ended_ones_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (friday, over) = (room("friday"), room("over"));
    let open = || async {
        let repository: Arc<dyn Repository> = Arc::new(SqliteRepository::open(dir.path()).await.unwrap());
        let initial = repository.live_rooms().await.unwrap();
        (MemoryLog::new(Some(repository.clone()), initial, &TaskTracker::new()), repository)
    };
    let (log, repository) = open().await;
    let node = attach(&log, "a");
    for name in [&friday, &over] {
        committed(&node, created(name, Head::default(), EPOCH)).await;
    }
    committed(&node, ended(&over, head(EPOCH, 1))).await;
    log.close().await;
    repository.close().await;

    let (log, repository) = open().await;
    let node = attach(&log, "a");
    committed(&node, after(&friday, head(EPOCH, 1))).await;
    let stale = node.commit(after(&over, head(EPOCH, 1))).await;
    assert!(matches!(stale, Ok(Outcome::Conflict(None))), "the old epoch is not resurrected by a restart");
    // A clock that was set back while the process was down: its epochs would be taken for replays.
    for _ in 0..2 {
        assert!(node.commit(created(&over, Head::default(), EPOCH - 5)).await.is_err());
    }
    committed(&node, created(&over, Head::default(), EPOCH + 1)).await;
    let live: Vec<_> = repository.live_rooms().await.unwrap().into_iter().map(|room| room.head).collect();
    assert_eq!(live, [head(EPOCH, 2), head(EPOCH + 1, 1)]);
}

#[tokio::test]
async fn closing_answers_everything_that_was_accepted_and_takes_nothing_more() {
    let (rig, tracker) = (Rig::new(), TaskTracker::new());
    let node = attach(&rig.log, "a");
    let mut accepted: Vec<_> =
        ["friday", "sunday"].map(|name| node.commit(created(&room(name), Head::default(), EPOCH))).into();
    for waiting in &mut accepted {
        assert!(waiting.now_or_never().is_none());
    }
    let mut closing = Box::pin(rig.log.close());
    assert!((&mut closing).now_or_never().is_none());
    assert!(node.commit(created(&room("late"), Head::default(), EPOCH)).await.is_err());
    rig.disk.answer(Answer::Stored);
    closing.await;
    for outcome in join_all(accepted).await {
        assert!(matches!(outcome, Ok(Outcome::Committed)));
    }
    rig.tracker.close();
    rig.tracker.wait().await;
    // A log that nobody closes ends with its last door.
    let log = MemoryLog::new(None, Vec::new(), &tracker);
    let door = attach(&log, "a");
    drop((log, door));
    tracker.close();
    tracker.wait().await;
}

#[tokio::test]
async fn a_second_door_of_a_node_shuts_the_first() {
    let (friday, log) = (room("friday"), MemoryLog::new(None, Vec::new(), &TaskTracker::new()));
    let before = attach(&log, "a");
    before.subscribe(&friday).await.unwrap();
    let after_restart = attach(&log, "a");
    assert!(before.commit(created(&friday, Head::default(), EPOCH)).await.is_err());
    assert!(before.load(&friday).await.is_err());
    after_restart.subscribe(&friday).await.unwrap();
    drop(before);
    committed(&after_restart, created(&friday, Head::default(), EPOCH)).await;
    assert!(matches!(after_restart.follow().await, Followed::Commit { .. }));
}

#[tokio::test]
async fn commits_of_several_events_are_heard_whole() {
    let (friday, log) = (room("friday"), MemoryLog::new(None, Vec::new(), &TaskTracker::new()));
    let node = attach(&log, "a");
    node.subscribe(&friday).await.unwrap();
    committed(&node, commit(&friday, Head::default(), &[1, 2, 3].map(|seq| head(EPOCH, seq)))).await;
    let Followed::Commit { entries, .. } = node.follow().await else { panic!("a gap") };
    assert_eq!(entries.iter().map(|entry| entry.head.seq).collect::<Vec<_>>(), [1, 2, 3]);
}

// ---- helpers -------------------------------------------------------------------------------------------------------

fn attach(log: &MemoryLog, node: &str) -> Arc<dyn Log> {
    log.attach(NodeId::parse(node).unwrap())
}

async fn committed(node: &Arc<dyn Log>, commit: Commit) {
    let outcome: Result<Outcome, LogError> = node.commit(commit).await;
    assert!(matches!(outcome, Ok(Outcome::Committed)), "{outcome:?}");
}

/// A log over a disk that answers when, and what, the test says.
struct Rig {
    log: MemoryLog,
    disk: Arc<Disk>,
    tracker: TaskTracker,
}

impl Rig {
    fn new() -> Self {
        let disk = Arc::new(Disk::default());
        let tracker = TaskTracker::new();
        Self { log: MemoryLog::new(Some(disk.clone()), Vec::new(), &tracker), disk, tracker }
    }
}
