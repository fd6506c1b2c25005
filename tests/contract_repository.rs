//! What every repository promises ([`tandem::repository`]), on every repository there is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/postgres.rs"]
mod postgres_server;
#[path = "support/repository_backends.rs"]
mod repository_backends;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commits::{EPOCH, after, commit, created, ended, head, room, row_of, shown, text_of, time, user};
use futures_util::future::join_all;
use repository_backends::Backend;
use tandem::commit::{Commit, ConnectionQuality, MemberReport};
use tandem::domain::{Head, RoomId, RoomTime, ShortId};
use tandem::repository::{EventRow, Repository};

/// No test takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(120);

/// One module a backend; a new backend is one more line at the end of the file.
macro_rules! suite {
    ($backend:ident: $($name:ident)*) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let test = super::$name(super::repository_backends::$backend().await);
                    tokio::time::timeout(super::DEADLINE, test).await.expect("it hangs");
                }
            )*
        }
    };
}

macro_rules! on {
    ($backend:ident) => {
        suite! { $backend:
            what_was_appended_is_there_after_opening_again
            the_latest_commit_says_what_room_time_it_was
            the_same_commit_twice_is_one_row_an_event
            an_old_commit_replayed_adds_its_events_and_no_old_state
            a_late_piece_of_an_old_epoch_does_not_resurrect_it
            an_end_archives_the_room_and_leaves_nothing_to_load
            a_new_epoch_keeps_nothing_of_the_old_one
            a_new_epoch_in_the_same_batch_keeps_nothing_of_the_old_one
            patches_of_one_batch_fold_in_order
            a_big_batch_arrives_whole
            the_columns_that_people_read_say_what_the_room_is
            users_come_go_and_come_back
            what_a_member_last_reported_is_in_its_row_until_it_joins_anew
            a_commit_of_any_content_is_stored
            what_json_columns_refuse_does_not_hold_up_the_batch
            each_table_and_column_says_what_it_holds
            heads_tell_of_live_and_ended_rooms_and_not_of_others
            events_come_in_pages_in_order
            pruning_removes_what_is_old_a_bounded_number_a_call_and_nothing_else
            a_film_s_address_is_stored_once_and_goes_with_the_last_event_that_has_it
            a_room_has_one_short_link_whoever_asks_at_the_same_time
            a_short_link_is_found_in_either_case
            a_short_link_lives_from_its_last_use
            an_expired_short_link_is_remembered_and_lives_again_when_its_room_asks_for_one
            the_short_link_of_a_room_that_ends_expires_with_it_and_is_remembered
            digits_of_short_links_are_equally_likely
            a_closed_repository_answers_with_an_error_and_not_with_a_panic
        }
    };
}

async fn what_was_appended_is_there_after_opening_again(backend: impl Backend) {
    let friday = room("friday");
    let repository = backend.open().await.unwrap();
    repository.append(&[created(&friday, Head::default(), EPOCH), after(&friday, head(EPOCH, 1))]).await.unwrap();
    repository.close().await;
    let repository = backend.open().await.unwrap();
    repository.ping().await.unwrap();
    let live = repository.live_rooms().await.unwrap();
    assert_eq!(live.len(), 1);
    assert_eq!((&live[0].room, live[0].head), (&friday, head(EPOCH, 2)));
    assert_eq!(live[0].fields, BTreeMap::from([("head".to_owned(), text_of(head(EPOCH, 2)))]));
    assert_eq!(history(&*repository, &friday).await, [head(EPOCH, 1), head(EPOCH, 2)]);
}

async fn the_latest_commit_says_what_room_time_it_was(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    assert_eq!(repository.latest().await.unwrap(), None);
    let commits = [created(&friday, Head::default(), EPOCH), after(&friday, head(EPOCH, 1))];
    repository.append(&commits).await.unwrap();
    assert_eq!(repository.latest().await.unwrap(), commits[1].entries.last().map(|entry| entry.at));
}

async fn the_same_commit_twice_is_one_row_an_event(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let first = created(&friday, Head::default(), EPOCH);
    let second = commit(&friday, head(EPOCH, 1), &[head(EPOCH, 2), head(EPOCH, 3)]);
    let batch = [first.clone(), second.clone(), second.clone()];
    for _ in 0..2 {
        repository.append(&batch).await.unwrap();
    }
    repository.append(&[first]).await.unwrap();
    repository.append(&[]).await.unwrap();
    assert_eq!(history(&*repository, &friday).await, [1, 2, 3].map(|seq| head(EPOCH, seq)));
    assert_eq!(live_heads(&*repository).await, [(friday, head(EPOCH, 3))]);
}

