//! From the queue into the log: one task a room while there are commands to commit, or the room must be read again.
//!
//! All queued commands are decided, in order, on a copy of the replica and committed as one batch. A conflict means
//! that another node was faster. The batch is decided again after a short jittered pause, so that fifty writers get
//! their turn, and after the other nodes' commits have come through the commit feed: members hear them as events, in
//! order, before this node's own. Only a commit that doesn't come in time is a gap.
//!
//! In a large room joins and leaves that follow others within 100 ms share a commit ([`CellWork::Gather`]).
//!
//! A panic in a decision costs the command that caused it. After any other panic the room's replica is dropped and read
//! again ([`super::room_panic`]).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tracing::{Instrument, Span, field};

use super::Hub;
use super::delivery::Refusal;
use super::room_cell::{CellWork, Completion, JoinReply, QueuedCommand, RoomCell, RoomCellState};
use super::{codec, commit_feed};
use crate::clock::Clock;
use crate::commit::Commit;
use crate::domain::{Head, RoomTime, SessionRef, TokenHash, UserId};
use crate::log::{LogError, Outcome};
use crate::panics;
use crate::room::{Command, Event, Room};
use crate::telemetry::{HotCounter, HotHistogram, names};

static COMMITS: HotCounter = HotCounter::new(names::COMMITS, &[]);
static COMMIT_EVENTS: HotCounter = HotCounter::new(names::COMMIT_EVENTS, &[]);
static COMMIT_CONFLICTS: HotCounter = HotCounter::new(names::COMMIT_CONFLICTS, &[]);
static COMMIT_SECONDS: HotHistogram = HotHistogram::new(names::COMMIT_SECONDS);

/// The most commands of one commit.
pub(super) const BATCH: usize = 256;
/// Conflicts after which a batch is refused; with fair pauses far fewer are needed.
const ATTEMPTS: u32 = 200;
/// How long commits of other nodes, which the log has shown, may take to come through the commit feed. Far beyond the
/// bus' usual delay: a broken bus reports a gap by itself.
const FEED_DELAY: Duration = Duration::from_secs(5);
/// When a deadline whose command panicked is due again.
const POISONED_RETRY: Duration = Duration::from_secs(10);

/// The head at which a command is committed, or why it isn't.
type CommandOutcome = Result<Head, Refusal>;

struct CommitPlan {
    expected: Head,
    decided: Vec<CommandOutcome>,
    events: Vec<(Head, Event)>,
    commit: Option<Commit>,
    /// A command panicked.
    poisoned: bool,
}

pub(super) async fn run(hub: Hub, cell: Arc<RoomCell>) {
    if AssertUnwindSafe(work(&hub, &cell)).catch_unwind().await.is_err() {
        hub.drop_broken(&cell);
    }
}

async fn work(hub: &Hub, cell: &Arc<RoomCell>) {
    let mut failures = 0;
    loop {
        let outcome = match next_work(hub, cell) {
            CellWork::Gather(until) => {
                let _ = tokio::time::timeout_at(until, cell.hurried()).await;
                continue;
            }
            CellWork::Nothing => {
                hub.retire(cell);
                return;
            }
            // An answer that leaves open whether commits are missing counts as none: the log is asked again after a
            // pause.
            CellWork::Read => match hub.catch_up(cell).await {
                Ok(()) if !cell.lock().needs_reload() => Ok(()),
                _ => Err(()),
            },
            CellWork::Commit(batch) => match commit_traced(hub, cell, &batch).await {
                Ok(decided) => {
                    finish(hub, cell, batch, decided);
                    Ok(())
                }
                Err(error) => {
                    let joins = give_back(hub, cell, batch, &error);
                    // The outcome of the commit is unknown: the room is read. Members stay told DEGRADED: a log that
                    // can be read need not take commits.
                    let _ = hub.reload(cell).await;
                    answer_joins(cell, joins);
                    Err(())
                }
            },
        };
        if outcome.is_ok() {
            failures = 0;
            continue;
        }
        failures += 1;
        if hub.0.parts.stop.is_cancelled() {
            cell.lock().end_work();
            return;
        }
        let ceiling = Duration::from_millis((50_u64 << failures.min(6)).min(2000));
        let head = cell.lock().room().head();
        tokio::time::sleep(ceiling / 2 + jitter(hub, head, failures, ceiling / 2)).await;
    }
}

