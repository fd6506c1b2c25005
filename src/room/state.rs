//! The state of a room at one head.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Chat, Control, LeaveReason, Members, ReadyGate, SharedMap};
use crate::domain::{
    AddressTag, Dialect, Head, KeyHash, MediaTime, MediaUrl, MemberSlot, NodeId, PinHash, Player, Rate, RoomId,
    RoomTime, SessionRef, TokenHash, TransportKind, UserId, Username,
};

/// The playback vector: where the film is, until the next event. At `t >= at` the position is
/// `position + (playing ? (t - at) * rate : 0)`; before `at` it is `position`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Playback {
    pub position: MediaTime,
    /// Speed while playing.
    pub rate: Rate,
    pub playing: bool,
    /// The room time at which `position` is true; may lie ahead (a scheduled start).
    pub at: RoomTime,
    /// `seq` of the event that set the vector.
    pub seq: u64,
}

impl Playback {
    /// Position at `now`.
    pub fn position_at(&self, now: RoomTime) -> MediaTime {
        if self.playing && now > self.at {
            self.position.moved(now.seconds_since(self.at) * self.rate.factor())
        } else {
            self.position
        }
    }

    /// When a playing film reaches `end`; not in the past.
    pub fn reaches(&self, end: MediaTime) -> Option<RoomTime> {
        let missing = (end.seconds() - self.position.seconds()).max(0.0) / self.rate.factor();
        // Rounded up to the microsecond, so that the film has arrived by then.
        let micros = (missing * 1e6).ceil();
        (self.playing && micros < 1e15).then(|| self.at + Duration::from_micros(micros as u64))
    }
}

/// Identifies a PLAY_PAUSE or SEEK of one member: v2 clients send theirs twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlKey {
    /// `None`: a seek.
    pub control: Option<Control>,
    /// As sent.
    pub position: Option<MediaTime>,
    /// As sent (`eventTimestamp`).
    pub true_at: Option<RoomTime>,
    /// When the room took the command.
    pub taken: RoomTime,
}

impl ControlKey {
    /// How many keys of a member are kept.
    pub const KEPT: usize = 8;

    /// How long a repetition is recognised.
    pub const LIFE: Duration = Duration::from_secs(10);

    /// Whether both are the same command.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.control, self.position, self.true_at) == (other.control, other.position, other.true_at)
    }

    /// Whether the command may still be repeated.
    pub fn is_recent(&self, now: RoomTime) -> bool {
        now.saturating_since(self.taken) <= Self::LIFE
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberConnection {
    Live(SessionRef),
    /// In its grace time.
    Lost {
        /// End of the grace time.
        until: RoomTime,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub name: Username,
    /// The number in compact messages.
    pub slot: MemberSlot,
    /// Slots are given in this order too, so the longest-joined member has the smallest slot.
    pub joined_at: RoomTime,
    pub connection: MemberConnection,
    pub dialect: Dialect,
    /// The transport of its current or last session.
    pub transport: TransportKind,
    /// Hash of the newest token.
    pub token: TokenHash,
    /// Hash of the token before, valid until the newer one is first used: the answer that carried it may be lost.
    pub previous_token: Option<TokenHash>,
    /// Its last commands, at most 8. One without a timestamp is kept only while it is the room's last.
    pub recent: VecDeque<ControlKey>,
    /// Its player, for the room's film. A member that joins or comes back has none until it sends PLAYER.
    #[serde(default)]
    pub player: Player,
    /// The client and address of its last JOIN.
    #[serde(default, skip_serializing_if = "Origin::is_unknown")]
    pub origin: Origin,
}

/// Marks by which a client that returns under another id is recognised. Never sent to any client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// Hash of the client key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<KeyHash>,
    /// The address class; `None` where addresses are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressTag>,
}

impl Origin {
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Whether both have the same, known client key.
    pub fn is_client(&self, other: &Self) -> bool {
        self.client.is_some() && self.client == other.client
    }
}

/// A former member: for a ban that comes late, the cool-down after a kick, and a token whose membership is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gone {
    pub name: Username,
    #[serde(default, skip_serializing_if = "Origin::is_unknown")]
    pub origin: Origin,
    /// Hash of its last token.
    pub token: TokenHash,
    pub at: RoomTime,
    pub reason: LeaveReason,
    /// End of the time for which a kick keeps it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_out_until: Option<RoomTime>,
}

