-- Projects: what events, sessions and check-ins of an application belong to, and the keys it sends with.

CREATE TABLE crash_projects (
    id uuid CONSTRAINT crash_projects_pkey PRIMARY KEY,
    -- In DSNs, which know digits only.
    number bigint GENERATED ALWAYS AS IDENTITY
        CONSTRAINT crash_projects_number_key UNIQUE,
    org_id uuid NOT NULL CONSTRAINT crash_projects_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    slug text NOT NULL
        CONSTRAINT crash_projects_slug_check CHECK (slug ~ '^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$' AND slug !~ '^[0-9]+$'),
    name text NOT NULL,
    platform text,
    -- Short ids of its issues are this and a number.
    short_prefix text NOT NULL,
    -- The last number given to an issue.
    last_issue_number bigint NOT NULL DEFAULT 0,
    retention_days integer NOT NULL DEFAULT 90
        CONSTRAINT crash_projects_retention_check CHECK (retention_days BETWEEN 1 AND 3650),
    -- Origins whose pages may send; '*' is all.
    allowed_origins text[] NOT NULL DEFAULT '{*}',
    -- How events are grouped and what is masked in them: rules of crates/crashes/src/grouping and scrub.
    grouping_rules jsonb NOT NULL DEFAULT '[]',
    scrubbing jsonb NOT NULL DEFAULT '{}',
    -- More new issues than this in an hour are folded into one.
    new_issues_per_hour integer NOT NULL DEFAULT 100
        CONSTRAINT crash_projects_new_issues_check CHECK (new_issues_per_hour BETWEEN 1 AND 100000),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- Nobody sees it any more; a job removes what belongs to it.
    deleted_at timestamptz,
    CONSTRAINT crash_projects_org_key UNIQUE (org_id, id)
);
CREATE UNIQUE INDEX crash_projects_slug_key ON crash_projects (org_id, slug) WHERE deleted_at IS NULL;
CREATE INDEX crash_projects_list_idx ON crash_projects (org_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;

-- Not a secret: pages of browsers carry it. It lets in what is sent, and nothing out.
CREATE TABLE crash_project_keys (
    id uuid CONSTRAINT crash_project_keys_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    name text NOT NULL,
    public_key text NOT NULL CONSTRAINT crash_project_keys_public_key UNIQUE
        CONSTRAINT crash_project_keys_public_check CHECK (public_key ~ '^[0-9a-f]{32}$'),
    enabled boolean NOT NULL DEFAULT true,
    -- So many items in each window; none: no limit of its own.
    limit_count integer CONSTRAINT crash_project_keys_limit_check CHECK (limit_count > 0),
    limit_window_secs integer CONSTRAINT crash_project_keys_window_check CHECK (limit_window_secs BETWEEN 1 AND 86400),
    created_at timestamptz NOT NULL,
    CONSTRAINT crash_project_keys_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);
CREATE INDEX crash_project_keys_project_idx ON crash_project_keys (org_id, project_id, created_at);
