//! Every Lua script, built once, and one typed function each. A test holds the names of the keys and arguments that a
//! function passes to those that its script unpacks.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use redis::{FromRedisValue, ParsingError, Script, ScriptInvocation, ToRedisArgs, Value};

use super::keys::{AUDIT_GROUP, DRAINER, LEASES, Partition, REPORTS, SALT};
use super::link::{LinkError, LinkRequest, RedisLink};
use super::values::{StreamId, head_text, millis, parse_head, stored_field};
use crate::commit::{Commit, Snapshot};
use crate::domain::{Head, NodeId, RoomId, RoomTime};

/// Bytes that an outbox keeps when memory is nearly used up.
const REST: u64 = 64 << 10;

macro_rules! scripts {
    ($($name:ident: $($file:literal)+;)+) => {
        pub(super) struct Scripts { $($name: Script,)+ }

        impl Scripts {
            pub(super) fn new() -> Self {
                Self { $($name: Script::new(concat!($(include_str!(concat!("scripts/", $file))),+)),)+ }
            }
        }

        /// The text of a script, as it is sent.
        #[cfg(test)]
        const TEXTS: &[(&str, &str)] =
            &[$((stringify!($name), concat!($(include_str!(concat!("scripts/", $file))),+)),)+];
    };
}

scripts! {
    agree: "agree.lua";
    beat: "beat.lua";
    claim: "claim.lua";
    commit: "shrink.lua" "commit.lua";
    count: "take.lua" "count.lua";
    enter: "take.lua" "enter.lua";
    finish: "finish.lua";
    lease: "lease.lua";
    look_up: "look_up.lua";
    now: "now.lua";
    probe: "probe.lua";
    read: "read.lua";
    refund: "refund.lua";
    release_places: "release_places.lua";
    renew_places: "renew_places.lua";
    requeue: "shrink.lua" "requeue.lua";
    restore: "restore.lua";
    time: "time.lua";
    trim: "shrink.lua" "trim.lua";
}

/// A script with its keys and arguments, and the type of its answer.
pub(crate) struct ScriptCall<'a, A> {
    link: &'a RedisLink,
    invocation: ScriptInvocation<'a>,
    #[cfg(test)]
    names: tests::PassedNames,
    answer: PhantomData<fn() -> A>,
}

impl<'a, A: FromRedisValue> ScriptCall<'a, A> {
    fn of(link: &'a RedisLink, script: &'a Script) -> Self {
        Self {
            link,
            invocation: script.prepare_invoke(),
            #[cfg(test)]
            names: tests::PassedNames::default(),
            answer: PhantomData,
        }
    }

    fn key(mut self, name: &'static str, key: impl ToRedisArgs) -> Self {
        self.note(name, true);
        self.invocation.key(key);
        self
    }

    fn arg(mut self, name: &'static str, value: impl ToRedisArgs) -> Self {
        self.note(name, false);
        self.invocation.arg(value);
        self
    }

    /// Arguments without names, after the named ones.
    fn rest<V: ToRedisArgs>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        #[cfg(test)]
        self.names.has_rest();
        for value in values {
            self.invocation.arg(value);
        }
        self
    }

    fn note(&mut self, _name: &'static str, _is_key: bool) {
        #[cfg(test)]
        self.names.note(_name, _is_key);
    }

    /// Until there is an answer, or [`RedisOptions::deadline`](super::RedisOptions::deadline) has passed: the script may run
    /// more than once.
    pub(crate) async fn run(&self) -> Result<A, LinkError> {
        let answer = self.link.ask(&LinkRequest::Script(&self.invocation)).await?;
        Ok(A::from_redis_value(answer)?)
    }

    /// One attempt.
    pub(crate) async fn once(&self) -> Result<A, LinkError> {
        let answer = self.link.once(&LinkRequest::Script(&self.invocation)).await?;
        Ok(A::from_redis_value(answer)?)
    }
}

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
    /// How long the others wait for this node's next commit, if this one loses again; `None`: it doesn't claim the turn.
    pub(crate) claim: Option<Duration>,
    /// How long a lost answer may be asked for again.
    pub(crate) answer_life: Duration,
}

