//! What v2 got wrong, each with the tests that show that v3 doesn't. A test compares this table with the sources: every
//! test named here exists, and every test that calls itself `fault_NN_…` is here, under its number.
//!
//! | fault | v2 | tests |
//! |---|---|---|
//! | 1 | a JOIN refused for its PIN still bound the socket | `fault_01_a_join_refused_for_its_pin_binds_nothing`, `a_pin_is_asked_and_guessing_it_is_throttled`, `a_refused_join_leaves_a_connection_who_it_was` |
//! | 2 | unlimited guesses at a PIN | `fault_02_guesses_at_a_pin_are_counted_however_they_come` |
//! | 3 | TTLs silently dropped | `fault_03_a_short_link_lives_from_its_last_use_and_ends`, `a_short_link_lives_from_its_last_use` |
//! | 4 | a PIN outlived its room | `fault_04_a_pin_ends_with_its_room`, `fault_04_a_pin_checked_against_the_room_before_is_checked_again`, `a_room_that_ended_does_not_come_back_and_one_whose_members_stay_away_ends` |
//! | 5 | anyone could act as the host | `fault_05_nobody_acts_as_the_host_by_naming_it`, `fault_05_a_client_cannot_say_who_it_is_except_to_join`, `a_token_of_somebody_else_opens_nothing` |
//! | 6 | guest control was not the server's to check | `fault_06_guest_control_is_the_room_s_to_check`, `what_the_host_decides_is_heard_by_all_and_a_guest_decides_nothing` |
//! | 7 | unknown types were relayed | `fault_07_nothing_is_relayed_because_it_is_unknown`, `what_can_not_be_read_is_refused_and_the_others_hear_nothing` |
//! | 8 | client fields were spread over the server's | `fault_08_the_fields_of_the_server_are_the_servers`, `calls_are_negotiated_between_two_and_nobody_else` |
//! | 9 | a numeric userId, or a database that is down, ended the process | `fault_09_an_id_that_is_not_a_text_is_a_refusal_and_no_end`, `fault_09_a_bad_join_and_a_disconnect_end_nothing_but_that_connection`, `what_the_hub_must_see_through_is_tried_until_the_log_is_back` |
//! | 10 | no sizes, no ranges | `fault_10_sizes_and_ranges_hold`, `a_message_above_the_limit_ends_its_sender_only` |
//! | 11 | the PIN in a path and in a redirect | `fault_11_a_pin_stands_in_no_link_and_no_redirect` |
//! | 12 | any URL was relayed to be navigated to | `fault_12_only_https_is_relayed_to_be_navigated_to`, `a_film_is_a_https_url_of_a_host_on_the_list` |
//! | 13 | nothing crossed nodes | `fault_13_what_is_committed_on_one_node_the_members_of_another_hear` (signals between nodes come with the cluster) |
//! | 14 | messages of one socket overtook each other | `fault_14_a_play_repeated_after_a_pause_does_not_play_again`, `fault_14_a_seek_repeated_after_a_play_does_not_seek_again`, `commands_of_one_member_never_overtake_one_another` |
//! | 15 | a lost host stayed host | `fault_15_a_lost_host_is_replaced_by_the_longest_joined`, `the_longest_joined_that_is_there_becomes_host` |
//! | 16 | a reconnect raced the old socket's close | `fault_16_the_close_of_a_replaced_connection_removes_nobody`, `a_member_that_comes_back_with_its_token_is_who_it_was` |
//! | 17 | a second JOIN leaked the first | `fault_17_a_second_join_of_a_session_leaves_no_ghost`, `a_second_join_on_one_connection_leaves_no_ghost` |
//! | 18 | the ready gate waited for the wrong ones | `fault_18_two_people_do_not_wait_for_the_deadline`, `fault_18_a_pause_cancels_the_gate`, `fault_18_a_stale_ready_does_not_open_a_newer_gate`, `fault_18_leavers_are_not_counted`, `fault_18_the_gate_is_part_of_the_room_and_goes_where_it_goes`, `the_gate_waits_for_each_member_once_and_says_for_whom` |
//! | 19 | zombie rooms were written after deletion | `fault_19_what_comes_after_the_end_of_a_room_writes_nothing`, `a_late_piece_of_an_old_epoch_does_not_resurrect_it` |
//! | 20 | archived rooms came back, at an old position | `fault_20_a_room_comes_back_with_nothing_of_its_earlier_life`, `a_room_that_ended_does_not_come_back_and_one_whose_members_stay_away_ends` |
//! | 21 | late joiners got a stale position | `fault_21_a_late_joiner_finds_the_position_of_now`, `a_late_joiner_finds_the_position_of_now` |
//! | 22 | a PING wrote position 0 | `fault_22_a_ping_carries_no_position` |
//! | 23 | one null aborted the whole cleanup | `fault_23_one_broken_room_keeps_no_other_from_coming_back` |
//! | 24 | a deploy archived every room | `fault_24_a_deploy_archives_no_room`, `members_are_told_to_reconnect_and_find_everything_as_it_was` |
//! | 25 | nothing was ever released, heartbeats were not enforced | `fault_25_rooms_that_come_and_go_leave_nothing_behind`, `a_page_that_answers_nothing_is_ended_and_one_that_answers_when_asked_is_not` |
//! | 26 | short ids: minted by anybody, many for one room, biased digits | `fault_26_a_room_has_one_short_id_whoever_asks_at_once_and_only_a_live_room_has`, `digits_of_short_links_are_equally_likely` |
//! | 27 | the event log was never read, never pruned | `fault_27_the_history_is_read_and_pruned`, `a_room_s_history_is_for_its_members_and_keeps_no_secrets` |
//! | 28 | a database write for each position report | `fault_28_position_reports_write_nothing` |
//! | 29 | two nodes starting together raced on the schema | `fault_29_of_two_that_start_at_once_one_serves_and_the_other_says_why` |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/whole_server.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;
use support::client::Carrier::{self, Quinn, WebSocket};
use support::client::{Incoming, Status};
use support::server::{TestProcess, TestServer, until};
use tandem::domain::{Head, RoomId, RoomTime};
use tandem::repository::Repository;
use tandem::repository::sqlite::SqliteRepository;

