//! Group commit: all waiting commits are stored in one append, and answered and published only then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::unsaved::UnsavedCommits;
use super::{MemoryLogCore, MemoryLogState, OutcomeSender, QueuedCommit};
use crate::clock::Clock;
use crate::commit::Commit;
use crate::domain::RoomId;
use crate::log::{LogError, Outcome, too_early};
use crate::repository::{Repository, RepositoryError};
use crate::telemetry::{HotHistogram, Seldom, names};

static APPEND_SECONDS: HotHistogram = HotHistogram::new(names::APPEND_SECONDS);
static APPEND_COMMITS: HotHistogram = HotHistogram::new(names::APPEND_COMMITS);

/// Bounds of one append: commits, and their bytes.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// How often a full disk is tried again.
const FULL_EVERY: Duration = Duration::from_secs(1);

/// The one task of the memory log.
pub(super) struct GroupCommit {
    core: Arc<MemoryLogCore>,
    repository: Option<Arc<dyn Repository>>,
    /// The commits of an append that failed, and may be stored all the same. Nothing is appended before that is known.
    suspects: Vec<Commit>,
    /// Commits that were answered while the disk was full.
    unsaved: UnsavedCommits,
    /// When the full disk was tried last.
    tried: Option<Instant>,
    full: Seldom,
    failing: Seldom,
}

/// Why an append didn't store.
enum Unstored {
    /// The disk is full; `None`: it said so within the last [`FULL_EVERY`], and was not asked again.
    Full(Option<RepositoryError>),
    /// Whether the commits are stored is not known.
    Failed(RepositoryError),
}

impl From<RepositoryError> for Unstored {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Full { .. } => Self::Full(Some(error)),
            error => Self::Failed(error),
        }
    }
}

/// The commits of one append.
#[derive(Default)]
struct AppendBatch {
    commits: Vec<Commit>,
    /// One for each commit.
    answers: Vec<OutcomeSender>,
    conflicts: Vec<(RoomId, OutcomeSender)>,
}

impl GroupCommit {
    pub(super) fn new(core: Arc<MemoryLogCore>, repository: Option<Arc<dyn Repository>>) -> Self {
        Self {
            core,
            repository,
            suspects: Vec::new(),
            unsaved: UnsavedCommits::default(),
            tried: None,
            full: Seldom::new(),
            failing: Seldom::new(),
        }
    }

    /// Ends when the log is closed and nothing waits.
    pub(super) async fn run(mut self) {
        loop {
            // A task that is about to commit gets its turn first: larger batches on a busy machine, no cost on an idle
            // one.
            tokio::task::yield_now().await;
            let batch = {
                let mut state = self.core.state.lock();
                let ends = state.closed && state.queue.is_empty();
                if ends { None } else { Some(AppendBatch::gather(&mut state)) }
            };
            match batch {
                Some(Some(batch)) => self.process(batch).await,
                Some(None) => {
                    let work = self.core.work.notified();
                    if self.unsaved.is_empty() {
                        work.await;
                    } else if tokio::time::timeout(FULL_EVERY, work).await.is_err() {
                        self.store_unsaved().await;
                    }
                }
                None => {
                    self.tried = None;
                    self.store_unsaved().await;
                    if !self.unsaved.is_empty() {
                        tracing::error!(
                            rooms = self.unsaved.rooms(),
                            "the disk is still full: what was not stored is lost"
                        );
                    }
                    return;
                }
            }
        }
    }

    /// Stores the commits that a full disk didn't take, if there is space now.
    async fn store_unsaved(&mut self) {
        self.process(AppendBatch::default()).await;
    }

    async fn process(&mut self, mut batch: AppendBatch) {
        match self.store(&mut batch).await {
            Ok(()) => {
                self.failing.clear();
                self.settle(&mut batch);
            }
            Err(Unstored::Full(error)) => {
                self.keep_unsaved(&batch, error.as_ref());
                self.settle(&mut batch);
            }
            Err(Unstored::Failed(error)) => {
                if self.failing.is_due() {
                    tracing::warn!(commits = batch.commits.len(), %error, "commits could not be stored");
                }
                let rooms = batch.rooms();
                let answers = take_out(&mut self.core.state.lock(), &mut batch, &rooms);
                refuse(answers, &LogError::unavailable(error));
            }
        }
        let state = self.core.state.lock();
        for (room, answer) in batch.conflicts {
            let _ = answer.send(Ok(Outcome::Conflict(state.sequence.latest_head(&room))));
        }
    }