/// v2 brought archived rooms back at an old position.
async fn an_old_commit_replayed_adds_its_events_and_no_old_state(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let steps = steps(&friday, 4);
    // The third was not stored when the fourth was (a lost node had it).
    repository.append(&[steps[0].clone(), steps[1].clone(), steps[3].clone()]).await.unwrap();
    let mut old = steps[2].clone();
    old.row.position = 1.0;
    old.row.host = Some(user("mallory"));
    old.row.users = vec![row_of("mallory", 9, time(old.next))];
    repository.append(&[steps[0].clone(), old, steps[1].clone()]).await.unwrap();
    assert_eq!(history(&*repository, &friday).await, [1, 2, 3, 4].map(|seq| head(EPOCH, seq)));
    let live = repository.live_rooms().await.unwrap();
    assert_eq!((live[0].head, &live[0].fields["head"]), (head(EPOCH, 4), &text_of(head(EPOCH, 4))));
    assert_eq!(backend.ask("SELECT host_user_id FROM rooms").await, [Some("ann".to_owned())]);
    assert_eq!(backend.ask("SELECT user_id FROM users").await, [Some("ann".to_owned())]);
}

async fn a_late_piece_of_an_old_epoch_does_not_resurrect_it(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let old = created(&friday, Head::default(), EPOCH);
    let end = ended(&friday, head(EPOCH, 1));
    repository.append(&[old.clone(), end.clone()]).await.unwrap();
    repository.append(std::slice::from_ref(&old)).await.unwrap();
    assert_eq!(live_heads(&*repository).await, []);
    repository.append(&[created(&friday, Head::default(), EPOCH + 5)]).await.unwrap();
    repository.append(&[old, end, after(&friday, head(EPOCH, 2))]).await.unwrap();
    assert_eq!(live_heads(&*repository).await, [(friday.clone(), head(EPOCH + 5, 1))]);
    assert_eq!(
        history(&*repository, &friday).await,
        [head(EPOCH, 1), head(EPOCH, 2), head(EPOCH, 3), head(EPOCH + 5, 1)]
    );
}

async fn an_end_archives_the_room_and_leaves_nothing_to_load(backend: impl Backend) {
    let (friday, sunday, repository) = (room("friday"), room("sunday"), backend.open().await.unwrap());
    let both = [created(&friday, Head::default(), EPOCH), created(&sunday, Head::default(), EPOCH)];
    repository.append(&both).await.unwrap();
    repository.append(&[ended(&friday, head(EPOCH, 1))]).await.unwrap();
    assert_eq!(live_heads(&*repository).await, [(sunday, head(EPOCH, 1))]);
    assert_eq!(backend.ask("SELECT field FROM room_fields WHERE room_id = 'friday'").await, []);
    let at = Some(shown(time(head(EPOCH, 2))));
    for (column, table) in [("archived_at", "rooms"), ("left_at", "users")] {
        let sql = format!("SELECT {} FROM {table} WHERE room_id = 'friday'", backend.moment(column));
        assert_eq!(backend.ask(&sql).await, std::slice::from_ref(&at), "{sql}");
    }
    assert_eq!(backend.ask("SELECT CAST(left_at AS TEXT) FROM users WHERE room_id = 'sunday'").await, [None]);
}

/// v2's rooms came back with the PIN of the one before.
async fn a_new_epoch_keeps_nothing_of_the_old_one(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let mut old = created(&friday, Head::default(), EPOCH);
    old.patch.fields.insert("pin".to_owned(), Some(Bytes::from_static(b"4711")));
    old.row.users = vec![row_of("ann", 1, old.row.at), row_of("ben", 2, old.row.at)];
    repository.append(&[old]).await.unwrap();
    // Its end was lost, and the new epoch's commit doesn't even ask to clear.
    let mut new = created(&friday, Head::default(), EPOCH + 9);
    new.patch.clear = false;
    repository.append(&[new]).await.unwrap();
    let live = repository.live_rooms().await.unwrap();
    assert_eq!(live[0].fields.keys().collect::<Vec<_>>(), ["head"]);
    assert_eq!(backend.ask("SELECT user_id FROM users WHERE left_at IS NULL").await, [Some("ann".to_owned())]);
    let since = Some(shown(time(head(EPOCH + 9, 1))));
    assert_eq!(backend.ask(&format!("SELECT {} FROM rooms", backend.moment("created_at"))).await, [since]);
}

