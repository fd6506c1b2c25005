//! One process whose disk is full: rooms go on, and what they did is stored when there is space.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/failing_repository.rs"]
mod failing_repository;
#[path = "support/waiting.rs"]
mod waiting;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use commits::{EPOCH, after, created, ended, head, room, row_of};
use failing_repository::FailingRepository;
use tandem::commit::Commit;
use tandem::domain::{Head, NodeId, RoomId};
use tandem::log::memory::MemoryLog;
use tandem::log::{Log, Outcome};
use tandem::repository::sqlite::SqliteRepository;
use tandem::repository::{Repository, RepositoryError};
use tokio_util::task::TaskTracker;
use waiting::until;

#[tokio::test]
async fn on_a_full_disk_rooms_go_on_and_what_they_did_is_stored_once_there_is_space() {
    let (dir, disk) = open().await;
    let (log, door) = attach(&disk);
    let (friday, sunday) = (room("friday"), room("sunday"));
    committed(&*door, created(&friday, Head::default(), EPOCH)).await;
    disk.fails.store(true, Ordering::SeqCst);
    committed(&*door, created(&sunday, Head::default(), EPOCH)).await;
    for seq in 1..50 {
        committed(&*door, after(&friday, head(EPOCH, seq))).await;
    }
    assert_eq!(door.load(&friday).await.unwrap().unwrap().head, head(EPOCH, 50));
    assert!(disk.refused.load(Ordering::SeqCst) < 10, "a full disk is not asked with every commit");
    disk.fails.store(false, Ordering::SeqCst);
    until(async || disk.heads(std::slice::from_ref(&friday)).await.unwrap().values().any(|at| at.seq == 50)).await;
    assert_eq!(seqs(&disk.repository, &friday).await, (1..=50).collect::<Vec<_>>());
    assert_eq!(seqs(&disk.repository, &sunday).await, [1]);
    let known = [door.load(&friday).await.unwrap().unwrap(), door.load(&sunday).await.unwrap().unwrap()];
    log.close().await;
    disk.repository.close().await;
    assert_eq!(again(dir.path()).await.live_rooms().await.unwrap(), known);
}

#[tokio::test]
async fn lives_that_begin_and_end_on_a_full_disk_leave_the_last_one() {
    let (dir, disk) = open().await;
    let (log, door) = attach(&disk);
    let friday = room("friday");
    committed(&*door, created(&friday, Head::default(), EPOCH)).await;
    disk.fails.store(true, Ordering::SeqCst);
    committed(&*door, ended(&friday, head(EPOCH, 1))).await;
    for life in 1..5 {
        committed(&*door, created(&friday, Head::default(), EPOCH + life)).await;
        let mut joined = after(&friday, head(EPOCH + life, 1));
        joined.row.users = vec![row_of("bob", 2, joined.row.at)];
        committed(&*door, joined).await;
        if life < 4 {
            committed(&*door, ended(&friday, head(EPOCH + life, 2))).await;
        }
    }
    disk.fails.store(false, Ordering::SeqCst);
    let known = door.load(&friday).await.unwrap().unwrap();
    // A stop tries once more.
    log.close().await;
    disk.repository.close().await;
    let repository = again(dir.path()).await;
    assert_eq!(repository.live_rooms().await.unwrap(), [known]);
    let heads: Vec<Head> =
        repository.events(&friday, Head::default(), 100).await.unwrap().iter().map(|row| row.head).collect();
    let last: Vec<Head> = heads.into_iter().filter(|at| at.epoch == EPOCH + 4).collect();
    assert_eq!(last, [head(EPOCH + 4, 1), head(EPOCH + 4, 2)]);
}

#[tokio::test]
async fn what_a_full_disk_is_owed_is_bounded_and_the_newest_of_it_is_kept() {
    const EACH: u64 = 600;
    let (dir, disk) = open().await;
    let (log, door) = attach(&disk);
    let friday = room("friday");
    committed(&*door, created(&friday, Head::default(), EPOCH)).await;
    disk.fails.store(true, Ordering::SeqCst);
    for seq in 1..EACH {
        let mut commit = after(&friday, head(EPOCH, seq));
        let mut entries = commit.entries.to_vec();
        entries[0].audit = Bytes::from(format!("\"{}\"", "x".repeat(50_000)));
        commit.entries = entries.into();
        committed(&*door, commit).await;
    }
    disk.fails.store(false, Ordering::SeqCst);
    log.close().await;
    disk.repository.close().await;
    let repository = again(dir.path()).await;
    let stored = seqs(&repository, &friday).await;
    assert!((200..400).contains(&stored.len()), "16 MiB of 30: {}", stored.len());
    assert_eq!(stored[1..], (EACH + 2 - stored.len() as u64..=EACH).collect::<Vec<_>>(), "the newest");
    assert_eq!(repository.live_rooms().await.unwrap()[0].head, head(EPOCH, EACH));
}

async fn open() -> (tempfile::TempDir, Arc<FailingRepository>) {
    let dir = tempfile::tempdir().unwrap();
    let repository = again(dir.path()).await;
    (
        dir,
        Arc::new(FailingRepository::new(repository, || RepositoryError::Full {
            place: "x".to_owned(),
            source: sqlx::Error::PoolTimedOut,
        })),
    )
}

async fn again(dir: &Path) -> SqliteRepository {
    SqliteRepository::open(dir).await.unwrap()
}

fn attach(disk: &Arc<FailingRepository>) -> (MemoryLog, Arc<dyn Log>) {
    let log = MemoryLog::new(Some(Arc::clone(disk) as Arc<dyn Repository>), Vec::new(), &TaskTracker::new());
    let door = log.attach(NodeId::parse("a").unwrap());
    (log, door)
}

async fn committed(door: &dyn Log, commit: Commit) {
    let outcome = door.commit(commit).await;
    assert!(matches!(outcome, Ok(Outcome::Committed)), "{outcome:?}");
}

async fn seqs(repository: &SqliteRepository, room: &RoomId) -> Vec<u64> {
    repository.events(room, Head::default(), 10_000).await.unwrap().iter().map(|row| row.head.seq).collect()
}
