//! From the queue into the log: one task a room while there is something to commit, or to be read again.
//!
//! Everything that waits is decided, in order, on a copy of the replica and committed as one batch. A conflict means that
//! another node was faster: decide again, after a short jittered pause, so that fifty writers get their turn, and after what
//! the other nodes committed has come through the follower. Members hear it as events, in order, before this node's own;
//! only what doesn't come in time is a gap.
//!
//! A panic costs the command that caused it, where it is decided; anywhere else the room's replica is dropped and read again
//! ([`super::room_panic`]).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tracing::{Instrument, Span, field};

use super::Hub;
use super::delivery::Refusal;
use super::room_cell::{Completion, JoinReply, QueuedCommand, RoomCell, RoomCellState};
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

/// Commands of one commit.
const BATCH: usize = 256;
/// Conflicts after which a batch is refused: far beyond what a fair pause needs.
const ATTEMPTS: u32 = 200;
/// How long commits of other nodes, which the log has shown, may take to come through the follower. Far beyond the bus'
/// usual delay: where it breaks, the bus reports a gap by itself.
const ON_THEIR_WAY: Duration = Duration::from_secs(5);
/// A deadline whose command panics comes again after this time.
const POISONED: Duration = Duration::from_secs(10);

/// What one command of the batch came to.
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
        let outcome = match next_work(cell) {
            CellWork::Done => {
                hub.retire(cell);
                return;
            }
            // An answer may leave it open whether something is missing: asked again after a pause, as if there were none.
            CellWork::Read => match hub.catch_up(cell).await {
                Ok(()) if !cell.lock().has_gap() => Ok(()),
                _ => Err(()),
            },
            CellWork::Commit(batch) => match settle_traced(hub, cell, &batch).await {
                Ok(decided) => {
                    finish(hub, cell, batch, decided);
                    Ok(())
                }
                Err(error) => {
                    let joins = give_back(hub, cell, batch, &error);
                    // What became of the commit is unknown: read the truth, as far as it can be had. Members stay told that
                    // nothing can be committed: that the log can be read doesn't show that it takes commits.
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
            cell.lock().committing = false;
            return;
        }
        let ceiling = Duration::from_millis((50_u64 << failures.min(6)).min(2000));
        let head = cell.lock().room.head();
        tokio::time::sleep(ceiling / 2 + jitter(hub, head, failures, ceiling / 2)).await;
    }
}

enum CellWork {
    Commit(Vec<QueuedCommand>),
    /// Nothing waits, but there may be commits that nobody here knows of: a room must not be forgotten like that.
    Read,
    Done,
}

fn next_work(cell: &RoomCell) -> CellWork {
    let mut state = cell.lock();
    if state.retired {
        // The room panicked: whatever waits is for the cell that took its place.
        state.queue.clear();
        state.committing = false;
        return CellWork::Done;
    }
    if !state.queue.is_empty() {
        let count = state.queue.len().min(BATCH);
        return CellWork::Commit(state.queue.drain(..count).collect());
    }
    if state.has_gap() {
        return CellWork::Read;
    }
    state.committing = false;
    CellWork::Done
}

/// One span a batch, linked to the requests in it.
async fn settle_traced(
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
    settle(hub, cell, batch, &span).instrument(span.clone()).await
}