async fn a_new_epoch_in_the_same_batch_keeps_nothing_of_the_old_one(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let mut old = created(&friday, Head::default(), EPOCH);
    old.row.users.push(row_of("ben", 2, old.row.at));
    old.patch.fields.insert("pin".to_owned(), Some(Bytes::from_static(b"4711")));
    let new = created(&friday, head(EPOCH, 2), EPOCH + 9);
    repository.append(&[old, ended(&friday, head(EPOCH, 1)), new]).await.unwrap();
    let live = repository.live_rooms().await.unwrap();
    assert_eq!((live[0].head, live[0].fields.len()), (head(EPOCH + 9, 1), 1));
    assert_eq!(backend.ask("SELECT CAST(archived_at AS TEXT) FROM rooms").await, [None]);
    assert_eq!(backend.ask("SELECT user_id FROM users WHERE left_at IS NULL").await, [Some("ann".to_owned())]);
    assert_eq!(backend.ask("SELECT user_id FROM users WHERE left_at IS NOT NULL").await, [Some("ben".to_owned())]);
}

async fn patches_of_one_batch_fold_in_order(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let mut steps = steps(&friday, 4);
    let value = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    steps[0].patch.fields = BTreeMap::from([("a".to_owned(), value("1")), ("b".to_owned(), value("1"))]);
    repository.append(&steps[..1]).await.unwrap();
    steps[1].patch.fields = BTreeMap::from([("a".to_owned(), None), ("c".to_owned(), value("2"))]);
    steps[2].patch.fields = BTreeMap::from([("a".to_owned(), value("3")), ("b".to_owned(), None)]);
    steps[3].patch.fields = BTreeMap::from([("c".to_owned(), None), ("d".to_owned(), value("4"))]);
    repository.append(&steps[1..]).await.unwrap();
    let fields = &repository.live_rooms().await.unwrap()[0].fields;
    assert_eq!(*fields, BTreeMap::from([("a".to_owned(), value("3").unwrap()), ("d".to_owned(), value("4").unwrap())]));
}

async fn a_big_batch_arrives_whole(backend: impl Backend) {
    let repository = backend.open().await.unwrap();
    // Not a multiple of any chunk that an implementation may use.
    let rooms: Vec<RoomId> = (0..203).map(|number| room(&format!("room-{number:03}"))).collect();
    let mut batch = Vec::new();
    for room in &rooms {
        let mut first = created(room, Head::default(), EPOCH);
        first.row.users = (0..7).map(|slot| row_of(&format!("user-{slot}"), slot, first.row.at)).collect();
        batch.push(first);
        batch.push(commit(room, head(EPOCH, 1), &[2, 3, 4].map(|seq| head(EPOCH, seq))));
    }
    repository.append(&batch).await.unwrap();
    let expected: Vec<_> = rooms.iter().map(|room| (room.clone(), head(EPOCH, 4))).collect();
    assert_eq!(live_heads(&*repository).await, expected);
    assert_eq!(backend.ask("SELECT CAST(count(*) AS TEXT) FROM room_events").await, [Some((203 * 4).to_string())]);
    assert_eq!(backend.ask("SELECT CAST(count(*) AS TEXT) FROM users").await, [Some((203 * 7).to_string())]);
}

async fn the_columns_that_people_read_say_what_the_room_is(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    repository.append(&steps(&friday, 3)).await.unwrap();
    let [position_at, created_at, updated_at] =
        ["position_at", "created_at", "updated_at"].map(|column| backend.moment(column));
    let columns = format!(
        "SELECT room_id || ' ' || host_user_id || ' ' || current_url || ' ' || rooms.current_time || ' ' || {position_at} \
         || ' ' || is_playing || ' ' || guest_control || ' ' || epoch || ' ' || seq || ' ' || {created_at} \
         || ' ' || {updated_at} FROM rooms"
    );
    let (first, last) = (shown(time(head(EPOCH, 1))), shown(time(head(EPOCH, 3))));
    let row = backend.ask(&columns).await.remove(0).unwrap().replace("true", "1");
    assert_eq!(row, format!("friday ann https://example.org/film 12.5 {last} 1 1 {EPOCH} 3 {first} {last}"));
    let event = format!("SELECT event_type || ' ' || user_id || ' ' || {created_at} FROM room_events WHERE seq = 1");
    assert_eq!(backend.ask(&event).await, [Some(format!("play ann {first}"))]);
}

