//! The chat that a room keeps.

use super::scene::{Scene, v3};

#[test]
fn a_room_keeps_the_last_lines_with_who_said_them_and_when() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann, &bob]);
    scene.at(5).send(bob.rename("Bob")).taken();
    scene.at(7).send(bob.say("ready?")).taken();
    let seq = scene.room.head().seq;
    scene.at(8).send(bob.leave()).taken();
    let (place, line) = scene.room.chat().iter().next().unwrap();
    assert_eq!((*place, line.name.as_str(), line.text.as_str()), (seq, "Bob", "ready?"));
    assert_eq!(line.at, super::scene::ms(7));
}

#[test]
fn what_a_room_keeps_is_bounded_in_bytes_and_the_oldest_go_first() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    let long = "x".repeat(2000);
    for at in 0..100 {
        scene.at(at).send(ann.say(&long)).taken();
    }
    let kept: usize = scene.room.chat().values().map(|line| line.text.as_str().len()).sum();
    assert!((50_000..=65_536).contains(&kept), "{kept} bytes");
    let (last, _) = scene.room.chat().iter().next_back().unwrap();
    assert_eq!(*last, scene.room.head().seq);
    for at in 100..1000 {
        scene.at(at).send(ann.say("y")).taken();
    }
    assert!(scene.room.chat().len() <= 256, "short lines cost their message");
}

#[test]
fn the_next_life_of_a_room_has_nothing_of_it() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    scene.at(1).send(ann.say("a secret")).taken();
    scene.at(2).send(ann.leave()).taken();
    scene.at(3).send(ann.join()).taken();
    assert!(scene.room.chat().is_empty());
}