pub(crate) enum CommitAnswer {
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
    /// The room was written back, and nobody commits to it for so long, so that nodes which know more write that back. It
    /// stands at this head.
    Frozen(Duration, Head),
    /// Commits to this room wait for another node; ask again after so long.
    Wait(Duration),
    /// Redis is at its `maxmemory`, and nothing was written.
    Full,
}

impl FromRedisValue for CommitAnswer {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut answer = Worded::from_redis_value(value)?;
        let head = |answer: &mut Worded| {
            let text: Vec<u8> = answer.next()?;
            parse_head(&text).ok_or_else(|| ParsingError::from("the room's head can't be read".to_owned()))
        };
        match answer.word.as_str() {
            "ok" | "again" => {
                Ok(Self::Committed { entry: answer.next()?, era_id: answer.next()?, lost: answer.next()? })
            }
            "conflict" => head(&mut answer).map(Self::Conflict),
            "vacant" => Ok(Self::Vacant),
            "early" => head(&mut answer).map(Self::Early),
            "frozen" => {
                let rest = Duration::from_millis(answer.next()?);
                Ok(Self::Frozen(rest, head(&mut answer)?))
            }
            "wait" => Ok(Self::Wait(Duration::from_millis(answer.next()?))),
            "full" => Ok(Self::Full),
            _ => Err(answer.unknown()),
        }
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

/// Which of a node's own commits an outbox has.
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

impl RedisLink {
    // ---- the log

    pub(crate) fn commit(&self, request: &CommitRequest<'_>) -> ScriptCall<'_, CommitAnswer> {
        let (commit, lives) = (request.commit, &self.options().lives);
        let partition = Partition::of(&commit.room);
        let fields = &commit.patch.fields;
        let deleted: Vec<_> = fields.iter().filter(|(_, value)| value.is_none()).collect();
        ScriptCall::of(self, &self.scripts.commit)
            .key("room", partition.room(&commit.room))
            .key("outbox", partition.outbox())
            .key("rooms", partition.rooms())
            .key("era", partition.era())
            .key("audited", partition.audited())
            .arg("expected", head_text(commit.expected))
            .arg("next_head", head_text(commit.next))
            .arg("next_epoch", commit.next.epoch)
            .arg("ended", u8::from(commit.row.ended))
            .arg("clear", u8::from(commit.patch.clear))
            .arg("node", request.node.as_str())
            .arg("id", request.id)
            .arg("publish", self.publish_command())
            .arg("channel", partition.channel(&commit.room))
            .arg("message", request.message)
            .arg("events", request.events)
            .arg("state", request.state)
            .arg("room_id", commit.room.as_str())
            .arg("room_life", millis(lives.room))
            .arg("end_life", millis(lives.end))
            .arg("outbox_life", millis(lives.outbox))
            .arg("outbox_entries", self.options().outbox_entries)
            .arg("claims_turn", u8::from(request.claim.is_some()))
            .arg("turn_life", millis(request.claim.unwrap_or_default()))
            .arg("outbox_bytes", self.outbox_share())
            .arg("answer_life", millis(request.answer_life))
            .arg("deleted", deleted.len())
            .rest(deleted.into_iter().map(|(field, _)| stored_field(field)))
            .rest(fields.iter().filter_map(|(field, value)| Some((stored_field(field), &value.as_ref()?[..]))))
    }

    /// Writes a room back. `message`: tells the nodes on the bus.
    pub(crate) fn restore(&self, snapshot: &Snapshot, message: &[u8]) -> ScriptCall<'_, RestoreAnswer> {
        let partition = Partition::of(&snapshot.room);
        ScriptCall::of(self, &self.scripts.restore)
            .key("room", partition.room(&snapshot.room))
            .key("rooms", partition.rooms())
            .arg("epoch_text", snapshot.head.epoch)
            .arg("seq_text", snapshot.head.seq)
            .arg("room_id", snapshot.room.as_str())
            .arg("room_life", millis(self.options().lives.room))
            .arg("publish", self.publish_command())
            .arg("channel", partition.channel(&snapshot.room))
            .arg("message", message)
            .arg("recovery_wait", millis(self.options().recovery_wait))
            .rest(snapshot.fields.iter().map(|(field, value)| (stored_field(field), &value[..])))
    }

