-- The columns of migrations/sqlite, so that one description serves both.
--
-- Times are whole microseconds since the Unix epoch (UTC), as in SQLite: every moment that the log can write comes back
-- exactly (timestamptz would refuse some, and with them the batch), and a query means the same on both. To read them:
--   SELECT room_id, to_timestamp(updated_at / 1e6) FROM rooms;
--
-- Ids compare by their bytes (COLLATE "C"): the same order on every server, and no index to rebuild when a C library's
-- idea of order changes.

-- A room as it is now, or as it was when its last epoch ended (archived_at).
CREATE TABLE rooms (
    room_id        TEXT COLLATE "C"  NOT NULL PRIMARY KEY,
    epoch          BIGINT            NOT NULL,      -- ms since the Unix epoch at the creation of this life
    seq            BIGINT            NOT NULL,      -- number of the last event of the epoch
    host_user_id   TEXT COLLATE "C",
    url            TEXT,
    current_time_s DOUBLE PRECISION  NOT NULL,      -- position in the film at position_at
    position_at    BIGINT            NOT NULL,
    is_playing     BOOLEAN           NOT NULL,
    guest_control  BOOLEAN           NOT NULL,
    created_at     BIGINT            NOT NULL,      -- of this epoch
    updated_at     BIGINT            NOT NULL,
    archived_at    BIGINT                           -- NULL: live
) WITH (fillfactor = 70);                           -- rows are updated all the time: room for it on their own page
CREATE INDEX rooms_archived ON rooms (archived_at) WHERE archived_at IS NOT NULL;

-- The stored state of a live room: what a replica is loaded from.
CREATE TABLE room_fields (
    room_id TEXT COLLATE "C" NOT NULL REFERENCES rooms (room_id) ON DELETE CASCADE,
    field   TEXT COLLATE "C" NOT NULL,
    value   BYTEA            NOT NULL,
    PRIMARY KEY (room_id, field)
) WITH (fillfactor = 70);

-- Who is, or was, in a room.
CREATE TABLE users (
    room_id      TEXT COLLATE "C" NOT NULL REFERENCES rooms (room_id) ON DELETE CASCADE,
    user_id      TEXT COLLATE "C" NOT NULL,
    username     TEXT             NOT NULL,
    slot         INTEGER          NOT NULL,
    is_connected BOOLEAN          NOT NULL,
    joined_at    BIGINT           NOT NULL,
    updated_at   BIGINT           NOT NULL,
    left_at      BIGINT,                            -- NULL: a member now
    PRIMARY KEY (room_id, user_id)
);
CREATE INDEX users_left ON users (left_at) WHERE left_at IS NOT NULL;

-- The history: one row for each event, whatever is replayed. No reference to rooms: history outlives its room's row.
--
-- One partition for each month, by the epoch and not by created_at: a unique key must hold the partition's, and
-- (room, epoch, seq) is what an event is. By created_at, two rows could tell of one event. A room lives hours, so its
-- epoch's month is the month of its events.
CREATE TABLE room_events (
    room_id    TEXT COLLATE "C" NOT NULL,
    epoch      BIGINT           NOT NULL,
    seq        BIGINT           NOT NULL,
    kind       TEXT             NOT NULL,
    user_id    TEXT COLLATE "C",
    data       TEXT             NOT NULL,           -- JSON without chat texts, hashes and tokens; data::jsonb to ask it
    created_at BIGINT           NOT NULL,
    PRIMARY KEY (room_id, epoch, seq)
) PARTITION BY RANGE (epoch);
CREATE INDEX room_events_created ON room_events (created_at);

-- What has no month's partition. Ordinarily empty.
CREATE TABLE room_events_default PARTITION OF room_events DEFAULT;

-- Short links: one for a room, whoever asks.
CREATE TABLE short_links (
    short_id   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    room_id    TEXT COLLATE "C" NOT NULL UNIQUE,
    created_at BIGINT           NOT NULL,
    expires_at BIGINT           NOT NULL
);
CREATE INDEX short_links_expiry ON short_links (expires_at);
