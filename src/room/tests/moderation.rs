//! Owners and moderation: kicks, bans, places of an address, slots.

use std::time::Duration;

use super::scene::{Scene, key, v3};
use crate::domain::{Limits, Username};
use crate::room::{Gone, Join, Origin, OwnerClaim, Reject};

fn named(join: Join, name: &str) -> Join {
    Join { name: Some(Username::parse(name, &Limits::default()).unwrap()), ..join }
}

fn kicked(seconds: u64) -> Reject {
    Reject::Kicked { retry_after: Duration::from_secs(seconds) }
}

#[test]
fn a_member_that_was_removed_is_kept_out_for_a_while_by_id_client_and_name_at_its_address() {
    let (ann, bob, cat) = (v3("ann"), v3("bob"), v3("cat"));
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(named(bob.join_from(1, 1), "Bob")).taken();
    scene.at(0).send(ann.kick("bob")).expect(&["left bob Kicked"]);
    scene.at(20_000).send(bob.join_from(2, 2)).refused(kicked(40));
    scene.at(20_000).send(cat.join_from(1, 2)).refused(kicked(40));
    scene.at(20_000).send(named(cat.join_from(2, 1), "Bob")).refused(kicked(40));
    // The earlier token is invalid.
    scene.at(20_000).send(bob.join_with(b'b')).refused(kicked(40));
    // Others of the same address, and others of the same name.
    scene.at(20_001).send(named(v3("dad").join_from(3, 1), "Dad")).expect(&["joined dad #3"]);
    scene.at(20_002).send(named(v3("eve").join_from(4, 4), "Bob")).expect(&["joined eve #4"]);
    scene.at(60_000).send(named(bob.join_from(1, 1), "Bob")).expect(&["joined bob #5"]);
    assert!(scene.room.gone.is_empty());
}

#[test]
fn the_host_s_own_other_tab_does_not_keep_the_host_out() {
    let (ann, tab) = (v3("ann"), v3("tab"));
    let mut scene = Scene::new();
    scene.at(0).send(ann.join_from(1, 1)).taken();
    scene.at(0).send(tab.join_from(1, 1)).taken();
    scene.at(1).send(ann.ban("tab")).expect(&["left tab Banned", "banned tab"]);
    assert!(scene.room.ban_keys.is_empty() && scene.room.member(&ann.actor.user).is_some());
    scene.at(2).send(v3("tab").on(9).join_from(1, 1)).refused(Reject::Banned);
}

#[test]
fn a_ban_holds_for_the_client_and_puts_out_its_other_tabs() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann]);
    scene.at(0).send(bob.join_from(1, 1)).taken();
    scene.at(0).send(v3("tab").join_from(1, 1)).taken();
    scene.at(1).send(ann.ban("bob")).expect(&["left bob Banned", "left tab Banned", "banned bob"]);
    scene.at(2).send(v3("new").join_from(1, 9)).refused(Reject::Banned);
    scene.at(3).send(v3("dad").join_from(2, 1)).expect(&["joined dad #4"]);
    scene.at(4).send(ann.unban("bob")).expect(&["unbanned bob"]);
    scene.at(5).send(v3("new").join_from(1, 9)).expect(&["joined new #5"]);
}

#[test]
fn only_who_was_there_can_be_banned() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann]);
    for number in 0..500 {
        scene.at(1).send(ann.ban(&format!("nobody-{number}"))).refused(Reject::TargetGone);
    }
    scene.at(2).send(bob.join_from(1, 1)).taken();
    scene.at(3).send(bob.leave()).taken();
    scene.at(4).send(ann.ban("bob")).expect(&["banned bob"]);
    assert_eq!(scene.room.ban_keys.values().collect::<Vec<_>>(), [&key(1)]);
}

#[test]
fn a_room_remembers_the_last_ones_who_went_and_whoever_is_kept_out_longest() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann]);
    scene.limits.kick_cooldown_secs = 3600;
    scene.at(0).send(bob.join()).taken();
    scene.at(0).send(ann.kick("bob")).taken();
    for number in 1..200 {
        let guest = v3(&format!("{number}-guest")).on(1000 + number);
        scene.at(number as i64).send(guest.join()).taken();
        scene.at(number as i64).send(guest.leave()).taken();
    }
    assert_eq!(scene.room.gone.len(), Gone::KEPT);
    scene.at(200).send(bob.join()).refused(Reject::Kicked { retry_after: Duration::from_millis(3_599_800) });
    scene.at(201).send(ann.ban("1-guest")).refused(Reject::TargetGone);
    scene.at(201).send(ann.ban("199-guest")).taken();
}

