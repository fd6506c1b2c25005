//! What a room is at one head.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Chat, Control, LeaveReason, Members, ReadyGate, SharedMap};
use crate::domain::{
    AddressTag, Dialect, Head, KeyHash, MediaTime, MediaUrl, MemberSlot, PinHash, Player, Rate, RoomId, RoomTime,
    SessionRef, TokenHash, TransportKind, UserId, Username,
};

/// Where the film stands, for all time until the next event: at `t >= at` it is at
/// `position + (playing ? (t - at) * rate : 0)`; before `at`, at `position`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Playback {
    /// Position at `at`.
    pub position: MediaTime,
    /// Speed while playing.
    pub rate: Rate,
    /// Whether the film moves.
    pub playing: bool,
    /// The moment at which `position` is true; may lie ahead (a scheduled start).
    pub at: RoomTime,
    /// The event that set it.
    pub seq: u64,
}

impl Playback {
    /// Where the film stands at `now`.
    pub fn position_at(&self, now: RoomTime) -> MediaTime {
        if self.playing && now > self.at {
            self.position.moved(now.seconds_since(self.at) * self.rate.factor())
        } else {
            self.position
        }
    }

    /// The moment at which a film that moves reaches `end`; at once when it is there already.
    pub fn reaches(&self, end: MediaTime) -> Option<RoomTime> {
        let missing = (end.seconds() - self.position.seconds()).max(0.0) / self.rate.factor();
        // Rounded up to the microsecond, so that the film has arrived by then.
        let micros = (missing * 1e6).ceil();
        (self.playing && micros < 1e15).then(|| self.at + Duration::from_micros(micros as u64))
    }
}

/// What makes two PLAY_PAUSE or SEEK commands of one member the same: v2 clients send theirs twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlKey {
    /// `None`: a seek.
    pub control: Option<Control>,
    /// As sent.
    pub position: Option<MediaTime>,
    /// As sent (`eventTimestamp`).
    pub true_at: Option<RoomTime>,
    /// When the room took it.
    pub taken: RoomTime,
}

impl ControlKey {
    /// How many are kept of a member.
    pub const KEPT: usize = 8;

    /// How long a command counts as one that may come twice.
    pub const LIFE: Duration = Duration::from_secs(10);

    /// Whether both ask for the same.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.control, self.position, self.true_at) == (other.control, other.position, other.true_at)
    }

    /// Whether it may still come again.
    pub fn is_recent(&self, now: RoomTime) -> bool {
        now.saturating_since(self.taken) <= Self::LIFE
    }
}

/// How a member is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberConnection {
    /// Over this session.
    Live(SessionRef),
    /// Not at the moment; it stays a member until then.
    Lost {
        /// End of the grace time.
        until: RoomTime,
    },
}

/// A person in the room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Called what.
    pub name: Username,
    /// Its number in compact messages.
    pub slot: MemberSlot,
    /// When it joined. Slots are given in this order too, so the longest-joined has the smallest slot.
    pub joined_at: RoomTime,
    /// How it is reached.
    pub connection: MemberConnection,
    /// Which dialect it speaks.
    pub dialect: Dialect,
    /// What carries it (or carried it last).
    pub transport: TransportKind,
    /// Hash of the token given last.
    pub token: TokenHash,
    /// The one before, valid until the newer one is first used: the answer that carried the newer one may be lost.
    pub previous_token: Option<TokenHash>,
    /// Its last commands: at most 8. One without a timestamp is here only while it is the room's last.
    pub recent: VecDeque<ControlKey>,
    /// Its player, for the room's film. A member that joins or comes back has none until it says PLAYER.
    #[serde(default)]
    pub player: Player,
    /// Whence it came last.
    #[serde(default, skip_serializing_if = "Origin::is_unknown")]
    pub origin: Origin,
}

/// By what one is known again who comes with another id: never told to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// Hash of the key that its client keeps for this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<KeyHash>,
    /// The class of its address; unknown where addresses are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressTag>,
}

impl Origin {
    /// Nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is the same client, as far as that can be known.
    pub fn is_client(&self, other: &Self) -> bool {
        self.client.is_some() && self.client == other.client
    }
}

/// Somebody who was a member: for a ban that comes late, for the cool-down after a kick, and for a token whose member is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gone {
    /// Called what.
    pub name: Username,
    /// Whence it came.
    #[serde(default, skip_serializing_if = "Origin::is_unknown")]
    pub origin: Origin,
    /// Hash of its last token.
    pub token: TokenHash,
    /// When it went.
    pub at: RoomTime,
    /// How.
    pub reason: LeaveReason,
    /// Until when it is kept out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_out_until: Option<RoomTime>,
}

