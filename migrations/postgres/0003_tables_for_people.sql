-- The tables as people read them: timestamptz, jsonb, and the names that operators asked for.
--
-- Times of 3.0.0 are whole microseconds since the Unix epoch; what lies outside the years 1 to 9999 becomes the nearest
-- moment within. The history leaves its monthly partitions: docs/PERFORMANCE.md has the measurement.
--
-- One transaction: if it is interrupted, the tables are those of 3.0.0. It rewrites every row (about 12 s for a million
-- events on two busy cores, and as much disk as the history takes), and nobody else reads or writes meanwhile. Nodes of
-- 3.0.0 that still run can't write any more: their commits stay in Redis' outbox until a node of this version drains it.
CREATE FUNCTION pg_temp.moment(micros BIGINT) RETURNS TIMESTAMPTZ LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT timestamptz 'epoch' + (bound / 1000000) * interval '1 second' + (bound % 1000000) * interval '1 microsecond'
    FROM (SELECT greatest(least(micros, 253402300799999999), -62135596800000000) AS bound) AS bounded
$$;

ALTER TABLE rooms RENAME COLUMN url TO current_url;
ALTER TABLE rooms RENAME COLUMN current_time_s TO "current_time";
ALTER TABLE rooms
    ALTER position_at TYPE TIMESTAMPTZ USING pg_temp.moment(position_at),
    ALTER created_at TYPE TIMESTAMPTZ USING pg_temp.moment(created_at),
    ALTER updated_at TYPE TIMESTAMPTZ USING pg_temp.moment(updated_at),
    ALTER archived_at TYPE TIMESTAMPTZ USING pg_temp.moment(archived_at);

ALTER TABLE users RENAME COLUMN joined_at TO created_at;
ALTER TABLE users
    ALTER created_at TYPE TIMESTAMPTZ USING pg_temp.moment(created_at),
    ALTER updated_at TYPE TIMESTAMPTZ USING pg_temp.moment(updated_at),
    ALTER left_at TYPE TIMESTAMPTZ USING pg_temp.moment(left_at),
    ADD position DOUBLE PRECISION,
    ADD is_playing BOOLEAN,
    ADD connection_quality TEXT CHECK (connection_quality IN ('good', 'fair', 'poor')),
    ADD last_heartbeat TIMESTAMPTZ,
    SET (fillfactor = 70);                          -- rows are updated once a minute: room for it on their own page

ALTER TABLE media_urls ALTER used_at TYPE TIMESTAMPTZ USING pg_temp.moment(used_at);
ALTER TABLE short_links
    ALTER created_at TYPE TIMESTAMPTZ USING pg_temp.moment(created_at),
    ALTER expires_at TYPE TIMESTAMPTZ USING pg_temp.moment(expires_at);

CREATE TABLE history (
    room_id    TEXT COLLATE "C" NOT NULL,
    epoch      BIGINT           NOT NULL,
    seq        BIGINT           NOT NULL,
    event_type TEXT             NOT NULL,
    user_id    TEXT COLLATE "C",
    details    JSONB            NOT NULL,
    created_at TIMESTAMPTZ      NOT NULL,
    url_id     BIGINT
);

CREATE FUNCTION pg_temp.details(data TEXT) RETURNS JSONB LANGUAGE plpgsql AS $$
BEGIN
    RETURN replace(data, '\u0000', '\ufffd')::jsonb;
EXCEPTION WHEN OTHERS THEN
    RETURN to_jsonb(data);
END $$;

-- A row whose data jsonb refuses makes the first attempt fail; the second asks row by row.
DO $$
BEGIN
    INSERT INTO history SELECT room_id, epoch, seq, kind, user_id, data::jsonb, pg_temp.moment(created_at), url_id
    FROM room_events;
EXCEPTION WHEN data_exception THEN
    INSERT INTO history SELECT room_id, epoch, seq, kind, user_id, pg_temp.details(data), pg_temp.moment(created_at), url_id
    FROM room_events;
END $$;

DROP TABLE room_events;
ALTER TABLE history RENAME TO room_events;
ALTER TABLE room_events ADD CONSTRAINT room_events_pkey PRIMARY KEY (room_id, epoch, seq);
CREATE INDEX room_events_created ON room_events (created_at);

DROP FUNCTION pg_temp.moment;
DROP FUNCTION pg_temp.details;

