//! What only a server can do: be opened by many at once, be out of reach, die, and be written by several nodes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/postgres.rs"]
mod postgres_server;
#[path = "support/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use commits::{EPOCH, after, commit, created, ended, head, room, row_of, time};
use futures_util::future::join_all;
use postgres_server::{Database, Server};
use proxy::{Proxy, Trap};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use sqlx::Connection;
use tandem::config::Postgres;
use tandem::domain::{Head, RoomId, ShortId};
use tandem::log::Commit;
use tandem::repository::postgres::{Limits, PostgresRepository};
use tandem::repository::{Repository, RepositoryError};

/// No test takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(60);
/// Short, for tests that see time run out.
const SOON: Limits = Limits { connect: Duration::from_millis(500), answer: Duration::from_millis(1000) };

/// Fault 29: of several pods of v2 that started on an empty database one migrated and the others died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_that_open_an_empty_database_at_the_same_instant_all_succeed() {
    for _ in 0..3 {
        let database = Database::create().await;
        let settings = database.settings();
        let nodes = join_all((0..4).map(|_| open(&settings))).await;
        for (number, node) in nodes.into_iter().enumerate() {
            let (node, room) = (node.unwrap(), room(&format!("room-{number}")));
            node.append(&[created(&room, Head::default(), EPOCH)]).await.unwrap();
            assert_eq!(node.live_rooms().await.unwrap().len(), number + 1);
        }
        assert_eq!(database.ask("SELECT count(*) FROM _sqlx_migrations").await, text(&["1"]));
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let database = Database::create().await;
    open(&database.settings()).await.unwrap().close().await;
    database
        .ask("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', true, '', 0)")
        .await;
    for _ in 0..2 {
        let error = open(&database.settings()).await.unwrap_err();
        assert!(matches!(error, RepositoryError::Newer { found: 99, .. }), "{error:?}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named_soon_and_without_its_password() {
    let database = Database::create().await;
    let proxy = Proxy::to(database.address()).await;
    let port = proxy.address().port();
    let open = async |url: String| {
        let settings = Postgres { url: url.into(), pool_size: 2 };
        let opening = open_soon(&settings);
        tokio::time::timeout(SOON.answer * 3, opening).await.expect("soon").unwrap_err()
    };
    let error = open(format!("postgres://ann:secret@127.0.0.1:{port}/nosuch")).await;
    assert!(matches!(error, RepositoryError::Open { .. }), "{error:?}");
    proxy.cut();
    let cut = open(format!("postgres://ann:secret@127.0.0.1:{port}/film")).await;
    assert!(matches!(cut, RepositoryError::Open { .. }), "{cut:?}");
    proxy.heal();
    proxy.stall();
    let stalled = open(format!("postgres://ann:secret@127.0.0.1:{port}/film")).await;
    assert!(matches!(stalled, RepositoryError::Silent { .. }), "{stalled:?}");
    for error in [error, cut, stalled] {
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}

/// The server of the tests has no certificate.
#[tokio::test]
async fn a_url_that_demands_tls_gets_no_connection_without() {
    use secrecy::ExposeSecret;
    let database = Database::create().await;
    let url = format!("{}?sslmode=require", database.settings().url.expose_secret());
    let error = open(&Postgres { url: url.into(), pool_size: 2 }).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("tls"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_appenders_of_overlapping_repeated_pieces_of_a_stream_store_what_one_would_have() {
    let deadline = tokio::time::timeout(DEADLINE, async {
        for seed in 0..6 {
            let stream = stream(8, 25);
            let (alone, both) = (Database::create().await, Database::create().await);
            let one = open(&alone.settings()).await.unwrap();
            one.append(&stream).await.unwrap();
            let nodes = [node(&both).await, node(&both).await];
            // Pieces of the stream, each given to both, some of them again and again. Both go forward, at their own pace:
            // whatever comes before a piece was appended by its own appender.
            join_all(nodes.iter().enumerate().map(|(number, node)| {
                let (stream, mut random) = (&stream, SmallRng::seed_from_u64(seed * 2 + number as u64));
                async move {
                    let mut done = 0;
                    while done < stream.len() {
                        let begin = done.saturating_sub(rand::RngExt::random_range(&mut random, 0..30));
                        let end = (done + rand::RngExt::random_range(&mut random, 1..40)).min(stream.len());
                        node.append(&stream[begin..end]).await.unwrap();
                        done = end;
                    }
                }
            }))
            .await;
            assert_eq!(dump(&both).await, dump(&alone).await, "seed {seed}");
            assert_eq!(nodes[0].live_rooms().await.unwrap(), one.live_rooms().await.unwrap());
        }
    });
    deadline.await.expect("it hangs");
}

/// A node that was cut off comes back with what it had, in any order, while another goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_in_any_order_from_two_appenders_end_with_every_event_once_and_every_room_at_its_latest() {
    let deadline = tokio::time::timeout(DEADLINE, async {
        for seed in 0..6 {
            let stream = stream(8, 25);
            let (alone, both) = (Database::create().await, Database::create().await);
            node(&alone).await.append(&stream).await.unwrap();
            let nodes = [node(&both).await, node(&both).await];
            join_all(nodes.iter().enumerate().map(|(number, node)| {
                let mut random = SmallRng::seed_from_u64(seed * 2 + number as u64);
                let mut pile: Vec<Commit> = stream.iter().chain(&stream[..stream.len() / 3]).cloned().collect();
                pile.shuffle(&mut random);
                async move {
                    for batch in pile.chunks(17) {
                        node.append(batch).await.unwrap();
                    }
                }
            }))
            .await;
            let (both, alone) = (dump(&both).await, dump(&alone).await);
            assert_eq!(both["room_events"], alone["room_events"], "seed {seed}");
            assert_eq!(both["rooms"], alone["rooms"], "seed {seed}");
            assert_eq!(both["room_fields"], alone["room_fields"], "each commit of these says all there is");
        }
    });
    deadline.await.expect("it hangs");
}

#[tokio::test]
async fn an_append_while_the_network_is_cut_is_an_error_stores_nothing_and_the_next_one_works() {
    let (database, proxy, node) = behind_proxy().await;
    let friday = room("friday");
    node.append(&[created(&friday, Head::default(), EPOCH)]).await.unwrap();
    proxy.cut();
    let batch = [after(&friday, head(EPOCH, 1))];
    let failing = async {
        assert!(node.append(&batch).await.is_err());
        assert!(node.ping().await.is_err());
        assert!(node.heads(std::slice::from_ref(&friday)).await.is_err());
    };
    tokio::time::timeout(SOON.answer * 6, failing).await.expect("soon");
    assert_eq!(database.ask("SELECT seq FROM rooms").await, text(&["1"]));
    proxy.heal();
    // Nothing to be told, nothing to wait for.
    node.append(&batch).await.unwrap();
    assert_eq!(database.ask("SELECT seq FROM room_events ORDER BY seq").await, text(&["1", "2"]));
}

#[tokio::test]
async fn connections_that_broke_while_nobody_used_them_are_replaced_unnoticed() {
    let (database, proxy, node) = behind_proxy().await;
    join_all((0..6).map(|_| node.ping())).await.into_iter().for_each(Result::unwrap);
    proxy.cut();
    proxy.heal();
    node.ping().await.unwrap();
    let kill = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE application_name = 'tandem' \
                AND datname = current_database()";
    assert!(!database.ask(kill).await.is_empty());
    node.ping().await.unwrap();
}

#[tokio::test]
async fn a_batch_whose_commit_never_reached_the_server_is_not_there_in_part() {
    let (database, proxy, node) = behind_proxy().await;
    let batch = stream(3, 4);
    proxy.set_trap("COMMIT", Trap::CutBefore);
    node.append(&batch).await.unwrap_err();
    proxy.trapped().await;
    proxy.heal();
    let rooms: Vec<RoomId> = batch.iter().map(|commit| commit.room.clone()).collect();
    assert_eq!(node.heads(&rooms).await.unwrap(), BTreeMap::new());
    assert_eq!(dump(&database).await.values().flatten().count(), 0);
    node.append(&batch).await.unwrap();
    assert_eq!(node.heads(&rooms).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_batch_whose_acknowledgement_was_lost_is_there_and_appending_it_again_changes_nothing() {
    let (database, proxy, node) = behind_proxy().await;
    let batch = stream(3, 4);
    proxy.set_trap("COMMIT", Trap::CutAfter);
    node.append(&batch).await.unwrap_err();
    proxy.heal();
    let rooms: Vec<RoomId> = batch.iter().map(|commit| commit.room.clone()).collect();
    assert_eq!(heads(&node, &rooms).await.len(), 3);
    let before = dump(&database).await;
    node.append(&batch).await.unwrap();
    assert_eq!(dump(&database).await, before);
}

/// The commit is still on its way when somebody asks: the answer must be true afterwards too.
#[tokio::test]
async fn heads_do_not_answer_before_an_append_in_doubt_is_decided() {
    let (database, proxy, node) = behind_proxy().await;
    let friday = room("friday");
    proxy.set_trap("COMMIT", Trap::Hold);
    let batch = [created(&friday, Head::default(), EPOCH)];
    let error = node.append(&batch).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Silent { .. }), "{error:?}");
    let rooms = [friday];
    let said = heads(&node, &rooms).await;
    proxy.release();
    // Another commit by the same road: what was held has arrived by then.
    node.append(&[created(&room("sunday"), Head::default(), EPOCH)]).await.unwrap();
    assert_eq!(heads(&node, &rooms).await, said);
    assert_eq!(database.ask("SELECT room_id FROM room_events WHERE room_id = 'friday'").await, []);
    node.append(&batch).await.unwrap();
    assert_eq!(heads(&node, &rooms).await.len(), 1);
}

#[tokio::test]
async fn a_stalled_network_is_an_error_within_the_limits_whatever_is_asked_and_heals() {
    let (_database, proxy, node) = behind_proxy().await;
    let friday = room("friday");
    node.append(&[created(&friday, Head::default(), EPOCH)]).await.unwrap();
    join_all((0..6).map(|_| node.ping())).await.into_iter().for_each(Result::unwrap);
    proxy.stall();
    let all = async {
        // More askers than connections.
        let pings = join_all((0..20).map(|_| node.ping())).await;
        assert!(pings.iter().all(|ping| matches!(ping, Err(RepositoryError::Silent { .. }))), "{pings:?}");
        assert!(node.append(&[after(&friday, head(EPOCH, 1))]).await.is_err());
        assert!(node.short_link(&friday, time(head(EPOCH, 1)), time(head(EPOCH, 2))).await.is_err());
    };
    tokio::time::timeout(SOON.answer * 8, all).await.expect("soon");
    proxy.heal();
    until_ok(|| node.ping()).await;
    node.append(&[after(&friday, head(EPOCH, 1))]).await.unwrap();
}

/// Somebody gave up waiting in the middle of a statement; the next one must not get the answer meant for it.
#[tokio::test]
async fn a_call_that_was_broken_off_leaves_no_connection_in_a_strange_state() {
    let (_database, proxy, node) = behind_proxy().await;
    let (friday, sunday) = (room("friday"), room("sunday"));
    node.append(&[created(&friday, Head::default(), EPOCH)]).await.unwrap();
    proxy.delay(Duration::from_millis(10));
    for millis in 0..40 {
        let batch = [created(&sunday, Head::default(), EPOCH)];
        let broken = tokio::time::timeout(Duration::from_millis(millis * 4), node.append(&batch));
        let _ = broken.await;
        assert_eq!(node.events(&friday, Head::default(), 9).await.unwrap().len(), 1);
    }
    proxy.heal();
    node.append(&[created(&sunday, Head::default(), EPOCH)]).await.unwrap();
    assert_eq!(node.live_rooms().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_that_was_killed_has_all_that_was_acknowledged_and_is_found_again_when_it_is_back() {
    let server = Server::start();
    let node = open_soon(&server.settings()).await.unwrap();
    let friday = room("friday");
    node.append(&[created(&friday, Head::default(), EPOCH)]).await.unwrap();
    server.kill();
    node.append(&[after(&friday, head(EPOCH, 1))]).await.unwrap_err();
    node.ping().await.unwrap_err();
    server.run();
    until_ok(|| node.ping()).await;
    let rooms = [friday];
    assert_eq!(heads(&node, &rooms).await, BTreeMap::from([(rooms[0].clone(), head(EPOCH, 1))]));
    node.append(&[after(&rooms[0], head(EPOCH, 1))]).await.unwrap();
}

#[tokio::test]
async fn events_go_to_the_partition_of_their_month_and_are_unique_across_all() {
    let database = Database::create().await;
    let node = node(&database).await;
    let friday = room("friday");
    const MONTH: u64 = 31 * 24 * 3600 * 1000;
    // The last two no clock ever said.
    let epochs = [EPOCH - MONTH, EPOCH, EPOCH + MONTH, 1, 9_000_000_000_000];
    let mut batch = Vec::new();
    for epoch in epochs {
        // Hours into the next month, for one of them.
        let far = commit(&friday, head(epoch, 1), &[head(epoch, 2), head(epoch, 2_000_000)]);
        batch.extend([created(&friday, Head::default(), epoch), far]);
    }
    for _ in 0..2 {
        node.append(&batch).await.unwrap();
        batch.reverse();
    }
    let tables = "SELECT tableoid::regclass || ' ' || count(*) FROM room_events GROUP BY tableoid ORDER BY 1";
    let expected = ["room_events_2026_10 3", "room_events_2026_11 3", "room_events_2026_12 3", "room_events_default 6"];
    assert_eq!(database.ask(tables).await, text(&expected));
    assert_eq!(node.events(&friday, Head::default(), 100).await.unwrap().len(), 15);
    assert_eq!(node.events(&friday, head(EPOCH, 1), 100).await.unwrap().len(), 8);
}

#[tokio::test]
async fn the_partitions_of_this_month_and_the_next_are_there_before_anybody_needs_them() {
    let database = Database::create().await;
    node(&database).await;
    let missing = "SELECT month::date::text FROM unnest(ARRAY[now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC' + \
                   interval '1 month']) AS month WHERE to_regclass('room_events_' || to_char(month, 'YYYY_MM')) IS NULL";
    assert_eq!(database.ask(missing).await, []);
}

/// A backup holds its locks for an hour.
#[tokio::test]
async fn appends_do_not_wait_for_a_backup_at_the_turn_of_the_month() {
    let database = Database::create().await;
    let node = node(&database).await;
    let mut backup = database.shell().await;
    let mut reading = backup.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE room_events, room_events_default IN ACCESS SHARE MODE")
        .execute(&mut *reading)
        .await
        .unwrap();
    let friday = room("friday");
    let later = EPOCH + 400 * 24 * 3600 * 1000;
    node.append(&[created(&friday, Head::default(), later)]).await.unwrap();
    reading.rollback().await.unwrap();
    node.append(&[after(&friday, head(later, 1))]).await.unwrap();
    assert_eq!(node.events(&friday, Head::default(), 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_month_in_which_nothing_is_young_is_dropped_whole_and_can_come_back() {
    let database = Database::create().await;
    let node = node(&database).await;
    let (friday, sunday) = (room("friday"), room("sunday"));
    const MONTH: u64 = 31 * 24 * 3600 * 1000;
    let (old, older) = (EPOCH - MONTH, EPOCH - 2 * MONTH);
    // More than one call deletes row by row.
    let heads: Vec<Head> = (2..=12_000).map(|seq| head(older, seq)).collect();
    node.append(&[created(&friday, Head::default(), older), commit(&friday, head(older, 1), &heads)]).await.unwrap();
    // A room that goes on: of its month something is young.
    let late = head(old, MONTH / 1000);
    let batch = [created(&sunday, Head::default(), old), commit(&sunday, head(old, 1), &[head(old, 2), late])];
    node.append(&batch).await.unwrap();
    let tables =
        "SELECT relname FROM pg_class WHERE relname IN ('room_events_2026_09', 'room_events_2026_10') ORDER BY 1";
    assert_eq!(database.ask(tables).await, text(&["room_events_2026_09", "room_events_2026_10"]));
    assert_eq!(node.prune(time(late)).await.unwrap(), 12_000 + 2);
    assert_eq!(database.ask(tables).await, text(&["room_events_2026_10"]));
    assert_eq!(node.prune(time(late)).await.unwrap(), 0);
    assert_eq!(node.events(&sunday, Head::default(), 9).await.unwrap().len(), 1);
    // A node that was away for two months.
    node.append(&[commit(&friday, head(older, 1), &[head(older, 2)])]).await.unwrap();
    assert_eq!(node.events(&friday, Head::default(), 9).await.unwrap().len(), 1);
    assert_eq!(database.ask(tables).await, text(&["room_events_2026_09", "room_events_2026_10"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_prune_at_the_same_time_disturb_neither_each_other_nor_those_who_append() {
    let deadline = tokio::time::timeout(DEADLINE, async {
        let database = Database::create().await;
        let nodes = [node(&database).await, node(&database).await, node(&database).await];
        let rooms: Vec<RoomId> = (0..40).map(|number| room(&format!("room-{number:02}"))).collect();
        for round in 0..10 {
            let epoch = EPOCH + round * 60_000;
            let first: Vec<Commit> = rooms.iter().map(|room| created(room, Head::default(), epoch)).collect();
            let end: Vec<Commit> = rooms.iter().rev().map(|room| ended(room, head(epoch, 1))).collect();
            let before = time(head(epoch, 3));
            let (a, b, c) = tokio::join!(
                async { nodes[0].append(&first).await.and(nodes[0].append(&end).await) },
                async { nodes[1].prune(before).await.and(nodes[1].prune(before).await) },
                async { nodes[2].prune(before).await.and(nodes[2].append(&end).await) },
            );
            a.unwrap();
            b.unwrap();
            c.unwrap();
        }
        let before = time(head(EPOCH + 3_600_000, 3));
        nodes[0].prune(before).await.unwrap();
        assert_eq!(dump(&database).await.values().flatten().count(), 0);
    });
    deadline.await.expect("it hangs");
}

/// PostgreSQL's text takes every character but one.
#[tokio::test]
async fn a_text_with_a_zero_byte_does_not_hold_up_the_batch() {
    let database = Database::create().await;
    let node = node(&database).await;
    let mut odd = created(&room("friday"), Head::default(), EPOCH);
    odd.row.url = Some("https://example.org/\0".to_owned());
    odd.row.users[0].name = "A\0nn".to_owned();
    let mut entries = odd.entries.to_vec();
    entries[0].audit = Bytes::from_static(b"\0\xff");
    odd.entries = entries.into();
    node.append(&[odd, created(&room("sunday"), Head::default(), EPOCH)]).await.unwrap();
    assert_eq!(database.ask("SELECT username FROM users WHERE room_id = 'friday'").await, text(&["A\u{FFFD}nn"]));
    assert_eq!(node.live_rooms().await.unwrap().len(), 2);
}

/// Every draw is made the same by a trigger.
#[tokio::test]
async fn draws_that_hit_a_living_short_id_end_with_an_error_and_an_expired_one_is_taken_over() {
    let database = Database::create().await;
    let node = node(&database).await;
    database
        .ask(
            "CREATE FUNCTION always() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN NEW.short_id := 'aaaaaaa'; RETURN NEW; END $$; \
             CREATE TRIGGER always BEFORE INSERT ON short_links FOR EACH ROW EXECUTE FUNCTION always()",
        )
        .await;
    let (friday, sunday) = (room("friday"), room("sunday"));
    let at = |second| time(head(EPOCH, second));
    node.short_link(&friday, at(0), at(60)).await.unwrap();
    let error = node.short_link(&sunday, at(59), at(100)).await.unwrap_err();
    assert!(matches!(error, RepositoryError::ShortIds), "{error:?}");
    let short = ShortId::parse("aaaaaaa").unwrap();
    assert_eq!(node.resolve_short(&short, at(59), at(60)).await.unwrap(), Some(friday));
    node.short_link(&sunday, at(60), at(100)).await.unwrap();
    assert_eq!(node.resolve_short(&short, at(61), at(100)).await.unwrap(), Some(sunday));
}

#[tokio::test]
async fn a_damaged_value_is_an_error_that_names_it() {
    let friday = room("friday");
    for (damage, named) in [
        ("UPDATE rooms SET room_id = 'not an id!'", "roomId"),
        ("UPDATE rooms SET seq = -1", "head"),
        ("ALTER TABLE room_events ALTER created_at TYPE text", "time"),
    ] {
        let database = Database::create().await;
        let node = node(&database).await;
        node.append(&[created(&friday, Head::default(), EPOCH)]).await.unwrap();
        database.ask("ALTER TABLE room_fields DROP CONSTRAINT room_fields_room_id_fkey").await;
        database.ask("ALTER TABLE users DROP CONSTRAINT users_room_id_fkey").await;
        database.ask(damage).await;
        let error = match node.live_rooms().await {
            Ok(_) => node.events(&friday, Head::default(), 10).await.expect_err(damage),
            Err(error) => error,
        };
        assert!(matches!(error, RepositoryError::Corrupt { what } if what == named), "{damage}: {error:?}");
    }
}

#[tokio::test]
#[ignore = "a measurement: cargo test --test postgres -- --ignored --nocapture rows"]
async fn rows_a_second() {
    let database = Database::create().await;
    let node = node(&database).await;
    let stream = stream(500, 200);
    let clock = tandem::clock::Clock::start();
    for size in [100, 1000, 10_000] {
        let begin = clock.now();
        database.ask("TRUNCATE rooms, users, room_fields, room_events, short_links").await;
        for batch in stream.chunks(size) {
            node.append(batch).await.unwrap();
        }
        let rate = stream.len() as f64 / clock.now().seconds_since(begin);
        println!("batches of {size}: {rate:.0} commits (an event each) a second");
    }
}

async fn open(settings: &Postgres) -> Result<PostgresRepository, RepositoryError> {
    PostgresRepository::open(&settings.url, settings.pool_size).await
}

async fn open_soon(settings: &Postgres) -> Result<PostgresRepository, RepositoryError> {
    PostgresRepository::open_within(&settings.url, settings.pool_size, SOON).await
}

async fn node(database: &Database) -> PostgresRepository {
    open(&database.settings()).await.unwrap()
}

async fn behind_proxy() -> (Database, Proxy, PostgresRepository) {
    let database = Database::create().await;
    let proxy = Proxy::to(database.address()).await;
    let settings = database.settings_through(proxy.address());
    let node = open_soon(&settings).await.unwrap();
    (database, proxy, node)
}

/// So many rooms, each of so many commits, all mixed: members come and go, a few rooms end and begin again. Every commit
/// says all of the room's fields.
fn stream(rooms: u64, commits: u64) -> Vec<Commit> {
    let mut random = SmallRng::seed_from_u64(rooms * commits);
    let mut left: Vec<(RoomId, Vec<Commit>)> = (0..rooms)
        .map(|number| {
            let room = room(&format!("room-{number:04}"));
            let mut at = head(EPOCH + number, 0);
            let mut story = Vec::new();
            for _ in 0..commits {
                let next = match at {
                    Head { seq: 0, epoch } => created(&room, Head::default(), epoch),
                    Head { seq: 9, .. } if number % 3 == 0 => ended(&room, at),
                    at => {
                        let mut next = after(&room, at);
                        let name = format!("user-{}", at.seq % 4);
                        let mut user = row_of(&name, (at.seq % 4) as u16 + 2, next.row.at);
                        user.left_at = (at.seq % 3 == 0).then_some(next.row.at);
                        next.row.users.push(user);
                        next.row.position = at.seq as f64;
                        next
                    }
                };
                at = if next.row.ended { head(at.epoch + 20_000, 0) } else { next.next };
                story.push(next);
            }
            story.reverse();
            (room, story)
        })
        .collect();
    let mut stream = Vec::new();
    while !left.is_empty() {
        let place = rand::RngExt::random_range(&mut random, 0..left.len());
        stream.extend(left[place].1.pop());
        left.retain(|(_, story)| !story.is_empty());
    }
    stream
}

/// Every row of every table, as text.
async fn dump(database: &Database) -> BTreeMap<&'static str, Vec<Option<String>>> {
    let mut dump = BTreeMap::new();
    for (table, sql) in [
        ("rooms", "SELECT (to_jsonb(rooms) - 'created_at')::text FROM rooms ORDER BY rooms"),
        ("created", "SELECT room_id || created_at FROM rooms ORDER BY 1"),
        ("users", "SELECT users::text FROM users ORDER BY users"),
        ("room_fields", "SELECT room_fields::text FROM room_fields ORDER BY room_fields"),
        ("room_events", "SELECT room_events::text FROM room_events ORDER BY room_events"),
    ] {
        dump.insert(table, database.ask(sql).await);
    }
    dump
}

/// Asks until there is an answer.
async fn heads(node: &PostgresRepository, rooms: &[RoomId]) -> BTreeMap<RoomId, Head> {
    until_ok(|| node.heads(rooms)).await
}

async fn until_ok<T, E, F: Future<Output = Result<T, E>>>(mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.expect("an answer some time")
}

fn text(lines: &[&str]) -> Vec<Option<String>> {
    lines.iter().map(|line| Some((*line).to_owned())).collect()
}
