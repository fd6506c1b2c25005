//! What every log promises ([`tandem::log`]), on every log there is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/log_backends.rs"]
mod log_backends;
#[path = "support/redis.rs"]
mod redis_server;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commits::{EPOCH, after, commit, created, ended, head, room, text_of};
use futures_util::future::join_all;
use log_backends::Backend;
use tandem::commit::Commit;
use tandem::domain::{Head, NodeId, RoomId};
use tandem::log::{Followed, Log, Outcome};

/// No test takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(120);

/// One module a backend; a new backend is one more line at the end of the file.
macro_rules! suite {
    ($backend:ident: $($name:ident)*) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let test = super::$name(super::log_backends::$backend().await);
                    tokio::time::timeout(super::DEADLINE, test).await.expect("it hangs");
                }
            )*
        }
    };
}

macro_rules! on {
    ($backend:ident) => {
        suite! { $backend:
            of_fifty_writers_exactly_one_wins_each_head_and_every_follower_sees_one_order
            a_commit_that_lost_is_told_the_latest_head
            what_is_committed_is_loaded
            a_patch_sets_deletes_and_clears_fields
            a_room_that_never_was_is_created_from_the_default_head_only
            a_room_that_ended_is_created_again_by_whoever_saw_the_end
            a_room_that_ended_is_created_again_by_whoever_did_not
            a_writer_that_missed_the_end_does_not_resurrect_the_old_epoch
            an_epoch_that_is_not_later_than_the_one_that_ended_is_refused
            one_commit_may_end_an_epoch_and_begin_the_next
            a_commit_whose_heads_do_not_ascend_is_refused
            a_follower_hears_its_own_commits_and_only_rooms_it_subscribed_to
            between_subscribing_and_loading_nothing_is_missed
            a_follower_that_stops_listening_for_a_moment_misses_nothing
            a_follower_that_does_not_read_is_told_of_a_gap_instead_of_growing_a_queue
            an_ephemeral_message_reaches_the_other_nodes_that_follow_in_order
            an_ephemeral_message_to_one_node_reaches_that_node_only
        }
    };
}

async fn of_fifty_writers_exactly_one_wins_each_head_and_every_follower_sees_one_order(backend: impl Backend) {
    const WRITERS: usize = 50;
    const EACH: usize = 4;
    let friday = room("friday");
    let mut nodes = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let node = backend.attach(name).await;
        node.subscribe(&friday).await.unwrap();
        nodes.push(node);
    }
    committed(&nodes[0], created(&friday, Head::default(), EPOCH)).await;

    let writers = (0..WRITERS).map(|writer| {
        let (node, friday) = (Arc::clone(&nodes[writer % nodes.len()]), friday.clone());
        let write = async move {
            let mut won = Vec::new();
            let mut known = head(EPOCH, 1);
            while won.len() < EACH {
                match node.commit(by(writer, after(&friday, known))).await.unwrap() {
                    Outcome::Committed => {
                        known.seq += 1;
                        won.push((known, writer));
                    }
                    Outcome::Conflict(latest) => {
                        let latest = latest.unwrap();
                        assert!(latest > known, "a conflict teaches something");
                        known = latest;
                    }
                }
            }
            won
        };
        #[expect(clippy::disallowed_methods, reason = "joined below")]
        tokio::spawn(write)
    });
    let mut won: Vec<_> = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
    won.sort_unstable();

    let all: Vec<Head> = (2..=1 + (WRITERS * EACH) as u64).map(|seq| head(EPOCH, seq)).collect();
    assert_eq!(won.iter().map(|(head, _)| *head).collect::<Vec<_>>(), all, "one winner for each head");
    for node in &nodes {
        let mut at = Head::default();
        for (head, writer) in [(head(EPOCH, 1), usize::MAX)].iter().chain(&won) {
            let (expected, entries) = hear_commit(&**node).await;
            assert_eq!((expected, entries[0].head), (at, *head));
            if *writer != usize::MAX {
                assert_eq!(entries[0].body, writer.to_string(), "the follower hears the winner's event");
            }
            at = *head;
        }
    }
}

