//! Every Lua script, built once, and one typed function each. A test holds the names of the keys and arguments that a
//! function passes to those that its script unpacks.

use std::marker::PhantomData;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{FromRedisValue, Script, ScriptInvocation, ToRedisArgs, Value};

use super::answers::{
    BeatAnswer, CommitAnswer, CommitRequest, EnterAnswer, EnterRequest, FoundCommits, LostCommit, RestoreAnswer,
    Trimmed,
};
use super::keys::{AUDIT_GROUP, DRAINER, LEASES, Partition, REPORTS, SALT};
use super::link::{LinkError, LinkRequest, RedisLink};
use super::values::{StreamId, head_text, millis, stored_field};
use crate::commit::Snapshot;
use crate::domain::{NodeId, RoomTime};

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

    /// Until there is an answer, or [`RedisOptions::deadline`](super::RedisOptions::deadline) has passed: the script
    /// may run more than once.
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
            .arg("recovery_wait", millis(self.options().recovery_wait))
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

    /// Names the data of a Redis that is new: rooms may begin there at once. What is named already stays.
    pub(crate) async fn name_new_data(&self, node: &NodeId) -> Result<(), LinkError> {
        let names = Partition::all().map(|partition| async move {
            let mut name = redis::cmd("SET");
            name.arg(partition.era()).arg(format!("{node}-{}", rand::random::<u32>())).arg("NX");
            self.command::<()>(name.arg("PX").arg(millis(self.options().lives.outbox))).await
        });
        try_join_all(names).await.map(drop)
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

    /// The next entries of some outboxes; in a cluster these must be on one shard. `arrived`: with each outbox, the
    /// last entry that arrived.
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
mod tests;