    pub(crate) fn look_up(&self, partition: Partition, entries: &[StreamId]) -> ScriptCall<'_, FoundCommits> {
        ScriptCall::of(self, &self.scripts.look_up)
            .key("outbox", partition.outbox())
            .key("era", partition.era())
            .key("audited", partition.audited())
            .rest(entries.iter().map(StreamId::to_string))
    }

    /// Answers the commit's new entry, and the id of the data.
    pub(crate) fn requeue(&self, partition: Partition, lost: &LostCommit<'_>) -> ScriptCall<'_, (StreamId, String)> {
        ScriptCall::of(self, &self.scripts.requeue)
            .key("outbox", partition.outbox())
            .key("era", partition.era())
            .key("audited", partition.audited())
            .arg("room_id", lost.room.as_str())
            .arg("head", head_text(lost.head))
            .arg("events", lost.events)
            .arg("state", lost.state)
            .arg("outbox_life", millis(self.options().lives.outbox))
            .arg("outbox_entries", self.options().outbox_entries)
            .arg("new_era", lost.new_era.as_str())
            .arg("outbox_bytes", self.outbox_share())
    }

    /// A message to `node` itself; answers the id of the data.
    pub(crate) fn probe(&self, partition: Partition, node: &NodeId, nonce: u64) -> ScriptCall<'_, String> {
        ScriptCall::of(self, &self.scripts.probe)
            .key("era", partition.era())
            .arg("new_era", format!("{node}-{}", rand::random::<u32>()))
            .arg("life", millis(self.options().lives.outbox))
            .arg("publish", self.publish_command())
            .arg("channel", partition.probe_channel(node))
            .arg("message", nonce)
    }

    // ---- the outbox

