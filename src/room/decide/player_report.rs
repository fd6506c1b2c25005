//! PLAYER: whether a member's player can play the film, and the film's length on which the players agree.

use std::time::Duration;

use super::Draft;
use crate::domain::{MediaTime, Player, UserId};
use crate::room::{Actor, Event, Member, Reject, Room};

impl Draft<'_> {
    /// Takes a member's report of its player. One for another film than the room's is ignored.
    pub(super) fn player(
        &mut self,
        by: &Actor,
        player: &Player,
        film: Option<u32>,
        lead: Duration,
    ) -> Result<(), Reject> {
        let known = &self.actor(by)?.player;
        if known == player || film.is_some_and(|film| film != self.base.film) {
            return Ok(());
        }
        self.show_player(&by.user, player.clone());
        self.release_if_met(lead);
        Ok(())
    }

    pub(super) fn show_player(&mut self, user: &UserId, player: Player) {
        let mut room = self.room().clone();
        if let Some(member) = room.members.get_mut(user) {
            member.player.clone_from(&player);
        }
        // The length that a player reported was the edge of a live stream, which moves on.
        let kept = room.duration.filter(|_| !player.is_live());
        let agreed = agreed_duration(&room).or(kept);
        self.push(Event::PlayerChanged { user: user.clone(), player, agreed });
    }

    /// Withdraws the length that a leaving member's player reported, if others report another.
    pub(super) fn withdraw_player(&mut self, user: &UserId) {
        let mut room = self.room().clone();
        if room.members.get(user).is_none_or(|member| member.player.duration.is_none()) {
            return;
        }
        room.members.remove(user);
        if agreed_duration(&room).is_some_and(|agreed| room.duration != Some(agreed)) {
            self.show_player(user, Player::default());
        }
    }
}

/// The film's length: what the host's player reports; without it, the median of the members' reports (of two in the
/// middle the longer one: a film that runs on past its end does less harm than one that is cut).
///
/// With a host's report guests have no say: however many claim that the film is over, they can't stop what they may not
/// control.
fn agreed_duration(room: &Room) -> Option<MediaTime> {
    let said = |member: &Member| member.player.duration.filter(|_| member.player.is_ready());
    if let Some(of_host) = room.host.as_ref().and_then(|host| room.members.get(host)).and_then(said) {
        return Some(of_host);
    }
    let mut all: Vec<_> = room.members.values().filter_map(said).collect();
    all.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
    all.get(all.len() / 2).copied()
}
