//! The auditor: compares what every member asked and saw with what PostgreSQL holds, by SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};
use tandem::domain::Head;

use super::member_record::{MemberRecord, Seen, What};

/// The audit may lag: a drainer that died is followed by another after its lease of ten seconds, and what Redis lost
/// comes again after what came since.
const LAG: Duration = Duration::from_secs(60);

/// Counts of what the audit compared, and its complaints.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) acknowledged: usize,
    /// Acknowledged, or seen by somebody, or before something that was, and not in the database.
    pub(crate) lost: usize,
    /// In the database, or before a member's eyes, more than once.
    pub(crate) duplicated: usize,
    /// Seen in another order than the database's, or with a hole.
    pub(crate) reordered: usize,
    /// A sentence about each complaint.
    pub(crate) notes: Vec<String>,
    /// Kinds of events, and how many.
    pub(crate) kinds: BTreeMap<String, usize>,
}

/// A row of `room_events`.
#[derive(Debug, PartialEq)]
pub(crate) struct Fact {
    pub(crate) kind: String,
    pub(crate) user: Option<String>,
    pub(crate) data: Value,
}

/// By room and place.
pub(crate) type Events = BTreeMap<(String, Head), Fact>;

/// Waits until the database has everything up to the rooms' heads, and compares.
pub(crate) async fn audit(database: &str, heads: &BTreeMap<String, Head>, records: &[MemberRecord]) -> Findings {
    compare(&read(database, heads).await, heads, records)
}

fn compare(events: &Events, heads: &BTreeMap<String, Head>, records: &[MemberRecord]) -> Findings {
    let mut findings = Findings::default();
    for row in events.values() {
        *findings.kinds.entry(row.kind.clone()).or_default() += 1;
    }
    findings.check_rows(events, heads);
    for record in records {
        findings.check_commands(events, record);
        findings.check_view(events, heads, record);
    }
    findings.check_agreement(records);
    findings
}