/// Decides and commits until the batch is in; what it came to, command by command.
async fn settle(
    hub: &Hub,
    cell: &Arc<RoomCell>,
    batch: &[QueuedCommand],
    span: &Span,
) -> Result<Vec<CommandOutcome>, LogError> {
    for attempt in 1..=ATTEMPTS {
        let asked_at = cell.lock().room.head();
        let plan = plan(hub, cell, batch);
        let Some(commit) = plan.commit else {
            let state = cell.lock();
            if plan.poisoned && !state.retired {
                hub.0.timers.schedule(cell.id(), Some(hub.now() + POISONED));
            } else {
                // A deadline that came a moment early must come again.
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
                commit_feed::take_waiting(hub, cell);
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
    Err(LogError(format!("{ATTEMPTS} conflicts in a row")))
}

/// After a lost race: returns when the replica stands where the log does, or the log where the replica does.
async fn learn(hub: &Hub, cell: &Arc<RoomCell>, latest: Option<Head>, asked_at: Head) -> Result<(), LogError> {
    match hub.raise(cell, latest).await? {
        Some(latest) => arrive_at(hub, cell, latest).await,
        // It has ended, and its last events are on their way; or the log has lost it, and doesn't take it back.
        None if heard(cell, |state| state.room.is_vacant() || state.room.head() != asked_at).await => Ok(()),
        None => {
            let installed = hub.install(cell, None, asked_at);
            installed.map(drop).map_err(|_| LogError("the room's stored state can't be read".into()))
        }
    }
}

/// Waits until the replica has what other nodes committed up to this head. What doesn't come in time was missed: the room is
/// read again, and members here are told the whole of it.
async fn arrive_at(hub: &Hub, cell: &Arc<RoomCell>, head: Head) -> Result<(), LogError> {
    if heard(cell, |state| state.room.head() >= head).await {
        return Ok(());
    }
    metrics::counter!(names::BUS_GAPS, "cause" => "conflict").increment(1);
    hub.reload(cell).await.map_err(|_| LogError("what other nodes committed can't be read".into()))
}

/// False: it did not come in time, or something before it is missing.
async fn heard(cell: &RoomCell, holds: impl Fn(&RoomCellState) -> bool) -> bool {
    let arrives = async {
        loop {
            let changed = cell.changed.notified();
            {
                let state = cell.lock();
                if holds(&state) {
                    return true;
                }
                if state.has_gap() || state.retired {
                    return false;
                }
            }
            changed.await;
        }
    };
    tokio::time::timeout(ON_THEIR_WAY, arrives).await.unwrap_or(false)
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

/// A command that panics is refused and the others are decided again without it: a copy of the room that is half changed
/// is thrown away.
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
            // Not by a command of its own: the whole room is to blame.
            Err(panic) if refused[at.get()].is_some() => std::panic::resume_unwind(panic),
            Err(_) => {
                tracing::error!(roomId = %before.id(), command = at.get(), "a command panicked: it is refused");
                refused[at.get()] = Some(Refusal::Internal);
                poisoned = true;
            }
        }
    }
}

/// A JOIN that nobody waits for any more: its client has gone on to another connection, from which it would take the
/// membership away again.
fn is_given_up(state: &RoomCellState, queued: &QueuedCommand) -> bool {
    let Command::Join(join) = &queued.command else { return false };
    !state.waits(&join.new_token)
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

/// The batch is durable: it becomes the replica, unless the follower was faster.
pub(super) fn absorb(hub: &Hub, cell: &Arc<RoomCell>, expected: Head, events: &[(Head, Event)]) {
    let mut lost = Vec::new();
    {
        let mut state = cell.lock();
        if state.retired {
            return;
        }
        state.set_degraded(false, hub.now());
        absorb_into(hub, &mut state, expected, events, &mut lost);
        hub.count_kept(&mut state);
        hub.reschedule(cell, &state);
    }
    cell.changed.notify_waiters();
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
    let now = hub.now();
    let mut at = expected;
    for (head, event) in events {
        if state.room.head() == at {
            lost.extend(state.absorb(event, *head, hub.node(), now));
        }
        at = *head;
    }
}

/// Everybody hears what became of its command, in order, after the events.
fn finish(hub: &Hub, cell: &RoomCell, batch: Vec<QueuedCommand>, decided: Vec<CommandOutcome>) {
    let mut state = cell.lock();
    hub.count_kept(&mut state);
    for (QueuedCommand { command, resolve, cause }, mut result) in batch.into_iter().zip(decided) {
        cause.record("outcome", if result.is_ok() { "ok" } else { "refused" });
        if let (Command::Join(join), Ok(_)) = (&command, &result)
            && state.settle(&join.new_token).is_some()
        {
            if state.is_attached(&join.user, &join.session) {
                // No event: the same session joined again (a page restore).
                state.send_state(&join.session, hub.node(), hub.now());
            } else {
                // It is in by a JOIN whose answer was lost, with a token that nobody has: it is being disconnected.
                result = Err(Refusal::Unavailable);
            }
        }
        match resolve {
            // The room panicked meanwhile: nobody is in it here.
            Completion::Join(done) if state.retired => done.answer(Err(Refusal::Unavailable)),
            Completion::Join(done) => done.answer(result.map(|_| ())),
            other => state.answer(&other, result),
        }
    }
}

/// The log is away: members' commands are refused, the hub's own wait at the front. The JOINs are handed back: they may
/// be in all the same.
fn give_back(hub: &Hub, cell: &RoomCell, batch: Vec<QueuedCommand>, error: &LogError) -> Vec<(TokenHash, JoinReply)> {
    hub.0.outages.note("commit", cell.id(), error);
    let mut joins = Vec::new();
    let mut state = cell.lock();
    state.note_gap();
    state.failed_at = Some(Clock::instant());
    state.set_degraded(true, hub.now());
    for queued in batch.into_iter().rev() {
        match (queued.command, queued.resolve) {
            (command, Completion::MustCommit) => {
                let cause = Span::none();
                state.queue.push_front(QueuedCommand { command, resolve: Completion::MustCommit, cause });
            }
            (Command::Join(join), Completion::Join(done)) => joins.push((join.new_token, done)),
            (_, other) => state.answer(&other, Err(Refusal::Unavailable)),
        }
    }
    joins
}

/// JOINs of a commit that failed. One whose ticket is gone has its ROOM_STATE: its event came by another way. One that is
/// told otherwise is not let in behind its back.
fn answer_joins(cell: &RoomCell, joins: Vec<(TokenHash, JoinReply)>) {
    let mut state = cell.lock();
    for (token, done) in joins {
        let is_in = state.settle(&token).is_none() && !state.retired;
        done.answer(if is_in { Ok(()) } else { Err(Refusal::Unavailable) });
    }
}

/// A share of `longest` that differs from node to node and from time to time. Made of what both have in common anyway:
/// chance would do, but then a simulation would not repeat itself.
fn jitter(hub: &Hub, head: Head, attempt: u32, longest: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (hub.node(), head, attempt).hash(&mut hasher);
    longest.mul_f64((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
}