async fn a_commit_that_lost_is_told_the_latest_head(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    committed(&node, after(&friday, head(EPOCH, 1))).await;
    for stale in [head(EPOCH, 1), Head::default(), head(EPOCH, 3), head(EPOCH + 1, 1)] {
        let Outcome::Conflict(Some(latest)) = node.commit(after(&friday, stale)).await.unwrap() else {
            panic!("a commit that expects {stale:?} must conflict");
        };
        assert_eq!(latest, head(EPOCH, 2));
    }
}

async fn what_is_committed_is_loaded(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    assert_eq!(node.load(&friday).await.unwrap(), None);
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    let elsewhere = backend.attach("b").await;
    let snapshot = elsewhere.load(&friday).await.unwrap().unwrap();
    assert_eq!((snapshot.head, &snapshot.fields["head"]), (head(EPOCH, 1), &text_of(head(EPOCH, 1))));
    committed(&node, ended(&friday, head(EPOCH, 1))).await;
    assert_eq!(elsewhere.load(&friday).await.unwrap(), None);
}

async fn a_patch_sets_deletes_and_clears_fields(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    let with = |mut commit: Commit, clear, fields: &[(&str, Option<&'static str>)]| {
        commit.patch.clear = clear;
        commit.patch.fields =
            fields.iter().map(|(field, value)| ((*field).to_owned(), value.map(Bytes::from))).collect();
        commit
    };
    type Step = (bool, &'static [(&'static str, Option<&'static str>)], &'static [(&'static str, &'static str)]);
    let steps: [Step; 4] = [
        (true, &[("a", Some("1")), ("b", Some("1"))], &[("a", "1"), ("b", "1")]),
        (false, &[("b", Some("2")), ("c", Some("2"))], &[("a", "1"), ("b", "2"), ("c", "2")]),
        (false, &[("a", None), ("never", None)], &[("b", "2"), ("c", "2")]),
        (true, &[("d", Some("4")), ("c", None)], &[("d", "4")]),
    ];
    let mut at = Head::default();
    for (clear, patch, expected) in steps {
        let base = if at == Head::default() { created(&friday, at, EPOCH) } else { after(&friday, at) };
        at = base.next;
        committed(&node, with(base, clear, patch)).await;
        let fields = node.load(&friday).await.unwrap().unwrap().fields;
        let fields: Vec<_> =
            fields.iter().map(|(field, value)| (field.as_str(), std::str::from_utf8(value).unwrap())).collect();
        assert_eq!(fields, expected);
    }
}

async fn a_room_that_never_was_is_created_from_the_default_head_only(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    assert_vacant_conflict(&node, after(&friday, head(EPOCH, 7))).await;
    assert_vacant_conflict(&node, created(&friday, head(EPOCH, 7), EPOCH + 1)).await;
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
}

async fn a_room_that_ended_is_created_again_by_whoever_saw_the_end(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    committed(&node, ended(&friday, head(EPOCH, 1))).await;
    committed(&node, created(&friday, head(EPOCH, 2), EPOCH + 1)).await;
    assert_eq!(node.load(&friday).await.unwrap().unwrap().head, head(EPOCH + 1, 1));
}

async fn a_room_that_ended_is_created_again_by_whoever_did_not(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    committed(&node, ended(&friday, head(EPOCH, 1))).await;
    let elsewhere = backend.attach("b").await;
    committed(&elsewhere, created(&friday, Head::default(), EPOCH + 1)).await;
    assert_eq!(node.load(&friday).await.unwrap().unwrap().head, head(EPOCH + 1, 1));
}

/// v2 wrote zombie rooms after their deletion.
async fn a_writer_that_missed_the_end_does_not_resurrect_the_old_epoch(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    committed(&node, after(&friday, head(EPOCH, 1))).await;
    committed(&node, ended(&friday, head(EPOCH, 2))).await;
    assert_vacant_conflict(&node, after(&friday, head(EPOCH, 2))).await;
    assert_vacant_conflict(&node, after(&friday, head(EPOCH, 1))).await;
    assert_vacant_conflict(&node, created(&friday, head(EPOCH, 1), EPOCH + 1)).await;
    assert!(node.commit(after(&friday, head(EPOCH, 3))).await.is_err(), "an ended epoch has no next event");
    assert_eq!(node.load(&friday).await.unwrap(), None);
}

async fn an_epoch_that_is_not_later_than_the_one_that_ended_is_refused(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    committed(&node, ended(&friday, head(EPOCH, 1))).await;
    for epoch in [EPOCH, EPOCH - 1] {
        assert!(node.commit(created(&friday, Head::default(), epoch)).await.is_err());
    }
    assert_eq!(node.load(&friday).await.unwrap(), None);
    committed(&node, created(&friday, Head::default(), EPOCH + 1)).await;
}

async fn one_commit_may_end_an_epoch_and_begin_the_next(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    let mut first = created(&friday, Head::default(), EPOCH);
    first.patch.fields.insert("old".to_owned(), Some(Bytes::from_static(b"pin")));
    committed(&node, first).await;
    let mut both = commit(&friday, head(EPOCH, 1), &[head(EPOCH, 2), head(EPOCH + 9, 1)]);
    both.patch.clear = true;
    committed(&node, both).await;
    let snapshot = node.load(&friday).await.unwrap().unwrap();
    assert_eq!(snapshot.head, head(EPOCH + 9, 1));
    assert!(!snapshot.fields.contains_key("old"), "nothing of the old epoch stays");
}

async fn a_commit_whose_heads_do_not_ascend_is_refused(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    let at = head(EPOCH, 1);
    let mut nothing = after(&friday, at);
    nothing.entries = Arc::new([]);
    let mut elsewhere = after(&friday, at);
    elsewhere.next.seq = 9;
    let back = commit(&friday, at, &[head(EPOCH, 1)]);
    let twice = commit(&friday, at, &[head(EPOCH, 2), head(EPOCH, 2)]);
    for wrong in [nothing, elsewhere, back, twice] {
        assert!(node.commit(wrong).await.is_err());
    }
    committed(&node, commit(&friday, at, &[head(EPOCH, 2), head(EPOCH, 3)])).await;
}

async fn a_follower_hears_its_own_commits_and_only_rooms_it_subscribed_to(backend: impl Backend) {
    let (friday, sunday, monday) = (room("friday"), room("sunday"), room("monday"));
    let node = backend.attach("a").await;
    for subscribed in [&friday, &friday, &monday] {
        node.subscribe(subscribed).await.unwrap();
    }
    node.unsubscribe(&monday);
    for room in [&monday, &sunday, &friday] {
        committed(&node, created(room, Head::default(), EPOCH)).await;
    }
    committed(&node, ended(&friday, head(EPOCH, 1))).await;
    for expected in [Head::default(), head(EPOCH, 1)] {
        match hear(&*node).await {
            Followed::Commit { room, expected: before, entries } => {
                assert_eq!((room, before, entries.len()), (friday.clone(), expected, 1));
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn between_subscribing_and_loading_nothing_is_missed(backend: impl Backend) {
    let (friday, writer) = (room("friday"), backend.attach("writer").await);
    committed(&writer, created(&friday, Head::default(), EPOCH)).await;
    const LAST: u64 = 200;
    let write = async {
        for seq in 1..LAST {
            committed(&writer, after(&friday, head(EPOCH, seq))).await;
        }
    };
    let read = async {
        // Nodes that come at any moment: what the snapshot lacks, the follower brings, without a hole.
        for name in ["b", "c", "d", "e"] {
            let node = backend.attach(name).await;
            node.subscribe(&friday).await.unwrap();
            let mut at = node.load(&friday).await.unwrap().unwrap().head;
            while at.seq < LAST {
                let (expected, entries) = hear_commit(&*node).await;
                let next = entries.last().unwrap().head;
                if next > at {
                    assert_eq!(expected, at, "a hole");
                    at = next;
                }
                if at.seq > LAST / 2 && name != "e" {
                    break;
                }
            }
        }
    };
    tokio::join!(write, read);
}

async fn a_follower_that_stops_listening_for_a_moment_misses_nothing(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    node.subscribe(&friday).await.unwrap();
    let mut at = Head::default();
    for seq in 1..=20 {
        // A future that is polled once and dropped, as `select!` does.
        assert!(futures_util::FutureExt::now_or_never(node.follow()).is_none(), "nothing to hear yet");
        let next = if seq == 1 { created(&friday, at, EPOCH) } else { after(&friday, at) };
        committed(&node, next).await;
        let (expected, entries) = hear_commit(&*node).await;
        assert_eq!((expected, entries[0].head), (at, head(EPOCH, seq)));
        at = head(EPOCH, seq);
    }
}

async fn a_follower_that_does_not_read_is_told_of_a_gap_instead_of_growing_a_queue(backend: impl Backend) {
    let (friday, node) = (room("friday"), backend.attach("a").await);
    let idle = backend.attach("idle").await;
    idle.subscribe(&friday).await.unwrap();
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    const MANY: u64 = 6000;
    for seq in 1..MANY {
        committed(&node, after(&friday, head(EPOCH, seq))).await;
    }
    let mut heard = 0;
    let mut at = loop {
        heard += 1;
        match hear(&*idle).await {
            Followed::Gap(_) => break idle.load(&friday).await.unwrap().unwrap().head,
            Followed::Commit { .. } => assert!(heard < MANY, "a queue without bounds"),
            other @ Followed::Ephemeral { .. } => panic!("{other:?}"),
        }
    };
    assert_eq!(at, head(EPOCH, MANY));
    // It is a follower like any other again.
    committed(&node, after(&friday, at)).await;
    while at.seq <= MANY {
        at = hear_commit(&*idle).await.1.last().unwrap().head;
    }
}

async fn an_ephemeral_message_reaches_the_other_nodes_that_follow_in_order(backend: impl Backend) {
    let friday = room("friday");
    let (a, b, c) = (backend.attach("a").await, backend.attach("b").await, backend.attach("c").await);
    a.subscribe(&friday).await.unwrap();
    b.subscribe(&friday).await.unwrap();
    for text in ["1", "2", "3"] {
        a.publish(&friday, None, Bytes::from_static(text.as_bytes()));
    }
    for text in ["1", "2", "3"] {
        assert_eq!(hear_ephemeral(&*b).await, (friday.clone(), Bytes::from_static(text.as_bytes())));
    }
    // Neither the sender nor a node that does not follow hears it: the next thing they hear is this.
    b.publish(&friday, Some(&NodeId::parse("c").unwrap()), Bytes::from_static(b"mark"));
    b.publish(&friday, Some(&NodeId::parse("a").unwrap()), Bytes::from_static(b"mark"));
    for node in [&a, &c] {
        assert_eq!(hear_ephemeral(&**node).await.1, "mark");
    }
}

async fn an_ephemeral_message_to_one_node_reaches_that_node_only(backend: impl Backend) {
    let friday = room("friday");
    let (a, b, c) = (backend.attach("a").await, backend.attach("b").await, backend.attach("c").await);
    for node in [&a, &b, &c] {
        node.subscribe(&friday).await.unwrap();
    }
    a.publish(&friday, Some(&NodeId::parse("b").unwrap()), Bytes::from_static(b"for b"));
    a.publish(&friday, None, Bytes::from_static(b"for all"));
    assert_eq!(hear_ephemeral(&*b).await.1, "for b");
    assert_eq!(hear_ephemeral(&*b).await.1, "for all");
    assert_eq!(hear_ephemeral(&*c).await.1, "for all");
}

/// The same commit, its event marked with the writer's number.
fn by(writer: usize, mut commit: Commit) -> Commit {
    let mut entries = commit.entries.to_vec();
    entries[0].body = Bytes::from(writer.to_string());
    commit.entries = entries.into();
    commit
}

async fn committed(node: &Arc<dyn Log>, commit: Commit) {
    match node.commit(commit).await {
        Ok(Outcome::Committed) => {}
        other => panic!("{other:?}"),
    }
}

async fn assert_vacant_conflict(node: &Arc<dyn Log>, commit: Commit) {
    let expected = commit.expected;
    match node.commit(commit).await {
        Ok(Outcome::Conflict(None)) => {}
        other => panic!("expecting {expected:?}: {other:?}"),
    }
}

async fn hear(node: &dyn Log) -> Followed {
    tokio::time::timeout(DEADLINE / 2, node.follow()).await.expect("nothing to hear")
}

async fn hear_commit(node: &dyn Log) -> (Head, Arc<[tandem::commit::Entry]>) {
    match hear(node).await {
        Followed::Commit { expected, entries, .. } => (expected, entries),
        other => panic!("{other:?}"),
    }
}

async fn hear_ephemeral(node: &dyn Log) -> (RoomId, Bytes) {
    match hear(node).await {
        Followed::Ephemeral { room, message } => (room, message),
        other => panic!("{other:?}"),
    }
}

on!(memory);
on!(memory_over_sqlite);
on!(redis);
on!(redis_cluster);
