//! Applies events. No check here refuses anything: an event was decided and committed.

use std::collections::VecDeque;

use super::{By, Cause, ChatLine, ControlKey, Event, Gone, LeaveReason, Member, MemberConnection, Playback, Room};
use crate::domain::{Head, Player, PlayerState, RoomTime, UserId};

impl Room {
    /// Applies an event and advances the head by one (`Created`: to 1 of the new epoch).
    pub fn apply(&mut self, event: &Event) {
        self.head.seq = self.head.seq.saturating_add(1);
        match event {
            Event::Created { .. } => self.create(event),
            Event::Joined { at, user, name, slot, session, dialect, transport, token, origin } => {
                // Slot numbers wrap around: one is given again after all others were given since.
                self.next_slot = slot.0.checked_add(1).unwrap_or(1);
                self.kept = None;
                self.gone.remove(user);
                let member = Member {
                    name: name.clone(),
                    slot: *slot,
                    joined_at: *at,
                    connection: MemberConnection::Live(session.clone()),
                    dialect: *dialect,
                    transport: *transport,
                    token: *token,
                    previous_token: None,
                    recent: VecDeque::new(),
                    player: Player::default(),
                    origin: *origin,
                };
                self.members.insert(user.clone(), member);
            }
            Event::Resumed { user, session, dialect, transport, token, proved, origin, moved, .. } => {
                self.kept = None;
                if let Some(member) = self.members.get_mut(user) {
                    member.connection = MemberConnection::Live(session.clone());
                    member.dialect = *dialect;
                    member.transport = *transport;
                    // The token that was used stays valid: the answer that carries the new one may be lost.
                    member.previous_token = Some(proved.unwrap_or(member.token));
                    member.token = *token;
                    member.origin = *origin;
                    if !moved {
                        // The member may have come back with another page, which reports its own player.
                        member.player = Player::default();
                    }
                }
                if !moved {
                    self.await_no_more(user);
                }
            }
            Event::Disconnected { user, until, .. } => {
                if let Some(member) = self.members.get_mut(user) {
                    member.connection = MemberConnection::Lost { until: *until };
                }
                self.await_no_more(user);
            }
            Event::Left { at, user, reason, until } => {
                self.remember_gone(user, *at, *reason, *until);
                self.members.remove(user);
                self.await_no_more(user);
                if self.is_host(user) {
                    self.host = None;
                }
            }
            Event::Renamed { user, name } => {
                if let Some(member) = self.members.get_mut(user) {
                    member.name = name.clone();
                }
            }
            Event::HostChanged { host } => self.host.clone_from(host),
            Event::GuestControl { enabled } => self.guest_control = *enabled,
            Event::PinChanged { pin } => self.pin.clone_from(pin),
            Event::BansChanged { user, banned: true, client } => {
                self.bans.insert(user.clone());
                if let Some(client) = client {
                    self.ban_keys.insert(user.clone(), *client);
                }
            }
            Event::BansChanged { user, banned: false, .. } => {
                self.bans.remove(user);
                self.ban_keys.remove(user);
            }
            Event::Kept { kept, playback, .. } => {
                self.playback = *playback;
                self.gate = None;
                self.kept = Some(*kept);
            }
            Event::Moved { by, cause, playback, key } => {
                self.playback = *playback;
                if *cause != Cause::Rate {
                    self.gate = None;
                }
                match (by, cause) {
                    // These are no commands of a member: its last command stays the last.
                    (By::Server, _) | (_, Cause::Correction) => {}
                    (By::Member(user), _) => self.remember(user, key.as_ref()),
                }
            }
            Event::Sought { by, playback, gate, key } => {
                self.playback = *playback;
                self.gate.clone_from(gate);
                if let Some(gate) = gate {
                    self.next_gate = gate.id.saturating_add(1);
                }
                self.remember(by, key.as_ref());
            }
            Event::GateProgress { id, user } => {
                if let Some(gate) = self.gate.as_mut().filter(|gate| gate.id == *id)
                    && gate.awaiting.remove(user)
                {
                    gate.ready.insert(user.clone());
                }
            }
            Event::PlayerChanged { user, player, agreed } => {
                if let Some(member) = self.members.get_mut(user) {
                    member.player = player.clone();
                }
                self.duration = *agreed;
                // A player that loads its film again may still answer; the gate's deadline bounds the wait.
                if player.state != PlayerState::Loading && !player.is_awaited() {
                    self.await_no_more(user);
                }
            }
            Event::UrlChanged { by, url, playback } => {
                self.url = Some(url.clone());
                self.begin_film();
                self.replace_playback(by, playback);
            }
            Event::Adopted { by, playback, url } => {
                if url.is_some() && *url != self.url {
                    self.url.clone_from(url);
                    self.begin_film();
                }
                self.replace_playback(by, playback);
            }
            Event::Chat { user, text, at } => {
                if let Some(member) = self.members.get(user) {
                    let (user, name, text) = (user.clone(), member.name.clone(), text.clone());
                    self.chat.say(self.head.seq, ChatLine { at: *at, user, name, text });
                }
            }
            Event::Custom { .. } | Event::AudienceCounted { .. } => {}
            Event::Ended { .. } => *self = Self::vacant(self.id.clone(), self.head),
        }
    }

