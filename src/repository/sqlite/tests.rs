//! Tests that need private parts: a full disk, and ids that collide.

use super::*;
use crate::commit::{Entry, Patch, RoomRow};
use crate::domain::UserId;

const NOW: RoomTime = RoomTime::from_millis(1_795_000_000_000);

fn minutes(count: u64) -> RoomTime {
    NOW + Duration::from_secs(60 * count)
}

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

/// A room's only commit, of so many bytes.
fn commit(room: &RoomId, bytes: usize) -> Commit {
    let head = Head { epoch: 1, seq: 1 };
    let entry = Entry {
        head,
        at: NOW,
        kind: "custom",
        user: UserId::parse("ann").ok(),
        body: bytes::Bytes::new(),
        audit: vec![b'x'; bytes].into(),
    };
    let row = RoomRow {
        host: None,
        url: None,
        position: 0.0,
        playing: false,
        at: NOW,
        guest_control: false,
        ended: false,
        users: Vec::new(),
    };
    Commit {
        room: room.clone(),
        expected: Head::default(),
        next: head,
        entries: [entry].into(),
        patch: Patch::default(),
        row,
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_nothing_of_the_batch_is_kept_and_space_heals_it() {
    let dir = tempfile::tempdir().unwrap();
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    let full = async |pages: &'static str| {
        let mut writer = repository.writer().await.unwrap();
        let result = sqlx::query(pages).execute(&mut writer.connection).await;
        writer.end(result.map_err(RepositoryError::from)).unwrap();
    };
    // SQLite's own word for a disk that has no more pages; it holds for this connection only.
    full("PRAGMA max_page_count = 40").await;
    let batch = [commit(&room("small"), 10), commit(&room("big"), 1 << 20)];
    let error = repository.append(&batch).await.unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    assert_eq!(repository.live_rooms().await.unwrap(), []);
    repository.append(&batch[..1]).await.unwrap();
    repository.append(&batch).await.unwrap();
    assert_eq!(repository.live_rooms().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_draw_that_hits_a_living_short_id_is_drawn_again_and_an_expired_one_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    let mut lease = repository.writer().await.unwrap();
    let writer = &mut lease.connection;
    let id = |text: &str| ShortId::parse(text).unwrap();
    let draws = |ids: &[&str]| {
        let mut ids: std::collections::VecDeque<_> = ids.iter().map(|text| id(text)).collect();
        move || ids.pop_front().expect("one draw more than needed")
    };
    let (friday, sunday, monday) = (room("friday"), room("sunday"), room("monday"));
    let first = short_ids::make(writer, &friday, minutes(0), minutes(60), draws(&["aaaaaaa"])).await.unwrap();
    let second = short_ids::make(writer, &sunday, minutes(1), minutes(300), draws(&["aaaaaaa", "aaaaaaa", "bbbbbbb"]));
    assert_eq!((first, second.await.unwrap()), (id("aaaaaaa"), id("bbbbbbb")));
    // friday's life is over.
    let third = short_ids::make(writer, &monday, minutes(60), minutes(300), draws(&["bbbbbbb", "aaaaaaa"]));
    assert_eq!(third.await.unwrap(), id("aaaaaaa"));
    let resolved = short_ids::resolve(writer, &id("aaaaaaa"), minutes(61), minutes(300)).await.unwrap();
    assert_eq!(resolved, Some(monday));
}

#[tokio::test]
async fn draws_that_never_hit_a_free_short_id_end_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    let mut lease = repository.writer().await.unwrap();
    let writer = &mut lease.connection;
    let always = || ShortId::parse("aaaaaaa").unwrap();
    short_ids::make(writer, &room("friday"), minutes(0), minutes(60), always).await.unwrap();
    let error = short_ids::make(writer, &room("sunday"), minutes(0), minutes(60), always).await.unwrap_err();
    assert!(matches!(error, RepositoryError::ShortIds), "{error:?}");
}
