-- Keys with networks and budgets, tokens of weavers, invitations, limits over replicas, an audit log
-- that can only grow.

ALTER TABLE api_keys
    -- CIDRs that it may be used from; empty: from everywhere.
    ADD COLUMN networks text[] NOT NULL DEFAULT '{}',
    -- What it may spend on models in a month.
    ADD COLUMN budget_nanousd bigint
        CONSTRAINT api_keys_budget_check CHECK (budget_nanousd >= 0),
    ADD COLUMN created_ip text,
    -- `revoked`, `reported` (leaked), `member_left`, `user_disabled`.
    ADD COLUMN revoked_because text;
CREATE INDEX api_keys_user_idx ON api_keys (user_id) WHERE revoked_at IS NULL;

-- A weaver's own credential: the weaver acts in the organisation with these scopes and no others, for
-- as long as its owner is let in there.
CREATE TABLE weaver_tokens (
    secret_sha256 bytea CONSTRAINT weaver_tokens_pkey PRIMARY KEY,
    weaver_id uuid NOT NULL,
    org_id uuid NOT NULL CONSTRAINT weaver_tokens_org_fkey REFERENCES organisations (id),
    owner_id uuid CONSTRAINT weaver_tokens_owner_fkey REFERENCES users (id),
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX weaver_tokens_org_idx ON weaver_tokens (org_id, weaver_id);
CREATE INDEX weaver_tokens_expiry_idx ON weaver_tokens (expires_at);

CREATE TABLE organisation_invitations (
    id uuid CONSTRAINT organisation_invitations_pkey PRIMARY KEY,
    org_id uuid NOT NULL CONSTRAINT organisation_invitations_org_fkey REFERENCES organisations (id),
    -- Case-folded.
    email text NOT NULL,
    role text NOT NULL CONSTRAINT organisation_invitations_role_check CHECK (role IN ('member', 'admin', 'owner')),
    token_sha256 bytea NOT NULL CONSTRAINT organisation_invitations_token_key UNIQUE,
    invited_by uuid NOT NULL CONSTRAINT organisation_invitations_by_fkey REFERENCES users (id),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    accepted_at timestamptz,
    accepted_by uuid CONSTRAINT organisation_invitations_accepted_by_fkey REFERENCES users (id),
    revoked_at timestamptz
);
CREATE INDEX organisation_invitations_org_idx ON organisation_invitations (org_id, created_at DESC, id DESC);
-- One open invitation for an address: a newer voids the older.
CREATE UNIQUE INDEX organisation_invitations_open_key ON organisation_invitations (org_id, email)
    WHERE accepted_at IS NULL AND revoked_at IS NULL;
CREATE INDEX organisation_invitations_email_idx ON organisation_invitations (email)
    WHERE accepted_at IS NULL AND revoked_at IS NULL;

-- Rates of what is rare and costly, over all replicas. The subject is a SHA-256.
CREATE TABLE rate_limits (
    purpose text NOT NULL,
    subject bytea NOT NULL,
    -- When the whole budget is there again.
    full_at timestamptz NOT NULL,
    CONSTRAINT rate_limits_pkey PRIMARY KEY (purpose, subject)
);
CREATE INDEX rate_limits_full_idx ON rate_limits (full_at);

CREATE INDEX users_created_idx ON users (created_at DESC, id DESC);

-- The audit log is written and read, never changed. The roles of the installation may all be one, which
-- owns the table, so that grants alone refuse nothing: triggers do. What is too old goes by dropping a
-- partition.
ALTER TABLE audit_log ADD COLUMN credential_id uuid;
CREATE INDEX audit_log_at_idx ON audit_log (at DESC, id DESC);
CREATE INDEX audit_log_actor_idx ON audit_log (actor_id, at DESC, id DESC);

CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log_default
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();
REVOKE UPDATE, DELETE, TRUNCATE ON audit_log FROM PUBLIC;