async fn users_come_go_and_come_back(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let mut steps = steps(&friday, 3);
    let ben = row_of("ben", 2, time(head(EPOCH, 1)));
    steps[0].row.users.push(ben.clone());
    let left = tandem::commit::UserRow { connected: false, left_at: Some(time(head(EPOCH, 2))), ..ben.clone() };
    steps[1].row.users = vec![left];
    let back = tandem::commit::UserRow { name: "Benjamin".to_owned(), slot: 3, joined_at: time(head(EPOCH, 3)), ..ben };
    steps[2].row.users = vec![back];
    let ben = "SELECT username || ' ' || slot || ' ' || is_connected || ' ' || CASE WHEN left_at IS NULL THEN 'here' ELSE 'gone' END \
               FROM users WHERE user_id = 'ben'";
    for (step, expected) in steps.iter().zip(["BEN 2 1 here", "BEN 2 0 gone", "Benjamin 3 1 here"]) {
        repository.append(std::slice::from_ref(step)).await.unwrap();
        let row = backend.ask(ben).await.remove(0).unwrap().replace("true", "1").replace("false", "0");
        assert_eq!(row, expected);
    }
}

async fn what_a_member_last_reported_is_in_its_row_until_it_joins_anew(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let mut first = created(&friday, Head::default(), EPOCH);
    first.row.users.push(row_of("ben", 2, first.row.at));
    repository.append(&[first]).await.unwrap();
    let report = |name: &str, seconds: u64, position: Option<f64>, quality| MemberReport {
        room: friday.clone(),
        user: user(name),
        position,
        playing: position.map(|_| true),
        quality,
        at: time(head(EPOCH, seconds)),
    };
    let shown = format!(
        "SELECT user_id || ' ' || coalesce(CAST(position AS TEXT), '-') || ' ' || coalesce(CAST(is_playing AS TEXT), '-') || ' ' || \
         coalesce(connection_quality, '-') || ' ' || coalesce({}, '-') FROM users ORDER BY user_id",
        backend.moment("last_heartbeat")
    );
    let rows = async || -> Vec<String> {
        let rows = backend.ask(&shown).await.into_iter().flatten();
        rows.map(|row| row.replace("true", "1").replace(".0 ", " ")).collect()
    };
    let of = |second| shown_time(head(EPOCH, second));
    assert_eq!(rows().await, ["ann - - - -", "ben - - - -"]);
    // More than goes into one transaction, for members that are none, too.
    let mut reports: Vec<_> = (0..1500).map(|n| report(&format!("user-{n}"), 5, Some(1.0), None)).collect();
    reports.push(report("ann", 60, Some(12.5), Some(ConnectionQuality::Fair)));
    reports.push(report("ben", 59, None, Some(ConnectionQuality::Poor)));
    repository.store_reports(&reports).await.unwrap();
    let both = [format!("ann 12.5 1 fair {}", of(60)), format!("ben - - poor {}", of(59))];
    assert_eq!(rows().await, both);
    // One that comes late.
    repository.store_reports(&[report("ann", 30, Some(1.0), None)]).await.unwrap();
    repository.store_reports(&[]).await.unwrap();
    assert_eq!(rows().await, both);
    // Commits leave it alone; a new membership begins without, and what the old one said comes too late for it.
    let mut second = after(&friday, head(EPOCH, 1));
    second.row.users = vec![row_of("ann", 1, time(head(EPOCH, 1))), row_of("ben", 3, time(head(EPOCH, 70)))];
    repository.append(&[second]).await.unwrap();
    repository.store_reports(&[report("ben", 69, Some(2.0), None)]).await.unwrap();
    assert_eq!(rows().await, [both[0].clone(), "ben - - - -".to_owned()]);
    repository.append(&[ended(&friday, head(EPOCH, 2))]).await.unwrap();
    repository.store_reports(&[report("ann", 99, Some(3.0), None)]).await.unwrap();
    assert_eq!(rows().await[0], both[0], "it has left");
}

fn shown_time(head: Head) -> String {
    shown(time(head))
}

