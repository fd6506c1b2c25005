//! The stored form. Rooms survive a deploy in it: if this test fails, stored rooms can't be read any more.

use serde_json::json;

use super::scene::{START_MS, Scene, key, v2, v3};
use crate::room::{Control, Room};

#[test]
fn the_record_of_a_room_keeps_its_form() {
    let (ann, bob) = (v3("ann"), v2("bob"));
    let mut scene = Scene::without_players(&[&ann, &bob, &v3("cat")]);
    scene.at(0).send(v3("eve").join_from(1, 2)).taken();
    scene.at(1).send(ann.set_pin(Some("$argon2id$"))).taken();
    scene.at(1).send(ann.guests(true)).taken();
    scene.at(1).send(ann.show("https://example.org/film", 0.0)).taken();
    scene.at(1).send(ann.measures(5400.5)).taken();
    scene.at(1).send(v3("cat").is_ready()).taken();
    scene.at(2).send(ann.ban("eve")).taken();
    scene.at(3).send(bob.control(Control::Play, Some(59.5), Some(2))).taken();
    scene.at(4).send(bob.seek(60.25)).taken();
    scene.at(5).send(ann.ready(Some(1), None)).taken();
    scene.at(6).send(bob.drop_out()).taken();
    let time = |ms: i64| (START_MS + ms) * 1000;
    let token = |byte: u8| json!(vec![byte; 32]);
    let member = |name: &str, slot: u16, dialect: &str, connection: serde_json::Value| {
        json!({
            "name": "Guest", "slot": slot, "joined_at": time(0), "connection": connection, "dialect": dialect,
            "transport": "websocket", "token": token(name.as_bytes()[0]), "previous_token": null, "recent": [], "player": {"state": "none"},
        })
    };
    let mut members = json!({
        "ann": member("ann", 1, "V3", json!({"Live": {"node": "node-1", "id": 97}})),
        "bob": member("bob", 2, "V2", json!({"Lost": {"until": time(30_006)}})),
        "cat": member("cat", 3, "V3", json!({"Live": {"node": "node-1", "id": 99}})),
    });
    members["ann"]["player"] = json!({"state": "ready", "duration": 5400.5});
    members["cat"]["player"] = json!({"state": "ready"});
    members["bob"]["recent"] = json!([
        {"control": "play", "position": 59.5, "true_at": time(2), "taken": time(3)},
        {"control": null, "position": 60.25, "true_at": null, "taken": time(4)},
    ]);
    let mut record = json!({
        "id": "friday",
        "head": {"epoch": START_MS, "seq": 15},
        "created_at": time(0),
        "host": "ann",
        "guest_control": true,
        "pin": "$argon2id$",
        "url": "https://example.org/film",
        "film": 1,
        "duration": 5400.5,
        "playback": {"position": 60.25, "rate": 1.0, "playing": false, "at": time(4), "seq": 13},
        "gate": {
            "id": 1, "target": 60.25, "awaiting": ["cat"], "ready": ["ann"],
            "quorum_at": time(3_004), "deadline": time(7_004), "by": "bob",
        },
        "next_gate": 2,
        "next_slot": 5,
        "bans": ["eve"],
        "ban_keys": {"eve": key(1).to_string()},
        "members": members,
        "gone": {
            "eve": {
                "name": "Guest", "origin": {"client": key(1).to_string(), "address": 2}, "token": token(b'e'),
                "at": time(2), "reason": "banned",
            },
        },
        "owner": null,
        "kept": null,
        "chat": {},
    });
    assert_eq!(serde_json::to_value(&scene.room).unwrap(), record);
    assert_eq!(serde_json::from_value::<Room>(record.clone()).unwrap(), scene.room);
    // 3.0.0 had a third kind of transport, for tests.
    record["members"]["ann"]["transport"] = json!("memory");
    assert_eq!(serde_json::from_value::<Room>(record).unwrap(), scene.room);
}