    /// Rooms go on while the disk is full; their commits are stored when there is space.
    fn keep_unsaved(&mut self, batch: &AppendBatch, error: Option<&RepositoryError>) {
        batch.commits.iter().for_each(|commit| self.unsaved.add(commit));
        metrics::gauge!(names::UNSAVED_ROOMS).set(self.unsaved.rooms() as f64);
        if let Some(error) = error
            && self.full.is_due()
        {
            let (rooms, lost) = (self.unsaved.rooms(), self.unsaved.take_lost());
            tracing::error!(
                %error, rooms, eventsLost = lost,
                "rooms go on in memory: what they do is lost if this process ends before the disk has space"
            );
        }
    }

    async fn store(&mut self, batch: &mut AppendBatch) -> Result<(), Unstored> {
        let Some(repository) = self.repository.clone() else { return Ok(()) };
        self.clear_up(&*repository, batch).await?;
        self.check_new_rooms(&*repository, batch).await?;
        if !self.unsaved.is_empty() && self.tried.is_some_and(|at| at.elapsed() < FULL_EVERY) {
            // A full disk is not tried with every batch.
            return Err(Unstored::Full(None));
        }
        let mut all = self.unsaved.commits();
        let has_unsaved = !all.is_empty();
        let commits = if has_unsaved {
            all.extend(batch.commits.iter().cloned());
            &all
        } else {
            &batch.commits
        };
        if commits.is_empty() {
            return Ok(());
        }
        let began = Clock::instant();
        let stored = repository.append(commits).await;
        APPEND_SECONDS.record(began.elapsed().as_secs_f64());
        APPEND_COMMITS.record(commits.len() as f64);
        if let Err(error) = stored {
            metrics::counter!(names::APPEND_FAILURES).increment(1);
            if matches!(error, RepositoryError::Full { .. }) {
                self.tried = Some(Clock::instant());
            } else {
                // Unsaved commits are settled already, and storing them twice is harmless.
                self.suspects.clone_from(&batch.commits);
            }
            return Err(error.into());
        }
        if has_unsaved {
            let lost = self.unsaved.take_lost();
            tracing::warn!(
                rooms = self.unsaved.rooms(),
                eventsLost = lost,
                "the disk has space again: rooms are stored"
            );
            self.unsaved.clear();
            self.full.clear();
            metrics::gauge!(names::UNSAVED_ROOMS).set(0.0);
        }
        Ok(())
    }

    /// Asks which suspects are stored. These are settled now; commits decided without them conflict.
    async fn clear_up(&mut self, repository: &dyn Repository, batch: &mut AppendBatch) -> Result<(), RepositoryError> {
        if self.suspects.is_empty() {
            return Ok(());
        }
        let rooms: BTreeSet<RoomId> = self.suspects.iter().map(|commit| commit.room.clone()).collect();
        let heads = repository.heads(&Vec::from_iter(rooms)).await?;
        let is_stored = |commit: &Commit| heads.get(&commit.room).is_some_and(|head| commit.next <= *head);
        let stored: Vec<Commit> = std::mem::take(&mut self.suspects).into_iter().filter(is_stored).collect();
        let rooms: BTreeSet<RoomId> = stored.iter().map(|commit| commit.room.clone()).collect();
        let mut state = self.core.state.lock();
        let answers = take_out(&mut state, batch, &rooms);
        for commit in &stored {
            state.sequence.restore(commit);
            state.publish(commit);
        }
        for (room, answer) in answers {
            let _ = answer.send(Ok(Outcome::Conflict(state.sequence.latest_head(&room))));
        }
        Ok(())
    }