#[test]
fn one_address_has_its_places_in_a_room_and_leaves_the_others_theirs() {
    let ann = v3("ann");
    let mut scene = Scene::of(&[&ann]);
    for number in 0..scene.limits.room_address_members {
        let guest = v3(&format!("{number}-guest")).on(1000 + number);
        scene.at(1).send(guest.join_from(1, 7)).taken();
        // Lost members hold their places for the grace time.
        scene.at(1).send(guest.drop_out()).taken();
    }
    let one_more = v3("one-more");
    scene.at(2).send(one_more.join_from(1, 7)).refused(Reject::AddressFull);
    scene.at(2).send(one_more.join_from(1, 8)).taken();
    // A member that comes back needs no second place.
    scene
        .at(3)
        .send(Join { presented: Some(super::scene::token(1000_u64 as u8)), ..v3("0-guest").on(9).join_from(1, 7) })
        .taken();
}

#[test]
fn slots_go_round_and_a_number_comes_again_when_all_others_were_given() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let mut scene = Scene::of(&[&ann]);
    scene.room.next_slot = u16::MAX;
    scene.at(1).send(bob.join()).expect(&["joined bob #65535"]);
    scene.at(2).send(v3("cat").join()).expect(&["joined cat #2"]);
    // The longest-joined member is the one that joined first, not the one with the smallest number.
    scene.at(3).send(ann.leave()).expect(&["left ann left", "host bob"]);
    scene.at(4).send(v3("dan").join()).expect(&["joined dan #3"]);
}

#[test]
fn the_owner_is_host_whenever_it_enters_whoever_opened_the_room() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let owned = |number| OwnerClaim { host_key: None, owner: Some(key(number)) };
    let holds = |number| OwnerClaim { host_key: Some(key(number)), owner: None };
    let mut scene = Scene::new();
    // The invited member came first.
    scene.at(0).send(Join { claim: owned(1), ..bob.join() }).taken();
    assert_eq!((scene.host(), scene.room.owner()), ("bob", Some(&key(1))));
    scene.at(1).send(Join { claim: holds(2), ..v3("eve").join() }).expect(&["joined eve #2"]);
    scene.at(2).send(Join { claim: owned(3), ..v3("max").join() }).expect(&["joined max #3"]);
    assert_eq!(scene.room.owner(), Some(&key(1)), "an invitation says nothing of a room that is there");
    scene.at(3).send(Join { claim: holds(1), ..ann.join() }).expect(&["joined ann #4", "host ann"]);
    // What the owner gave away stays given away when its connection breaks for a moment.
    scene.at(4).send(ann.hand_over("bob")).taken();
    scene.at(5).send(Join { claim: holds(1), ..ann.on(9).join_with(b'a') }).expect(&["resumed ann on 9, proved"]);
    assert_eq!(scene.host(), "bob");
}

#[test]
fn another_tab_of_the_owner_s_browser_takes_nothing_from_the_one_that_hosts() {
    let (ann, tab) = (v3("ann"), v3("ann-2").on(9));
    let holds = OwnerClaim { host_key: Some(key(1)), owner: None };
    let browser = |number| Origin { client: Some(key(number)), address: None };
    let mut scene = Scene::new();
    scene.at(0).send(Join { claim: holds, origin: browser(7), ..ann.join() }).taken();
    scene.at(1).send(Join { claim: holds, origin: browser(7), ..tab.join() }).expect(&["joined ann-2 #2"]);
    // The owner's other machine has the host key too, and another client key.
    scene.at(2).send(Join { claim: holds, origin: browser(8), ..v3("tv").join() }).expect(&["joined tv #3", "host tv"]);
}

#[test]
fn whoever_opens_a_room_with_a_host_key_owns_it_in_its_next_life_too() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let both = OwnerClaim { host_key: Some(key(1)), owner: Some(key(2)) };
    let mut scene = Scene::new();
    scene.at(0).send(Join { claim: both, ..ann.join() }).taken();
    assert_eq!(scene.room.owner(), Some(&key(1)));
    scene.at(1).send(ann.leave()).expect(&["left ann left", "ended"]);
    assert_eq!(scene.room.owner(), None);
    let invited = OwnerClaim { host_key: None, owner: Some(key(1)) };
    scene.at(2).send(Join { claim: invited, ..bob.join() }).taken();
    scene.at(3).send(Join { claim: both, ..ann.join() }).expect(&["joined ann #2", "host ann"]);
}

#[test]
fn the_owner_of_a_room_needs_its_pin_and_is_bound_by_its_bans() {
    let (ann, bob) = (v3("ann"), v3("bob"));
    let holds = OwnerClaim { host_key: Some(key(1)), owner: None };
    let mut scene = Scene::new();
    scene.at(0).send(Join { claim: holds, ..ann.join() }).taken();
    scene.at(0).send(bob.join()).taken();
    scene.at(1).send(ann.hand_over("bob")).taken();
    scene.at(2).send(bob.set_pin(Some("hash"))).taken();
    scene.at(3).send(ann.leave()).taken();
    scene.at(4).send(Join { claim: holds, ..ann.join() }).refused(Reject::PinRequired);
    scene.at(5).send(bob.ban("ann")).taken();
    scene.at(6).send(Join { claim: holds, ..ann.join() }).refused(Reject::Banned);
}
