-- The tables as people read them, with the names that operators asked for.
--
-- SQLite has no type for time. What its date functions read is text, so times are 2026-11-30 17:00:00.123456 (UTC), which
-- sorts like the moment. Those of 3.0.0 are microseconds since the Unix epoch; what lies outside the years 1970 to 9999
-- becomes the nearest moment within.
--
-- Tables are changed in place: a copy of the history would double the file, which never shrinks by itself.
DROP INDEX rooms_archived;
DROP INDEX users_left;
DROP INDEX room_events_created;
DROP INDEX short_links_expiry;
DROP INDEX media_urls_used;

ALTER TABLE rooms RENAME COLUMN url TO current_url;
ALTER TABLE rooms RENAME COLUMN current_time_s TO "current_time";
ALTER TABLE rooms RENAME COLUMN position_at TO old_position_at;
ALTER TABLE rooms ADD COLUMN position_at TEXT NOT NULL DEFAULT '1970-01-01 00:00:00.000000';
ALTER TABLE rooms RENAME COLUMN created_at TO old_created_at;
ALTER TABLE rooms ADD COLUMN created_at TEXT NOT NULL DEFAULT '1970-01-01 00:00:00.000000';
ALTER TABLE rooms RENAME COLUMN updated_at TO old_updated_at;
ALTER TABLE rooms ADD COLUMN updated_at TEXT NOT NULL DEFAULT '1970-01-01 00:00:00.000000';
ALTER TABLE rooms RENAME COLUMN archived_at TO old_archived_at;
ALTER TABLE rooms ADD COLUMN archived_at TEXT;
UPDATE rooms SET position_at = strftime('%Y-%m-%d %H:%M:%S', max(0, min(old_position_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(old_position_at, 253402300799999999)) % 1000000),
  created_at = strftime('%Y-%m-%d %H:%M:%S', max(0, min(old_created_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(old_created_at, 253402300799999999)) % 1000000),
  updated_at = strftime('%Y-%m-%d %H:%M:%S', max(0, min(old_updated_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(old_updated_at, 253402300799999999)) % 1000000),
  archived_at = strftime('%Y-%m-%d %H:%M:%S', max(0, min(old_archived_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(old_archived_at, 253402300799999999)) % 1000000);
ALTER TABLE rooms DROP COLUMN old_position_at;
ALTER TABLE rooms DROP COLUMN old_created_at;
ALTER TABLE rooms DROP COLUMN old_updated_at;
ALTER TABLE rooms DROP COLUMN old_archived_at;

ALTER TABLE users ADD COLUMN position REAL;
ALTER TABLE users ADD COLUMN is_playing INTEGER;
ALTER TABLE users ADD COLUMN connection_quality TEXT;
ALTER TABLE users ADD COLUMN last_heartbeat TEXT;
ALTER TABLE users RENAME COLUMN joined_at TO old_joined_at;
ALTER TABLE users ADD COLUMN created_at TEXT NOT NULL DEFAULT '1970-01-01 00:00:00.000000';
ALTER TABLE users RENAME COLUMN updated_at TO old_updated_at;
ALTER TABLE users ADD COLUMN updated_at TEXT NOT NULL DEFAULT '1970-01-01 00:00:00.000000';
ALTER TABLE users RENAME COLUMN left_at TO old_left_at;
ALTER TABLE users ADD COLUMN left_at TEXT;
UPDATE users SET created_at = strftime('%Y-%m-%d %H:%M:%S', max(0, min(old_joined_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(old_joined_at, 253402300799999999)) % 1000000),
  updated_at = strftime('%Y-%m-%d %H:%M:%S', max(0, min(old_updated_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(old_updated_at, 253402300799999999)) % 1000000),
  left_at = strftime('%Y-%m-%d %H:%M:%S', max(0, min(old_left_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(old_left_at, 253402300799999999)) % 1000000);
ALTER TABLE users DROP COLUMN old_joined_at;
ALTER TABLE users DROP COLUMN old_updated_at;
ALTER TABLE users DROP COLUMN old_left_at;

ALTER TABLE room_events RENAME COLUMN kind TO event_type;
ALTER TABLE room_events RENAME COLUMN data TO details;
ALTER TABLE room_events RENAME COLUMN created_at TO old_created_at;
ALTER TABLE room_events ADD COLUMN created_at TEXT NOT NULL DEFAULT '1970-01-01 00:00:00.000000';
UPDATE room_events SET
  details = CASE WHEN json_valid(details) THEN details ELSE json_quote(details) END,
  created_at = strftime('%Y-%m-%d %H:%M:%S', max(0, min(old_created_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(old_created_at, 253402300799999999)) % 1000000);
ALTER TABLE room_events DROP COLUMN old_created_at;

ALTER TABLE media_urls RENAME COLUMN used_at TO old_used_at;
ALTER TABLE media_urls ADD COLUMN used_at TEXT NOT NULL DEFAULT '1970-01-01 00:00:00.000000';
UPDATE media_urls SET used_at = strftime('%Y-%m-%d %H:%M:%S', max(0, min(old_used_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(old_used_at, 253402300799999999)) % 1000000);
ALTER TABLE media_urls DROP COLUMN old_used_at;

-- With row ids, as the other tables have them: rows are pruned by these.
CREATE TABLE links (
    short_id   TEXT NOT NULL PRIMARY KEY,
    room_id    TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
);
INSERT INTO links SELECT short_id, room_id,
  strftime('%Y-%m-%d %H:%M:%S', max(0, min(created_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(created_at, 253402300799999999)) % 1000000),
  strftime('%Y-%m-%d %H:%M:%S', max(0, min(expires_at, 253402300799999999)) / 1000000, 'unixepoch') ||
    printf('.%06d', max(0, min(expires_at, 253402300799999999)) % 1000000)
FROM short_links;
DROP TABLE short_links;
ALTER TABLE links RENAME TO short_links;

CREATE INDEX rooms_archived ON rooms (archived_at) WHERE archived_at IS NOT NULL;
CREATE INDEX users_left ON users (left_at) WHERE left_at IS NOT NULL;
CREATE INDEX room_events_created ON room_events (created_at);
CREATE INDEX short_links_expiry ON short_links (expires_at);
CREATE INDEX media_urls_used ON media_urls (used_at);

-- What PostgreSQL says with COMMENT ON. column_name NULL: of the table.
CREATE VIEW schema_comments (table_name, column_name, comment) AS VALUES
    ('rooms', NULL, 'A room as it is now, or as it was when its last epoch ended.'),
    ('rooms', 'room_id', 'Name of the room.'),
    ('rooms', 'epoch', 'Creation of this life of the room, ms since the Unix epoch.'),
    ('rooms', 'seq', 'Number of the last event of the epoch.'),
    ('rooms', 'host_user_id', 'userId of the host; NULL: nobody.'),
    ('rooms', 'current_url', 'Address of the film; NULL: none was chosen.'),
    ('rooms', 'current_time', 'Position in the film at position_at, s. Say r.current_time or "current_time": alone, current_time is the clock of the database.'),
    ('rooms', 'position_at', 'When current_time was true.'),
    ('rooms', 'is_playing', 'Whether the position has moved on since position_at.'),
    ('rooms', 'guest_control', 'Whether members other than the host may control playback.'),
    ('rooms', 'created_at', 'First commit of the epoch.'),
    ('rooms', 'updated_at', 'Last commit.'),
    ('rooms', 'archived_at', 'End of the epoch; NULL: the room is live.'),
    ('room_fields', NULL, 'Stored state of the live rooms, read and written by the server only.'),
    ('room_fields', 'room_id', 'Name of the room.'),
    ('room_fields', 'field', 'Name of the field.'),
    ('room_fields', 'value', 'JSON as bytes.'),
    ('users', NULL, 'Members of the rooms, present and past.'),
    ('users', 'room_id', 'Name of the room.'),
    ('users', 'user_id', 'userId that the client chose.'),
    ('users', 'username', 'Name that the others see.'),
    ('users', 'slot', 'Number of the member in position reports; the smallest that was free.'),
    ('users', 'is_connected', 'Whether the member has a session; false also in its grace time.'),
    ('users', 'position', 'Position of its player, s, as it last reported it; NULL: never.'),
    ('users', 'is_playing', 'Whether its player played then.'),
    ('users', 'connection_quality', 'Its last report of its connection: good (round trip below 150 ms), fair (below 400 ms), poor (above, or its player waits for data). NULL: no report.'),
    ('users', 'last_heartbeat', 'Its last report. Written once a minute at most, so up to a minute old.'),
    ('users', 'created_at', 'When it joined.'),
    ('users', 'updated_at', 'Last change of its membership.'),
    ('users', 'left_at', 'When it left for good; NULL: a member now.'),
    ('room_events', NULL, 'History: one row for each event. No reference to rooms: history outlives the row of its room.'),
    ('room_events', 'id', 'Number of the row; only SQLite has it.'),
    ('room_events', 'room_id', 'Name of the room.'),
    ('room_events', 'epoch', 'Epoch of the event.'),
    ('room_events', 'seq', 'Number of the event in its epoch.'),
    ('room_events', 'event_type', 'Kind of the event (docs/EVENTS.md).'),
    ('room_events', 'user_id', 'userId that acted, or that the event concerns; NULL: the server.'),
    ('room_events', 'details', 'JSON without chat texts, payloads, hashes and tokens. The address of a film is in media_urls.'),
    ('room_events', 'created_at', 'Room time of the decision.'),
    ('room_events', 'url_id', 'Address of the film that belongs into details, in media_urls.'),
    ('media_urls', NULL, 'Addresses of films, each once however often it was chosen.'),
    ('media_urls', 'id', 'What room_events.url_id names.'),
    ('media_urls', 'hash', 'SHA-256 of the address.'),
    ('media_urls', 'url', 'The address.'),
    ('media_urls', 'used_at', 'Latest event that refers to it; it is pruned with that one.'),
    ('short_links', NULL, 'Short links, one for a room.'),
    ('short_links', 'short_id', 'Seven digits and letters.'),
    ('short_links', 'room_id', 'Name of the room.'),
    ('short_links', 'created_at', 'When it was made.'),
    ('short_links', 'expires_at', 'End of its life.');
