//! Who stays, who goes, who is host, and what only the host may do to the others.

use std::time::Duration;

use super::Draft;
use crate::domain::{PinHash, SessionRef, UserId, Username};
use crate::room::{Actor, Connection, Event, LeaveReason, Member, Reject};

impl Draft<'_> {
    pub(super) fn leave(&mut self, by: &Actor) -> Result<(), Reject> {
        self.actor(by)?;
        self.depart(&by.user, LeaveReason::Left);
        self.settle(self.longest_lead());
        Ok(())
    }

    /// A session that is not the member's current one (any more) ends without a trace: a reconnect may have been faster
    /// than the old connection's close.
    pub(super) fn disconnect(&mut self, user: &UserId, session: &SessionRef) {
        if !self.base.members.get(user).is_some_and(|member| member.is_on(session)) {
            return;
        }
        if self.limits.grace_secs == 0 {
            self.depart(user, LeaveReason::Lost);
        } else {
            let until = self.now + Duration::from_secs(self.limits.grace_secs);
            self.push(Event::Disconnected { at: self.now, user: user.clone(), until });
        }
        self.settle(self.longest_lead());
    }

    pub(super) fn deadline(&mut self, lead: Duration) {
        let now = self.now;
        let expired = |member: &Member| matches!(member.connection, Connection::Lost { until } if until <= now);
        let mut gone: Vec<_> = self.base.members.iter().filter(|(_, member)| expired(member)).collect();
        gone.sort_by_key(|(_, member)| member.slot);
        for (user, _) in gone {
            self.depart(user, LeaveReason::Lost);
        }
        self.settle(lead);
        self.end_film();
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
        self.depart(target, LeaveReason::Kicked);
        self.settle(self.longest_lead());
        Ok(())
    }

    /// Somebody who isn't here can be banned too: ahead, or after leaving.
    pub(super) fn ban(&mut self, by: &Actor, target: &UserId) -> Result<(), Reject> {
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
        if self.base.members.contains_key(target) {
            self.depart(target, LeaveReason::Banned);
        }
        self.push(Event::BansChanged { user: target.clone(), banned: true });
        self.settle(self.longest_lead());
        Ok(())
    }

    pub(super) fn unban(&mut self, by: &Actor, target: &UserId) -> Result<(), Reject> {
        self.host(by)?;
        if self.base.bans.contains(target) {
            self.push(Event::BansChanged { user: target.clone(), banned: false });
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

    /// One member goes for good, and hands the room on if it was the host. [`Draft::settle`] must follow.
    fn depart(&mut self, user: &UserId, reason: LeaveReason) {
        self.withdraw_player(user);
        self.push(Event::Left { at: self.now, user: user.clone(), reason });
        self.elect();
    }

    /// A room that has members and no host gets the longest-joined one, preferably one that is there.
    pub(super) fn elect(&mut self) {
        let room = self.room();
        if room.host.is_some() {
            return;
        }
        let next = room.members.iter().min_by_key(|(_, member)| (!member.is_live(), member.slot));
        if let Some(host) = next.map(|(user, _)| user.clone()) {
            self.push(Event::HostChanged { host: Some(host) });
        }
    }

    /// What follows from members having come or gone: a room without members ends, one without a host gets one, a gate
    /// may wait for nobody any more.
    pub(super) fn settle(&mut self, lead: Duration) {
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
