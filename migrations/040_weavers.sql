-- Weavers: what was asked for, what is known of their pods, what happened and what they said.

CREATE TABLE weavers (
    id uuid CONSTRAINT weavers_pkey PRIMARY KEY,
    org_id uuid NOT NULL CONSTRAINT weavers_org_fkey REFERENCES organisations (id) ON DELETE RESTRICT,
    -- Who made it; none when that was a service key, or the user is gone.
    owner_id uuid CONSTRAINT weavers_owner_fkey REFERENCES users (id) ON DELETE SET NULL,
    -- The cluster that has it, as this installation names itself there.
    installation text NOT NULL,
    -- Given by the client, so that a repeated request makes one.
    idempotency_key text,
    request_sha256 bytea,
    -- crates/weavers/src/model.rs: image, command, args, workdir, repo, branch, plain env, network.
    spec jsonb NOT NULL,
    -- Env that must not lie open, and the token of the clone; erased once the pod is there or will never be.
    sealed_env bytea,
    tags jsonb NOT NULL,
    network text NOT NULL,
    cpu_millis bigint NOT NULL,
    memory_bytes bigint NOT NULL,
    ephemeral_bytes bigint NOT NULL,
    budget_nanousd bigint,
    idle_timeout_secs integer,

    status text NOT NULL CONSTRAINT weavers_status_check CHECK (status IN
        ('pending', 'running', 'terminating', 'succeeded', 'failed', 'expired', 'deleted', 'lost')),
    -- A stable code, as image_pull or out_of_memory, and what it means in plain words.
    reason_code text,
    reason text,
    -- Why it is to end: set once; its pod goes, and the row gets the status that stands here.
    ending text CONSTRAINT weavers_ending_check CHECK (ending IN ('succeeded', 'failed', 'expired', 'deleted', 'lost')),
    pod_name text NOT NULL,
    pod_uid text,
    node text,
    -- Trouble that may still pass: what it was first, and since when.
    trouble jsonb,
    restarts integer NOT NULL DEFAULT 0,
    exit_code integer,
    created_at timestamptz NOT NULL,
    scheduled_at timestamptz,
    started_at timestamptz,
    ready_at timestamptz,
    -- The container has ended.
    exited_at timestamptz,
    -- It is over: no pod, no token.
    ended_at timestamptz,
    expires_at timestamptz NOT NULL,
    warned_at timestamptz,
    -- The last sign of life: a line, an exec, an attached terminal, a request to a model.
    active_at timestamptz NOT NULL,
    -- Counts the changes.
    version bigint NOT NULL DEFAULT 1,
    CONSTRAINT weavers_pod_name_key UNIQUE (pod_name),
    CONSTRAINT weavers_idempotency_key UNIQUE (org_id, idempotency_key),
    CONSTRAINT weavers_org_id_key UNIQUE (org_id, id)
) WITH (fillfactor = 80);
CREATE INDEX weavers_list_idx ON weavers (org_id, created_at DESC, id DESC);
CREATE INDEX weavers_owner_idx ON weavers (org_id, owner_id, created_at DESC, id DESC);
CREATE INDEX weavers_tags_idx ON weavers USING gin (org_id, tags jsonb_path_ops);
-- Those that are not over: what is reconciled, and what quotas count.
CREATE INDEX weavers_live_idx ON weavers (installation, expires_at) WHERE ended_at IS NULL;
CREATE INDEX weavers_live_org_idx ON weavers (org_id) WHERE ended_at IS NULL;
CREATE INDEX weavers_ended_idx ON weavers (ended_at) WHERE ended_at IS NOT NULL;

-- What happened, in order.
CREATE TABLE weaver_events (
    weaver_id uuid NOT NULL CONSTRAINT weaver_events_weaver_fkey REFERENCES weavers (id) ON DELETE CASCADE,
    number integer NOT NULL,
    at timestamptz NOT NULL,
    -- queued, scheduled, pulling, started, ready, exit, ended; warning in between.
    phase text NOT NULL,
    code text,
    message text,
    CONSTRAINT weaver_events_pkey PRIMARY KEY (weaver_id, number)
);

-- What its containers said, in chunks of whole lines, masked.
CREATE TABLE weaver_log_chunks (
    weaver_id uuid NOT NULL CONSTRAINT weaver_log_chunks_weaver_fkey REFERENCES weavers (id) ON DELETE CASCADE,
    -- The number of its first line; lines count from 1.
    first_line bigint NOT NULL,
    lines integer NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    -- Unpacked.
    bytes integer NOT NULL,
    -- zstd of lines of JSON: time, container, text.
    body bytea NOT NULL,
    CONSTRAINT weaver_log_chunks_pkey PRIMARY KEY (weaver_id, first_line)
);

-- How far its log was read.
CREATE TABLE weaver_log_state (
    weaver_id uuid CONSTRAINT weaver_log_state_pkey PRIMARY KEY
        CONSTRAINT weaver_log_state_weaver_fkey REFERENCES weavers (id) ON DELETE CASCADE,
    next_line bigint NOT NULL DEFAULT 1,
    bytes bigint NOT NULL DEFAULT 0,
    -- Lines between head and tail that were dropped for want of room.
    dropped_lines bigint NOT NULL DEFAULT 0,
    -- For each container: the time of the last line, and digests of the lines of just that time.
    read jsonb NOT NULL DEFAULT '{}',
    -- Read to its end.
    complete boolean NOT NULL DEFAULT false
);

-- Who watches the cluster of an installation: one server at a time.
CREATE TABLE weaver_leases (
    installation text CONSTRAINT weaver_leases_pkey PRIMARY KEY,
    holder text NOT NULL,
    until timestamptz NOT NULL,
    -- Grows with each change of the holder: what is written under an older one is refused.
    term bigint NOT NULL
);