/// One room's odd content must not hold up the batch of all others.
async fn a_commit_of_any_content_is_stored(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let mut odd = created(&friday, Head::default(), EPOCH);
    odd.row.position = f64::NAN;
    odd.row.host = None;
    odd.row.url = None;
    odd.row.at = RoomTime::from_micros(i64::MIN);
    odd.row.users[0].joined_at = RoomTime::from_micros(i64::MAX);
    odd.row.users[0].name = "A\u{1F3AC}nn '; DROP TABLE rooms; --".to_owned();
    let mut entries = odd.entries.to_vec();
    entries[0].audit = Bytes::from_static(&[0xff, 0xfe]);
    entries[0].user = None;
    odd.entries = entries.into();
    odd.patch.fields = BTreeMap::from([("bytes".to_owned(), Some(Bytes::from((0..=255).collect::<Vec<u8>>())))]);
    repository.append(&[odd]).await.unwrap();
    let live = repository.live_rooms().await.unwrap();
    assert_eq!(live[0].fields["bytes"], (0..=255).collect::<Vec<u8>>());
    let moment = |column, table| format!("SELECT {} FROM {table}", backend.moment(column));
    assert_eq!(backend.ask(&moment("position_at", "rooms")).await, [Some("0001-01-01 00:00:00.000000".to_owned())]);
    assert_eq!(backend.ask(&moment("created_at", "users")).await, [Some("9999-12-31 23:59:59.999999".to_owned())]);
    assert_eq!(history(&*repository, &friday).await, [head(EPOCH, 1)]);
}

