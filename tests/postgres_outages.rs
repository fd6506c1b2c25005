//! The database is out of reach, silent, or dies: calls fail soon and say so, nothing is half-written, and it works
//! again by itself afterwards.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/authority.rs"]
mod authority;
#[path = "support/commits.rs"]
mod commits;
#[path = "support/postgres.rs"]
mod postgres_server;
#[path = "support/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::time::Duration;

use authority::Authority;
use commits::{EPOCH, after, created, ended, head, room, time};
use futures_util::future::join_all;
use postgres_server::{Database, Server};
use proxy::{Proxy, Trap};
use secrecy::ExposeSecret;
use tandem::commit::Commit;
use tandem::config::Postgres;
use tandem::domain::{Head, RoomId};
use tandem::repository::postgres::{PostgresRepository, TimeLimits};
use tandem::repository::{Repository, RepositoryError};

/// No test takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(120);
/// Short, for tests that see time run out.
const SOON: TimeLimits = TimeLimits { connect: Duration::from_millis(500), answer: Duration::from_millis(1000) };
/// One line a row, of all tables that an append writes.
const EVERYTHING: &str = "SELECT rooms::text FROM rooms UNION ALL SELECT users::text FROM users \
                          UNION ALL SELECT room_fields::text FROM room_fields \
                          UNION ALL SELECT room_events::text FROM room_events ORDER BY 1";

#[tokio::test]
async fn over_tls_with_a_private_authority_named_in_the_url() {
    let (ours, another) = (Authority::new(), Authority::new());
    let server = Server::start();
    server.encrypt(&ours.certificate(), &ours.key()).await;
    let open = async |root: &Authority| {
        let url = server.settings().url.expose_secret().to_owned();
        let url = format!("{url}?sslmode=verify-full&sslrootcert={}", root.root().display());
        PostgresRepository::open(&url.into(), 2).await
    };
    // The server takes its certificate into use a moment after it was told to.
    let repository = tokio::time::timeout(DEADLINE, async {
        loop {
            match open(&ours).await {
                Ok(repository) => return repository,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let repository = repository.await.expect("a connection");
    repository.append(&[created(&room("friday"), Head::default(), EPOCH)]).await.unwrap();
    assert_eq!(repository.live_rooms().await.unwrap().len(), 1);
    let error = open(&another).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Open { .. }), "{error:?}");
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
    let batch = three_rooms();
    proxy.set_trap("COMMIT", Trap::CutBefore);
    node.append(&batch).await.unwrap_err();
    proxy.trapped().await;
    proxy.heal();
    let rooms: Vec<RoomId> = batch.iter().map(|commit| commit.room.clone()).collect();
    assert_eq!(node.heads(&rooms).await.unwrap(), BTreeMap::new());
    assert_eq!(database.ask(EVERYTHING).await, []);
    node.append(&batch).await.unwrap();
    assert_eq!(node.heads(&rooms).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_batch_whose_acknowledgement_was_lost_is_there_and_appending_it_again_changes_nothing() {
    let (database, proxy, node) = behind_proxy().await;
    let batch = three_rooms();
    proxy.set_trap("COMMIT", Trap::CutAfter);
    node.append(&batch).await.unwrap_err();
    proxy.heal();
    let rooms: Vec<RoomId> = batch.iter().map(|commit| commit.room.clone()).collect();
    assert_eq!(heads(&node, &rooms).await.len(), 3);
    let before = database.ask(EVERYTHING).await;
    node.append(&batch).await.unwrap();
    assert_eq!(database.ask(EVERYTHING).await, before);
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

/// Whether they were at work or idle just then: the pool must not go on counting them.
#[tokio::test]
async fn connections_that_a_router_forgot_are_given_up_and_replaced() {
    let (_database, proxy, node) = behind_proxy().await;
    let rooms: Vec<RoomId> = (0..6).map(|number| room(&format!("room-{number}"))).collect();
    let batches: Vec<[Commit; 1]> = rooms.iter().map(|room| [created(room, Head::default(), EPOCH)]).collect();
    proxy.delay(Duration::from_millis(50));
    // All six connections of the pool are at work when the trap closes on one of them.
    proxy.set_trap("unnest", Trap::Hold);
    let appending = join_all(batches.iter().map(|batch| node.append(batch)));
    let (ends, ()) = tokio::join!(appending, async {
        proxy.trapped().await;
        proxy.forget();
        proxy.heal();
    });
    assert!(ends.iter().all(|end| matches!(end, Err(RepositoryError::Silent { .. }))), "{ends:?}");
    join_all(batches.iter().map(|batch| node.append(batch))).await.into_iter().for_each(Result::unwrap);
    // Idle ones: each is found out by the one call that gets it.
    proxy.forget();
    let recovering = async { while join_all((0..6).map(|_| node.ping())).await.iter().any(Result::is_err) {} };
    tokio::time::timeout(SOON.connect * 8, recovering).await.expect("six connections, one wait for each at the most");
}

/// Somebody gave up waiting in the middle of a statement; the next one must not get the answer meant for it.
#[tokio::test]
async fn a_call_that_was_broken_off_leaves_no_connection_in_a_strange_state() {
    let (_database, proxy, node) = behind_proxy().await;
    let (friday, sunday) = (room("friday"), room("sunday"));
    node.append(&[created(&friday, Head::default(), EPOCH)]).await.unwrap();
    proxy.delay(Duration::from_millis(10));
    for step in 0..20 {
        let batch = [created(&sunday, Head::default(), EPOCH)];
        let broken = tokio::time::timeout(Duration::from_millis(step * 15), node.append(&batch));
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

async fn open_soon(settings: &Postgres) -> Result<PostgresRepository, RepositoryError> {
    PostgresRepository::open_within(&settings.url, settings.pool_size, SOON).await
}

async fn behind_proxy() -> (Database, Proxy, PostgresRepository) {
    let database = Database::create().await;
    let proxy = Proxy::to(database.address()).await;
    let settings = database.settings_through(proxy.address());
    let node = open_soon(&settings).await.unwrap();
    (database, proxy, node)
}

/// A batch of several commits a room.
fn three_rooms() -> Vec<Commit> {
    let rooms = ["friday", "saturday", "sunday"].map(room);
    let first = rooms.iter().map(|room| created(room, Head::default(), EPOCH));
    first
        .chain(rooms.iter().map(|room| after(room, head(EPOCH, 1))))
        .chain([ended(&rooms[2], head(EPOCH, 2))])
        .collect()
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
