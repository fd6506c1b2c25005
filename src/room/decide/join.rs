//! JOIN: found the room, enter it, come back to it, take a membership over.

use super::Draft;
use crate::domain::{Dialect, SessionRef, Slot, TokenHash, UserId, Username};
use crate::room::{Connection, Event, Join, LeaveReason, Member, PinProof, Reject};

impl Draft<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<(), Reject> {
        if self.base.is_vacant() {
            return self.create(join);
        }
        if self.base.bans.contains(&join.user) {
            return Err(Reject::Banned);
        }
        match self.base.members.get(&join.user) {
            // A page that was restored asks again on the socket that it has.
            Some(member) if member.is_on(&join.session) => {}
            Some(member) => {
                let proved = self.prove(member, join)?;
                self.unbind(&join.session);
                self.resume(member, join, proved);
                self.settle(self.longest_lead());
            }
            None => {
                self.check_pin(&join.pin)?;
                self.check_place(&join.session)?;
                self.unbind(&join.session);
                self.enter(join);
                self.settle(self.longest_lead());
            }
        }
        Ok(())
    }

    /// The PIN of an earlier life, its host and its film are gone with it; only the epoch remembers that it was.
    fn create(&mut self, join: &Join) -> Result<(), Reject> {
        let millis = u64::try_from(self.now.as_millis()).unwrap_or(0);
        let pin = match &join.pin {
            PinProof::Fresh(hash) => Some(hash.clone()),
            PinProof::None => None,
            // The room that it was checked against is over: who typed a PIN must not found a room without one.
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
        });
        Ok(())
    }

    fn enter(&mut self, join: &Join) {
        let slot = Slot(self.base.next_slot);
        self.push(Event::Joined {
            at: self.now,
            user: join.user.clone(),
            name: join.name.clone().unwrap_or_else(Username::guest),
            slot,
            session: join.session.clone(),
            dialect: join.dialect,
            transport: join.transport,
            token: join.new_token,
        });
    }

    fn resume(&mut self, member: &Member, join: &Join, proved: Option<TokenHash>) {
        self.push(Event::Resumed {
            at: self.now,
            user: join.user.clone(),
            session: join.session.clone(),
            dialect: join.dialect,
            transport: join.transport,
            token: join.new_token,
            proved,
        });
        if let Some(name) = join.name.as_ref().filter(|name| **name != member.name) {
            self.push(Event::Renamed { user: join.user.clone(), name: name.clone() });
        }
    }

    /// Whether the joiner may have this membership, and with which token it proved that.
    fn prove(&self, member: &Member, join: &Join) -> Result<Option<TokenHash>, Reject> {
        match join.presented {
            // More than the PIN: only this member ever saw the token.
            Some(token) if member.knows(&token) => return Ok(Some(token)),
            Some(_) => return Err(Reject::TokenInvalid),
            None => {}
        }
        if (member.dialect, join.dialect) != (Dialect::V2, Dialect::V2) {
            return Err(Reject::UserIdTaken);
        }
        // v2 clients have no token. The PIN first: a stranger may not even have somebody's connection probed.
        self.check_pin(&join.pin)?;
        match &member.connection {
            Connection::Live(session) => Err(Reject::ProbeFirst(session.clone())),
            Connection::Lost { .. } => Ok(None),
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

    fn check_place(&self, session: &SessionRef) -> Result<(), Reject> {
        let leaving = usize::from(self.bound_to(session).is_some());
        if (self.base.members.len() - leaving) as u64 >= self.limits.room_members {
            return Err(Reject::Full);
        }
        if self.base.next_slot == u16::MAX {
            return Err(Reject::SlotsExhausted);
        }
        Ok(())
    }

    /// A session is one member at a time: who it was here until now leaves. The room does not end by that, even when
    /// nobody else is in it, because the joiner follows.
    fn unbind(&mut self, session: &SessionRef) {
        if let Some(user) = self.bound_to(session) {
            self.push(Event::Left { at: self.now, user, reason: LeaveReason::Left });
            self.elect();
        }
    }

    fn bound_to(&self, session: &SessionRef) -> Option<UserId> {
        let mut members = self.base.members.iter();
        members.find(|(_, member)| member.is_on(session)).map(|(user, _)| user.clone())
    }
}
