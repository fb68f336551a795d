-- Agent conversations: a row a thread, a row a message, a row a commit.

-- Ships with PostgreSQL, and any owner of a database may create it: GIN over an organisation and more.
CREATE EXTENSION IF NOT EXISTS btree_gin;

CREATE TABLE threads (
    -- Made by the client, and unique over all organisations.
    id uuid CONSTRAINT threads_pkey PRIMARY KEY,
    org_id uuid NOT NULL CONSTRAINT threads_org_fkey REFERENCES organisations (id),
    -- Null for a thread of the organisation itself (service keys, weavers).
    owner_user_id uuid CONSTRAINT threads_owner_fkey REFERENCES users (id),
    -- 1 at creation, +1 with each change. Writers queue up on this row's lock.
    version bigint NOT NULL,
    -- The highest seq ever given to a message. It only grows: a seq is never used twice.
    last_seq bigint NOT NULL,
    message_count integer NOT NULL,
    -- The sum of thread_messages.bytes, so that an append need not look at the messages.
    message_bytes bigint NOT NULL,
    title text,
    tags text[] NOT NULL,
    is_pinned boolean NOT NULL,
    visibility text NOT NULL
        CONSTRAINT threads_visibility_check CHECK (visibility IN ('private', 'organization', 'public')),
    workspace jsonb,
    client jsonb,
    provider text,
    model text,
    -- All but the commits, which are in thread_commits.
    git jsonb NOT NULL,
    -- json, not jsonb, wherever a client's own JSON is given back as it came.
    agent_state json NOT NULL,
    extra json NOT NULL,
    -- While an agent works it renews its lease; one that has run out means that the agent was lost.
    lease_holder text,
    lease_until timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- A new message or another state of the agent; a new title or tag is no activity.
    last_activity_at timestamptz NOT NULL,
    deleted_at timestamptz,
    -- What lists filter by.
    workspace_root text GENERATED ALWAYS AS (workspace ->> 'root') STORED,
    repo text GENERATED ALWAYS AS (git ->> 'remote_url') STORED,
    branch text GENERATED ALWAYS AS (git ->> 'branch') STORED,
    state text GENERATED ALWAYS AS (agent_state ->> 'kind') STORED
        CONSTRAINT threads_state_check CHECK (state IN (
            'waiting_for_user_input', 'calling_llm', 'processing_llm_response', 'executing_tools', 'error',
            'shutting_down'
        )),
    CONSTRAINT threads_org_key UNIQUE (org_id, id),
    CONSTRAINT threads_lease_check CHECK ((lease_holder IS NULL) = (lease_until IS NULL))
);
-- A list is the caller's own threads and those that others share, each read in order from its index.
CREATE INDEX threads_owner_idx ON threads (org_id, owner_user_id, last_activity_at DESC, id DESC)
    WHERE deleted_at IS NULL;
CREATE INDEX threads_shared_idx ON threads (org_id, last_activity_at DESC, id DESC)
    WHERE deleted_at IS NULL AND visibility <> 'private';
CREATE INDEX threads_workspace_idx ON threads (org_id, workspace_root, last_activity_at DESC, id DESC)
    WHERE deleted_at IS NULL AND workspace_root IS NOT NULL;
CREATE INDEX threads_repo_idx ON threads (org_id, repo, last_activity_at DESC, id DESC)
    WHERE deleted_at IS NULL AND repo IS NOT NULL;
-- Most threads wait and have no tags: these two stay small.
CREATE INDEX threads_state_idx ON threads (org_id, state, last_activity_at DESC, id DESC)
    WHERE deleted_at IS NULL AND state <> 'waiting_for_user_input';
CREATE INDEX threads_tags_idx ON threads USING gin (org_id, tags)
    WHERE deleted_at IS NULL AND tags <> '{}';
CREATE INDEX threads_updated_idx ON threads (org_id, updated_at)
    WHERE deleted_at IS NULL;
-- For the jobs: leases that have run out, and what was deleted long ago.
CREATE INDEX threads_lease_idx ON threads (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX threads_deleted_idx ON threads (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE thread_messages (
    org_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    seq bigint NOT NULL,
    -- The client's own id: what makes a repeated append add nothing.
    id text COLLATE "C" NOT NULL,
    role text NOT NULL
        CONSTRAINT thread_messages_role_check CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    content json NOT NULL,
    tool_calls json,
    tool_call_id text,
    tool_name text,
    usage json,
    created_at timestamptz NOT NULL,
    bytes integer NOT NULL,
    -- SHA-256 of all that the client gave but id and time: tells a changed message without reading it.
    digest bytea NOT NULL,
    CONSTRAINT thread_messages_pkey PRIMARY KEY (org_id, thread_id, seq),
    CONSTRAINT thread_messages_id_key UNIQUE (org_id, thread_id, id),
    CONSTRAINT thread_messages_thread_fkey
        FOREIGN KEY (org_id, thread_id) REFERENCES threads (org_id, id) ON DELETE CASCADE
);

CREATE TABLE thread_commits (
    org_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    -- Lower-case hex, as long as the client gave it.
    sha text COLLATE "C" NOT NULL CONSTRAINT thread_commits_sha_check CHECK (sha ~ '^[0-9a-f]{4,64}$'),
    -- Named in git.commits. False for one that the thread was only once at.
    is_listed boolean NOT NULL,
    position bigint GENERATED ALWAYS AS IDENTITY,
    created_at timestamptz NOT NULL,
    CONSTRAINT thread_commits_pkey PRIMARY KEY (org_id, thread_id, sha),
    CONSTRAINT thread_commits_thread_fkey
        FOREIGN KEY (org_id, thread_id) REFERENCES threads (org_id, id) ON DELETE CASCADE
);
-- By the first digits of a commit, as the range from 'abc1234' to 'abc1234g': in the collation "C" a
-- plain index serves it, also in a generic plan, where LIKE with a parameter would not use any.
CREATE INDEX thread_commits_sha_idx ON thread_commits (org_id, sha);
