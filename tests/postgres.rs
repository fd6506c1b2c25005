//! What only a server can do: be opened and written by many nodes at once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/postgres.rs"]
mod postgres_server;

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use commits::{EPOCH, after, created, ended, head, room, row_of, time, user};
use futures_util::future::join_all;
use postgres_server::Database;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use sqlx::Connection;
use tandem::commit::{Commit, MemberReport};
use tandem::config::Postgres;
use tandem::domain::{Head, RoomId, ShortId};
use tandem::repository::postgres::PostgresRepository;
use tandem::repository::{Repository, RepositoryError};

/// No test takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(120);

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
        assert_eq!(database.ask("SELECT count(*) FROM _sqlx_migrations").await, text(&["3"]));
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

/// A command of the runbook: what stands between these two.
fn typed(from: &str, to: &str) -> &'static str {
    let page = include_str!("../docs/OPERATIONS.md");
    let start = page.find(from).unwrap_or_else(|| panic!("the page has no {from}"));
    page[start..].split(to).next().unwrap().trim()
}

#[tokio::test]
async fn a_backup_comes_back_over_what_happened_since_by_the_commands_of_the_runbook() {
    let database = Database::create().await;
    let (friday, saturday) = (room("friday"), room("saturday"));
    let before = node(&database).await;
    before.append(&[created(&friday, Head::default(), EPOCH)]).await.unwrap();
    let mut dump = tempfile::tempfile().unwrap();
    dump.write_all(&database.tool(typed("pg_dump", " >tandem.dump"), Stdio::null())).unwrap();
    dump.rewind().unwrap();
    before.append(&[created(&saturday, Head::default(), EPOCH)]).await.unwrap();
    before.close().await;

    database.tool(typed("pg_restore", " <tandem.dump"), dump.into());
    let after = node(&database).await;
    let live: Vec<_> = after.live_rooms().await.unwrap().into_iter().map(|snapshot| snapshot.room).collect();
    assert_eq!(live, [friday]);
    assert_eq!(database.ask("SELECT DISTINCT room_id FROM room_events").await, text(&["friday"]));
    // And it goes on from there.
    after.append(&[created(&saturday, Head::default(), EPOCH)]).await.unwrap();
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
        for seed in 0..3 {
            let stream = stream(8, 25);
            let (alone, both) = (Database::create().await, Database::create().await);
            let one = open(&alone.settings()).await.unwrap();
            one.append(&stream).await.unwrap();
            let nodes = [node(&both).await, node(&both).await];
            // Pieces of the stream, each given to both, some of them again and again. Both go forward, at their own
            // pace: whatever comes before a piece was appended by its own appender.
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
        for seed in 0..3 {
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

#[tokio::test]
async fn pruning_passes_by_what_an_append_has_its_hands_on() {
    let database = Database::create().await;
    let (node, friday, sunday) = (node(&database).await, room("friday"), room("sunday"));
    for room in [&friday, &sunday] {
        node.append(&[created(room, Head::default(), EPOCH), ended(room, head(EPOCH, 1))]).await.unwrap();
    }
    let mut appender = database.shell().await;
    let mut append = appender.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM rooms WHERE room_id = 'friday' FOR UPDATE").execute(&mut *append).await.unwrap();
    node.prune(time(head(EPOCH, 100))).await.unwrap();
    assert_eq!(database.ask("SELECT room_id FROM rooms").await, text(&["friday"]));
    append.rollback().await.unwrap();
    node.prune(time(head(EPOCH, 100))).await.unwrap();
    assert_eq!(database.ask("SELECT room_id FROM rooms").await, []);
}

#[tokio::test]
async fn reports_of_members_pass_by_a_room_that_an_append_has_locked() {
    let database = Database::create().await;
    let (node, rooms) = (node(&database).await, [room("friday"), room("sunday")]);
    node.append(&rooms.each_ref().map(|room| created(room, Head::default(), EPOCH))).await.unwrap();
    let mut appender = database.shell().await;
    let mut append = appender.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM rooms WHERE room_id = 'friday' FOR UPDATE").execute(&mut *append).await.unwrap();
    let reports = rooms.map(|room| MemberReport {
        room,
        user: user("ann"),
        position: Some(1.0),
        playing: Some(true),
        quality: None,
        at: time(head(EPOCH, 5)),
    });
    node.store_reports(&reports).await.unwrap();
    let shown = "SELECT room_id FROM users WHERE position IS NOT NULL ORDER BY room_id";
    assert_eq!(database.ask(shown).await, text(&["sunday"]));
    append.rollback().await.unwrap();
    node.store_reports(&reports).await.unwrap();
    assert_eq!(database.ask(shown).await, text(&["friday", "sunday"]));
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
async fn a_damaged_room_does_not_keep_the_others_from_coming_back() {
    for damage in ["UPDATE rooms SET room_id = 'no/id' WHERE seq = 1", "UPDATE rooms SET seq = -1 WHERE seq = 1"] {
        let database = Database::create().await;
        let (node, friday, sunday) = (node(&database).await, room("friday"), room("sunday"));
        node.append(&[created(&friday, Head::default(), EPOCH), created(&sunday, Head::default(), EPOCH)])
            .await
            .unwrap();
        node.append(&[after(&sunday, head(EPOCH, 1))]).await.unwrap();
        database.ask("ALTER TABLE room_fields DROP CONSTRAINT room_fields_room_id_fkey").await;
        database.ask("ALTER TABLE users DROP CONSTRAINT users_room_id_fkey").await;
        database.ask(damage).await;
        let rooms: Vec<_> = node.live_rooms().await.unwrap().into_iter().map(|room| room.room).collect();
        assert_eq!(rooms, [sunday], "{damage}");
    }
}

#[tokio::test]
async fn a_damaged_event_is_an_error_that_names_what_is_damaged() {
    let database = Database::create().await;
    let (node, friday) = (node(&database).await, room("friday"));
    node.append(&[created(&friday, Head::default(), EPOCH)]).await.unwrap();
    database.ask("ALTER TABLE room_events ALTER created_at TYPE text").await;
    let error = node.events(&friday, Head::default(), 10).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Corrupt { what: "time" }), "{error:?}");
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

async fn node(database: &Database) -> PostgresRepository {
    open(&database.settings()).await.unwrap()
}

/// So many rooms, each of so many commits, all mixed: members come and go, a few rooms end and begin again. Every
/// commit says all of the room's fields.
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
        ("created", "SELECT room_id || created_at::text FROM rooms ORDER BY 1"),
        ("users", "SELECT users::text FROM users ORDER BY users"),
        ("room_fields", "SELECT room_fields::text FROM room_fields ORDER BY room_fields"),
        ("room_events", "SELECT room_events::text FROM room_events ORDER BY room_events"),
    ] {
        dump.insert(table, database.ask(sql).await);
    }
    dump
}

fn text(lines: &[&str]) -> Vec<Option<String>> {
    lines.iter().map(|line| Some((*line).to_owned())).collect()
}

/// A database as 3.0.0 left it: its schema, its monthly partitions, and rows of all kinds.
async fn database_of_3_0_0() -> Database {
    let database = Database::create().await;
    let old = tempfile::tempdir().unwrap();
    let sql = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres/0001_rooms_users_events.sql");
    std::fs::copy(sql, old.path().join("0001_rooms_users_events.sql")).unwrap();
    let mut shell = database.shell().await;
    sqlx::migrate::Migrator::new(old.path()).await.unwrap().run_direct(None, &mut shell, false).await.unwrap();
    let filled = format!(
        r#"CREATE TABLE room_events_2026_10 PARTITION OF room_events FOR VALUES FROM (1790812800000) TO (1793491200000);
        CREATE TABLE room_events_2026_11 PARTITION OF room_events FOR VALUES FROM (1793491200000) TO (1796083200000);
        INSERT INTO rooms VALUES
        ('friday', {EPOCH}, 1, 'ann', 'https://example.org/old', 1.5, 1795000001000001, false, true, 1795000001000001, 1795000001234567, NULL),
        ('over', {EPOCH}, 9, NULL, NULL, 0, 5, false, false, 5, 9223372036854775807, 6);
        INSERT INTO room_fields VALUES ('friday', 'core', '{{}}');
        INSERT INTO users VALUES ('friday', 'ann', 'Ann', 1, true, 1795000001000001, 1795000001000002, NULL),
        ('over', 'ben', 'Ben', 2, false, 5, 6, 7);
        INSERT INTO short_links VALUES ('abc1234', 'friday', 1795000001000001, 1795000061000001);
        INSERT INTO room_events
        SELECT 'room-' || room, epoch, seq, 'chat', 'ann', '{{"chars":' || seq || '}}', epoch * 1000 + seq
        FROM generate_series(1, 20) room, unnest(ARRAY[1, 1792000000000, {EPOCH}]) epoch, generate_series(1, 50) seq;
        INSERT INTO room_events VALUES
        ('friday', {EPOCH}, 1, 'url_changed', 'ann', '{{"by":"ann","url":"https://example.org/old"}}', 1795000001000001);"#
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(filled)).execute(&mut shell).await.unwrap();
    database
}

#[tokio::test]
async fn a_filled_database_of_3_0_0_is_carried_over_and_goes_on() {
    let database = database_of_3_0_0().await;
    let node = node(&database).await;
    let friday = room("friday");
    let mut new = after(&friday, head(EPOCH, 1));
    let mut entries = new.entries.to_vec();
    entries[0].audit = "{\"by\":\"ann\",\"url\":\"https://example.org/new\"}".into();
    new.entries = entries.into();
    node.append(&[new]).await.unwrap();
    let events = node.events(&friday, Head::default(), 10).await.unwrap();
    let data: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
    let of = |name: &str| format!("{{\"by\":\"ann\",\"url\":\"https://example.org/{name}\"}}");
    assert_eq!(data, [of("old"), of("new")]);
    assert_eq!(events[0].at.as_micros(), 1_795_000_001_000_001);
    let all = "SELECT count(*) || ' ' || count(DISTINCT (room_id, epoch, seq)) || ' ' || sum((details->>'chars')::int) \
               || ' ' || bool_and(created_at = timestamptz 'epoch' + epoch * interval '1 ms' + seq * interval '1 us') \
               FROM room_events WHERE event_type = 'chat'";
    assert_eq!(database.ask(all).await, text(&["3000 3000 76500 true"]));
    let utc =
        |column: &str, table: &str| format!("SELECT ({column} AT TIME ZONE 'UTC')::text FROM {table} ORDER BY room_id");
    assert_eq!(
        database.ask(&utc("created_at", "users")).await,
        text(&["2026-11-18 11:06:41.000001", "1970-01-01 00:00:00.000005"])
    );
    assert_eq!(database.ask(&utc("updated_at", "rooms")).await[1], text(&["9999-12-31 23:59:59.999999"])[0]);
    let live: Vec<_> = node.live_rooms().await.unwrap().into_iter().map(|room| (room.room, room.head)).collect();
    assert_eq!(live, [(friday.clone(), head(EPOCH, 2))]);
    let short = ShortId::parse("abc1234").unwrap();
    let now = tandem::domain::RoomTime::from_micros(1_795_000_001_000_002);
    assert_eq!(node.resolve_short(&short, now, now + Duration::from_secs(600)).await.unwrap(), Some(friday));
    assert_eq!(database.ask("SELECT count(*) FROM pg_inherits").await, text(&["0"]), "no partitions are left");
}

/// 3.0.0 stored whatever bytes an entry had.
#[tokio::test]
async fn history_of_3_0_0_that_is_no_json_is_carried_over_as_text() {
    let database = database_of_3_0_0().await;
    database
        .ask(&format!(
            r#"INSERT INTO room_events VALUES ('odd', {EPOCH}, 1, 'x', NULL, 'no json', 5), ('odd', {EPOCH}, 2, 'x', NULL, '{{"a":"\u0000"}}', 5)"#
        ))
        .await;
    let events = node(&database).await.events(&room("odd"), Head::default(), 10).await.unwrap();
    let data: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
    assert_eq!(data, ["\"no json\"", "{\"a\":\"\u{FFFD}\"}"]);
    assert_eq!(database.ask("SELECT count(*) FROM room_events").await, text(&["3003"]));
}

/// During a roll-out a node of 3.0.0 may still append, prune and make partitions. Each of its transactions fails as a
/// whole, so its commits stay in Redis' outbox, for a node of this version to store.
#[tokio::test]
async fn a_node_of_3_0_0_that_still_writes_stores_nothing_and_breaks_nothing() {
    let database = database_of_3_0_0().await;
    let node = node(&database).await;
    node.append(&[after(&room("friday"), head(EPOCH, 1))]).await.unwrap();
    let before = dump(&database).await;
    for statement in [
        "INSERT INTO rooms (room_id, epoch, seq, current_time_s, position_at, is_playing, guest_control, created_at, updated_at) \
         SELECT room_id, -1, 0, 0, 0, false, false, 0, 0 FROM unnest('{old}'::text[]) AS room_id \
         ON CONFLICT (room_id) DO UPDATE SET seq = rooms.seq WHERE false",
        "INSERT INTO room_events (room_id, epoch, seq, kind, user_id, data, created_at) VALUES ('old', 1, 1, 'x', NULL, '{}', 5)",
        "DELETE FROM room_events_default WHERE ctid = ANY(ARRAY(SELECT ctid FROM room_events_default WHERE created_at < 5))",
        "DELETE FROM users WHERE ctid = ANY(ARRAY(SELECT ctid FROM users WHERE left_at < 9000000000000000::bigint LIMIT 5))",
        "UPDATE short_links SET expires_at = 5::bigint WHERE room_id = 'friday' RETURNING short_id",
        "CREATE TABLE room_events_2026_12 (LIKE room_events INCLUDING ALL); ALTER TABLE room_events \
         ATTACH PARTITION room_events_2026_12 FOR VALUES FROM (1796083200000) TO (1798761600000)",
    ] {
        let refused = sqlx::raw_sql(statement).execute(&mut database.shell().await).await;
        assert!(matches!(refused, Err(sqlx::Error::Database(_))), "{statement}: {refused:?}");
    }
    assert_eq!(dump(&database).await, before);
    assert_eq!(database.ask("SELECT to_regclass('room_events_2026_12')").await, [None]);
    node.append(&[after(&room("friday"), head(EPOCH, 2))]).await.unwrap();
}