#[tokio::test]
async fn fault_02_guesses_at_a_pin_are_counted_however_they_come() {
    let server = TestServer::start().await;
    let mut ann = server.connect(Quinn).await;
    ann.join_with("friday", "ann", json!({"protocol": 3, "pin": "4711"})).await;
    // Ten connections over two carriers, all guesses on their way at once.
    let mut guessers = Vec::new();
    for index in 0..10 {
        let mut guesser = server.connect([Quinn, WebSocket][index % 2]).await;
        for guess in 0..10 {
            let pin = format!("{:04}", 10 * index + guess);
            guesser.ask_to_join("friday", &format!("g{index}"), json!({"protocol": 3, "pin": pin})).await;
        }
        guessers.push(guesser);
    }
    let mut answers = BTreeMap::new();
    for guesser in &mut guessers {
        for _ in 0..10 {
            let error = guesser.expect("ERROR").await;
            *answers.entry(error["code"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(answers, BTreeMap::from([("PIN_WRONG".to_owned(), 5), ("PIN_THROTTLED".to_owned(), 95)]));
    ann.hears_nothing().await;
}

#[tokio::test]
async fn fault_03_a_short_link_lives_from_its_last_use_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    let at = |minutes: i64| RoomTime::from_millis(1_795_000_000_000 + 60_000 * minutes);
    let room = RoomId::parse("friday").unwrap();
    let short = repository.short_link(&room, at(0), at(240)).await.unwrap();
    // Each use sets the time anew; it never gets lost on the way.
    for minutes in [200, 400, 600] {
        let found = repository.resolve_short(&short, at(minutes), at(minutes + 240)).await.unwrap();
        assert_eq!(found.as_ref(), Some(&room), "after {minutes} minutes");
    }
    assert_eq!(repository.resolve_short(&short, at(841), at(1081)).await.unwrap(), None);
    repository.close().await;
}

#[tokio::test]
async fn fault_09_a_bad_join_and_a_disconnect_end_nothing_but_that_connection() {
    let mut server = TestProcess::start(&[]).await;
    let mut ann = server.connect(Quinn).await;
    ann.join("friday", "ann").await;
    for id in [json!(7), json!(null), json!({"a": 1}), json!([]), json!(1e308)] {
        let mut bad = server.connect(WebSocket).await;
        bad.send(json!({"type": "JOIN", "roomId": "friday", "userId": id})).await;
        bad.expect("ERROR").await;
        drop(bad);
    }
    ann.chat("still here").await;
    ann.expect("CHAT").await;
    server.signal("TERM").await;
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
}

#[tokio::test]
async fn fault_11_a_pin_stands_in_no_link_and_no_redirect() {
    let server = TestServer::start().await;
    let mut ann = server.connect(Quinn).await;
    ann.join_with("friday", "ann", json!({"protocol": 3, "pin": "s3cr3t"})).await;
    let minted = server.get_json("/api/short-id/friday", &[]).await;
    assert!(!minted.to_string().contains("s3cr3t"));
    let short = minted["shortId"].as_str().unwrap();
    let answer = server.get(&format!("/room/{short}/s3cr3t"), &[]).await;
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!((answer.status().as_u16(), location.contains("s3cr3t")), (302, false), "{location}");
    assert!(!answer.text().await.unwrap().contains("s3cr3t"));
}

#[tokio::test]
async fn fault_19_what_comes_after_the_end_of_a_room_writes_nothing() {
    let mut server = TestServer::with(&[("MEMBER_GRACE_SECS", "1"), ("RATE_LIMITS", "off")]).await;
    let (mut ann, mut bob) = (server.connect(Quinn).await, server.connect(WebSocket).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    // Both go, while what both said is still on its way.
    for index in 0..50 {
        ann.play(f64::from(index)).await;
        bob.send(json!({"type": "POSITION_UPDATE", "currentTime": index, "isPlaying": true})).await;
    }
    ann.leave().await;
    bob.leave().await;
    for index in 0..50 {
        ann.play(f64::from(index)).await;
        bob.send(json!({"type": "POSITION_UPDATE", "currentTime": index, "isPlaying": true})).await;
    }
    drop((ann, bob));
    until("the room to be over", async || (server.get_json("/status", &[]).await["rooms"] == 0).then_some(())).await;
    server.stop().await;
    server.start_again().await;
    assert_eq!(server.get_json("/status", &[]).await["rooms"], 0);
    let mut cat = server.connect(Carrier::Wtransport).await;
    let state = cat.join("friday", "cat").await;
    assert_eq!((&state["isPlaying"], &state["currentTime"], &state["seq"]), (&json!(false), &json!(0.0), &json!(1)));
    server.stop().await;
    // Members read only of the epoch that they are in; the operator's database has all.
    let database = SqliteRepository::open(&server.data_dir()).await.unwrap();
    let history = database.events(&RoomId::parse("friday").unwrap(), Head::default(), 1000).await.unwrap();
    let ends: Vec<_> = history.iter().filter(|event| event.kind == "room_ended").collect();
    let old: Vec<_> = history.iter().filter(|event| Some(event.head.epoch) != state["epoch"].as_u64()).collect();
    assert_eq!((ends.len(), old.last()), (1, ends.last()), "the end is the last word of its epoch");
    database.close().await;
}

#[tokio::test]
async fn fault_23_one_broken_room_keeps_no_other_from_coming_back() {
    let mut server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(Quinn).await, server.connect(WebSocket).await);
    let before = ann.join("sound", "ann").await;
    bob.join("broken", "bob").await;
    server.stop().await;
    let file = server.data_dir().join("tandem.db");
    let mut database = <sqlx::SqliteConnection as sqlx::Connection>::connect(file.to_str().unwrap()).await.unwrap();
    let done = sqlx::query("UPDATE room_fields SET value = X'6e756c6c' WHERE room_id = 'broken' AND field = 'core'");
    assert_eq!(done.execute(&mut database).await.unwrap().rows_affected(), 1);
    sqlx::Connection::close(database).await.unwrap();
    server.start_again().await;
    let mut ann = server.connect(Quinn).await;
    assert_eq!(ann.resume(&before).await["resumed"], true);
    // The broken one is refused, and nobody else's business.
    let mut bob = server.connect(WebSocket).await;
    bob.ask_to_join("broken", "bob", json!({"protocol": 3})).await;
    assert_eq!(bob.expect("ERROR").await["code"], "INTERNAL");
    ann.chat("all well").await;
    ann.expect("CHAT").await;
}

#[tokio::test]
async fn fault_24_a_deploy_archives_no_room() {
    let mut server = TestServer::start().await;
    let mut befores = Vec::new();
    let mut members = Vec::new();
    for index in 0..8 {
        let mut member = server.connect([Quinn, WebSocket][index % 2]).await;
        befores.push(member.join(&format!("room-{index}"), "ann").await);
        members.push(member);
    }
    // Some have lost their connection just then.
    members.truncate(5);
    server.stop().await;
    server.start_again().await;
    assert_eq!(server.get_json("/status", &[]).await["rooms"], 8);
    for before in befores {
        let mut member = server.connect(WebSocket).await;
        assert_eq!(member.resume(&before).await["resumed"], true);
        let (room, token) = (before["roomId"].as_str().unwrap(), member.state["resumeToken"].as_str().unwrap());
        let history = server.history(room, "ann", token).await;
        assert!(history.iter().all(|event| event["kind"] != "room_ended" && event["kind"] != "member_left"));
    }
}

#[tokio::test]
async fn fault_25_rooms_that_come_and_go_leave_nothing_behind() {
    let server = TestServer::with(&[("RATE_LIMITS", "off")]).await;
    for round in 0..40 {
        let mut member = server.connect(WebSocket).await;
        member.join_v2(&format!("room-{round}"), "ann").await;
        member.leave().await;
        member.closed_with(1000).await;
    }
    // One connection through many rooms, too.
    let mut wanderer = server.connect(Quinn).await;
    for round in 0..40 {
        wanderer.join(&format!("stop-{round}"), "ann").await;
    }
    wanderer.leave().await;
    wanderer.closed_with(1000).await;
    until("nothing to be left", async || {
        let status = server.get_json("/status", &[]).await;
        (status["rooms"] == 0 && status["members"] == 0 && status["localConnections"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn fault_26_a_room_has_one_short_id_whoever_asks_at_once_and_only_a_live_room_has() {
    let server = TestServer::start().await;
    let mut ann = server.connect(WebSocket).await;
    ann.join("friday", "ann").await;
    let asked = (0..20).map(|_| server.get_json("/api/short-id/friday", &[]));
    let answers = futures_util::future::join_all(asked).await;
    let ids: BTreeSet<_> = answers.iter().map(|answer| answer["shortId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    for nobody in ["saturday", "a%20b", "x".repeat(65).as_str()] {
        let answer = server.get(&format!("/api/short-id/{nobody}"), &[]).await;
        assert_eq!(answer.status(), 404, "{nobody}");
    }
    // With the room its link is over.
    let short = (*ids.first().unwrap()).to_owned();
    ann.leave().await;
    ann.closed_with(1000).await;
    until("the link to be over", async || {
        (server.get(&format!("/api/room/{short}"), &[]).await.status() == 404).then_some(())
    })
    .await;
}

#[tokio::test]
async fn fault_27_the_history_is_read_and_pruned() {
    let mut server = TestServer::with(&[("EVENT_AGE_DAYS", "1")]).await;
    let mut ann = server.connect(Quinn).await;
    ann.join("friday", "ann").await;
    for text in ["one", "two"] {
        ann.chat(text).await;
        ann.expect("CHAT").await;
    }
    server.stop().await;
    let before = ann.state.clone();
    // Two days pass for what was said first.
    let file = server.data_dir().join("tandem.db");
    let mut database = <sqlx::SqliteConnection as sqlx::Connection>::connect(file.to_str().unwrap()).await.unwrap();
    let aged =
        sqlx::query("UPDATE room_events SET created_at = datetime(created_at, '-2 days') || '.000000' WHERE seq = 2");
    assert_eq!(aged.execute(&mut database).await.unwrap().rows_affected(), 1);
    sqlx::Connection::close(database).await.unwrap();
    server.start_again().await;
    let mut ann = server.connect(Quinn).await;
    ann.resume(&before).await;
    let token = ann.state["resumeToken"].as_str().unwrap().to_owned();
    let seqs = until("the old one to be gone", async || {
        let history = server.history("friday", "ann", &token).await;
        let seqs: Vec<_> = history.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        (!seqs.contains(&2)).then_some(seqs)
    })
    .await;
    assert!(seqs.starts_with(&[1, 3]), "{seqs:?}");
}

#[tokio::test]
async fn fault_28_position_reports_write_nothing() {
    let server = TestServer::with(&[("RATE_LIMITS", "off")]).await;
    let (mut ann, mut bob) = (server.connect(WebSocket).await, server.connect(Quinn).await);
    ann.join_v2("friday", "ann").await;
    bob.join("friday", "bob").await;
    ann.expect("USER_JOINED").await;
    // The first report of a v2 member says that it has a player, which the room keeps.
    ann.send(json!({"type": "POSITION_UPDATE", "currentTime": 0.5, "isPlaying": false})).await;
    ann.expect("PLAYER_STATE").await;
    let written = || {
        let size = |name: &str| std::fs::metadata(server.data_dir().join(name)).map_or(0, |file| file.len());
        (size("tandem.db"), size("tandem.db-wal"))
    };
    let before = written();
    let now = bob.room_time().await;
    for index in 0..300 {
        ann.send(json!({"type": "POSITION_UPDATE", "currentTime": 0.5, "isPlaying": false})).await;
        if index % 10 == 0 {
            bob.tick(index, 0.0, now, false).await;
            bob.status(&Status { seq: index, ..Status::default() }).await;
        }
    }
    ann.hears_nothing().await;
    bob.send(json!({"type": "PING"})).await;
    bob.until("PONG").await;
    assert_eq!(written(), before);
    bob.chat("this does").await;
    ann.until("CHAT").await;
    assert_ne!(written(), before);
}

#[tokio::test]
async fn fault_29_of_two_that_start_at_once_one_serves_and_the_other_says_why() {
    let race = TestProcess::race(2).await;
    let (serving, ended) = (&race.serving, &race.ended);
    assert_eq!((serving.len(), ended.len()), (1, 1));
    let words = String::from_utf8_lossy(&ended[0].stderr);
    let last = words.lines().last().unwrap_or_default();
    assert!(ended[0].status.code() == Some(1) && last.starts_with("tandem: "), "{words}");
    let mut ann = serving[0].0.connect(WebSocket).await;
    ann.join("friday", "ann").await;
    ann.chat("the schema is whole").await;
    assert!(matches!(ann.next().await, Incoming::Message(message) if message["type"] == "CHAT"));
}

// ---- the table ----

/// Number → the tests named in its row.
fn table() -> BTreeMap<u32, Vec<String>> {
    let source = include_str!("faults.rs");
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! | "));
    let row = |row: &str| {
        let number = row.split(" | ").next()?.parse().ok()?;
        Some((number, row.split('`').skip(1).step_by(2).map(str::to_owned).collect()))
    };
    rows.filter_map(row).collect()
}

fn functions(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| {
                let rest = line.trim_start().trim_start_matches("pub ").trim_start_matches("async ");
                Some(rest.strip_prefix("fn ")?.split(['(', '<']).next()?.to_owned())
            });
            found.extend(names);
        }
    }
}

#[test]
fn every_fault_has_its_tests_and_every_test_its_fault() {
    let table = table();
    assert_eq!(table.keys().copied().collect::<Vec<_>>(), (1..=29).collect::<Vec<_>>());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = BTreeSet::new();
    for dir in ["src", "tests"] {
        functions(&root.join(dir), &mut known);
    }
    for (number, tests) in &table {
        assert!(!tests.is_empty(), "fault {number} has no test");
        for test in tests {
            assert!(known.contains(test), "fault {number}: there is no test {test}");
        }
        let own = format!("fault_{number:02}_");
        assert!(tests.iter().any(|test| test.starts_with(&own)), "fault {number} has no test of its name");
    }
    for test in known.iter().filter(|name| name.starts_with("fault_")) {
        let number = test.split('_').nth(1).and_then(|number| number.parse::<u32>().ok());
        let named = number.and_then(|number| table.get(&number)).is_some_and(|tests| tests.contains(test));
        assert!(named, "{test} is not in the table");
    }
}
