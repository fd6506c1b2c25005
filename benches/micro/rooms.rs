//! The room: decide and apply, by how many are in it.

use std::time::Duration;

use divan::Bencher;
use tandem::room::{Ask, Basis, Command, Control};

use crate::hub_fixture::{NOW, actor, asked, joining, limits, position, room_of, step};

const MEMBERS: [usize; 3] = [2, 10, 200];

fn play_pause(control: Control, seconds: f64) -> Command {
    asked(Ask::PlayPause { control, position: Some(position(seconds)), true_at: None, on: Basis::default() })
}

#[divan::bench(args = MEMBERS)]
fn play_and_pause(bencher: Bencher<'_, '_>, members: usize) {
    let (mut room, limits) = (room_of(members), limits());
    let commands = [play_pause(Control::Play, 10.0), play_pause(Control::Pause, 20.0)];
    let mut now = NOW;
    bencher.bench_local(|| {
        now = now + Duration::from_secs(1);
        commands.iter().map(|command| step(&mut room, now, command, &limits)).sum::<usize>()
    });
}

/// A seek while playing opens a gate that awaits everybody.
#[divan::bench(args = MEMBERS)]
fn seek(bencher: Bencher<'_, '_>, members: usize) {
    let (mut room, limits) = (room_of(members), limits());
    let (mut now, mut to) = (NOW, 0.0);
    bencher.bench_local(|| {
        (now, to) = (now + Duration::from_secs(1), if to < 5000.0 { to + 10.0 } else { 0.0 });
        let command =
            asked(Ask::Seek { position: position(to), resume: Some(true), true_at: None, on: Basis::default() });
        step(&mut room, now, &command, &limits)
    });
}

#[divan::bench(args = MEMBERS)]
fn join_and_leave(bencher: Bencher<'_, '_>, members: usize) {
    let (mut room, limits) = (room_of(members), limits());
    let (join, leave) = (joining(members), Command::Leave { by: actor(members) });
    bencher.bench_local(|| step(&mut room, NOW, &join, &limits) + step(&mut room, NOW, &leave, &limits));
}

#[divan::bench(args = MEMBERS)]
fn next_deadline(bencher: Bencher<'_, '_>, members: usize) {
    let room = room_of(members);
    bencher.bench_local(|| room.next_deadline());
}

/// The copy that a committer decides on.
#[divan::bench(args = MEMBERS)]
fn copy(bencher: Bencher<'_, '_>, members: usize) {
    let room = room_of(members);
    bencher.bench_local(|| room.clone());
}