impl Gone {
    /// How many former members a room remembers.
    pub const KEPT: usize = 64;
}

/// A room that waits for its members, who were all lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// End of the wait.
    pub until: RoomTime,
    /// The address class of the member that was lost last: kept rooms are counted by it.
    pub address: Option<AddressTag>,
}

impl Member {
    /// The node of its session, while it has one.
    pub fn node(&self) -> Option<&NodeId> {
        match &self.connection {
            MemberConnection::Live(session) => Some(&session.node),
            _ => None,
        }
    }

    /// Whether it has a session now.
    pub fn is_live(&self) -> bool {
        matches!(self.connection, MemberConnection::Live(_))
    }

    /// Whether this is its current session.
    pub fn is_on(&self, session: &SessionRef) -> bool {
        matches!(&self.connection, MemberConnection::Live(on) if on == session)
    }

    /// Whether the token proves this member.
    pub fn knows(&self, token: &TokenHash) -> bool {
        self.token == *token || self.previous_token.as_ref() == Some(token)
    }
}

/// A room at one head. Only `apply` writes the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Room {
    pub(crate) id: RoomId,
    pub(crate) head: Head,
    pub(crate) created_at: RoomTime,
    pub(crate) host: Option<UserId>,
    pub(crate) guest_control: bool,
    pub(crate) pin: Option<PinHash>,
    pub(crate) url: Option<MediaUrl>,
    /// Counts the films of the epoch: one more with each change of the address.
    #[serde(default)]
    pub(crate) film: u32,
    /// The film's length, as the members' players agree on. Stays when they leave, until another film comes.
    #[serde(default)]
    pub(crate) duration: Option<MediaTime>,
    pub(crate) playback: Playback,
    pub(crate) gate: Option<ReadyGate>,
    pub(crate) next_gate: u32,
    pub(crate) next_slot: u16,
    pub(crate) bans: BTreeSet<UserId>,
    /// Client keys of banned members, where they are known.
    #[serde(default)]
    pub(crate) ban_keys: BTreeMap<UserId, KeyHash>,
    pub(crate) members: Members,
    /// The last members that left.
    #[serde(default)]
    pub(crate) gone: SharedMap<UserId, Gone>,
    /// Hash of the host key of the room's creator, or of whoever invited it. Its holder becomes host on entering.
    #[serde(default)]
    pub(crate) owner: Option<KeyHash>,
    #[serde(default)]
    pub(crate) kept: Option<Kept>,
    #[serde(default)]
    pub(crate) chat: Chat,
}

impl Room {
    /// A room without members: before the first JOIN, and after the last LEAVE.
    pub fn vacant(id: RoomId, head: Head) -> Self {
        Self {
            id,
            head,
            created_at: RoomTime::default(),
            host: None,
            guest_control: false,
            pin: None,
            url: None,
            film: 0,
            duration: None,
            playback: Playback {
                position: MediaTime::ZERO,
                rate: Rate::NORMAL,
                playing: false,
                at: RoomTime::default(),
                seq: 0,
            },
            gate: None,
            next_gate: 1,
            next_slot: 1,
            bans: BTreeSet::new(),
            ban_keys: BTreeMap::new(),
            members: Members::default(),
            gone: SharedMap::default(),
            owner: None,
            kept: None,
            chat: Chat::default(),
        }
    }

    pub fn id(&self) -> &RoomId {
        &self.id
    }

    pub fn head(&self) -> Head {
        self.head
    }

    pub fn is_vacant(&self) -> bool {
        self.members.is_empty()
    }