async fn what_json_columns_refuse_does_not_hold_up_the_batch(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let audits = ["", "{", "[1e999999]", r#""\ud800""#, r#"{"a\u0000":"b\u0000"}"#, "\0", r#"{"fine":1.0}"#];
    let heads: Vec<Head> = (1..=audits.len() as u64).map(|seq| head(EPOCH, seq)).collect();
    let mut odd = commit(&friday, Head::default(), &heads);
    let mut entries = odd.entries.to_vec();
    for (entry, audit) in entries.iter_mut().zip(audits) {
        entry.audit = audit.into();
    }
    odd.entries = entries.into();
    repository.append(&[odd, created(&room("sunday"), Head::default(), EPOCH)]).await.unwrap();
    let events = repository.events(&friday, Head::default(), 100).await.unwrap();
    let data: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
    let zeros = "{\"a\u{FFFD}\":\"b\u{FFFD}\"}";
    let lone = r#""\"\\ud800\"""#;
    assert_eq!(data, [r#""""#, r#""{""#, r#""[1e999999]""#, lone, zeros, "\"\u{FFFD}\"", r#"{"fine":1.0}"#]);
}

/// PostgreSQL's `COMMENT ON`; in SQLite a view of the same.
async fn each_table_and_column_says_what_it_holds(backend: impl Backend) {
    backend.open().await.unwrap();
    assert_eq!(backend.ask(backend.uncommented()).await, []);
    let first = backend.ask(backend.comments()).await;
    assert!(first.len() >= 49, "{first:?}");
    assert!(first.contains(&Some("room_events.details: JSON without chat texts, payloads, hashes and tokens. The address of a film is in media_urls.".to_owned())), "{first:?}");
}

async fn heads_tell_of_live_and_ended_rooms_and_not_of_others(backend: impl Backend) {
    let (live, over, never, repository) = (room("live"), room("over"), room("never"), backend.open().await.unwrap());
    let batch =
        [created(&live, Head::default(), EPOCH), created(&over, Head::default(), EPOCH), ended(&over, head(EPOCH, 1))];
    repository.append(&batch).await.unwrap();
    let heads = repository.heads(&[never, over.clone(), live.clone(), live.clone()]).await.unwrap();
    assert_eq!(heads, BTreeMap::from([(live, head(EPOCH, 1)), (over, head(EPOCH, 2))]));
}

async fn events_come_in_pages_in_order(backend: impl Backend) {
    let (friday, sunday, repository) = (room("friday"), room("sunday"), backend.open().await.unwrap());
    repository.append(&steps(&sunday, 5)).await.unwrap();
    // Stored in another order than they happened; read in theirs.
    let mut steps = steps(&friday, 12);
    steps.push(created(&friday, head(EPOCH, 12), EPOCH + 60_000));
    steps.reverse();
    for step in steps {
        repository.append(&[step]).await.unwrap();
    }
    let mut seen: Vec<EventRow> = Vec::new();
    loop {
        let after = seen.last().map_or(Head::default(), |event| event.head);
        let page = repository.events(&friday, after, 5).await.unwrap();
        assert!(page.len() <= 5);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    let mut expected: Vec<Head> = (1..=12).map(|seq| head(EPOCH, seq)).collect();
    expected.push(head(EPOCH + 60_000, 1));
    assert_eq!(seen.iter().map(|event| event.head).collect::<Vec<_>>(), expected);
    let third = EventRow {
        head: head(EPOCH, 3),
        kind: "play".to_owned(),
        user: Some("ann".to_owned()),
        data: "{\"seq\":3}".to_owned(),
        at: time(head(EPOCH, 3)),
    };
    assert_eq!(seen[2], third);
    assert_eq!(repository.events(&friday, Head::default(), 0).await.unwrap(), []);
    assert_eq!(repository.events(&room("never"), Head::default(), 5).await.unwrap(), []);
}

/// v2's event log was never pruned.
async fn pruning_removes_what_is_old_a_bounded_number_a_call_and_nothing_else(backend: impl Backend) {
    let repository = backend.open().await.unwrap();
    let (live, old, young) = (room("live"), room("old"), room("young"));
    const EVENTS: u64 = 23_000;
    let heads: Vec<Head> = (2..=EVENTS).map(|seq| head(EPOCH, seq)).collect();
    let mut goers = created(&live, Head::default(), EPOCH);
    let mut ben = row_of("ben", 2, goers.row.at);
    ben.left_at = Some(goers.row.at);
    goers.row.users.push(ben);
    repository.append(&[goers, commit(&live, head(EPOCH, 1), &heads)]).await.unwrap();
    repository.append(&[created(&old, Head::default(), EPOCH), ended(&old, head(EPOCH, 1))]).await.unwrap();
    let late = EPOCH + 1000 * EVENTS;
    repository.append(&[created(&young, Head::default(), late), ended(&young, head(late, 1))]).await.unwrap();
    let link = repository.short_link(&live, RoomTime::default(), time(head(EPOCH, 9))).await.unwrap();

    let before = time(head(EPOCH, EVENTS));
    let mut pruned = Vec::new();
    loop {
        match repository.prune(before).await.unwrap() {
            0 => break,
            count => pruned.push(count),
        }
    }
    assert_eq!(pruned.iter().sum::<u64>(), EVENTS - 1 + 2, "the two of `old`, all of `live` but the last");
    assert!(pruned.len() >= 3, "bounded a call: {pruned:?}");
    assert_eq!(history(&*repository, &live).await, [head(EPOCH, EVENTS)]);
    assert_eq!(history(&*repository, &young).await.len(), 2);
    assert_eq!(live_heads(&*repository).await, [(live.clone(), head(EPOCH, EVENTS))], "a live room stays, however old");
    let text = |names: &[&str]| names.iter().map(|name| Some((*name).to_owned())).collect::<Vec<_>>();
    assert_eq!(backend.ask("SELECT room_id FROM rooms ORDER BY room_id").await, text(&["live", "young"]));
    assert_eq!(
        backend.ask("SELECT room_id || ' ' || user_id FROM users ORDER BY room_id, user_id").await,
        text(&["live ann", "young ann"])
    );
    assert_eq!(backend.ask("SELECT short_id FROM short_links").await, [], "{link:?} had expired");
}

async fn a_film_s_address_is_stored_once_and_goes_with_the_last_event_that_has_it(backend: impl Backend) {
    let repository = backend.open().await.unwrap();
    let (friday, sunday) = (room("friday"), room("sunday"));
    let chosen = |mut commit: Commit, address: &str| {
        let mut entries = commit.entries.to_vec();
        entries[0].audit = format!("{{\"by\":\"ann\",\"url\":\"{address}\"}}").into();
        commit.entries = entries.into();
        commit
    };
    let (old, both) = ("https://example.org/old", "https://example.org/\u{e9}");
    repository
        .append(&[
            chosen(created(&friday, Head::default(), EPOCH), old),
            chosen(after(&friday, head(EPOCH, 1)), both),
            chosen(created(&sunday, Head::default(), EPOCH), both),
        ])
        .await
        .unwrap();
    let again = chosen(after(&friday, head(EPOCH, 2)), both);
    for _ in 0..2 {
        repository.append(std::slice::from_ref(&again)).await.unwrap();
    }
    let data = async |room: &RoomId| -> Vec<String> {
        repository.events(room, Head::default(), 10).await.unwrap().into_iter().map(|event| event.data).collect()
    };
    let event = |address: &str| format!("{{\"by\":\"ann\",\"url\":\"{address}\"}}");
    assert_eq!(data(&friday).await, [event(old), event(both), event(both)]);
    assert_eq!(data(&sunday).await, [event(both)]);
    let text = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
    let addresses = "SELECT url FROM media_urls ORDER BY url";
    assert_eq!(backend.ask(addresses).await, text(&[old, both]));
    assert_eq!(
        backend
            .ask("SELECT CAST(details AS TEXT) FROM room_events WHERE CAST(details AS TEXT) LIKE '%example.org%'")
            .await,
        []
    );
    repository.prune(time(head(EPOCH, 3))).await.unwrap();
    assert_eq!(data(&friday).await, [event(both)]);
    assert_eq!(backend.ask(addresses).await, text(&[both]));
}

/// v2 made many ids for one room when several asked at once.
async fn a_room_has_one_short_link_whoever_asks_at_the_same_time(backend: impl Backend) {
    let repository = backend.open().await.unwrap();
    let rooms = ["friday", "sunday"].map(room);
    let asking = (0..40).map(|asker| {
        let (repository, room) = (Arc::clone(&repository), rooms[asker % 2].clone());
        #[expect(clippy::disallowed_methods, reason = "joined below")]
        tokio::spawn(
            async move { (room.clone(), repository.short_link(&room, minutes(0), minutes(240)).await.unwrap()) },
        )
    });
    let answers: BTreeMap<RoomId, BTreeSet<String>> =
        join_all(asking).await.into_iter().map(Result::unwrap).fold(BTreeMap::new(), |mut answers, (room, short)| {
            answers.entry(room).or_default().insert(short.as_str().to_owned());
            answers
        });
    assert_eq!(answers.len(), 2);
    assert!(answers.values().all(|ids| ids.len() == 1), "{answers:?}");
    assert_ne!(answers[&rooms[0]], answers[&rooms[1]]);
    assert_eq!(backend.ask("SELECT CAST(count(*) AS TEXT) FROM short_links").await, [Some("2".to_owned())]);
}

async fn a_short_link_is_found_in_either_case(backend: impl Backend) {
    let (friday, repository) = (room("Friday"), backend.open().await.unwrap());
    let short = repository.short_link(&friday, minutes(0), minutes(240)).await.unwrap();
    for text in [short.as_str().to_owned(), short.as_str().to_ascii_uppercase()] {
        let typed = ShortId::parse(&text).unwrap();
        assert_eq!(repository.resolve_short(&typed, minutes(1), minutes(241)).await.unwrap(), Some(friday.clone()));
    }
    let other = ShortId::parse(if short.as_str() == "0000000" { "0000001" } else { "0000000" }).unwrap();
    assert_eq!(repository.resolve_short(&other, minutes(1), minutes(241)).await.unwrap(), None);
}

async fn a_short_link_lives_from_its_last_use(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let short = repository.short_link(&friday, minutes(0), minutes(240)).await.unwrap();
    // Used by following it, then by asking for it.
    assert!(repository.resolve_short(&short, minutes(239), minutes(479)).await.unwrap().is_some());
    assert_eq!(repository.short_link(&friday, minutes(478), minutes(718)).await.unwrap(), short);
    assert!(repository.resolve_short(&short, minutes(717), minutes(957)).await.unwrap().is_some());
    assert!(repository.resolve_short(&short, minutes(957), minutes(1197)).await.unwrap().is_none());
}

async fn an_expired_short_link_is_remembered_and_lives_again_when_its_room_asks_for_one(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    let short = repository.short_link(&friday, minutes(0), minutes(240)).await.unwrap();
    assert_eq!(repository.resolve_short(&short, minutes(241), minutes(481)).await.unwrap(), None);
    assert_eq!(repository.recall_short(&short).await.unwrap(), Some(friday.clone()));
    assert_eq!(repository.short_link(&friday, minutes(242), minutes(482)).await.unwrap(), short);
    assert_eq!(repository.resolve_short(&short, minutes(243), minutes(483)).await.unwrap(), Some(friday));
    repository.prune(minutes(482)).await.unwrap();
    assert_eq!(repository.recall_short(&short).await.unwrap(), Some(room("friday")), "it had been used");
    repository.prune(minutes(484)).await.unwrap();
    assert_eq!(repository.recall_short(&short).await.unwrap(), None);
}

async fn the_short_link_of_a_room_that_ends_expires_with_it_and_is_remembered(backend: impl Backend) {
    let (friday, sunday, repository) = (room("friday"), room("sunday"), backend.open().await.unwrap());
    let both = [created(&friday, Head::default(), EPOCH), created(&sunday, Head::default(), EPOCH)];
    repository.append(&both).await.unwrap();
    let gone = repository.short_link(&friday, minutes(0), minutes(240)).await.unwrap();
    let kept = repository.short_link(&sunday, minutes(0), minutes(240)).await.unwrap();
    repository.append(&[ended(&friday, head(EPOCH, 1)), after(&sunday, head(EPOCH, 1))]).await.unwrap();
    assert_eq!(repository.resolve_short(&gone, minutes(1), minutes(241)).await.unwrap(), None);
    assert_eq!(repository.recall_short(&gone).await.unwrap(), Some(friday));
    assert_eq!(repository.resolve_short(&kept, minutes(1), minutes(241)).await.unwrap(), Some(sunday));
}

/// v2 drew a byte modulo 36.
async fn digits_of_short_links_are_equally_likely(backend: impl Backend) {
    let repository = backend.open().await.unwrap();
    let mut counts = [0_u32; 36];
    let mut total = 0;
    let mut count = |short: &ShortId| {
        for digit in short.as_str().bytes() {
            let place = ShortId::ALPHABET.iter().position(|known| *known == digit).expect("a digit of base 36");
            counts[place] += 1;
            total += 1;
        }
    };
    // A few through the database, to see that it hands out what was drawn; the many straight from the source.
    for number in 0..200 {
        count(&repository.short_link(&room(&format!("room-{number}")), minutes(0), minutes(240)).await.unwrap());
    }
    for _ in 0..20_000 {
        count(&ShortId::random());
    }
    let expected = f64::from(total) / 36.0;
    let chi_square: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    // 35 degrees of freedom: chance passes 100 once in 40 million runs; a byte modulo 36 gives over 200.
    assert!(chi_square < 100.0, "chi-square {chi_square}: {counts:?}");
}

async fn a_closed_repository_answers_with_an_error_and_not_with_a_panic(backend: impl Backend) {
    let (friday, repository) = (room("friday"), backend.open().await.unwrap());
    repository.close().await;
    repository.close().await;
    assert!(repository.append(&[created(&friday, Head::default(), EPOCH)]).await.is_err());
    assert!(repository.heads(std::slice::from_ref(&friday)).await.is_err());
    assert!(repository.live_rooms().await.is_err());
    assert!(repository.events(&friday, Head::default(), 1).await.is_err());
    assert!(repository.prune(minutes(0)).await.is_err());
    assert!(repository.short_link(&friday, minutes(0), minutes(1)).await.is_err());
    assert!(repository.resolve_short(&ShortId::random(), minutes(0), minutes(1)).await.is_err());
    assert!(repository.ping().await.is_err());
    let repository = backend.open().await.unwrap();
    assert_eq!(live_heads(&*repository).await, [], "what was refused was not stored");
}

/// A room's first `count` commits, an event each.
fn steps(room: &RoomId, count: u64) -> Vec<Commit> {
    let first = created(room, Head::default(), EPOCH);
    std::iter::once(first).chain((1..count).map(|seq| after(room, head(EPOCH, seq)))).collect()
}

fn minutes(count: u64) -> RoomTime {
    RoomTime::from_millis(EPOCH as i64) + Duration::from_secs(60 * count)
}

async fn history(repository: &dyn Repository, room: &RoomId) -> Vec<Head> {
    repository.events(room, Head::default(), 1000).await.unwrap().iter().map(|event| event.head).collect()
}

async fn live_heads(repository: &dyn Repository) -> Vec<(RoomId, Head)> {
    let mut live: Vec<_> =
        repository.live_rooms().await.unwrap().into_iter().map(|snapshot| (snapshot.room, snapshot.head)).collect();
    live.sort_unstable();
    live
}

on!(sqlite);
on!(postgres);