fn next_work(hub: &Hub, cell: &RoomCell) -> CellWork {
    cell.lock().next_work(BATCH, &hub.0.parts.limits)
}

/// One span for the batch, linked to the spans of its requests.
async fn commit_traced(
    hub: &Hub,
    cell: &Arc<RoomCell>,
    batch: &[QueuedCommand],
) -> Result<Vec<CommandOutcome>, LogError> {
    let span = tracing::debug_span!(
        parent: None,
        "commit",
        roomId = %cell.id(),
        commands = batch.len(),
        events = field::Empty,
        epoch = field::Empty,
        seq = field::Empty,
        attempts = field::Empty,
    );
    if !span.is_disabled() {
        for queued in batch {
            span.follows_from(&queued.cause);
        }
    }
    commit_batch(hub, cell, batch, &span).instrument(span.clone()).await
}

/// Decides and commits until the batch is committed. Returns the outcome of each command.
async fn commit_batch(
    hub: &Hub,
    cell: &Arc<RoomCell>,
    batch: &[QueuedCommand],
    span: &Span,
) -> Result<Vec<CommandOutcome>, LogError> {
    for attempt in 1..=ATTEMPTS {
        let asked_at = cell.lock().room().head();
        let plan = plan(hub, cell, batch);
        let Some(commit) = plan.commit else {
            let state = cell.lock();
            if plan.poisoned && !state.is_retired() {
                hub.0.timers.schedule(cell.id(), Some(hub.now() + POISONED_RETRY));
            } else {
                // A deadline that fired a moment early must fire again.
                hub.reschedule(cell, &state);
            }
            return Ok(plan.decided);
        };
        let began = Clock::instant();
        let outcome = hub.0.parts.log.commit(commit).await?;
        COMMIT_SECONDS.record(began.elapsed().as_secs_f64());
        match outcome {
            Outcome::Committed => {
                COMMITS.increment(1);
                trace(span, attempt, &plan.events);
                COMMIT_EVENTS.increment(plan.events.len() as u64);
                absorb(hub, cell, plan.expected, &plan.events);
                commit_feed::take_in_early(hub, cell);
                return Ok(plan.decided);
            }
            Outcome::Conflict(latest) => {
                COMMIT_CONFLICTS.increment(1);
                learn(hub, cell, latest, asked_at).await?;
                let longest = Duration::from_micros(u64::from(attempt.min(20)) * 500);
                tokio::time::sleep(jitter(hub, plan.expected, attempt, longest)).await;
            }
        }
    }
    Err(LogError::Conflicts(ATTEMPTS))
}

/// After a conflict: returns when the replica has reached the log's head, or the log the replica's.
async fn learn(hub: &Hub, cell: &Arc<RoomCell>, latest: Option<Head>, asked_at: Head) -> Result<(), LogError> {
    match hub.raise(cell, latest).await? {
        Some(latest) => arrive_at(hub, cell, latest).await,
        // The room has ended, and its last events are on their way; or the log has lost it, and refuses it.
        None if heard(cell, |state| state.room().is_vacant() || state.room().head() != asked_at).await => Ok(()),
        None => hub.install_ended(cell, asked_at),
    }
}

