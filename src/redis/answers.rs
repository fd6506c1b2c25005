//! The requests and the answers of scripts that have more than a value or two.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{FromRedisValue, ParsingError, Value};

use super::values::{StreamId, parse_head};
use crate::commit::Commit;
use crate::domain::{Head, NodeId, RoomId};

/// A script's answer that begins with a word.
struct Worded {
    word: String,
    rest: std::vec::IntoIter<Value>,
}

impl Worded {
    fn next<T: FromRedisValue>(&mut self) -> Result<T, ParsingError> {
        T::from_redis_value(self.rest.next().unwrap_or(Value::Nil))
    }

    fn unknown(self) -> ParsingError {
        format!("a script answered {}", self.word).into()
    }
}

impl FromRedisValue for Worded {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut rest = Vec::<Value>::from_redis_value(value)?.into_iter();
        let word = String::from_redis_value(rest.next().unwrap_or(Value::Nil))?;
        Ok(Self { word, rest })
    }
}

pub(crate) struct CommitRequest<'a> {
    pub(crate) commit: &'a Commit,
    pub(crate) node: &'a NodeId,
    /// Names the commit, for a node that lost the answer.
    pub(crate) id: &'a str,
    /// The bus message.
    pub(crate) message: &'a [u8],
    /// The outbox entry's.
    pub(crate) events: &'a [u8],
    pub(crate) state: &'a [u8],
    /// How long the others wait for this node's next commit, if this one loses again; `None`: it doesn't claim the
    /// turn.
    pub(crate) claim: Option<Duration>,
    /// How long a lost answer may be asked for again.
    pub(crate) answer_life: Duration,
}

pub(crate) enum CommitAnswer {
    Decided(CommitDecision),
    /// Commits to this room wait for another node; ask again after so long.
    Wait(Duration),
    /// Redis is at its `maxmemory`, and nothing was written.
    Full,
}

/// The outcome of a commit.
pub(crate) enum CommitDecision {
    Committed {
        entry: StreamId,
        era_id: String,
        /// Commits that left the outbox before the database had them.
        lost: u64,
    },
    Conflict(Head),
    /// There is no such room, or it has ended.
    Vacant,
    /// The epoch is not later than that of this head, which has ended.
    Early(Head),
    /// The room was written back, stands at this head, and takes no commit for so long: nodes that know more of it
    /// write that back first.
    Frozen(Duration, Head),
}

impl FromRedisValue for CommitAnswer {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut answer = Worded::from_redis_value(value)?;
        let head = |answer: &mut Worded| {
            let text: Vec<u8> = answer.next()?;
            parse_head(&text).ok_or_else(|| ParsingError::from("the room's head can't be read".to_owned()))
        };
        Ok(Self::Decided(match answer.word.as_str() {
            "ok" | "again" => {
                let (entry, era_id, lost) = (answer.next()?, answer.next()?, answer.next()?);
                CommitDecision::Committed { entry, era_id, lost }
            }
            "conflict" => CommitDecision::Conflict(head(&mut answer)?),
            "vacant" => CommitDecision::Vacant,
            "early" => CommitDecision::Early(head(&mut answer)?),
            "frozen" => CommitDecision::Frozen(Duration::from_millis(answer.next()?), head(&mut answer)?),
            "wait" => return Ok(Self::Wait(Duration::from_millis(answer.next()?))),
            "full" => return Ok(Self::Full),
            _ => return Err(answer.unknown()),
        }))
    }
}

pub(crate) enum RestoreAnswer {
    /// Redis had less, and has it now.
    Raised,
    /// Redis has this hash.
    Latest(Vec<(Vec<u8>, Vec<u8>)>),
    /// It has ended.
    Vacant,
}

impl FromRedisValue for RestoreAnswer {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut answer = Worded::from_redis_value(value)?;
        match answer.word.as_str() {
            "raised" => Ok(Self::Raised),
            "latest" => answer.next().map(Self::Latest),
            "vacant" => Ok(Self::Vacant),
            _ => Err(answer.unknown()),
        }
    }
}

/// Own commits that were found in an outbox.
pub(crate) struct FoundCommits {
    pub(crate) era_id: String,
    /// The last entry that the database has.
    pub(crate) audited: Option<StreamId>,
    pub(crate) missing: Vec<StreamId>,
}

impl FromRedisValue for FoundCommits {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (era_id, audited, missing) = <(String, String, Vec<String>)>::from_redis_value(value)?;
        let missing = missing.iter().filter_map(|entry| StreamId::parse(entry)).collect();
        Ok(Self { era_id, audited: StreamId::parse(&audited), missing })
    }
}

/// A commit that Redis had lost.
pub(crate) struct LostCommit<'a> {
    pub(crate) room: &'a RoomId,
    pub(crate) head: Head,
    pub(crate) events: &'a [u8],
    pub(crate) state: &'a [u8],
    /// The id of the data from now on, if Redis has none.
    pub(crate) new_era: String,
}

/// The state of an outbox after trimming.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trimmed {
    /// Commits that the database doesn't have.
    pub(crate) waiting: u64,
    /// Time of the oldest of them, ms; 0: there is none.
    pub(crate) since: u64,
    pub(crate) entries: u64,
    /// Live rooms of the partition.
    pub(crate) rooms: u64,
    pub(crate) bytes: u64,
    /// Commits that were removed before the database had them.
    pub(crate) lost: u64,
    /// Of Redis' `maxmemory`.
    pub(crate) percent: u64,
}

impl FromRedisValue for Trimmed {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (waiting, since, entries, rooms, bytes, lost, percent) = FromRedisValue::from_redis_value(value)?;
        Ok(Self { waiting, since, entries, rooms, bytes, lost, percent })
    }
}

pub(crate) struct EnterRequest<'a> {
    /// Keys: the counter of the address's JOINs, the places of the user, those of the address.
    pub(crate) joins: String,
    pub(crate) user: String,
    pub(crate) address: String,
    pub(crate) allowed: u64,
    pub(crate) window: Duration,
    pub(crate) place: &'a str,
    pub(crate) most_of_user: u64,
    pub(crate) most_of_address: u64,
    /// Places of a full set to name.
    pub(crate) named: usize,
    /// The JOIN was counted by an earlier call.
    pub(crate) counted: bool,
}

pub(crate) enum EnterAnswer {
    Entered,
    Wait(Duration),
    Full {
        /// The user's places are all taken; else the address's.
        of_user: bool,
        /// Redis' time, ms.
        now: u64,
        /// The oldest places, and when each lapses, ms.
        places: Vec<(String, f64)>,
    },
}

impl FromRedisValue for EnterAnswer {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut answer = Worded::from_redis_value(value)?;
        match answer.word.as_str() {
            "ok" => Ok(Self::Entered),
            "wait" => Ok(Self::Wait(Duration::from_millis(answer.next()?))),
            "full" => {
                let whose: String = answer.next()?;
                Ok(Self::Full { of_user: whose == "user", now: answer.next()?, places: answer.next()? })
            }
            _ => Err(answer.unknown()),
        }
    }
}

/// Nodes whose lease runs, nodes whose lease ran out, reports by node, and Redis' time, ms.
pub(crate) type BeatAnswer = (Vec<String>, Vec<String>, BTreeMap<String, String>, u64);
