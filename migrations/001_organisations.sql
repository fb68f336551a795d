-- People, organisations, API keys, the audit log.

CREATE TABLE organisations (
    id uuid CONSTRAINT organisations_pkey PRIMARY KEY,
    slug text NOT NULL CONSTRAINT organisations_slug_key UNIQUE
        CONSTRAINT organisations_slug_check CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    name text NOT NULL,
    -- Each user has one of their own, which nobody else joins.
    is_personal boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL
);

CREATE TABLE users (
    id uuid CONSTRAINT users_pkey PRIMARY KEY,
    -- Case-folded.
    email text NOT NULL CONSTRAINT users_email_key UNIQUE,
    name text NOT NULL DEFAULT '',
    personal_org_id uuid NOT NULL CONSTRAINT users_personal_org_fkey REFERENCES organisations (id),
    is_system_admin boolean NOT NULL DEFAULT false,
    is_auditor boolean NOT NULL DEFAULT false,
    disabled_at timestamptz,
    created_at timestamptz NOT NULL
);

CREATE TABLE organisation_members (
    org_id uuid NOT NULL CONSTRAINT organisation_members_org_fkey REFERENCES organisations (id),
    user_id uuid NOT NULL CONSTRAINT organisation_members_user_fkey REFERENCES users (id),
    role text NOT NULL CONSTRAINT organisation_members_role_check CHECK (role IN ('member', 'admin', 'owner')),
    created_at timestamptz NOT NULL,
    CONSTRAINT organisation_members_pkey PRIMARY KEY (org_id, user_id)
);
CREATE INDEX organisation_members_user_idx ON organisation_members (user_id);

-- The secret itself is nowhere: only its SHA-256 and its last four characters.
CREATE TABLE api_keys (
    id uuid CONSTRAINT api_keys_pkey PRIMARY KEY,
    org_id uuid NOT NULL CONSTRAINT api_keys_org_fkey REFERENCES organisations (id),
    -- Set for a personal key (loom_pat_), null for a key of the organisation (loom_svc_).
    user_id uuid CONSTRAINT api_keys_user_fkey REFERENCES users (id),
    name text NOT NULL,
    secret_sha256 bytea NOT NULL CONSTRAINT api_keys_secret_key UNIQUE,
    last_four text NOT NULL,
    scopes text[] NOT NULL,
    created_by uuid CONSTRAINT api_keys_created_by_fkey REFERENCES users (id),
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX api_keys_org_idx ON api_keys (org_id, created_at DESC, id DESC);

-- Append-only. Partitioned by month; the default partition catches what no month has yet.
CREATE TABLE audit_log (
    id uuid NOT NULL,
    at timestamptz NOT NULL,
    org_id uuid,
    actor_kind text NOT NULL,
    actor_id uuid,
    actor_name text NOT NULL,
    via text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    outcome text NOT NULL CONSTRAINT audit_log_outcome_check CHECK (outcome IN ('success', 'denied', 'failed')),
    ip text,
    request_id text,
    details jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT audit_log_pkey PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE TABLE audit_log_default PARTITION OF audit_log DEFAULT;
CREATE INDEX audit_log_org_idx ON audit_log (org_id, at DESC, id DESC);