/// Waits until the replica has reached this head through the commit feed. A commit that doesn't come in time was
/// missed: the room is read again, and members here are told the whole state.
async fn arrive_at(hub: &Hub, cell: &Arc<RoomCell>, head: Head) -> Result<(), LogError> {
    if heard(cell, |state| state.room().head() >= head).await {
        return Ok(());
    }
    metrics::counter!(names::BUS_GAPS, "cause" => "conflict").increment(1);
    hub.reload(cell).await
}

/// False: the state did not come in time, or a commit before it is missing.
async fn heard(cell: &RoomCell, holds: impl Fn(&RoomCellState) -> bool) -> bool {
    let arrives = async {
        loop {
            let changed = cell.changed();
            {
                let state = cell.lock();
                if holds(&state) {
                    return true;
                }
                if state.needs_reload() || state.is_retired() {
                    return false;
                }
            }
            changed.await;
        }
    };
    tokio::time::timeout(FEED_DELAY, arrives).await.unwrap_or(false)
}

fn trace(span: &Span, attempts: u32, events: &[(Head, Event)]) {
    if let (false, Some((head, _))) = (span.is_disabled(), events.last()) {
        span.record("events", events.len()).record("attempts", attempts);
        span.record("epoch", head.epoch).record("seq", head.seq);
    }
}

/// Decides the batch on the replica.
fn plan(hub: &Hub, cell: &RoomCell, batch: &[QueuedCommand]) -> CommitPlan {
    let now = hub.now();
    let (before, refused) = {
        let state = cell.lock();
        let before = state.whole_room().clone();
        let refused = |queued| is_given_up(&state, queued).then_some(Refusal::Unavailable);
        (before, batch.iter().map(refused).collect::<Vec<_>>())
    };
    decide_all(hub, &before, now, batch, refused)
}

/// Refuses a command that panics, and decides the others again without it, on a fresh copy of the room.
fn decide_all(
    hub: &Hub,
    before: &Room,
    now: RoomTime,
    batch: &[QueuedCommand],
    mut refused: Vec<Option<Refusal>>,
) -> CommitPlan {
    let mut poisoned = false;
    loop {
        let at = std::cell::Cell::new(0);
        let attempt = panics::contain(|| {
            let (mut room, mut events) = (before.clone(), Vec::new());
            let decided = batch.iter().zip(&refused).enumerate().map(|(index, (queued, refused))| {
                at.set(index);
                match refused {
                    Some(refusal) => Err(refusal.clone()),
                    None => decide(hub, &mut room, now, &queued.command, &mut events),
                }
            });
            let decided = decided.collect();
            let commit = (!events.is_empty()).then(|| codec::commit(before, &room, &events, now));
            CommitPlan { expected: before.head(), decided, events, commit, poisoned }
        });
        match attempt {
            Ok(plan) => return plan,
            // No command was being decided: the room itself panics.
            Err(panic) if refused[at.get()].is_some() => std::panic::resume_unwind(panic),
            Err(_) => {
                tracing::error!(roomId = %before.id(), command = at.get(), "a command panicked: it is refused");
                refused[at.get()] = Some(Refusal::Internal);
                poisoned = true;
            }
        }
    }
}

/// A JOIN without a ticket: its client has gone on to another connection, which this JOIN would supersede.
fn is_given_up(state: &RoomCellState, queued: &QueuedCommand) -> bool {
    let Command::Join(join) = &queued.command else { return false };
    !state.has_ticket(&join.new_token)
}

fn decide(
    hub: &Hub,
    room: &mut Room,
    now: RoomTime,
    command: &Command,
    events: &mut Vec<(Head, Event)>,
) -> CommandOutcome {
    #[cfg(test)]
    super::testing::panic_at(command);
    let decided = room.decide(now, command, &hub.0.parts.limits).map_err(Refusal::Room)?;
    for event in decided {
        room.apply(&event);
        events.push((room.head(), event));
    }
    Ok(room.head())
}