impl Gone {
    /// How many a room remembers.
    pub const KEPT: usize = 64;
}

/// A room whose members were all lost: it stands still, and waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Until when.
    pub until: RoomTime,
    /// The class of the address that the last one was lost from: rooms that wait are counted by it.
    pub address: Option<AddressTag>,
}

impl Member {
    /// Whether it has a session now.
    pub fn is_live(&self) -> bool {
        matches!(self.connection, MemberConnection::Live(_))
    }

    /// Whether this is its session.
    pub fn is_on(&self, session: &SessionRef) -> bool {
        matches!(&self.connection, MemberConnection::Live(on) if on == session)
    }

    /// Whether the token proves this member.
    pub fn knows(&self, token: &TokenHash) -> bool {
        self.token == *token || self.previous_token.as_ref() == Some(token)
    }
}

/// A room at one head. Fields are readable within the crate; only `apply` writes them.
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
    /// How long the film is, as the members' players agree on. Stays when they go, until another film comes.
    #[serde(default)]
    pub(crate) duration: Option<MediaTime>,
    pub(crate) playback: Playback,
    pub(crate) gate: Option<ReadyGate>,
    pub(crate) next_gate: u32,
    pub(crate) next_slot: u16,
    pub(crate) bans: BTreeSet<UserId>,
    /// The clients of those who are banned, where they are known.
    #[serde(default)]
    pub(crate) ban_keys: BTreeMap<UserId, KeyHash>,
    pub(crate) members: Members,
    /// The last ones who went.
    #[serde(default)]
    pub(crate) gone: SharedMap<UserId, Gone>,
    /// Hash of the host key of whoever opened it, or invited whoever did: its holder becomes host when it enters.
    #[serde(default)]
    pub(crate) owner: Option<KeyHash>,
    #[serde(default)]
    pub(crate) kept: Option<Kept>,
    #[serde(default)]
    pub(crate) chat: Chat,
}

impl Room {
    /// A room in which nobody is: what there is before the first JOIN and after the last LEAVE.
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

    /// The room's name.
    pub fn id(&self) -> &RoomId {
        &self.id
    }

    /// Its place in its total order.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Whether nobody is in it.
    pub fn is_vacant(&self) -> bool {
        self.members.is_empty()
    }

    /// A member by id.
    pub fn member(&self, user: &UserId) -> Option<&Member> {
        self.members.get(user)
    }

    /// Everybody in it, with whoever is away for the moment.
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

    /// Who may do everything; `None` only when nobody is here.
    pub fn host(&self) -> Option<&UserId> {
        self.host.as_ref()
    }

    /// Which film of the epoch it shows; 0 before the first one.
    pub fn film(&self) -> u32 {
        self.film
    }

    /// How long the film is, where members' players have said so.
    pub fn duration(&self) -> Option<MediaTime> {
        self.duration
    }

    /// Whether the room plays, or means to: a film that stands at an open gate is not paused.
    pub fn intends_to_play(&self) -> bool {
        self.playback.playing || self.gate.is_some()
    }

    /// When the film that plays is over.
    pub fn ends_at(&self) -> Option<RoomTime> {
        self.duration.and_then(|end| self.playback.reaches(end))
    }

    /// Where the film stands.
    pub fn playback(&self) -> &Playback {
        &self.playback
    }

    /// The open ready gate.
    pub fn gate(&self) -> Option<&ReadyGate> {
        self.gate.as_ref()
    }

    /// Who may not come in.
    pub fn bans(&self) -> &BTreeSet<UserId> {
        &self.bans
    }

    /// Whose room it is, whoever is host at the moment.
    pub fn owner(&self) -> Option<&KeyHash> {
        self.owner.as_ref()
    }

    /// Set while all its members are lost and it waits for them.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// What was said last.
    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// Who went, lately.
    pub fn gone(&self) -> &SharedMap<UserId, Gone> {
        &self.gone
    }

    /// The class of the address that the member lost last came from: by it a room is counted that is to be kept.
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

    /// The clients that may not come in, by whose ban that is.
    pub fn ban_keys(&self) -> &BTreeMap<UserId, KeyHash> {
        &self.ban_keys
    }

    /// Whether this member is the host.
    pub fn is_host(&self, user: &UserId) -> bool {
        self.host.as_ref() == Some(user)
    }

    /// Whether this member may move the playback.
    pub fn may_control(&self, user: &UserId) -> bool {
        self.is_host(user) || (self.guest_control && self.members.contains_key(user))
    }

    /// When the next grace time ends. With nobody there it doesn't end for one after the other: the room waits for all, until
    /// the last grace time is over, and then as long as it is kept.
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