    /// A room that this process doesn't know may have ended before it started, at an epoch of a clock that has been set
    /// back since. The repository would take the new epoch for a replay.
    async fn check_new_rooms(
        &self,
        repository: &dyn Repository,
        batch: &mut AppendBatch,
    ) -> Result<(), RepositoryError> {
        let first: BTreeMap<RoomId, Commit> = {
            let state = self.core.state.lock();
            let unknown = batch.commits.iter().rev().filter(|commit| state.sequence.is_unknown(&commit.room));
            unknown.map(|commit| (commit.room.clone(), commit.clone())).collect()
        };
        if first.is_empty() {
            return Ok(());
        }
        let heads = repository.heads(&Vec::from_iter(first.keys().cloned())).await?;
        for (room, head) in heads {
            let Some(commit) = first.get(&room).filter(|commit| commit.next.epoch <= head.epoch) else { continue };
            let mut state = self.core.state.lock();
            let answers = take_out(&mut state, batch, &BTreeSet::from([room.clone()]));
            state.sequence.end(&room, head);
            refuse(answers, &too_early(commit, head));
        }
        Ok(())
    }

    fn settle(&self, batch: &mut AppendBatch) {
        {
            let mut state = self.core.state.lock();
            for commit in &batch.commits {
                state.sequence.settle(commit);
                state.publish(commit);
            }
        }
        for answer in batch.answers.drain(..) {
            let _ = answer.send(Ok(Outcome::Committed));
        }
    }
}

/// Rolls rooms back, and returns the senders of all commits that were accepted in them: those in the batch, and those
/// decided on top of it since. The caller keeps the lock while it corrects the rooms.
fn take_out(
    state: &mut MemoryLogState,
    batch: &mut AppendBatch,
    rooms: &BTreeSet<RoomId>,
) -> Vec<(RoomId, OutcomeSender)> {
    let mut answers = batch.take_out(rooms);
    for room in rooms {
        state.sequence.roll_back(room);
    }
    for waiting in std::mem::take(&mut state.queue) {
        match waiting {
            QueuedCommit::Accepted(commit, answer) if rooms.contains(&commit.room) => {
                answers.push((commit.room, answer))
            }
            other => state.queue.push_back(other),
        }
    }
    answers
}

fn refuse(answers: Vec<(RoomId, OutcomeSender)>, error: &LogError) {
    for (_, answer) in answers {
        let _ = answer.send(Err(error.clone()));
    }
}

impl Drop for GroupCommit {
    /// Also after a panic: callers must not wait for a task that has ended.
    fn drop(&mut self) {
        let mut state = self.core.state.lock();
        state.closed = true;
        state.queue.clear();
        drop(state);
        self.core.flushed.cancel();
    }
}

impl AppendBatch {
    fn gather(state: &mut MemoryLogState) -> Option<Self> {
        let mut batch = Self::default();
        let mut bytes = 0;
        while batch.commits.len() + batch.conflicts.len() < BATCH && bytes < BATCH_BYTES {
            match state.queue.pop_front() {
                Some(QueuedCommit::Accepted(commit, answer)) => {
                    bytes += weight(&commit);
                    batch.commits.push(commit);
                    batch.answers.push(answer);
                }
                Some(QueuedCommit::Conflict(room, answer)) => batch.conflicts.push((room, answer)),
                None => break,
            }
        }
        (!batch.commits.is_empty() || !batch.conflicts.is_empty()).then_some(batch)
    }

    fn rooms(&self) -> BTreeSet<RoomId> {
        self.commits.iter().map(|commit| commit.room.clone()).collect()
    }

    fn take_out(&mut self, rooms: &BTreeSet<RoomId>) -> Vec<(RoomId, OutcomeSender)> {
        let mut owed = Vec::new();
        let all = std::mem::take(&mut self.commits).into_iter().zip(std::mem::take(&mut self.answers));
        for (commit, answer) in all {
            if rooms.contains(&commit.room) {
                owed.push((commit.room, answer));
            } else {
                self.commits.push(commit);
                self.answers.push(answer);
            }
        }
        owed
    }
}

fn weight(commit: &Commit) -> usize {
    let entries: usize = commit.entries.iter().map(|entry| entry.body.len() + entry.audit.len()).sum();
    let fields: usize = commit.patch.fields.values().flatten().map(bytes::Bytes::len).sum();
    entries + fields
}
