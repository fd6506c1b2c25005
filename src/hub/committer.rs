//! From the queue into the log: one task a room while there is something to commit, or to be read again.
//!
//! Everything that waits is decided, in order, on a copy of the replica and committed as one batch. A conflict means that
//! another node was faster: take the latest, decide again; after each conflict a short jittered pause, so that fifty
//! writers get their turn.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tracing::{Instrument, Span, field};

use super::Hub;
use super::cell::{Cell, JoinDone, Queued, Resolve, State};
use super::outlet::Refusal;
use super::record;
use crate::clock::Clock;
use crate::domain::{Head, RoomTime, SessionRef, UserId};
use crate::log::{Commit, LogError, Outcome};
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

/// What one command of the batch came to.
type Decided = Result<Head, Refusal>;

struct Plan {
    expected: Head,
    decided: Vec<Decided>,
    events: Vec<(Head, Event)>,
    commit: Option<Commit>,
}

pub(super) async fn run(hub: Hub, cell: Arc<Cell>) {
    let mut failures = 0;
    loop {
        let outcome = match next_work(&cell) {
            Work::Done => {
                hub.retire(&cell);
                return;
            }
            Work::Read => hub.catch_up(&cell).await.map_err(drop),
            Work::Commit(batch) => match settle_traced(&hub, &cell, &batch).await {
                Ok(decided) => {
                    finish(&hub, &cell, batch, decided);
                    Ok(())
                }
                Err(error) => {
                    let joins = give_back(&hub, &cell, batch, &error);
                    // What became of the commit is unknown: read the truth, as far as it can be had.
                    let _ = hub.reload(&cell).await;
                    answer_joins(&cell, joins);
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
        tokio::time::sleep(ceiling / 2 + jitter(&hub, head, failures, ceiling / 2)).await;
    }
}

enum Work {
    Commit(Vec<Queued>),
    /// Nothing waits, but there may be commits that nobody here knows of: a room must not be forgotten like that.
    Read,
    Done,
}

fn next_work(cell: &Cell) -> Work {
    let mut state = cell.lock();
    if !state.queue.is_empty() {
        let count = state.queue.len().min(BATCH);
        return Work::Commit(state.queue.drain(..count).collect());
    }
    if state.unsure {
        return Work::Read;
    }
    state.committing = false;
    Work::Done
}

/// One span a batch, linked to the requests in it.
async fn settle_traced(hub: &Hub, cell: &Arc<Cell>, batch: &[Queued]) -> Result<Vec<Decided>, LogError> {
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
async fn settle(hub: &Hub, cell: &Arc<Cell>, batch: &[Queued], span: &Span) -> Result<Vec<Decided>, LogError> {
    for attempt in 1..=ATTEMPTS {
        let plan = plan(hub, cell, batch);
        let Some(commit) = plan.commit else {
            // A deadline that came a moment early must come again.
            hub.0.timers.schedule(cell.id(), cell.lock().room.next_deadline());
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
                return Ok(plan.decided);
            }
            Outcome::Conflict(latest) => {
                COMMIT_CONFLICTS.increment(1);
                let latest = hub.write_back(cell, latest).await?;
                if hub.install(cell, latest, plan.expected).is_err() {
                    return Err(LogError("the room's stored state can't be read".into()));
                }
                let longest = Duration::from_micros(u64::from(attempt.min(20)) * 500);
                tokio::time::sleep(jitter(hub, plan.expected, attempt, longest)).await;
            }
        }
    }
    Err(LogError(format!("{ATTEMPTS} conflicts in a row")))
}

fn trace(span: &Span, attempts: u32, events: &[(Head, Event)]) {
    if let (false, Some((head, _))) = (span.is_disabled(), events.last()) {
        span.record("events", events.len()).record("attempts", attempts);
        span.record("epoch", head.epoch).record("seq", head.seq);
    }
}

fn plan(hub: &Hub, cell: &Cell, batch: &[Queued]) -> Plan {
    let now = hub.now();
    let (before, given_up) = {
        let state = cell.lock();
        (state.room.clone(), batch.iter().map(|queued| is_given_up(&state, queued)).collect::<Vec<_>>())
    };
    let mut room = before.clone();
    let mut events = Vec::new();
    let decided = batch.iter().zip(given_up).map(|(queued, given_up)| match given_up {
        true => Err(Refusal::Unavailable),
        false => decide(hub, &mut room, now, &queued.command, &mut events),
    });
    let decided = decided.collect();
    let commit = (!events.is_empty()).then(|| record::commit(&before, &room, &events, now));
    Plan { expected: before.head(), decided, events, commit }
}

/// A JOIN that nobody waits for any more: its client has gone on to another connection, from which it would take the
/// membership away again.
fn is_given_up(state: &State, queued: &Queued) -> bool {
    let Command::Join(join) = &queued.command else { return false };
    !state.joining.get(&join.session.id).is_some_and(|joining| joining.token.hash() == join.new_token)
}

fn decide(hub: &Hub, room: &mut Room, now: RoomTime, command: &Command, events: &mut Vec<(Head, Event)>) -> Decided {
    let decided = room.decide(now, command, &hub.0.parts.limits).map_err(Refusal::Room)?;
    for event in decided {
        room.apply(&event);
        events.push((room.head(), event));
    }
    Ok(room.head())
}

/// The batch is durable: it becomes the replica, unless the follower was faster.
pub(super) fn absorb(hub: &Hub, cell: &Arc<Cell>, expected: Head, events: &[(Head, Event)]) {
    let mut lost = Vec::new();
    let deadline = {
        let mut state = cell.lock();
        state.set_degraded(false, hub.now());
        absorb_into(hub, &mut state, expected, events, &mut lost);
        hub.count_kept(&mut state);
        state.room.next_deadline()
    };
    hub.0.timers.schedule(cell.id(), deadline);
    cell.changed.notify_waiters();
    for (user, session) in lost {
        hub.lose(cell, user, session);
    }
}

fn absorb_into(
    hub: &Hub,
    state: &mut State,
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
fn finish(hub: &Hub, cell: &Cell, batch: Vec<Queued>, decided: Vec<Decided>) {
    let mut state = cell.lock();
    hub.count_kept(&mut state);
    for (Queued { command, resolve, cause }, mut result) in batch.into_iter().zip(decided) {
        cause.record("outcome", if result.is_ok() { "ok" } else { "refused" });
        if let (Command::Join(join), Ok(_)) = (&command, &result)
            && state.joining.remove(&join.session.id).is_some()
        {
            if state.attached(&join.session).is_some() {
                // No event: the same session joined again (a page restore).
                state.send_state(&join.session, hub.node(), hub.now());
            } else {
                // It is in by a JOIN whose answer was lost, with a token that nobody has: it is being disconnected.
                result = Err(Refusal::Unavailable);
            }
        }
        match resolve {
            Resolve::Join(done) => done.answer(result.map(|_| ())),
            other => state.answer(&other, result),
        }
    }
}

/// The log is away: members' commands are refused, the hub's own wait at the front. The JOINs are handed back: they may
/// be in all the same.
fn give_back(hub: &Hub, cell: &Cell, batch: Vec<Queued>, error: &LogError) -> Vec<(SessionRef, JoinDone)> {
    tracing::warn!(roomId = %cell.id(), %error, "a commit failed");
    let mut joins = Vec::new();
    let mut state = cell.lock();
    state.unsure = true;
    state.set_degraded(true, hub.now());
    for queued in batch.into_iter().rev() {
        match (queued.command, queued.resolve) {
            (command, Resolve::Insist) => {
                let cause = Span::none();
                state.queue.push_front(Queued { command, resolve: Resolve::Insist, cause });
            }
            (Command::Join(join), Resolve::Join(done)) => joins.push((join.session, done)),
            (_, other) => state.answer(&other, Err(Refusal::Unavailable)),
        }
    }
    joins
}

/// JOINs of a commit that failed: whoever has ROOM_STATE is in. Who is told otherwise is not let in behind its back.
fn answer_joins(cell: &Cell, joins: Vec<(SessionRef, JoinDone)>) {
    let mut state = cell.lock();
    for (session, done) in joins {
        state.joining.remove(&session.id);
        done.answer(if state.attached(&session).is_some() { Ok(()) } else { Err(Refusal::Unavailable) });
    }
}

/// A share of `longest` that differs from node to node and from time to time. Made of what both have in common anyway:
/// chance would do, but then a simulation would not repeat itself.
fn jitter(hub: &Hub, head: Head, attempt: u32, longest: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (hub.node(), head, attempt).hash(&mut hasher);
    longest.mul_f64((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
}
