-- Films' addresses, each once however often it was chosen: what the history says of one refers to it. Events that 3.0.0
-- wrote have the address in their data and no reference.
CREATE TABLE media_urls (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash    BYTEA  NOT NULL UNIQUE,                 -- SHA-256 of the address
    url     TEXT   NOT NULL,
    used_at BIGINT NOT NULL                         -- of the latest event that refers to it: it goes with that one
) WITH (fillfactor = 70);
CREATE INDEX media_urls_used ON media_urls (used_at);

ALTER TABLE room_events ADD COLUMN url_id BIGINT;   -- the address that belongs into data
