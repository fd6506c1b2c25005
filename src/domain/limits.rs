//! Every limit in one table: its value, its setting, and the code of a request beyond it. Settings, validation and the
//! table in `docs/OPERATIONS.md` follow from it.

use super::{ErrorCode, Invalid};

#[derive(Debug, Clone, Copy)]
pub struct LimitRow {
    /// The environment variable (and the flag of the same name).
    pub setting: &'static str,
    /// The default.
    pub default: u64,
    /// The range that may be configured.
    pub range: (u64, u64),
    /// Meaning and unit.
    pub meaning: &'static str,
    /// The code of a request beyond it, if clients can exceed it.
    pub code: Option<ErrorCode>,
}

macro_rules! limits {
    ($($field:ident, $setting:literal = $default:literal, $lo:literal..=$hi:literal, $code:expr, $meaning:literal;)*) => {
        /// The limits in force, immutable after start.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits { $(#[doc = $meaning] pub $field: u64,)* }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl Limits {
            pub const TABLE: &'static [LimitRow] = &[
                $(LimitRow { setting: $setting, default: $default, range: ($lo, $hi), meaning: $meaning, code: $code },)*
            ];

            /// Sets a limit by its setting's name. `None`: no such setting.
            pub fn set(&mut self, setting: &str, value: u64) -> Option<()> {
                match setting {
                    $($setting => self.$field = value,)*
                    _ => return None,
                }
                Some(())
            }

            /// Reads a limit by its setting's name.
            pub fn value(&self, setting: &str) -> Option<u64> {
                match setting {
                    $($setting => Some(self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

use ErrorCode::{Kicked, OutOfRange, Overloaded, PinThrottled, RateLimited, RoomFull, RoomLimit, SessionLimit, TooBig};

limits! {
    username_chars, "MAX_USERNAME_CHARS" = 64, 1..=256, Some(OutOfRange), "characters of a username";
    chat_chars, "MAX_CHAT_CHARS" = 2000, 1..=16_000, Some(OutOfRange), "characters of a chat message";
    url_bytes, "MAX_URL_BYTES" = 2048, 64..=16_384, Some(OutOfRange), "bytes of a media URL";
    custom_bytes, "MAX_CUSTOM_BYTES" = 16_384, 64..=60_000, Some(TooBig), "bytes of a CUSTOM payload";
    signal_bytes, "MAX_SIGNAL_BYTES" = 32_768, 1024..=60_000, Some(TooBig), "bytes of an offer, answer or candidate";
    message_bytes, "MAX_MESSAGE_BYTES" = 65_536, 4096..=1_048_576, Some(TooBig), "bytes of a JSON message";
    position_secs, "MAX_POSITION_SECS" = 604_800, 60..=31_536_000, Some(OutOfRange), "largest position in a film, s";
    room_members, "MAX_ROOM_MEMBERS" = 200, 1..=10_000, Some(RoomFull), "members of a room";
    room_audience, "MAX_ROOM_AUDIENCE" = 20_000, 0..=1_000_000, Some(RoomFull), "viewers of a room beside its members, on all nodes; 0: a full room refuses";
    room_address_members, "MAX_ROOM_MEMBERS_PER_ADDRESS" = 50, 1..=10_000, Some(RoomFull), "members of a room from one client address (lifted by RATE_LIMITS=off)";
    full_presence_members, "FULL_PRESENCE_MEMBERS" = 32, 1..=10_000, None, "members of a room up to which each hears the others' positions and statuses live; above, a digest once a second";
    room_bans, "MAX_ROOM_BANS" = 500, 1..=10_000, Some(OutOfRange), "bans of a room";
    rooms, "MAX_ROOMS" = 50_000, 1..=10_000_000, Some(RoomLimit), "live rooms of a node";
    sessions, "MAX_SESSIONS" = 100_000, 1..=10_000_000, Some(Overloaded), "sessions of a node";
    address_sessions, "MAX_SESSIONS_PER_ADDRESS" = 200, 1..=10_000_000, Some(Overloaded), "sessions of one client address: on each node, and of those that joined on all of them (lifted by RATE_LIMITS=off)";
    user_sessions, "MAX_SESSIONS_PER_USER" = 50, 1..=1_000_000, Some(SessionLimit), "joined sessions of one userId at one client address, on all nodes (lifted by RATE_LIMITS=off)";
    joins_per_minute, "MAX_JOINS_PER_MINUTE" = 240, 1..=1_000_000, Some(RateLimited), "JOINs a minute from one client address, on all nodes";
    lookups_per_minute, "MAX_LOOKUPS_PER_MINUTE" = 240, 4..=1_000_000, None, "HTTP requests a minute of one client address that ask the stores without a session (short links, history); a quarter of them at once (lifted by RATE_LIMITS=off)";
    messages_per_sec, "MAX_MESSAGES_PER_SEC" = 50, 1..=100_000, Some(RateLimited), "JSON messages a second of one session, sustained";
    message_burst, "MAX_MESSAGE_BURST" = 200, 1..=100_000, Some(RateLimited), "JSON messages of one session at once";
    compact_per_sec, "MAX_COMPACT_PER_SEC" = 60, 1..=100_000, Some(RateLimited), "compact messages a second of one session";
    committed_bytes_per_sec, "MAX_COMMITTED_BYTES_PER_SEC" = 8192, 256..=1_000_000_000, Some(RateLimited), "bytes of committed messages (playback, chat, CUSTOM, settings) a second of one session, sustained; 32 times as many at once";
    relayed_bytes_per_sec, "MAX_RELAYED_BYTES_PER_SEC" = 65_536, 256..=1_000_000_000, Some(RateLimited), "bytes of signals and of answers to REQUEST_SYNC a second of one session, sustained; 8 times as many at once";
    pair_bytes_per_sec, "MAX_PAIR_BYTES_PER_SEC" = 8192, 256..=1_000_000_000, Some(RateLimited), "bytes of signals a second from one session to one member, sustained; 8 times as many at once";
    address_committed_bytes_per_sec, "MAX_ADDRESS_COMMITTED_BYTES_PER_SEC" = 16_384, 256..=1_000_000_000, Some(RateLimited), "the same of all sessions of a client address on one node, sustained; 128 times as many at once";
    address_relayed_bytes_per_sec, "MAX_ADDRESS_RELAYED_BYTES_PER_SEC" = 2_097_152, 1024..=10_000_000_000, Some(RateLimited), "bytes a second that messages of one client address make a node send, each member's copy counted, sustained; 8 times as many at once";
    room_relayed_bytes_per_sec, "MAX_ROOM_RELAYED_BYTES_PER_SEC" = 32_768, 256..=1_000_000_000, Some(RateLimited), "bytes of chat, CUSTOM and names a second that each member of a room is sent, sustained; 8 times as many at once";
    room_stored_bytes, "MAX_ROOM_STORED_BYTES" = 4_194_304, 65_536..=1_000_000_000_000, Some(RateLimited), "bytes that the commands of a room may store in an hour; half of it is left for those in control";
    film_changes_per_minute, "MAX_FILM_CHANGES_PER_MINUTE" = 60, 1..=100_000, Some(RateLimited), "URL_CHANGE and SYNC_PLAYBACK a minute of one session; five at once";
    pin_changes_per_minute, "MAX_PIN_CHANGES_PER_MINUTE" = 6, 1..=100_000, Some(RateLimited), "SET_PIN a minute of one session, five at once; ten times that of one client address";
    pin_queue, "MAX_PIN_QUEUE" = 128, 8..=100_000, Some(Overloaded), "PINs of a node that wait for their argon2; of one client address eight";
    pin_attempts, "MAX_PIN_ATTEMPTS" = 5, 1..=1000, Some(PinThrottled), "wrong PINs a minute per room and client address, on all nodes";
    room_queue, "MAX_ROOM_QUEUE" = 4096, 16..=1_000_000, Some(Overloaded), "commands of a room that wait for their commit";
    outbox_bytes, "MAX_OUTBOX_BYTES" = 1_048_576, 65_536..=67_108_864, None, "bytes that wait for a slow reader before its session ends with SLOW_CONSUMER";
    write_stall_secs, "WRITE_STALL_SECS" = 10, 1..=300, None, "a write that makes no progress for this long ends the session, s";
    join_timeout_secs, "JOIN_TIMEOUT_SECS" = 10, 1..=300, None, "time for the first JOIN of a session, s";
    heartbeat_secs, "HEARTBEAT_SECS" = 8, 1..=60, None, "interval of the server's WebSocket pings, and silence after which a v3 page is sent PROBE, s";
    idle_secs, "IDLE_SECS" = 15, 3..=300, None, "silence after which a session ends, s; pongs of the network stack count for v2 only";
    legacy_silence_secs, "LEGACY_SILENCE_SECS" = 150, 60..=3600, None, "silence of a v2 page, pongs aside, after which its session ends, s (browsers wake the timers of a hidden tab once a minute)";
    grace_secs, "MEMBER_GRACE_SECS" = 30, 0..=3600, None, "how long a lost connection keeps its membership, s";
    kick_cooldown_secs, "KICK_COOLDOWN_SECS" = 60, 0..=86_400, Some(Kicked), "how long a member that the host removed is kept out, s";
    room_keep_minutes, "ROOM_KEEP_MINUTES" = 240, 0..=43_200, None, "how long a room is kept whose members were all lost, and none of which left, min";
    kept_rooms, "MAX_KEPT_ROOMS_PER_ADDRESS" = 20, 0..=1_000_000, None, "rooms of one client address that a node keeps like that (lifted by RATE_LIMITS=off)";
    gate_deadline_ms, "GATE_DEADLINE_MS" = 7000, 500..=60_000, None, "longest wait of a ready gate, ms";
    gate_quorum_ms, "GATE_QUORUM_MS" = 3000, 100..=60_000, None, "wait of a ready gate after which two thirds of the awaited members are enough, ms";
    max_lead_ms, "MAX_LEAD_MS" = 500, 0..=2000, None, "largest lead of a scheduled command, ms";
    event_age_days, "EVENT_AGE_DAYS" = 30, 1..=3650, None, "age after which audit events are pruned, days";
    short_link_hours, "SHORT_LINK_HOURS" = 4, 1..=8760, None, "life of a short link from its last use, hours";
}

impl Limits {
    /// Refuses a text that is empty or longer than `max` characters.
    pub fn check_chars(what: &str, text: &str, max: u64) -> Result<(), Invalid> {
        let count = text.chars().count() as u64;
        if count == 0 || count > max {
            return Err(Invalid::new(OutOfRange, format!("{what} must have 1-{max} characters")));
        }
        Ok(())
    }
}