COMMENT ON TABLE rooms IS 'A room as it is now, or as it was when its last epoch ended.';
COMMENT ON COLUMN rooms.room_id IS 'Name of the room.';
COMMENT ON COLUMN rooms.epoch IS 'Creation of this life of the room, ms since the Unix epoch.';
COMMENT ON COLUMN rooms.seq IS 'Number of the last event of the epoch.';
COMMENT ON COLUMN rooms.host_user_id IS 'userId of the host; NULL: nobody.';
COMMENT ON COLUMN rooms.current_url IS 'Address of the film; NULL: none was chosen.';
COMMENT ON COLUMN rooms."current_time" IS 'Position in the film at position_at, s. Say r.current_time or "current_time": alone, current_time is the clock of the database.';
COMMENT ON COLUMN rooms.position_at IS 'When current_time was true.';
COMMENT ON COLUMN rooms.is_playing IS 'Whether the position has moved on since position_at.';
COMMENT ON COLUMN rooms.guest_control IS 'Whether members other than the host may control playback.';
COMMENT ON COLUMN rooms.created_at IS 'First commit of the epoch.';
COMMENT ON COLUMN rooms.updated_at IS 'Last commit.';
COMMENT ON COLUMN rooms.archived_at IS 'End of the epoch; NULL: the room is live.';
COMMENT ON TABLE room_fields IS 'Stored state of the live rooms, read and written by the server only.';
COMMENT ON COLUMN room_fields.room_id IS 'Name of the room.';
COMMENT ON COLUMN room_fields.field IS 'Name of the field.';
COMMENT ON COLUMN room_fields.value IS 'JSON as bytes.';
COMMENT ON TABLE users IS 'Members of the rooms, present and past.';
COMMENT ON COLUMN users.room_id IS 'Name of the room.';
COMMENT ON COLUMN users.user_id IS 'userId that the client chose.';
COMMENT ON COLUMN users.username IS 'Name that the others see.';
COMMENT ON COLUMN users.slot IS 'Number of the member in position reports; the smallest that was free.';
COMMENT ON COLUMN users.is_connected IS 'Whether the member has a session; false also in its grace time.';
COMMENT ON COLUMN users.position IS 'Position of its player, s, as it last reported it; NULL: never.';
COMMENT ON COLUMN users.is_playing IS 'Whether its player played then.';
COMMENT ON COLUMN users.connection_quality IS 'Its last report of its connection: good (round trip below 150 ms), fair (below 400 ms), poor (above, or its player waits for data). NULL: no report.';
COMMENT ON COLUMN users.last_heartbeat IS 'Its last report. Written once a minute at most, so up to a minute old.';
COMMENT ON COLUMN users.created_at IS 'When it joined.';
COMMENT ON COLUMN users.updated_at IS 'Last change of its membership.';
COMMENT ON COLUMN users.left_at IS 'When it left for good; NULL: a member now.';
COMMENT ON TABLE room_events IS 'History: one row for each event. No reference to rooms: history outlives the row of its room.';
COMMENT ON COLUMN room_events.room_id IS 'Name of the room.';
COMMENT ON COLUMN room_events.epoch IS 'Epoch of the event.';
COMMENT ON COLUMN room_events.seq IS 'Number of the event in its epoch.';
COMMENT ON COLUMN room_events.event_type IS 'Kind of the event (docs/EVENTS.md).';
COMMENT ON COLUMN room_events.user_id IS 'userId that acted, or that the event concerns; NULL: the server.';
COMMENT ON COLUMN room_events.details IS 'JSON without chat texts, payloads, hashes and tokens. The address of a film is in media_urls.';
COMMENT ON COLUMN room_events.created_at IS 'Room time of the decision.';
COMMENT ON COLUMN room_events.url_id IS 'Address of the film that belongs into details, in media_urls.';
COMMENT ON TABLE media_urls IS 'Addresses of films, each once however often it was chosen.';
COMMENT ON COLUMN media_urls.id IS 'What room_events.url_id names.';
COMMENT ON COLUMN media_urls.hash IS 'SHA-256 of the address.';
COMMENT ON COLUMN media_urls.url IS 'The address.';
COMMENT ON COLUMN media_urls.used_at IS 'Latest event that refers to it; it is pruned with that one.';
COMMENT ON TABLE short_links IS 'Short links, one for a room.';
COMMENT ON COLUMN short_links.short_id IS 'Seven digits and letters.';
COMMENT ON COLUMN short_links.room_id IS 'Name of the room.';
COMMENT ON COLUMN short_links.created_at IS 'When it was made.';
COMMENT ON COLUMN short_links.expires_at IS 'End of its life.';
