//! The test double that injects faults does what it says, over the memory log.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/faulty_log.rs"]
mod faulty_log;

use std::sync::Arc;
use std::time::Duration;

use commits::{EPOCH, after, created, head, room};
use faulty_log::{Fate, FaultyMemoryLog, What};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tandem::commit::Commit;
use tandem::domain::{Head, NodeId, RoomId};
use tandem::log::{Followed, Log, Outcome};
use tokio_util::task::TaskTracker;

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_an_error_and_the_commit_took_effect() {
    let (friday, log, node) = calm();
    log.faults().decide_by(|at| if at.what == What::Answer { Fate::Lost } else { Fate::Arrives });
    assert!(node.commit(created(&friday, Head::default(), EPOCH)).await.is_err());
    assert_eq!(node.load(&friday).await.unwrap().unwrap().head, head(EPOCH, 1));
    log.faults().decide_by(|at| if at.what == What::Commit { Fate::Lost } else { Fate::Arrives });
    assert!(node.commit(after(&friday, head(EPOCH, 1))).await.is_err());
    assert_eq!(node.load(&friday).await.unwrap().unwrap().head, head(EPOCH, 1));
}

#[tokio::test(start_paused = true)]
async fn late_deliveries_stay_in_order_and_late_answers_come() {
    let (friday, log, node) = calm();
    node.subscribe(&friday).await.unwrap();
    let mut delays = [500, 5, 50, 0].into_iter().cycle();
    log.faults().decide_by(move |_| Fate::Late(Duration::from_millis(delays.next().unwrap())));
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    for seq in 1..20 {
        committed(&node, after(&friday, head(EPOCH, seq))).await;
    }
    let mut at = Head::default();
    while at.seq < 20 {
        let Followed::Commit { expected, entries, .. } = node.follow().await else { panic!("a gap") };
        assert_eq!(expected, at);
        at = entries[0].head;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_delivery_shows_by_the_heads_or_as_a_gap() {
    let (friday, log, node) = calm();
    node.subscribe(&friday).await.unwrap();
    let mut fates = [Fate::Arrives, Fate::Lost, Fate::Twice, Fate::Lost].into_iter();
    log.faults().decide_by(move |at| match at.what {
        What::Delivery => fates.next().unwrap(),
        _ => Fate::Arrives,
    });
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    for seq in 1..4 {
        committed(&node, after(&friday, head(EPOCH, seq))).await;
    }
    let mut heard = Vec::new();
    for _ in 0..3 {
        let Followed::Commit { expected, .. } = node.follow().await else { panic!("a gap") };
        heard.push(expected.seq);
    }
    assert_eq!(heard, [0, 2, 2], "the second was dropped, which the third shows; it came twice");
    assert!(node.follow().now_or_never().is_none());
    log.faults().calm();
    assert!(matches!(node.follow().await, Followed::Gap(Some(room)) if room == friday), "the fourth was the last");
}

#[tokio::test(start_paused = true)]
async fn a_partitioned_node_fails_and_hears_nothing_until_it_is_told_of_the_gap() {
    let (friday, log, cut) = calm();
    let other = attach(&log, "b");
    cut.subscribe(&friday).await.unwrap();
    committed(&other, created(&friday, Head::default(), EPOCH)).await;
    log.faults().partition(&NodeId::parse("a").unwrap());
    committed(&other, after(&friday, head(EPOCH, 1))).await;
    assert!(cut.commit(after(&friday, head(EPOCH, 2))).await.is_err());
    assert!(cut.load(&friday).await.is_err());
    assert!(cut.follow().now_or_never().is_none());
    log.faults().heal(&NodeId::parse("a").unwrap());
    assert!(matches!(cut.follow().await, Followed::Gap(None)));
    assert_eq!(cut.load(&friday).await.unwrap().unwrap().head, head(EPOCH, 2));
    committed(&cut, after(&friday, head(EPOCH, 2))).await;
    assert!(matches!(cut.follow().await, Followed::Commit { expected, .. } if expected == head(EPOCH, 2)));
}

#[tokio::test(start_paused = true)]
async fn the_same_faults_tell_the_same_story() {
    let story = || async {
        let (friday, log, a) = calm();
        let b = attach(&log, "b");
        let mut random = 42_u64;
        let crossed = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&crossed);
        log.faults().decide_by(move |at| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let fate = match random >> 60 {
                0 => Fate::Lost,
                1 => Fate::Twice,
                2..6 => Fate::Late(Duration::from_millis(random >> 56 & 15)),
                _ => Fate::Arrives,
            };
            record.lock().push(format!("{:?} {} {fate:?}", at.what, at.node));
            fate
        });
        let write = async |node: &Arc<dyn Log>| {
            node.subscribe(&friday).await.unwrap();
            let mut at = Head::default();
            for _ in 0..50 {
                let next = if at == Head::default() { created(&friday, at, EPOCH) } else { after(&friday, at) };
                if !matches!(node.commit(next.clone()).await, Ok(Outcome::Committed)) {
                    let latest = node.load(&friday).await.ok().flatten();
                    at = latest.map_or(at, |snapshot| snapshot.head);
                } else {
                    at = next.next;
                }
            }
            at
        };
        let ends = tokio::join!(write(&a), write(&b));
        let crossed = crossed.lock().clone();
        (ends, crossed)
    };
    let (first, second) = (story().await, story().await);
    assert!(first.1.len() > 100);
    assert_eq!(first, second);
}

fn calm() -> (RoomId, FaultyMemoryLog, Arc<dyn Log>) {
    let log = FaultyMemoryLog::new(&TaskTracker::new());
    let node = attach(&log, "a");
    (room("friday"), log, node)
}

fn attach(log: &FaultyMemoryLog, node: &str) -> Arc<dyn Log> {
    log.attach(NodeId::parse(node).unwrap())
}

async fn committed(node: &Arc<dyn Log>, commit: Commit) {
    let outcome = node.commit(commit).await;
    assert!(matches!(outcome, Ok(Outcome::Committed)), "{outcome:?}");
}