/// All rows up to these heads, when they are there. What comes after is the end of the scenario: everybody goes.
pub(crate) async fn read(database: &str, heads: &BTreeMap<String, Head>) -> Events {
    let mut shell = PgConnection::connect(database).await.unwrap();
    let waiting = async {
        loop {
            let sql = "SELECT room_id, epoch, count(*) FROM room_events GROUP BY room_id, epoch";
            let rows = sqlx::query(sql).fetch_all(&mut shell).await.unwrap();
            let has = |(room, head): (&String, &Head)| {
                rows.iter().any(|row| {
                    let (epoch, events): (i64, i64) = (row.get(1), row.get(2));
                    row.get::<&str, _>(0) == room && epoch as u64 == head.epoch && events as u64 >= head.seq
                })
            };
            if heads.iter().all(has) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let whole = tokio::time::timeout(LAG, waiting).await.is_ok();
    if !whole {
        println!("the audit has not caught up within {LAG:?}");
    }
    let sql =
        "SELECT room_id, epoch, seq, event_type, user_id, details::text FROM room_events ORDER BY room_id, epoch, seq";
    let rows = sqlx::query(sql).fetch_all(&mut shell).await.unwrap();
    let event = |row: &sqlx::postgres::PgRow| {
        let head = Head { epoch: row.get::<i64, _>(1) as u64, seq: row.get::<i64, _>(2) as u64 };
        let data = serde_json::from_str(row.get(5)).unwrap();
        ((row.get(0), head), Fact { kind: row.get(3), user: row.get(4), data })
    };
    let asked_for = |((room, head), _): &((String, Head), Fact)| heads.get(room).is_none_or(|last| head <= last);
    rows.iter().map(event).filter(asked_for).collect()
}

impl Findings {
    fn lost(&mut self, note: String) {
        self.lost += 1;
        self.notes.push(format!("lost: {note}"));
    }

    fn duplicated(&mut self, note: String) {
        self.duplicated += 1;
        self.notes.push(format!("duplicated: {note}"));
    }

    fn reordered(&mut self, note: String) {
        self.reordered += 1;
        self.notes.push(format!("reordered: {note}"));
    }

    /// Each room's rows go from 1 to its head, in one epoch.
    fn check_rows(&mut self, events: &Events, heads: &BTreeMap<String, Head>) {
        for (room, head) in heads {
            for seq in 1..=head.seq {
                if !events.contains_key(&(room.clone(), Head { epoch: head.epoch, seq })) {
                    self.lost(format!("{room} has no row {seq}, its head is {head:?}"));
                }
            }
            let others: BTreeSet<u64> = events.keys().filter(|(of, _)| of == room).map(|(_, at)| at.epoch).collect();
            if others.len() > 1 {
                self.lost(format!("{room} had the epochs {others:?}"));
            }
        }
    }

    /// An acknowledged command is one row, where the ACK said; any other one row at the most.
    fn check_commands(&mut self, events: &Events, record: &MemberRecord) {
        let user = &record.user;
        let mut mine: Vec<(&Head, &Fact)> = Vec::new();
        for ((room, head), row) in events {
            if *room == record.room && row.user.as_ref() == Some(user) {
                mine.push((head, row));
            }
        }
        for (reference, asked) in &record.asked {
            let is_it = |row: &Fact| row.kind == asked.what.kind() && asked.what.is(&row.data);
            let places: Vec<Head> = mine.iter().filter(|(_, row)| is_it(row)).map(|(head, _)| **head).collect();
            let note = || format!("{user}'s {reference} {:?} ({:?}) stands at {places:?}", asked.what, asked.answer);
            if places.len() > 1 {
                self.duplicated(note());
            }
            match &asked.answer {
                Some(Ok(head)) => {
                    self.acknowledged += 1;
                    if places.is_empty() {
                        self.lost(note());
                    } else if !places.contains(head) && !went_on(events, &record.room, &places, *head) {
                        self.reordered(note());
                    }
                }
                // Nothing was promised.
                None => {}
                Some(Err(code)) if code == "UNAVAILABLE" => {}
                Some(Err(_)) if places.is_empty() => {}
                Some(Err(_)) => self.duplicated(note()),
            }
        }
    }

    /// A member's events are the database's, in order, each once; what it didn't see it was given as a whole.
    fn check_view(&mut self, events: &Events, heads: &BTreeMap<String, Head>, record: &MemberRecord) {
        let MemberRecord { user, room, .. } = record;
        let last = heads.get(room).copied().unwrap_or_default();
        let mut at: Option<Head> = None;
        // What a member that comes back has missed of the chat is sent again.
        let mut missed_since = None;
        for seen in &record.seen {
            match seen {
                Seen::State { head, fresh, seen } => {
                    if at.is_some_and(|before| *head < before) {
                        self.reordered(format!("{user} went back from {at:?} to {head:?}"));
                    }
                    if !events.contains_key(&(room.clone(), *head)) {
                        self.lost(format!("{user} was shown {room} at {head:?}"));
                    }
                    missed_since = seen.filter(|_| *fresh);
                    at = Some(*head);
                }
                // The others go.
                Seen::Event { head, .. } if *head > last => return,
                Seen::Event { head, json } if json["type"] == "ROSTER" => {
                    let first = self.check_roster(events, record, *head, json);
                    let before = at.unwrap_or_default();
                    if *head <= before {
                        self.duplicated(format!("{user} saw {json} again, at {before:?}"));
                        continue;
                    }
                    if first != (Head { epoch: before.epoch, seq: before.seq + 1 }) {
                        self.reordered(format!("{user} saw {json} at {before:?}"));
                    }
                    missed_since = None;
                    at = Some(*head);
                }
                Seen::Event { head, json } => {
                    let kind = json["type"].as_str().unwrap_or_default();
                    match events.get(&(room.clone(), *head)) {
                        None => self.lost(format!("{user} saw {json}")),
                        Some(row) if !tells_of(json, row) => {
                            self.reordered(format!(
                                "{user} saw {json}, where the database has {} {}",
                                row.kind, row.data
                            ));
                        }
                        Some(_) => {}
                    }
                    let before = at.unwrap_or_default();
                    if *head <= before {
                        let caught_up = kind == "CHAT" && missed_since.is_some_and(|since| *head > since);
                        if !caught_up {
                            self.duplicated(format!("{user} saw {json} again, at {before:?}"));
                        }
                        missed_since = missed_since.map(|_| *head);
                        continue;
                    }
                    if *head != (Head { epoch: before.epoch, seq: before.seq + 1 }) {
                        self.reordered(format!("{user} saw {json} at {before:?}"));
                    }
                    missed_since = None;
                    at = Some(*head);
                }
                Seen::Answer { reference } => {
                    let asked = record.asked.get(reference);
                    let acked = asked.and_then(|asked| asked.answer.as_ref()?.as_ref().ok());
                    if acked.is_some_and(|head| at.is_none_or(|at| at < *head)) {
                        self.reordered(format!("{user} heard of {acked:?} before the event, at {at:?}"));
                    }
                }
            }
        }
    }

    /// ROSTER tells of several events at once, each of which the database has, about the members that it names. Returns
    /// the place of the first.
    fn check_roster(&mut self, events: &Events, record: &MemberRecord, head: Head, json: &Value) -> Head {
        let told = json["events"].as_u64().unwrap_or_default();
        let first = Head { seq: (head.seq + 1).saturating_sub(told), ..head };
        let named = |list: &str| {
            let users = json[list].as_array().into_iter().flatten();
            users.filter_map(|user| user["userId"].as_str().map(str::to_owned)).collect::<BTreeSet<_>>()
        };
        let (joined, left) = (named("joined"), named("left"));
        for seq in first.seq..=head.seq {
            let row = events.get(&(record.room.clone(), Head { seq, ..head }));
            let user = row.and_then(|row| row.user.clone()).unwrap_or_default();
            let is_told = match row.map(|row| row.kind.as_str()) {
                // One that came and left is only among those who left.
                Some("member_joined") => joined.contains(&user) || left.contains(&user),
                Some("member_left") => left.contains(&user),
                _ => false,
            };
            match row {
                None => self.lost(format!("{} saw {json}, of which {seq} is not there", record.user)),
                Some(row) if !is_told => {
                    self.reordered(format!("{} saw {json}, where the database has {row:?}", record.user));
                }
                Some(_) => {}
            }
        }
        first
    }

    /// Two members that received an event received the same.
    fn check_agreement(&mut self, records: &[MemberRecord]) {
        let mut first: BTreeMap<(&str, Head), (&str, Value)> = BTreeMap::new();
        for record in records {
            for seen in &record.seen {
                let Seen::Event { head, json } = seen else { continue };
                // v2 members hear the events of a ROSTER one by one.
                if json["type"] == "ROSTER" {
                    continue;
                }
                let mut json = json.clone();
                json["timestamp"] = Value::Null;
                let (other, same) =
                    first.entry((&record.room, *head)).or_insert_with(|| (&record.user, json.clone())).clone();
                if same != json {
                    self.reordered(format!("{other} saw {same}, and {} saw {json}", record.user));
                }
            }
        }
    }
}

/// Whether the ACK names what the command's own event led to: a seek whose gate awaits no member is followed by its
/// start, in one decision.
fn went_on(events: &Events, room: &str, places: &[Head], acked: Head) -> bool {
    let before = Head { seq: acked.seq.saturating_sub(1), ..acked };
    let row = |head: Head| events.get(&(room.to_owned(), head)).map(|fact| fact.kind.as_str());
    places.contains(&before) && row(before) == Some("seek") && row(acked) == Some("play")
}

/// Whether the message is about this row's event.
fn tells_of(message: &Value, row: &Fact) -> bool {
    let text = |name: &str| message[name].as_str();
    let same_kind = match text("type").unwrap_or_default() {
        "CHAT" => row.kind == "chat" && What::Chat(text("text").map_or(0, |text| text.chars().count())).is(&row.data),
        "CUSTOM" => row.kind == "custom" && What::Custom(message["payload"].to_string().len()).is(&row.data),
        "SEEK_PAUSE" => row.kind == "seek",
        "PLAY_PAUSE" => row.kind == "play" || row.kind == "pause",
        "USER_JOINED" => row.kind == "member_joined",
        "USER_LEFT" => row.kind == "member_left",
        "HOST_CHANGED" => row.kind == "host_changed",
        "GUEST_CONTROL" => row.kind == "guest_control",
        "MEMBER_CONNECTION" if message["connected"] == true => row.kind == "member_resumed",
        "SESSION_CHANGED" => row.kind == "member_moved",
        "MEMBER_CONNECTION" => row.kind == "member_disconnected",
        "PLAYBACK" => row.kind == "correction",
        "READY_GATE" => row.kind == "gate_progress",
        "PLAYER_STATE" => row.kind == "player",
        _ => true,
    };
    let by = text("userId").filter(|user| *user != "server");
    same_kind && by.is_none_or(|user| row.user.as_deref() == Some(user))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::member_record::Asked;
    use super::*;
    use crate::support::client::Carrier;

    fn at(seq: u64) -> Head {
        Head { epoch: 1000, seq }
    }

    fn chat(chars: usize) -> Fact {
        Fact { kind: "chat".to_owned(), user: Some("ann".to_owned()), data: json!({ "chars": chars }) }
    }

    fn seen(seq: u64, chars: usize) -> Seen {
        let json = json!({"type": "CHAT", "userId": "ann", "text": "x".repeat(chars), "epoch": 1000, "seq": seq});
        Seen::Event { head: at(seq), json }
    }

    /// Three chats, each acknowledged and received by its sender.
    fn story() -> (Events, MemberRecord) {
        let events = (1..=3).map(|n| (("friday".to_owned(), at(n as u64)), chat(n))).collect();
        let mut record = MemberRecord::new("ann", "friday", Carrier::WebSocket);
        record.seen.push(Seen::State { head: at(1), fresh: true, seen: None });
        for n in [2, 3] {
            let answer = Some(Ok(at(n as u64)));
            record.asked.insert(n as u64, Asked { what: What::Chat(n), answer, lost: false });
            record.seen.push(seen(n as u64, n));
            record.seen.push(Seen::Answer { reference: n as u64 });
        }
        (events, record)
    }

    /// Lost, duplicated and reordered counts after a change of the events.
    fn after(change: impl FnOnce(&mut Events, &mut MemberRecord)) -> (usize, usize, usize) {
        let (mut events, mut record) = story();
        change(&mut events, &mut record);
        let heads = BTreeMap::from([("friday".to_owned(), at(3))]);
        let findings = compare(&events, &heads, &[record]);
        (findings.lost, findings.duplicated, findings.reordered)
    }

    #[test]
    fn the_auditor_finds_what_is_missing_what_is_twice_and_what_is_in_another_order() {
        assert_eq!(after(|_, _| {}), (0, 0, 0));
        let place = |seq: u64| ("friday".to_owned(), at(seq));
        let missing = after(|events, _| drop(events.remove(&place(2))));
        assert_eq!(missing, (3, 0, 0), "the hole, the command, what was seen");
        let (_, twice, _) = after(|events, _| drop(events.insert(place(1), chat(3))));
        assert_eq!(twice, 1);
        let (_, _, swapped) = after(|events, _| {
            events.insert(place(2), chat(3));
            events.insert(place(3), chat(2));
        });
        assert_eq!(swapped, 4, "two commands elsewhere than said, two events that were not these");
        assert_eq!(after(|_, record| record.seen.push(seen(3, 3))), (0, 1, 0), "seen again");
        let (_, _, hole) = after(|_, record| drop(record.seen.remove(1)));
        assert!(hole > 0, "a hole before a member's eyes");
        let (_, _, early) = after(|_, record| record.seen.swap(1, 2));
        assert_eq!(early, 1, "an ACK before its event");
        let refused =
            |record: &mut MemberRecord| record.asked.get_mut(&2).unwrap().answer = Some(Err("NOT_HOST".to_owned()));
        assert_eq!(after(|_, record| refused(record)), (0, 1, 0), "refused, and there all the same");
    }

    #[test]
    fn the_auditor_reads_what_a_crowd_is_told_as_one() {
        let row = |kind: &str, user: &str| Fact { kind: kind.to_owned(), user: Some(user.to_owned()), data: json!({}) };
        let roster = |joined: &str, events: u64| {
            json!({"type": "ROSTER", "joined": [{"userId": joined}], "left": [{"userId": "cy", "reason": "left"}],
                   "events": events, "epoch": 1000, "seq": 5})
        };
        let compared = |message: Value| {
            let (mut events, mut record) = story();
            events.insert(("friday".to_owned(), at(4)), row("member_joined", "bob"));
            events.insert(("friday".to_owned(), at(5)), row("member_left", "cy"));
            record.seen.push(Seen::Event { head: at(5), json: message });
            let findings = compare(&events, &BTreeMap::from([("friday".to_owned(), at(5))]), &[record]);
            (findings.lost, findings.duplicated, findings.reordered)
        };
        assert_eq!(compared(roster("bob", 2)), (0, 0, 0));
        assert_eq!(compared(roster("eve", 2)), (0, 0, 1), "somebody else joined");
        assert_eq!(compared(roster("bob", 1)), (0, 0, 1), "an event is missing before it");
        assert_eq!(compared(roster("bob", 3)), (0, 0, 2), "one is told again, and it was no join");
    }

    #[test]
    fn the_auditor_finds_two_members_who_saw_different_things() {
        let (events, ann) = story();
        let (_, mut bob) = story();
        bob.user = "bob".to_owned();
        bob.asked.clear();
        if let Seen::Event { json, .. } = &mut bob.seen[1] {
            json["username"] = json!("Ann");
        }
        let heads = BTreeMap::from([("friday".to_owned(), at(3))]);
        assert_eq!(compare(&events, &heads, &[ann, bob]).reordered, 1);
    }
}
