-- Git repositories. What is in them lies in the data directory, under their ids.

CREATE TABLE repositories (
    id uuid CONSTRAINT repositories_pkey PRIMARY KEY,
    org_id uuid NOT NULL CONSTRAINT repositories_org_fkey REFERENCES organisations (id),
    -- Null: it is the organisation's own.
    owner_user_id uuid CONSTRAINT repositories_owner_fkey REFERENCES users (id),
    name text NOT NULL CONSTRAINT repositories_name_check CHECK (name ~ '^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$'),
    description text NOT NULL DEFAULT '',
    default_branch text NOT NULL,
    visibility text NOT NULL
        CONSTRAINT repositories_visibility_check CHECK (visibility IN ('private', 'organization', 'public')),
    -- On the disk, as of the last push or maintenance.
    size_bytes bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    pushed_at timestamptz,
    -- Its name is free from then on; the directory goes 30 days later, and the row with it.
    deleted_at timestamptz,
    -- When the last maintenance began, and whether it failed.
    maintained_at timestamptz,
    maintenance_failed boolean NOT NULL DEFAULT false,
    -- When objects that nothing refers to were last looked for and removed.
    reclaimed_at timestamptz,
    -- The run that has this repository, over all replicas, until its lease ends.
    maintenance_id uuid,
    maintenance_until timestamptz,
    -- No push begins meanwhile.
    reclaiming_until timestamptz
);
CREATE UNIQUE INDEX repositories_name_key ON repositories (org_id, lower(name)) WHERE deleted_at IS NULL;
CREATE INDEX repositories_list_idx ON repositories (org_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX repositories_maintained_idx ON repositories (maintained_at NULLS FIRST, id)
    WHERE deleted_at IS NULL AND pushed_at IS NOT NULL;
CREATE INDEX repositories_deleted_idx ON repositories (deleted_at) WHERE deleted_at IS NOT NULL;

-- Pushes under way: while there is one, nothing is removed from its repository.
CREATE TABLE repository_pushes (
    id uuid CONSTRAINT repository_pushes_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    repository_id uuid NOT NULL
        CONSTRAINT repository_pushes_repository_fkey REFERENCES repositories (id) ON DELETE CASCADE,
    -- No push lasts longer; past it the row was left by a server that died.
    lease_until timestamptz NOT NULL
);
CREATE INDEX repository_pushes_repository_idx ON repository_pushes (repository_id);

CREATE TABLE repository_maintenance (
    id uuid CONSTRAINT repository_maintenance_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    repository_id uuid NOT NULL
        CONSTRAINT repository_maintenance_repository_fkey REFERENCES repositories (id) ON DELETE CASCADE,
    trigger text NOT NULL CONSTRAINT repository_maintenance_trigger_check CHECK (trigger IN ('schedule', 'manual')),
    status text NOT NULL
        CONSTRAINT repository_maintenance_status_check CHECK (status IN ('running', 'succeeded', 'failed', 'abandoned')),
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    duration_ms bigint,
    packs_before integer,
    packs_after integer,
    bytes_before bigint,
    bytes_after bigint,
    -- Whether what nothing refers to was removed as well.
    reclaimed boolean NOT NULL DEFAULT false,
    error text
);
CREATE INDEX repository_maintenance_history_idx
    ON repository_maintenance (org_id, repository_id, started_at DESC, id DESC);
