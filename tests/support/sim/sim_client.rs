//! One connection of a person, and everything that came over it.

use crate::memory_transport::{Delivered, MemoryClient};
use serde_json::Value;
use tandem::domain::{CloseCode, Head, NodeId};
use tandem::protocol;

/// One message that a client received.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    /// ROOM_STATE.
    State { room: String, head: Head, json: Value },
    /// A committed event.
    Event { head: Head, json: Value },
    /// ACK.
    Ack { reference: u64, head: Head },
    /// ERROR.
    Refused { reference: Option<u64>, code: String },
    /// Uncommitted JSON.
    Notice(Value),
    /// A member's tick: slot and the sender's counter.
    Tick { slot: u16, seq: u32, from_host: bool },
    /// A member's measurements: slot, the sender's counter, round trip in µs.
    Status { slot: u16, seq: u32, rtt: i32, buffering: bool },
    /// How a large room does; of those who stand out, the slots.
    Digest { members: u16, measured: u32, in_step: u32, buffering: u32, stand_outs: Vec<u16> },
    /// The end.
    Closed(CloseCode),
}

pub(crate) struct SimClient {
    pub(crate) person: usize,
    pub(crate) node: NodeId,
    /// `None`: hung up, or the other end did.
    pub(crate) wire: Option<MemoryClient>,
    pub(crate) heard: Vec<Heard>,
    /// `sessionId` of ROOM_STATE: tells the session in the log.
    pub(crate) session: Option<String>,
    /// The room it is in, as far as the client knows.
    pub(crate) room: Option<String>,
    /// The head in its first JOIN.
    pub(crate) last_seen: Option<Head>,
    /// The server has a reason to disconnect it: it hung up, is silent or has left, its node died or lost its lease.
    pub(crate) may_be_lost: bool,
    /// It dialled a node of which others may still hear that it is dead.
    pub(crate) doubted: bool,
    pub(crate) silent: bool,
    /// It asked to be somebody else: what it hears from then on is that one's.
    pub(crate) renamed: bool,
}

impl SimClient {
    pub(crate) fn is_open(&self) -> bool {
        self.wire.is_some()
    }

    /// A member, as far as its client can know.
    pub(crate) fn is_in(&self) -> bool {
        self.is_open() && self.room.is_some() && !self.silent
    }

    /// Takes in what has arrived. Returns how many things that was.
    pub(crate) fn listen(&mut self) -> usize {
        let before = self.heard.len();
        while let Some(delivered) = self.wire.as_mut().and_then(MemoryClient::try_recv) {
            match delivered {
                Delivered::Message(text) => self.take(serde_json::from_slice(&text).unwrap()),
                Delivered::Compact(frame) => {
                    protocol::unbundled(&frame).into_iter().for_each(|part| self.take_compact(part))
                }
                Delivered::Drain => {}
                Delivered::Closed { code, .. } => {
                    self.heard.push(Heard::Closed(code));
                    self.wire = None;
                }
            }
        }
        self.heard.len() - before
    }

    fn take_compact(&mut self, bytes: &[u8]) {
        let slot = || u16::from_be_bytes([bytes[2], bytes[3]]);
        let count = |start: usize| u32::from_be_bytes(bytes[start..start + 4].try_into().unwrap());
        match bytes[0] {
            3 => self.heard.push(Heard::Tick { slot: slot(), seq: count(4), from_host: bytes[1] & 2 != 0 }),
            4 => self.heard.push(Heard::Status {
                slot: slot(),
                seq: count(4),
                rtt: i32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
                buffering: bytes[1] & 1 != 0,
            }),
            5 => self.heard.push(Heard::Digest {
                members: slot(),
                measured: count(8),
                in_step: count(12),
                buffering: count(16),
                stand_outs: bytes[28..].chunks(7).map(|one| u16::from_be_bytes([one[0], one[1]])).collect(),
            }),
            _ => {}
        }
    }

    fn take(&mut self, json: Value) {
        // What was said before it came has its own test; it is no event of this client's.
        if json["replayed"] == true {
            return;
        }
        let head = || Some(Head { epoch: json["epoch"].as_u64()?, seq: json["seq"].as_u64()? });
        self.heard.push(match (json["type"].as_str().unwrap(), head()) {
            ("ROOM_STATE", Some(head)) => {
                let room = json["roomId"].as_str().unwrap().to_owned();
                self.room = Some(room.clone());
                self.session = Some(json["sessionId"].as_str().unwrap().to_owned());
                Heard::State { room, head, json }
            }
            ("ACK", Some(head)) => Heard::Ack { reference: json["ref"].as_u64().unwrap(), head },
            ("ERROR", _) => {
                Heard::Refused { reference: json["ref"].as_u64(), code: json["code"].as_str().unwrap().to_owned() }
            }
            (_, Some(head)) => Heard::Event { head, json },
            (_, None) => Heard::Notice(json),
        });
    }

    /// The last event or state that the client has.
    pub(crate) fn head(&self) -> Option<Head> {
        self.heard.iter().rev().find_map(|heard| match heard {
            Heard::State { head, .. } | Heard::Event { head, .. } => Some(*head),
            _ => None,
        })
    }

    pub(crate) fn last_state(&self) -> Option<&Value> {
        self.heard.iter().rev().find_map(|heard| match heard {
            Heard::State { json, .. } => Some(json),
            _ => None,
        })
    }

    /// The code of the last refusal without a reference (of a JOIN), if nothing came after it but more of them.
    pub(crate) fn refusal(&self, reference: u64) -> Option<&str> {
        self.heard.iter().find_map(|heard| match heard {
            Heard::Refused { reference: Some(of), code } if *of == reference => Some(code.as_str()),
            _ => None,
        })
    }
}
