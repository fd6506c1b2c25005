//! `docs/PROTOCOL.md` is the contract: what it says is what the code does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/wire_samples.rs"]
#[allow(dead_code, reason = "shared with tests/protocol, which uses the rest")]
mod wire_samples;

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tandem::domain::{CloseCode, ErrorCode};
use tandem::protocol::{ClientMessage, PROTOCOL, Rules, SERVER_KINDS, decode};
use wire_samples::{CLIENT_MESSAGES, server_messages};

const DOC: &str = include_str!("../docs/PROTOCOL.md");

/// The JSON values of all fenced blocks with this label.
fn blocks(label: &str) -> Vec<Map<String, Value>> {
    let fence = format!("```json {label}\n");
    let texts = DOC.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap());
    texts
        .flat_map(|text| {
            let values = serde_json::Deserializer::from_str(text).into_iter::<Map<String, Value>>();
            values.map(move |value| value.unwrap_or_else(|error| panic!("{error} in {text}"))).collect::<Vec<_>>()
        })
        .collect()
}

/// The rows of the table that starts with this header, cut into cells.
fn table(section: &str, header: &str) -> Vec<Vec<String>> {
    let text = DOC.split(section).nth(1).unwrap_or_else(|| panic!("no section {section}"));
    let rows = text.split(header).nth(1).unwrap_or_else(|| panic!("no table {header}"));
    rows.lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

fn kind(message: &Map<String, Value>) -> &str {
    message["type"].as_str().unwrap()
}

/// Names of a field list: `(name, optional)`, in order. Explanations after the name don't count.
fn fields(cell: &str) -> Vec<(String, bool)> {
    let mut depth = 0;
    let parts = cell.split(|c| {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts
        .map(str::trim)
        .filter(|part| *part != "–")
        .map(|part| {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
            (part[..end].to_owned(), part[end..].starts_with('?'))
        })
        .collect()
}

/// A table's row of one type.
struct Row {
    kind: String,
    /// The `seq` column, where there is one.
    seq: String,
    fields: Vec<(String, bool)>,
}

/// Rows such as `A / B | a / b, c` are taken apart.
fn rows_by_type(section: &str, header: &str, fields_cell: usize) -> Vec<Row> {
    let mut all = Vec::new();
    for row in table(section, header) {
        let types = row[0].split(" (").next().unwrap().split(" / ").collect::<Vec<_>>();
        let (first, rest) = match types.len() {
            1 => (vec![""], row[fields_cell].clone()),
            _ => {
                let list = row[fields_cell].split(", ").find(|part| part.contains(" / ")).unwrap();
                (list.split(" / ").collect(), row[fields_cell].replace(list, "*"))
            }
        };
        for (index, name) in types.iter().enumerate() {
            let cell = rest.replace('*', first[index]);
            all.push(Row { kind: (*name).to_owned(), seq: row[1].clone(), fields: fields(&cell) });
        }
    }
    all
}

#[test]
fn every_client_example_decodes_and_every_client_type_has_one() {
    let examples = blocks("client");
    for example in &examples {
        let text = serde_json::to_vec(example).unwrap();
        let request = decode(&text, &Rules::default()).unwrap_or_else(|bad| panic!("{example:?}: {bad}"));
        assert_eq!(request.message.kind(), kind(example));
    }
    let shown: BTreeSet<_> = examples.iter().map(kind).collect();
    assert_eq!(shown, ClientMessage::KINDS.iter().copied().collect());
}

#[test]
fn every_server_example_has_the_shape_of_a_real_message_and_every_server_type_has_one() {
    let samples: Vec<(&str, Map<String, Value>)> =
        server_messages().iter().map(|(name, bytes)| (*name, serde_json::from_slice(bytes).unwrap())).collect();
    let examples = blocks("server");
    for example in &examples {
        let same_type: Vec<_> = samples.iter().filter(|(_, sample)| kind(sample) == kind(example)).collect();
        let fits = same_type
            .iter()
            .any(|(_, sample)| same_shape(&Value::Object(sample.clone()), &Value::Object(example.clone())));
        assert!(fits, "no message has the shape of {example:#?}\nthere are {same_type:#?}");
    }
    let shown: BTreeSet<_> = examples.iter().map(kind).collect();
    assert_eq!(shown, SERVER_KINDS.iter().copied().collect());
}

/// The same names, and values of the same kind, all the way down; null stands for anything that may be absent.
fn same_shape(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.keys().eq(other.keys()) && one.iter().all(|(name, value)| same_shape(value, &other[name]))
        }
        (Value::Array(one), Value::Array(other)) => match (one.first(), other.first()) {
            (Some(one), Some(other)) => same_shape(one, other),
            _ => true,
        },
        (Value::Null, _) | (_, Value::Null) => true,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

#[test]
fn the_client_table_lists_the_types_that_decode_with_the_fields_that_count() {
    let rows = rows_by_type("## 3.", "| type | fields | who | effect |", 1);
    let types: Vec<_> = rows.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(types, ClientMessage::KINDS);

    for (Row { kind: name, fields, .. }, sample) in rows.iter().zip(CLIENT_MESSAGES) {
        let sample: Map<String, Value> = serde_json::from_str(sample).unwrap();
        for (field, optional) in fields {
            let mut without = sample.clone();
            let given = without.remove(field).is_some();
            assert!(given, "the sample of {name} has no {field}");
            let taken = decode(&serde_json::to_vec(&without).unwrap(), &Rules::default());
            assert_eq!(taken.is_ok(), *optional, "{name} without {field}");
        }
        let named: BTreeSet<_> = fields.iter().map(|(field, _)| field.as_str()).chain(["type", "ref"]).collect();
        let unnamed: Vec<_> = sample.keys().filter(|field| !named.contains(field.as_str())).collect();
        assert!(unnamed.is_empty(), "the table doesn't name {unnamed:?} of {name}");
    }
}

#[test]
fn the_server_table_lists_the_types_that_are_sent_with_their_fields() {
    let rows = rows_by_type("## 4.", "| type | seq | fields |", 2);
    let mut types: Vec<_> = rows.iter().map(|row| row.kind.as_str()).collect();
    types.dedup();
    assert_eq!(types, SERVER_KINDS);

    for (sample_name, bytes) in server_messages() {
        let sample: Map<String, Value> = serde_json::from_slice(&bytes).unwrap();
        if kind(&sample) == "ROOM_STATE" {
            continue;
        }
        let fits = rows.iter().filter(|row| row.kind == kind(&sample)).any(|Row { seq, fields, .. }| {
            let mut implied = vec!["type"];
            if kind(&sample) != "ERROR" {
                implied.push("timestamp");
            }
            if seq == "yes" {
                implied.extend(["epoch", "seq"]);
            }
            if fields.iter().any(|(field, _)| field == "playback") {
                implied.push("gate");
            }
            let named: BTreeSet<_> = fields.iter().map(|(field, _)| field.as_str()).chain(implied.clone()).collect();
            let required = fields.iter().filter(|(_, optional)| !optional).map(|(field, _)| field.as_str());
            sample.keys().all(|field| named.contains(field.as_str()))
                && required.chain(implied).all(|field| sample.contains_key(field))
        });
        assert!(fits, "no row describes {sample_name}: {sample:#?}");
    }
}

#[test]
fn the_codes_are_those_of_the_code() {
    let errors: Vec<_> =
        table("## 5.", "| code | meaning |").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let ours: Vec<_> = ErrorCode::ALL.iter().map(|code| (code.to_string(), code.meaning().to_owned())).collect();
    assert_eq!(errors, ours);

    let closes: Vec<_> = table("## 2.", "| code | name | retry | when |")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone(), row[3].clone()))
        .collect();
    let ours: Vec<_> = CloseCode::ALL
        .iter()
        .map(|code| (code.number().to_string(), code.to_string(), code.meaning().to_owned()))
        .collect();
    assert_eq!(closes, ours);
}

#[test]
fn the_limits_that_the_page_names_are_the_defaults() {
    let limits = tandem::domain::Limits::default();
    let thousands = |number: u64| {
        let digits = number.to_string();
        let (head, tail) = digits.split_at(digits.len() - 3);
        format!("{head},{tail}")
    };
    for said in [
        format!("at most {} bytes", thousands(limits.message_bytes)),
        format!("1–{} characters", limits.chat_chars),
        format!("any JSON ≤ {} KiB", limits.custom_bytes / 1024),
        format!("{} KiB each", limits.signal_bytes / 1024),
        format!("positions 0–{} s", thousands(limits.position_secs)),
        format!("`\"protocol\": {PROTOCOL}").replace('`', ""),
    ] {
        assert!(DOC.contains(&said), "the page doesn't say: {said}");
    }
}

#[test]
fn the_compact_table_has_the_lengths_of_the_bytes() {
    use tandem::domain::{Limits, MemberSlot, Rate, RelayedTick, RoomDigest, StandOut, StatusReport, TransportKind};
    use tandem::protocol::{Compact, decode_compact, encode_clock_reply, encode_digest, encode_status, encode_tick};
    use wire_samples::{at, position};

    let lengths: Vec<usize> = table("## 6.", "| kind | bytes | layout |")
        .iter()
        .flat_map(|row| row[1].split(" "))
        .filter_map(|word| word.parse().ok())
        .collect();
    let mut probe = vec![0; lengths[0]];
    probe[0] = 1;
    assert!(matches!(decode_compact(&probe, &Limits::default()), Ok(Compact::ClockProbe { .. })));
    assert_eq!(encode_clock_reply(1, 0.0, at(0), at(0)).len(), lengths[1]);
    let tick = RelayedTick {
        slot: MemberSlot(1),
        seq: 1,
        playing: true,
        from_host: false,
        position: position(1.0),
        at: at(0),
        rate: Rate::NORMAL,
    };
    assert_eq!(encode_tick(&tick).len(), lengths[2]);
    let status = StatusReport::default().relayed(MemberSlot(1), TransportKind::WebSocket);
    assert_eq!(encode_status(&status).len(), lengths[3]);
    let nobody = StandOut { slot: MemberSlot(1), buffering: true, in_call: false, drift: None };
    let digest = |count| encode_digest(&RoomDigest { stand_outs: vec![nobody; count], ..RoomDigest::default() }).len();
    assert_eq!((digest(0), digest(3)), (lengths[4], lengths[4] + 3 * lengths[5]));
}
