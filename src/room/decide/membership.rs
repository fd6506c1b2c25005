//! Leaving, losing and electing members, and what only the host may do to others.

use std::time::Duration;

use super::Draft;
use crate::domain::{KeyHash, PinHash, SessionRef, UserId, Username};
use crate::room::{Actor, Event, Kept, LeaveReason, Member, MemberConnection, Origin, Playback, Reject};

impl Draft<'_> {
    pub(super) fn leave(&mut self, by: &Actor) -> Result<(), Reject> {
        self.actor(by)?;
        self.remove(&by.user, LeaveReason::Left);
        self.after_members_changed(self.longest_lead());
        Ok(())
    }

    /// Begins a member's grace time. The end of a session that is not the member's current one changes nothing: a
    /// reconnect may have been faster than the old connection's close.
    pub(super) fn disconnect(&mut self, user: &UserId, session: &SessionRef) {
        if !self.base.members.get(user).is_some_and(|member| member.is_on(session)) {
            return;
        }
        let others = self.base.members.iter().any(|(other, member)| other != user && member.is_live());
        if self.limits.grace_secs == 0 && (others || self.limits.room_keep_minutes == 0) {
            self.remove(user, LeaveReason::Lost);
        } else {
            let until = self.now + Duration::from_secs(self.limits.grace_secs);
            self.push(Event::Disconnected { at: self.now, user: user.clone(), until });
        }
        self.after_members_changed(self.longest_lead());
    }

    pub(super) fn deadline(&mut self, lead: Duration, may_keep: bool) {
        let now = self.now;
        if self.base.grace_ends().is_some_and(|at| at <= now) {
            if may_keep
                && self.limits.room_keep_minutes > 0
                && self.base.kept.is_none()
                && !self.base.has_live_members()
            {
                return self.keep();
            }
            self.expire();
        }
        self.after_members_changed(lead);
        self.end_film();
    }

    /// Keeps a room whose members were all lost while none left: sleeping laptops, a restarting router. Only the film
    /// stops, at the time when the last member was lost.
    fn keep(&mut self) {
        let grace = Duration::from_secs(self.limits.grace_secs);
        let lost_at = self.base.grace_ends().map_or(self.now, |until| until - grace).min(self.now);
        let position = self.base.playback.position_at(lost_at);
        let playback = Playback { playing: false, ..self.standing(position) };
        let until = self.now + Duration::from_secs(self.limits.room_keep_minutes * 60);
        let kept = Kept { until, address: self.base.last_address() };
        self.push(Event::Kept { at: self.now, kept, playback });
    }

    /// Removes the members whose grace time is over; without a live member, all of them.
    fn expire(&mut self) {
        let (now, empty) = (self.now, !self.base.has_live_members());
        let expired =
            |member: &Member| matches!(member.connection, MemberConnection::Lost { until } if until <= now || empty);
        let mut gone: Vec<_> = self.base.members.iter().filter(|(_, member)| expired(member)).collect();
        gone.sort_by_key(|(_, member)| (member.joined_at, member.slot));
        for (user, _) in gone {
            self.remove(user, LeaveReason::Lost);
        }
    }

    pub(super) fn rename(&mut self, by: &Actor, name: &Username) -> Result<(), Reject> {
        if self.actor(by)?.name != *name {
            self.push(Event::Renamed { user: by.user.clone(), name: name.clone() });
        }
        Ok(())
    }

    pub(super) fn set_guest_control(&mut self, by: &Actor, enabled: bool) -> Result<(), Reject> {
        self.host(by)?;
        if self.base.guest_control != enabled {
            self.push(Event::GuestControl { enabled });
        }
        Ok(())
    }

    pub(super) fn transfer_host(&mut self, by: &Actor, target: &UserId) -> Result<(), Reject> {
        self.host(by)?;
        if !self.base.members.get(target).is_some_and(Member::is_live) {
            return Err(Reject::TargetGone);
        }
        if *target != by.user {
            self.push(Event::HostChanged { host: Some(target.clone()) });
        }
        Ok(())
    }

    pub(super) fn kick(&mut self, by: &Actor, target: &UserId) -> Result<(), Reject> {
        self.host(by)?;
        if *target == by.user || !self.base.members.contains_key(target) {
            return Err(Reject::TargetGone);
        }
        self.remove(target, LeaveReason::Kicked);
        self.after_members_changed(self.longest_lead());
        Ok(())
    }

    /// A former member can be banned too, and a `viewer` with the hash of its client key; but no user that never was
    /// here: such bans would only fill the list. The ban also holds for the client, where it is known, and removes
    /// other members with that client.
    pub(super) fn ban(&mut self, by: &Actor, target: &UserId, viewer: Option<Option<KeyHash>>) -> Result<(), Reject> {
        self.host(by)?;
        if *target == by.user {
            return Err(Reject::TargetGone);
        }
        if self.base.bans.contains(target) {
            return Ok(());
        }
        if self.base.bans.len() as u64 >= self.limits.room_bans {
            return Err(Reject::BansFull);
        }
        let client = match (self.origin_of(target), viewer) {
            (Some(origin), viewer) => origin.client.or(viewer.flatten()),
            (None, Some(client)) => client,
            (None, None) => return Err(Reject::TargetGone),
        };
        // Not the host's own client, which would ban the host.
        let own = self.base.members.get(&by.user).and_then(|member| member.origin.client);
        let client = client.filter(|client| own != Some(*client));
        let same = |user: &UserId, member: &Member| {
            user == target || (*user != by.user && client.is_some() && member.origin.client == client)
        };
        let banned = self.base.members.iter().filter(|(user, member)| same(user, member));
        for user in banned.map(|(user, _)| user.clone()).collect::<Vec<_>>() {
            self.remove(&user, LeaveReason::Banned);
        }
        self.push(Event::BansChanged { user: target.clone(), banned: true, client });
        self.after_members_changed(self.longest_lead());
        Ok(())
    }

    pub(super) fn unban(&mut self, by: &Actor, target: &UserId) -> Result<(), Reject> {
        self.host(by)?;
        if self.base.bans.contains(target) {
            self.push(Event::BansChanged { user: target.clone(), banned: false, client: None });
        }
        Ok(())
    }

    pub(super) fn set_pin(&mut self, by: &Actor, pin: Option<&PinHash>) -> Result<(), Reject> {
        self.host(by)?;
        if self.base.pin.as_ref() != pin {
            self.push(Event::PinChanged { pin: pin.cloned() });
        }
        Ok(())
    }

    /// The marks of a current or former member.
    fn origin_of(&self, target: &UserId) -> Option<Origin> {
        let here = self.base.members.get(target).map(|member| member.origin);
        here.or_else(|| self.base.gone.get(target).map(|gone| gone.origin))
    }

    /// Notes the size of the audience, in a room that somebody is in.
    pub(super) fn count_audience(&mut self, count: u32) {
        if !self.base.is_vacant() {
            self.push(Event::AudienceCounted { count });
        }
    }

    /// Removes a member and elects another host if it was the host. [`Draft::after_members_changed`] must follow.
    fn remove(&mut self, user: &UserId, reason: LeaveReason) {
        self.withdraw_player(user);
        let cooldown = Duration::from_secs(self.limits.kick_cooldown_secs);
        let until = (reason == LeaveReason::Kicked && !cooldown.is_zero()).then(|| self.now + cooldown);
        self.push(Event::Left { at: self.now, user: user.clone(), reason, until });
        self.elect();
    }

    /// Makes the longest-joined member host, a live one first, if the room has members and no host.
    pub(super) fn elect(&mut self) {
        let room = self.room();
        if room.host.is_some() {
            return;
        }
        let next = room.members.iter().min_by_key(|(_, member)| (!member.is_live(), member.joined_at, member.slot));
        if let Some(host) = next.map(|(user, _)| user.clone()) {
            self.push(Event::HostChanged { host: Some(host) });
        }
    }

    /// The consequences of members coming or leaving: a room without members ends, one without a host gets one, and a
    /// gate may have nobody left to wait for.
    pub(super) fn after_members_changed(&mut self, lead: Duration) {
        if self.base.is_vacant() {
            return;
        }
        if self.room().is_vacant() {
            self.push(Event::Ended { at: self.now });
            return;
        }
        self.elect();
        self.release_if_met(lead);
    }
}
