-- Search over threads, misspelt names, and which branches a thread was on.

-- Ships with PostgreSQL, and any owner of a database may create it.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- The way in which the thread's rows of thread_search were prepared; 0 for one that has none yet, as those
-- from before and those that the release before still writes: a job makes them.
ALTER TABLE threads ADD COLUMN search_preparation smallint NOT NULL DEFAULT 0;
-- Empty when the job is done.
CREATE INDEX threads_search_preparation_idx ON threads (id) WHERE deleted_at IS NULL AND search_preparation < 1;

-- A row a message, written with it, and one for the thread itself (seq 0). Threads that are deleted have none.
CREATE TABLE thread_search (
    org_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    seq bigint NOT NULL,
    -- Null for the thread itself.
    role text CONSTRAINT thread_search_role_check CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    at timestamptz NOT NULL,
    -- The first bytes of the message's digest, or of what the thread itself is found by: tells a row that
    -- is out of date.
    digest bytea NOT NULL,
    tsv tsvector NOT NULL,
    -- Titles and identifiers, for those that are misspelt.
    names text,
    CONSTRAINT thread_search_pkey PRIMARY KEY (org_id, thread_id, seq),
    CONSTRAINT thread_search_thread_fkey
        FOREIGN KEY (org_id, thread_id) REFERENCES threads (org_id, id) ON DELETE CASCADE
);
-- A list of what is not in the index yet makes writes quick and is read by each search: kept short.
CREATE INDEX thread_search_tsv_idx ON thread_search USING gin (org_id, tsv)
    WITH (fastupdate = on, gin_pending_list_limit = 1024);
-- For words that are everywhere, of which the newest are wanted.
CREATE INDEX thread_search_at_idx ON thread_search (org_id, at DESC);
CREATE INDEX thread_search_names_idx ON thread_search USING gin (org_id, names gin_trgm_ops)
    WITH (fastupdate = on, gin_pending_list_limit = 1024)
    WHERE names IS NOT NULL;

-- The branches that a thread began on or was on.
CREATE TABLE thread_branches (
    org_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    branch text COLLATE "C" NOT NULL,
    CONSTRAINT thread_branches_pkey PRIMARY KEY (org_id, thread_id, branch),
    CONSTRAINT thread_branches_thread_fkey
        FOREIGN KEY (org_id, thread_id) REFERENCES threads (org_id, id) ON DELETE CASCADE
);
CREATE INDEX thread_branches_branch_idx ON thread_branches (org_id, branch);
INSERT INTO thread_branches (org_id, thread_id, branch)
SELECT org_id, id, git ->> 'branch' FROM threads WHERE git ->> 'branch' IS NOT NULL
UNION
SELECT org_id, id, git ->> 'initial_branch' FROM threads WHERE git ->> 'initial_branch' IS NOT NULL;
