-- What happens to threads, for those who follow them; large contents beside their message; leases that
-- nobody took by name.

-- The outbox: written in the transaction of the change, read in the order (xid, id). The order of the
-- ids alone is not that of the commits: whoever reads takes only what is below the oldest transaction
-- still open, and nothing can come in there any more. A transaction takes its turn (an advisory lock)
-- at all threads that it writes to before its first write, in the order of their ids: so the events of a
-- thread are in the order of its versions.
CREATE TABLE thread_events (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    org_id uuid NOT NULL,
    -- No foreign key: the event of a thread that is purged goes with the others of its age.
    thread_id uuid NOT NULL,
    kind text NOT NULL
        CONSTRAINT thread_events_kind_check
        CHECK (kind IN ('message', 'state', 'updated', 'visibility', 'deleted')),
    -- Who could see the thread before, where that has changed.
    shown_before text,
    -- As it is sent.
    data json NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT thread_events_pkey PRIMARY KEY (xid, id)
);
-- For a reader who was away; the first index is for the one reader of each server.
CREATE INDEX thread_events_org_idx ON thread_events (org_id, xid, id);

-- Up to where events have been cleaned away: a cursor before it has missed some.
CREATE TABLE thread_event_floor (
    is_only boolean CONSTRAINT thread_event_floor_pkey PRIMARY KEY DEFAULT true
        CONSTRAINT thread_event_floor_check CHECK (is_only),
    xid xid8 NOT NULL,
    id bigint NOT NULL
);
INSERT INTO thread_event_floor (xid, id) VALUES ('0', 0);

-- The thread's version that last wrote the row: tells a writer what came since the version it knows.
-- Null for what was written before.
ALTER TABLE thread_messages ADD COLUMN version bigint;
-- Bytes of a content that is in thread_blobs; `content` is its beginning then.
ALTER TABLE thread_messages ADD COLUMN blob_bytes integer;
-- Of a text that is written piece by piece with secrets masked: how far the stored text is in the bytes that
-- its writer sent, who goes on from there. Null where that is the length of the text.
ALTER TABLE thread_messages ADD COLUMN sent_bytes integer;

-- Large contents. The table of messages stays small, and a whole thread can be read without them.
CREATE TABLE thread_blobs (
    org_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    seq bigint NOT NULL,
    content json NOT NULL,
    CONSTRAINT thread_blobs_pkey PRIMARY KEY (org_id, thread_id, seq),
    CONSTRAINT thread_blobs_message_fkey FOREIGN KEY (org_id, thread_id, seq)
        REFERENCES thread_messages (org_id, thread_id, seq) ON DELETE CASCADE
);

-- An agent that works without a lease has one that nobody holds by name, from write to write.
ALTER TABLE threads DROP CONSTRAINT threads_lease_check;
ALTER TABLE threads ADD CONSTRAINT threads_lease_check
    CHECK (lease_holder IS NULL OR lease_until IS NOT NULL) NOT VALID;
-- Agents whose state was written by a server that knew of no such leases: as good as none, and soon none.
CREATE INDEX threads_unleased_idx ON threads (updated_at)
    WHERE lease_until IS NULL AND deleted_at IS NULL
        AND state IN ('calling_llm', 'processing_llm_response', 'executing_tools');