    pub fn member(&self, user: &UserId) -> Option<&Member> {
        self.members.get(user)
    }

    /// Including members in their grace time.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Members with a session, on any node.
    pub fn live_sessions(&self) -> Vec<(UserId, SessionRef)> {
        let live = self.members.iter().filter_map(|(user, member)| match &member.connection {
            MemberConnection::Live(session) => Some((user.clone(), session.clone())),
            MemberConnection::Lost { .. } => None,
        });
        live.collect()
    }

    /// `None` only in a vacant room.
    pub fn host(&self) -> Option<&UserId> {
        self.host.as_ref()
    }

    /// The number of the film in the epoch; 0 before the first one.
    pub fn film(&self) -> u32 {
        self.film
    }

    /// The film's length, where members' players have reported it.
    pub fn duration(&self) -> Option<MediaTime> {
        self.duration
    }

    /// Whether the room plays, or will play on at an open gate.
    pub fn intends_to_play(&self) -> bool {
        self.playback.playing || self.gate.is_some()
    }

    /// When the playing film is over.
    pub fn ends_at(&self) -> Option<RoomTime> {
        self.duration.and_then(|end| self.playback.reaches(end))
    }

    pub fn playback(&self) -> &Playback {
        &self.playback
    }

    pub fn gate(&self) -> Option<&ReadyGate> {
        self.gate.as_ref()
    }

    pub fn bans(&self) -> &BTreeSet<UserId> {
        &self.bans
    }

    /// Hash of the owner's host key, whoever is host at the moment.
    pub fn owner(&self) -> Option<&KeyHash> {
        self.owner.as_ref()
    }

    /// Set while all members are lost and the room waits for them.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// Members that left lately.
    pub fn gone(&self) -> &SharedMap<UserId, Gone> {
        &self.gone
    }

    /// The address class of the member that was lost last: a room to be kept is counted by it.
    pub fn last_address(&self) -> Option<AddressTag> {
        let lost = self.members.values().filter_map(|member| match member.connection {
            MemberConnection::Lost { until } => Some((until, member.slot, member.origin.address)),
            MemberConnection::Live(_) => None,
        });
        lost.max_by_key(|(until, slot, _)| (*until, *slot)).and_then(|(_, _, address)| address)
    }

    pub(crate) fn has_live_members(&self) -> bool {
        self.members.values().any(Member::is_live)
    }

    /// Whether a ban holds for this user, or for its client.
    pub fn has_banned(&self, user: &UserId, origin: &Origin) -> bool {
        let is_banned = |client| self.ban_keys.values().any(|banned| *banned == client);
        self.bans.contains(user) || origin.client.is_some_and(is_banned)
    }

    /// Client keys of the banned members.
    pub fn ban_keys(&self) -> &BTreeMap<UserId, KeyHash> {
        &self.ban_keys
    }

    pub fn is_host(&self, user: &UserId) -> bool {
        self.host.as_ref() == Some(user)
    }

    /// Whether this member may control the playback.
    pub fn may_control(&self, user: &UserId) -> bool {
        self.is_host(user) || (self.guest_control && self.members.contains_key(user))
    }

    /// When the next grace time ends. Without a live member grace times don't end one by one: the room waits for all
    /// until the last one is over, and then as long as it is kept.
    pub(crate) fn grace_ends(&self) -> Option<RoomTime> {
        if let Some(kept) = self.kept {
            return Some(kept.until);
        }
        let grace = self.members.values().filter_map(|member| match member.connection {
            MemberConnection::Lost { until } => Some(until),
            MemberConnection::Live(_) => None,
        });
        if self.has_live_members() { grace.min() } else { grace.max() }
    }

    /// When [`Command::Deadline`](super::Command::Deadline) is due: the first grace time, the gate, or the film's end.
    pub fn next_deadline(&self) -> Option<RoomTime> {
        self.grace_ends()
            .into_iter()
            .chain(self.gate.as_ref().map(ReadyGate::next_deadline))
            .chain(self.ends_at())
            .min()
    }
}