/// Applies durable events to the replica, except those that it holds already.
pub(super) fn absorb(hub: &Hub, cell: &Arc<RoomCell>, expected: Head, events: &[(Head, Event)]) {
    let mut lost = Vec::new();
    {
        let mut state = cell.lock();
        if state.is_retired() {
            return;
        }
        state.clear_failed_commit(hub.now());
        absorb_into(hub, &mut state, expected, events, &mut lost);
        hub.count_kept(&mut state);
        hub.reschedule(cell, &state);
    }
    cell.notify_changed();
    for (user, session) in lost {
        hub.lose(cell, user, session);
    }
}

fn absorb_into(
    hub: &Hub,
    state: &mut RoomCellState,
    expected: Head,
    events: &[(Head, Event)],
    lost: &mut Vec<(UserId, SessionRef)>,
) {
    let known = state.room().head();
    let heads = std::iter::once(expected).chain(events.iter().map(|(head, _)| *head));
    let Some(unknown) = heads.take(events.len()).position(|before| before == known) else { return };
    lost.extend(state.absorb(&events[unknown..], hub.node(), hub.now(), &hub.0.parts.limits));
}

/// Answers each command of the batch, in order, after the events.
fn finish(hub: &Hub, cell: &RoomCell, batch: Vec<QueuedCommand>, decided: Vec<CommandOutcome>) {
    let mut state = cell.lock();
    hub.count_kept(&mut state);
    for (QueuedCommand { command, completion, cause }, mut result) in batch.into_iter().zip(decided) {
        cause.record("outcome", if result.is_ok() { "ok" } else { "refused" });
        if let (Command::Join(join), Ok(_)) = (&command, &result)
            && state.take_ticket(&join.new_token).is_some()
        {
            if state.is_attached(&join.user, &join.session) {
                // The same session joined again without an event: a page that was restored.
                state.send_state(&join.session, hub.node(), hub.now());
            } else {
                // A JOIN whose answer was lost let it in, with a token that no client has: it is being disconnected.
                result = Err(Refusal::Unavailable);
            }
        }
        match completion {
            // The room panicked meanwhile: its cell has no members.
            Completion::Join(done) if state.is_retired() => done.answer(Err(Refusal::Unavailable)),
            other => state.answer(other, result),
        }
    }
}

/// The log did not answer: members' commands are refused, the hub's own go back to the front of the queue. Returns the
/// JOINs, whose outcome the next read shows.
fn give_back(hub: &Hub, cell: &RoomCell, batch: Vec<QueuedCommand>, error: &LogError) -> Vec<(TokenHash, JoinReply)> {
    hub.unavailable("commit", cell.id(), error);
    let mut joins = Vec::new();
    let mut state = cell.lock();
    state.note_gap();
    state.note_failed_commit(hub.now());
    for queued in batch.into_iter().rev() {
        match (queued.command, queued.completion) {
            (command, Completion::MustCommit) => {
                let cause = Span::none();
                state.push_front(QueuedCommand { command, completion: Completion::MustCommit, cause });
            }
            (Command::Join(join), Completion::Join(done)) => joins.push((join.new_token, done)),
            (_, other) => state.answer(other, Err(Refusal::Unavailable)),
        }
    }
    joins
}

/// Answers the JOINs of a commit that failed. One without a ticket has been let in: its event came through the commit
/// feed or the read. Taking the ticket of any other one keeps it from being let in later.
fn answer_joins(cell: &RoomCell, joins: Vec<(TokenHash, JoinReply)>) {
    let mut state = cell.lock();
    for (token, done) in joins {
        let is_in = state.take_ticket(&token).is_none() && !state.is_retired();
        done.answer(if is_in { Ok(()) } else { Err(Refusal::Unavailable) });
    }
}

/// Deterministic jitter below `longest` (a hash of node, head and attempt), so that a simulation repeats.
fn jitter(hub: &Hub, head: Head, attempt: u32, longest: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (hub.node(), head, attempt).hash(&mut hasher);
    longest.mul_f64((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
}
