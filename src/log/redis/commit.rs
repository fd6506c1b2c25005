//! A commit: one script. It is sent again while another node has the room's turn, or while Redis is full. A commit to
//! a room that was written back a moment ago (`@frozen_until`) waits, and is then answered as a conflict: it is decided
//! anew.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use rand::RngExt;

use super::{RedisLog, wire};
use crate::clock::Clock;
use crate::commit::{Commit, outbox_entry};
use crate::log::{LogError, Outcome, ascending, too_early};
use crate::redis::{CommitAnswer, CommitDecision, CommitRequest, LinkError, Partition, StreamId, note_lost};

/// Pause before a commit is sent again to a Redis that was full.
const FULL: Duration = Duration::from_millis(50);
/// A node trims the outboxes of a full Redis no more often: the memory that it frees shows with a delay.
const RELIEF_EVERY: Duration = Duration::from_millis(500);
/// Partitions that are trimmed at the same time.
const AT_ONCE: usize = 16;

impl RedisLog {
    pub(super) async fn try_commit(&self, commit: Commit) -> Result<Outcome, LogError> {
        ascending(&commit)?;
        let (events, state) = (Bytes::from(outbox_entry::events(&commit)), Bytes::from(outbox_entry::state(&commit)));
        let (id, message) = (self.next_id(), wire::commit_message(&self.node, &commit));
        let request = CommitRequest {
            commit: &commit,
            node: &self.node,
            id: &id,
            message: &message,
            events: &events,
            state: &state,
            claim: self.fairness.claim(&commit.room),
            // An answer is asked for again within the deadline; twice that for clocks and pauses.
            answer_life: self.link.options().deadline * 2,
        };
        let decision = self.in_turn(&request).await?;
        self.fairness.note(&commit.room, matches!(decision, CommitDecision::Conflict(_)));
        match decision {
            CommitDecision::Committed { entry, era_id, lost } => {
                note_lost(lost);
                self.recent.add(Partition::of(&commit.room), entry, era_id, &commit, events, state);
                Ok(Outcome::Committed)
            }
            CommitDecision::Conflict(latest) => Ok(Outcome::Conflict(Some(latest))),
            CommitDecision::Frozen(rest, latest) => {
                // Other nodes may write back a later state meanwhile, and the bus brings it to the hub.
                tokio::time::sleep(rest).await;
                Ok(Outcome::Conflict(Some(latest)))
            }
            CommitDecision::Vacant => Ok(Outcome::Conflict(None)),
            CommitDecision::Early(ended) => Err(too_early(&commit, ended)),
        }
    }

    /// Sends again while the room has to wait, for as long as the answer says, and after Redis has been relieved.
    async fn in_turn(&self, request: &CommitRequest<'_>) -> Result<CommitDecision, LogError> {
        let (call, since) = (self.link.commit(request), Clock::instant());
        let deadline = self.link.options().deadline;
        loop {
            let longest = match call.run().await? {
                CommitAnswer::Wait(_) if since.elapsed() > deadline => return Err(LogError::Overtaken(deadline)),
                CommitAnswer::Wait(longest) => longest,
                CommitAnswer::Full if since.elapsed() > deadline => return Err(LogError::Full),
                CommitAnswer::Full => {
                    self.relieve().await?;
                    FULL
                }
                CommitAnswer::Decided(decision) => return Ok(decision),
            };
            let pause = rand::rng().random_range(longest / 2..=longest);
            tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
        }
    }

    /// Redis refused a write for lack of memory: trims the outboxes, entries that the database has first.
    async fn relieve(&self) -> Result<(), LinkError> {
        {
            // Of commits that fail together one trims, and the others are sent again meanwhile.
            let mut relieved = self.relieved.lock();
            if relieved.is_some_and(|at| at.elapsed() < RELIEF_EVERY) {
                return Ok(());
            }
            *relieved = Some(Clock::instant());
        }
        if self.full.is_due() {
            tracing::error!("Redis is full (maxmemory): the outboxes are trimmed, so that rooms go on");
        }
        let trims = Partition::all().map(|partition| async move {
            note_lost(self.link.trim(partition, StreamId::default()).run().await?.lost);
            Ok(())
        });
        futures_util::stream::iter(trims).buffer_unordered(AT_ONCE).try_collect().await
    }
}