    fn create(&mut self, event: &Event) {
        let Event::Created { epoch, at, pin, user, name, session, dialect, transport, token, origin, owner } = event
        else {
            return;
        };
        *self = Self::vacant(self.id.clone(), Head { epoch: *epoch, seq: 0 });
        self.created_at = *at;
        self.pin.clone_from(pin);
        self.host = Some(user.clone());
        self.owner = *owner;
        self.playback.at = *at;
        self.playback.seq = 1;
        self.apply(&Event::Joined {
            at: *at,
            user: user.clone(),
            name: name.clone(),
            slot: crate::domain::MemberSlot(1),
            session: session.clone(),
            dialect: *dialect,
            transport: *transport,
            token: *token,
            origin: *origin,
        });
    }

    /// Remembers a member that left. When the list is full, members that are not kept out are forgotten first.
    fn remember_gone(&mut self, user: &UserId, at: RoomTime, reason: LeaveReason, until: Option<RoomTime>) {
        let Some(member) = self.members.get(user) else { return };
        let (name, origin, token) = (member.name.clone(), member.origin, member.token);
        if self.gone.len() >= Gone::KEPT {
            let rank = |(_, gone): &(&UserId, &Gone)| (gone.kept_out_until.is_some_and(|until| until > at), gone.at);
            if let Some(oldest) = self.gone.iter().min_by_key(rank).map(|(user, _)| user.clone()) {
                self.gone.remove(&oldest);
            }
        }
        self.gone.insert(user.clone(), Gone { name, origin, token, at, reason, kept_out_until: until });
    }

    /// Durations belong to the film before. A player that showed it will load the new film too.
    fn begin_film(&mut self) {
        self.film = self.film.saturating_add(1);
        self.duration = None;
        let shown = self.members.iter().filter(|(_, member)| member.player.state != PlayerState::None);
        for user in shown.map(|(user, _)| user.clone()).collect::<Vec<_>>() {
            if let Some(member) = self.members.get_mut(&user) {
                member.player = Player::of(PlayerState::Loading);
            }
        }
    }

    fn replace_playback(&mut self, by: &UserId, playback: &Playback) {
        self.playback = *playback;
        self.gate = None;
        self.remember(by, None);
    }

    fn await_no_more(&mut self, user: &UserId) {
        if let Some(gate) = &mut self.gate {
            gate.awaiting.remove(user);
            gate.ready.remove(user);
        }
    }

    /// Remembers a playback command of a member. A command without a timestamp can be told from its repetition only
    /// while it is the room's last one, so earlier ones of that kind are forgotten.
    fn remember(&mut self, by: &UserId, key: Option<&ControlKey>) {
        let passes = |earlier: &ControlKey| earlier.true_at.is_none();
        let touched = self.members.iter().filter(|(_, member)| member.recent.iter().any(passes));
        for user in touched.map(|(user, _)| user.clone()).collect::<Vec<_>>() {
            if let Some(member) = self.members.get_mut(&user) {
                member.recent.retain(|earlier| !passes(earlier));
            }
        }
        if let (Some(key), Some(member)) = (key, self.members.get_mut(by)) {
            member.recent.retain(|earlier| earlier.is_recent(key.taken));
            while member.recent.len() >= ControlKey::KEPT {
                member.recent.pop_front();
            }
            member.recent.push_back(key.clone());
        }
    }
}
