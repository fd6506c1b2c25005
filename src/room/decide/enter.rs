//! JOIN: create the room, enter it, resume a membership, take one over, or watch.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Draft;
use crate::domain::{Dialect, Limits, MemberSlot, RoomTime, SessionRef, TokenHash, UserId, Username};
use crate::room::{Event, Gone, Join, LeaveReason, Member, MemberConnection, PinProof, Reject, Room};

impl Room {
    /// Whether this JOIN may watch the room without becoming a member: the same rules of bans and PIN. `join.user` must
    /// not be a member's, except the member of this very session, which gives its place up.
    pub fn admits_viewer(&self, now: RoomTime, join: &Join, limits: &Limits) -> Result<(), Reject> {
        if self.is_vacant() {
            return Err(Reject::NoRoom);
        }
        let draft = Draft::new(self, now, limits);
        draft.check_bans(join)?;
        match self.members.get(&join.user) {
            Some(member) if member.is_on(&join.session) => return Ok(()),
            Some(_) => return Err(Reject::UserIdTaken),
            None => draft.check_kept_out(join)?,
        }
        if draft.bound_to(&join.session).is_some() || draft.was_lost(join) {
            return Ok(());
        }
        draft.check_pin(&join.pin)
    }
}

impl Draft<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<(), Reject> {
        if self.base.is_vacant() {
            return self.create(join);
        }
        self.check_bans(join)?;
        match self.base.members.get(&join.user) {
            // A restored page joins again over the session that it has.
            Some(member) if member.is_on(&join.session) => {}
            Some(member) => {
                let proved = self.prove_member(member, join)?;
                self.unbind(&join.session);
                let moved = join.moves
                    && member.is_live()
                    && proved.is_some()
                    && (member.dialect, join.dialect) == (Dialect::V3, Dialect::V3);
                self.resume(member, join, proved, moved);
                if !moved {
                    self.wake(&join.user);
                }
                // The session may have been another member, who is gone now.
                self.after_members_changed(self.longest_lead());
            }
            None => {
                self.check_kept_out(join)?;
                if !self.was_lost(join) {
                    self.check_pin(&join.pin)?;
                }
                self.check_place(join)?;
                self.unbind(&join.session);
                self.enter(join);
                self.wake(&join.user);
                self.after_members_changed(self.longest_lead());
            }
        }
        Ok(())
    }

    /// Nothing of the former room's PIN, host and film remains; only the epoch continues.
    fn create(&mut self, join: &Join) -> Result<(), Reject> {
        let millis = u64::try_from(self.now.as_millis()).unwrap_or(0);
        let pin = match &join.pin {
            PinProof::Fresh(hash) => Some(hash.clone()),
            PinProof::None => None,
            // The room with that PIN is over. A JOIN with a PIN must not create a room without one.
            PinProof::Checked { .. } => return Err(Reject::PinStale),
        };
        self.push(Event::Created {
            epoch: millis.max(self.base.head.epoch.saturating_add(1)),
            at: self.now,
            pin,
            user: join.user.clone(),
            name: join.name.clone().unwrap_or_else(Username::guest),
            session: join.session.clone(),
            dialect: join.dialect,
            transport: join.transport,
            token: join.new_token,
            origin: join.origin,
            owner: join.claim.host_key.or(join.claim.owner),
        });
        Ok(())
    }

    fn enter(&mut self, join: &Join) {
        let slot = self.free_slot();
        self.push(Event::Joined {
            at: self.now,
            user: join.user.clone(),
            name: join.name.clone().unwrap_or_else(Username::guest),
            slot,
            session: join.session.clone(),
            dialect: join.dialect,
            transport: join.transport,
            token: join.new_token,
            origin: join.origin,
        });
        // The owner becomes host, whoever has been host meanwhile; but another tab of the owner's own browser that
        // hosts the room keeps it.
        let owns = join.claim.host_key.is_some() && join.claim.host_key == self.base.owner;
        let host = self.base.host().and_then(|host| self.base.member(host)).filter(|host| host.is_live());
        let hosts_already = host.is_some_and(|host| host.origin.is_client(&join.origin));
        if owns && !hosts_already && !self.base.is_host(&join.user) {
            self.push(Event::HostChanged { host: Some(join.user.clone()) });
        }
    }

    /// The next slot that no member has.
    fn free_slot(&self) -> MemberSlot {
        let taken: BTreeSet<_> = self.base.members.values().map(|member| member.slot.0).collect();
        let from_next = (self.base.next_slot..=u16::MAX).chain(1..self.base.next_slot);
        MemberSlot(from_next.filter(|slot| *slot > 0).find(|slot| !taken.contains(slot)).unwrap_or(1))
    }

    /// Begins the grace times of the others anew: a kept room has a live member again.
    fn wake(&mut self, user: &UserId) {
        if self.base.kept.is_none() {
            return;
        }
        let until = self.now + Duration::from_secs(self.limits.grace_secs);
        for other in self.base.members.keys().filter(|other| *other != user) {
            self.push(Event::Disconnected { at: self.now, user: other.clone(), until });
        }
    }

    fn check_bans(&self, join: &Join) -> Result<(), Reject> {
        if self.base.has_banned(&join.user, &join.origin) { Err(Reject::Banned) } else { Ok(()) }
    }

    /// Refuses a member that the host removed: the same id, the same client, or the same name at the same address.
    fn check_kept_out(&self, join: &Join) -> Result<(), Reject> {
        let guest = Username::guest();
        let name = join.name.as_ref().unwrap_or(&guest);
        let same = |user: &UserId, gone: &Gone| {
            let near = gone.origin.address.is_some() && gone.origin.address == join.origin.address;
            *user == join.user || gone.origin.is_client(&join.origin) || (near && gone.name == *name)
        };
        let gone = self.base.gone.iter().filter(|(user, gone)| same(user, gone));
        match gone.filter_map(|(_, gone)| gone.kept_out_until).max() {
            Some(until) if until > self.now => Err(Reject::Kicked { retry_after: until.saturating_since(self.now) }),
            _ => Ok(()),
        }
    }

    /// Whether its membership ended by itself and it presents that token: then it knew the PIN.
    fn was_lost(&self, join: &Join) -> bool {
        let gone = self.base.gone.get(&join.user).filter(|gone| gone.reason == LeaveReason::Lost);
        gone.is_some_and(|gone| join.presented == Some(gone.token))
    }

    fn resume(&mut self, member: &Member, join: &Join, proved: Option<TokenHash>, moved: bool) {
        self.push(Event::Resumed {
            at: self.now,
            user: join.user.clone(),
            session: join.session.clone(),
            dialect: join.dialect,
            transport: join.transport,
            token: join.new_token,
            proved,
            origin: join.origin,
            moved,
        });
        if let Some(name) = join.name.as_ref().filter(|name| **name != member.name) {
            self.push(Event::Renamed { user: join.user.clone(), name: name.clone() });
        }
    }

    /// Whether the joiner may take this membership; returns the token that proved it.
    fn prove_member(&self, member: &Member, join: &Join) -> Result<Option<TokenHash>, Reject> {
        match join.presented {
            // The token proves more than the PIN: only this member has seen it.
            Some(token) if member.knows(&token) => return Ok(Some(token)),
            Some(_) => return Err(Reject::TokenInvalid),
            None => {}
        }
        if (member.dialect, join.dialect) != (Dialect::V2, Dialect::V2) {
            return Err(Reject::UserIdTaken);
        }
        // v2 clients have no token. The PIN is checked first: a stranger must not even cause a probe.
        self.check_pin(&join.pin)?;
        match &member.connection {
            MemberConnection::Live(session) => Err(Reject::ProbeFirst(session.clone())),
            MemberConnection::Lost { .. } => Ok(None),
        }
    }

    fn check_pin(&self, proof: &PinProof) -> Result<(), Reject> {
        let Some(pin) = &self.base.pin else { return Ok(()) };
        match proof {
            PinProof::None => Err(Reject::PinRequired),
            PinProof::Checked { against, fits } if against == pin => {
                if *fits {
                    Ok(())
                } else {
                    Err(Reject::PinWrong)
                }
            }
            PinProof::Fresh(_) | PinProof::Checked { .. } => Err(Reject::PinStale),
        }
    }

    fn check_place(&self, join: &Join) -> Result<(), Reject> {
        let stay = || self.base.members.values().filter(|member| !member.is_on(&join.session));
        if stay().count() as u64 >= self.limits.room_members {
            return Err(Reject::Full);
        }
        let near = |member: &&Member| join.origin.address.is_some() && member.origin.address == join.origin.address;
        if stay().filter(near).count() as u64 >= self.limits.room_address_members {
            return Err(Reject::AddressFull);
        }
        Ok(())
    }

    /// Removes the member that the session has been in this room. The room doesn't end by that, even without another
    /// member, because the joiner follows.
    fn unbind(&mut self, session: &SessionRef) {
        if let Some(user) = self.bound_to(session) {
            self.push(Event::Left { at: self.now, user, reason: LeaveReason::Left, until: None });
            self.elect();
        }
    }

    fn bound_to(&self, session: &SessionRef) -> Option<UserId> {
        let mut members = self.base.members.iter();
        members.find(|(_, member)| member.is_on(session)).map(|(user, _)| user.clone())
    }
}
