//! The connection to Redis (or Valkey) 7 or later, be it one server, one with Sentinels, or a cluster: its options, its
//! keys, and every script. Its users are `log::redis`, [`crate::cluster`] and `quota::redis`.
//!
//! Keys, by partition (`pNN`, 64 of them, by a hash of the room's name, or of the address where addresses are counted;
//! the braces keep a commit on one shard):
//!
//! | key | content | life |
//! |---|---|---|
//! | `tandem:{pNN}:room:<id>` | hash: `@head`, `@last` (each node's last commit), `@turn` (the node whose commit is waited for), `@frozen_until` (when commits may go on after the room was written back), `@end` when over, and `.`+field for each stored field | [`Lives::room`], renewed; an end is remembered for [`Lives::end`] |
//! | `tandem:{pNN}:rooms` | sorted set of live rooms by the second of their last commit | [`Lives::room`] |
//! | `tandem:{pNN}:outbox` | stream of commits for the database and others (`docs/EVENTS.md`) | [`Lives::outbox`] after the last commit; entries are trimmed, bytes bounded (`outbox_bounds.rs`) |
//! | `tandem:{pNN}:era` | a random id of the data: another one means that Redis has lost it. `@` and a time, ms: a node found none at that moment, and rooms begin [`RedisOptions::recovery_wait`] later | [`Lives::outbox`] |
//! | `tandem:{pNN}:audited` | the last outbox entry that the database has | [`Lives::outbox`] |
//! | `tandem:{p00}:ahead` | how far room time is ahead of Redis' clock, because that was put back once (µs) | [`Lives::outbox`], renewed |
//! | `tandem:{pNN}:joins:<address>`, `…:pins:<address and room>` | counter of a rate | two windows of it |
//! | `tandem:{pNN}:address:<address>`, `…:user:<user>` | sorted set of joined sessions by the moment at which they lapse | [`Lives::place`], renewed |
//! | `tandem:{nodes}:salt` | salt of the hashes of addresses and users in key names | [`Lives::place`], renewed |
//! | `tandem:{nodes}:leases` | sorted set of nodes by the end of their lease, ms | a minute after the last one |
//! | `tandem:{nodes}:reports` | hash: what each node says of itself, and the drainer (`@`) of the whole cluster, JSON | as the leases |
//! | `tandem:{nodes}:drainer`, `…:sweeper` | which node does it | seconds |
//! | `tandem:{pNN}:bus:<id>` | channel of a room | |
//! | `tandem:{pNN}:node:<node>` | channel of a node, in each partition so that it keeps its order among the room's messages | |
//! | `tandem:{pNN}:probe:<node>` | channel on which a node hears itself | |

mod answers;
mod keys;
mod link;
mod options;
mod outbox_bounds;
mod scripts;
mod server;
mod values;

pub(crate) use answers::{
    CommitAnswer, CommitDecision, CommitRequest, EnterAnswer, EnterRequest, FoundCommits, LostCommit, RestoreAnswer,
};
pub use keys::PARTITIONS;
pub(crate) use keys::{DRAINER, LEASES, Partition, REPORTS, SWEEPER};
pub(crate) use link::{LinkConnection, LinkRequest};
pub use link::{LinkError, RedisLink};
pub use options::{Lives, RedisOptions};
pub(crate) use outbox_bounds::note_lost;
pub(crate) use scripts::ScriptCall;
pub(crate) use server::RedisKind;
pub(crate) use values::{StreamId, millis, parse_head, snapshot};
