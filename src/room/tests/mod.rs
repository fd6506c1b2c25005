//! The room without a runtime: `scene.at(t).send(command).expect(events)`.

mod chat;
mod gate;
mod joining;
mod keeping;
mod membership;
mod moderation;
mod playback;
mod player;
mod record;
mod scene;
mod v2_faults;