    /// The next entries of some outboxes; in a cluster these must be on one shard. `arrived`: with each outbox, the last
    /// entry that arrived.
    pub(crate) fn read_outboxes(
        &self,
        node: &NodeId,
        count: u32,
        arrived: &[(Partition, StreamId)],
    ) -> ScriptCall<'_, Vec<Value>> {
        let mut call = ScriptCall::of(self, &self.scripts.read);
        for (partition, _) in arrived {
            call.invocation.key(partition.outbox());
        }
        call.arg("group", AUDIT_GROUP)
            .arg("consumer", node.as_str())
            .arg("count", count)
            .rest(arrived.iter().map(|(_, entry)| entry.to_string()))
    }

    /// Answers where to go on (`0-0`: nowhere), and entries.
    pub(crate) fn claim(
        &self,
        partition: Partition,
        node: &NodeId,
        count: u32,
        from: &str,
    ) -> ScriptCall<'_, (String, Value)> {
        ScriptCall::of(self, &self.scripts.claim)
            .key("outbox", partition.outbox())
            .arg("group", AUDIT_GROUP)
            .arg("consumer", node.as_str())
            .arg("count", count)
            .arg("from", from)
    }

    pub(crate) fn finish(&self, partition: Partition, last: StreamId, entries: &[StreamId]) -> ScriptCall<'_, ()> {
        ScriptCall::of(self, &self.scripts.finish)
            .key("outbox", partition.outbox())
            .key("audited", partition.audited())
            .arg("group", AUDIT_GROUP)
            .arg("life", millis(self.options().lives.outbox))
            .arg("last", last.to_string())
            .rest(entries.iter().map(StreamId::to_string))
    }

    /// Removes entries that the database has and that are older than `keep_from`, more when memory is short.
    pub(crate) fn trim(&self, partition: Partition, keep_from: StreamId) -> ScriptCall<'_, Trimmed> {
        ScriptCall::of(self, &self.scripts.trim)
            .key("outbox", partition.outbox())
            .key("audited", partition.audited())
            .key("rooms", partition.rooms())
            .arg("group", AUDIT_GROUP)
            .arg("keep_from", keep_from.to_string())
            .arg("rest_bytes", REST)
    }

    // ---- nodes and time

    /// An empty `node` only looks.
    pub(crate) fn beat(
        &self,
        node: &str,
        lease: Duration,
        remember: Duration,
        report: &str,
    ) -> ScriptCall<'_, BeatAnswer> {
        ScriptCall::of(self, &self.scripts.beat)
            .key("leases", LEASES)
            .key("reports", REPORTS)
            .arg("node", node)
            .arg("lease", millis(lease))
            .arg("remember", millis(remember))
            .arg("report", report)
    }

    /// Takes or renews the lease [`DRAINER`] or [`SWEEPER`](super::keys::SWEEPER); answers whether `node` holds it now.
    pub(crate) fn lease(&self, key: &'static str, node: &NodeId, life: Duration) -> ScriptCall<'_, bool> {
        debug_assert!(key == DRAINER || key == super::keys::SWEEPER);
        ScriptCall::of(self, &self.scripts.lease).key("lease", key).arg("node", node.as_str()).arg("life", millis(life))
    }

    /// Redis' clock: seconds and microseconds.
    pub(crate) fn now(&self) -> ScriptCall<'_, (u64, u64)> {
        ScriptCall::of(self, &self.scripts.now).key("era", Partition::first().era())
    }

    /// Room time, raised to `floor`: Redis' seconds and microseconds, and how far ahead of them it is, µs.
    pub(crate) fn time(&self, floor: RoomTime) -> ScriptCall<'_, (i64, i64, i64)> {
        ScriptCall::of(self, &self.scripts.time)
            .key("era", Partition::first().era())
            .key("ahead_key", Partition::first().key("ahead"))
            .arg("floor", floor.as_micros())
            .arg("life", millis(self.options().lives.outbox))
    }

    // ---- quotas

    pub(crate) fn enter(&self, request: &EnterRequest<'_>) -> ScriptCall<'_, EnterAnswer> {
        ScriptCall::of(self, &self.scripts.enter)
            .key("joins", request.joins.as_str())
            .key("user", request.user.as_str())
            .key("address", request.address.as_str())
            .arg("allowed", request.allowed)
            .arg("window", millis(request.window))
            .arg("place", request.place)
            .arg("life", millis(self.options().lives.place))
            .arg("most_of_user", request.most_of_user)
            .arg("most_of_address", request.most_of_address)
            .arg("named", request.named)
            .arg("counted", u8::from(request.counted))
    }

    /// Takes one of a rate; answers how long to wait, ms (0: it is taken).
    pub(crate) fn count(&self, counter: String, allowed: u64, window: Duration) -> ScriptCall<'_, u64> {
        ScriptCall::of(self, &self.scripts.count)
            .key("counter", counter)
            .arg("allowed", allowed)
            .arg("window", millis(window))
    }

    pub(crate) fn refund(&self, counter: String) -> ScriptCall<'_, ()> {
        ScriptCall::of(self, &self.scripts.refund).key("counter", counter)
    }

    pub(crate) fn renew_places(&self, user: String, address: String, place: String) -> ScriptCall<'_, ()> {
        ScriptCall::of(self, &self.scripts.renew_places)
            .key("user", user)
            .key("address", address)
            .arg("place", place)
            .arg("life", millis(self.options().lives.place))
    }

    pub(crate) fn release_places(&self, user: String, address: String, places: &[String]) -> ScriptCall<'_, ()> {
        ScriptCall::of(self, &self.scripts.release_places).key("user", user).key("address", address).rest(places)
    }

    /// All nodes' salt: the first one's proposal.
    pub(crate) fn agree_on_salt(&self, proposed: &str) -> ScriptCall<'_, String> {
        ScriptCall::of(self, &self.scripts.agree)
            .key("key", SALT)
            .arg("proposed", proposed)
            .arg("life", millis(self.options().lives.place * 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that a typed function passes.
    #[derive(Default, Debug, PartialEq)]
    pub(super) struct PassedNames {
        keys: Vec<String>,
        args: Vec<String>,
        rest: bool,
    }

    impl PassedNames {
        pub(super) fn note(&mut self, name: &str, is_key: bool) {
            assert!(!self.rest, "{name} comes after the rest");
            if is_key { &mut self.keys } else { &mut self.args }.push(name.to_owned());
        }

        pub(super) fn has_rest(&mut self) {
            self.rest = true;
        }
    }

    /// The names to which a script unpacks KEYS or ARGV.
    fn unpacked(text: &str, which: &str) -> Vec<String> {
        let Some((before, after)) = text.split_once(&format!("unpack({which}")) else { return Vec::new() };
        let (_, names) = before.rsplit_once("local ").unwrap();
        let names: Vec<String> = names.trim_end_matches([' ', '=']).split(',').map(|name| name.trim().into()).collect();
        // Without bounds `unpack` takes all there are, so a rest would be more than the names.
        if let Some(bounds) = after.strip_prefix(", 1, ") {
            assert_eq!(bounds.split(')').next().unwrap(), names.len().to_string());
        }
        names
    }

    #[test]
    fn each_script_is_passed_the_keys_and_arguments_that_it_names() {
        let link = RedisLink::unconnected();
        let (node, room) = (NodeId::parse("a").unwrap(), RoomId::parse("friday").unwrap());
        let (partition, entry, second) = (Partition::of(&room), StreamId::default(), Duration::from_secs(1));
        let row = crate::commit::RoomRow {
            host: None,
            url: None,
            position: 0.0,
            playing: false,
            at: RoomTime::default(),
            guest_control: false,
            ended: false,
            users: Vec::new(),
        };
        let (expected, next, entries, patch) =
            (Head::default(), Head::default(), [].into(), crate::commit::Patch::default());
        let commit = Commit { room: room.clone(), expected, next, entries, patch, row };
        let snapshot = Snapshot { room: room.clone(), head: next, fields: BTreeMap::new() };
        let (id, message, events, state) = ("id", &b""[..], &b""[..], &b""[..]);
        let request = CommitRequest {
            commit: &commit,
            node: &node,
            id,
            message,
            events,
            state,
            claim: None,
            answer_life: second,
        };
        let lost = LostCommit { room: &room, head: next, events, state, new_era: String::new() };
        let text = String::new;
        let enter = EnterRequest {
            joins: text(),
            user: text(),
            address: text(),
            allowed: 1,
            window: second,
            place: "",
            most_of_user: 1,
            most_of_address: 1,
            named: 1,
            counted: false,
        };
        let mut passed = BTreeMap::from([
            ("agree", link.agree_on_salt("").names),
            ("beat", link.beat("a", second, second, "").names),
            ("claim", link.claim(partition, &node, 1, "0-0").names),
            ("commit", link.commit(&request).names),
            ("count", link.count(text(), 1, second).names),
            ("enter", link.enter(&enter).names),
            ("finish", link.finish(partition, entry, &[]).names),
            ("lease", link.lease(DRAINER, &node, second).names),
            ("look_up", link.look_up(partition, &[]).names),
            ("now", link.now().names),
            ("probe", link.probe(partition, &node, 1).names),
            ("read", link.read_outboxes(&node, 1, &[]).names),
            ("refund", link.refund(text()).names),
            ("release_places", link.release_places(text(), text(), &[]).names),
            ("renew_places", link.renew_places(text(), text(), text()).names),
            ("requeue", link.requeue(partition, &lost).names),
            ("restore", link.restore(&snapshot, message).names),
            ("time", link.time(RoomTime::default()).names),
            ("trim", link.trim(partition, entry).names),
        ]);
        for (script, text) in TEXTS {
            let names = passed.remove(script).unwrap_or_else(|| panic!("{script} has no call here"));
            let code: String =
                text.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect();
            let (keys, args) = (unpacked(&code, "KEYS"), unpacked(&code, "ARGV"));
            assert_eq!((&names.keys, &names.args), (&keys, &args), "{script}");
            // Only the rest is read by number, from the first number after the names.
            let named =
                ["KEYS[1", "KEYS[2", "KEYS[3", "ARGV[1", "ARGV[2", "ARGV[4"].iter().find(|at| code.contains(**at));
            assert_eq!(named, None, "{script} has names for its keys and arguments");
            let first = args.len() + 1;
            let reads = [format!("for i = {first}, "), format!("= {first} + "), format!("ARGV[{} + i]", first - 1)];
            assert_eq!(names.rest, reads.iter().any(|read| code.contains(read)), "{script}: arguments from {first} on");
            assert_eq!(names.rest, code.contains("ARGV["), "{script} reads arguments that it is not passed");
        }
        assert!(passed.is_empty(), "no such scripts: {passed:?}");
    }
}
