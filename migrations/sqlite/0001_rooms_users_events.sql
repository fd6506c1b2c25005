-- Times are whole microseconds since the Unix epoch (UTC), so that they come back exactly as the log wrote them:
--   SELECT room_id, datetime(updated_at / 1000000, 'unixepoch') FROM rooms;

-- A room as it is now, or as it was when its last epoch ended (archived_at).
CREATE TABLE rooms (
    room_id        TEXT    NOT NULL PRIMARY KEY,
    epoch          INTEGER NOT NULL,                -- ms since the Unix epoch at the creation of this life
    seq            INTEGER NOT NULL,                -- number of the last event of the epoch
    host_user_id   TEXT,
    url            TEXT,
    current_time_s REAL    NOT NULL,                -- position in the film at position_at; "current_time" is SQL's own clock
    position_at    INTEGER NOT NULL,
    is_playing     INTEGER NOT NULL,
    guest_control  INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,                -- of this epoch
    updated_at     INTEGER NOT NULL,
    archived_at    INTEGER                          -- NULL: live
);
CREATE INDEX rooms_archived ON rooms (archived_at) WHERE archived_at IS NOT NULL;

-- The stored state of a live room: what a replica is loaded from.
CREATE TABLE room_fields (
    room_id TEXT NOT NULL REFERENCES rooms (room_id) ON DELETE CASCADE,
    field   TEXT NOT NULL,
    value   BLOB NOT NULL,
    PRIMARY KEY (room_id, field)
) WITHOUT ROWID;

-- Who is, or was, in a room.
CREATE TABLE users (
    room_id      TEXT    NOT NULL REFERENCES rooms (room_id) ON DELETE CASCADE,
    user_id      TEXT    NOT NULL,
    username     TEXT    NOT NULL,
    slot         INTEGER NOT NULL,
    is_connected INTEGER NOT NULL,
    joined_at    INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    left_at      INTEGER,                           -- NULL: a member now
    PRIMARY KEY (room_id, user_id)
);
CREATE INDEX users_left ON users (left_at) WHERE left_at IS NOT NULL;

-- The history: one row for each event, whatever is replayed. No reference to rooms: history outlives its room's row.
CREATE TABLE room_events (
    id         INTEGER PRIMARY KEY,
    room_id    TEXT    NOT NULL,
    epoch      INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    user_id    TEXT,
    data       TEXT    NOT NULL,                    -- JSON without chat texts, hashes and tokens
    created_at INTEGER NOT NULL,
    UNIQUE (room_id, epoch, seq)
);
CREATE INDEX room_events_created ON room_events (created_at);

-- Short links: one for a room, whoever asks.
CREATE TABLE short_links (
    short_id   TEXT    NOT NULL PRIMARY KEY,
    room_id    TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX short_links_expiry ON short_links (expires_at);
