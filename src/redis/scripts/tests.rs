//! The names that each typed function passes are those that its script unpacks.

use std::collections::BTreeMap;

use super::*;
use crate::commit::Commit;
use crate::domain::{Head, RoomId};

/// The names that a typed function passes.
#[derive(Default, Debug, PartialEq)]
pub(super) struct PassedNames {
    keys: Vec<String>,
    args: Vec<String>,
    rest: bool,
}

impl PassedNames {
    pub(super) fn note(&mut self, name: &str, is_key: bool) {
        assert!(!self.rest, "{name} comes after the rest");
        if is_key { &mut self.keys } else { &mut self.args }.push(name.to_owned());
    }

    pub(super) fn has_rest(&mut self) {
        self.rest = true;
    }
}

/// The names to which a script unpacks KEYS or ARGV.
fn unpacked(text: &str, which: &str) -> Vec<String> {
    let Some((before, after)) = text.split_once(&format!("unpack({which}")) else { return Vec::new() };
    let (_, names) = before.rsplit_once("local ").unwrap();
    let names: Vec<String> = names.trim_end_matches([' ', '=']).split(',').map(|name| name.trim().into()).collect();
    // Without bounds `unpack` takes all there are, so a rest would be more than the names.
    if let Some(bounds) = after.strip_prefix(", 1, ") {
        assert_eq!(bounds.split(')').next().unwrap(), names.len().to_string());
    }
    names
}

#[test]
fn each_script_is_passed_the_keys_and_arguments_that_it_names() {
    let link = RedisLink::unconnected();
    let (node, room) = (NodeId::parse("a").unwrap(), RoomId::parse("friday").unwrap());
    let (partition, entry, second) = (Partition::of(&room), StreamId::default(), Duration::from_secs(1));
    let row = crate::commit::RoomRow {
        host: None,
        url: None,
        position: 0.0,
        playing: false,
        at: RoomTime::default(),
        guest_control: false,
        ended: false,
        users: Vec::new(),
    };
    let (expected, next, entries, patch) =
        (Head::default(), Head::default(), [].into(), crate::commit::Patch::default());
    let commit = Commit { room: room.clone(), expected, next, entries, patch, row };
    let snapshot = Snapshot { room: room.clone(), head: next, fields: BTreeMap::new() };
    let (id, message, events, state) = ("id", &b""[..], &b""[..], &b""[..]);
    let request =
        CommitRequest { commit: &commit, node: &node, id, message, events, state, claim: None, answer_life: second };
    let lost = LostCommit { room: &room, head: next, events, state, new_era: String::new() };
    let text = String::new;
    let enter = EnterRequest {
        joins: text(),
        user: text(),
        address: text(),
        allowed: 1,
        window: second,
        place: "",
        most_of_user: 1,
        most_of_address: 1,
        named: 1,
        counted: false,
    };
    let mut passed = BTreeMap::from([
        ("agree", link.agree_on_salt("").names),
        ("beat", link.beat("a", second, second, "").names),
        ("claim", link.claim(partition, &node, 1, "0-0").names),
        ("commit", link.commit(&request).names),
        ("count", link.count(text(), 1, second).names),
        ("enter", link.enter(&enter).names),
        ("finish", link.finish(partition, entry, &[]).names),
        ("lease", link.lease(DRAINER, &node, second).names),
        ("look_up", link.look_up(partition, &[]).names),
        ("now", link.now().names),
        ("probe", link.probe(partition, &node, 1).names),
        ("read", link.read_outboxes(&node, 1, &[]).names),
        ("refund", link.refund(text()).names),
        ("release_places", link.release_places(text(), text(), &[]).names),
        ("renew_places", link.renew_places(text(), text(), text()).names),
        ("requeue", link.requeue(partition, &lost).names),
        ("restore", link.restore(&snapshot, message).names),
        ("time", link.time(RoomTime::default()).names),
        ("trim", link.trim(partition, entry).names),
    ]);
    for (script, text) in TEXTS {
        let names = passed.remove(script).unwrap_or_else(|| panic!("{script} has no call here"));
        let code: String =
            text.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect();
        let (keys, args) = (unpacked(&code, "KEYS"), unpacked(&code, "ARGV"));
        assert_eq!((&names.keys, &names.args), (&keys, &args), "{script}");
        // Only the rest is read by number, from the first number after the names.
        let named = ["KEYS[1", "KEYS[2", "KEYS[3", "ARGV[1", "ARGV[2", "ARGV[4"].iter().find(|at| code.contains(**at));
        assert_eq!(named, None, "{script} has names for its keys and arguments");
        let first = args.len() + 1;
        let reads = [format!("for i = {first}, "), format!("= {first} + "), format!("ARGV[{} + i]", first - 1)];
        assert_eq!(names.rest, reads.iter().any(|read| code.contains(read)), "{script}: arguments from {first} on");
        assert_eq!(names.rest, code.contains("ARGV["), "{script} reads arguments that it is not passed");
    }
    assert!(passed.is_empty(), "no such scripts: {passed:?}");
}
