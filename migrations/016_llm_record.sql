-- What is kept of requests to models and their replies beyond the account: only for whom it is asked.
-- Every text is sealed (crate vault), bound to its row.

-- An organisation without a row has the defaults: nothing is kept.
CREATE TABLE llm_org_settings (
    org_id uuid CONSTRAINT llm_org_settings_pkey PRIMARY KEY
        CONSTRAINT llm_org_settings_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    cache_enabled boolean NOT NULL,
    cache_ttl_secs int NOT NULL
        CONSTRAINT llm_org_settings_ttl_check CHECK (cache_ttl_secs BETWEEN 1 AND 604800),
    capture_enabled boolean NOT NULL,
    capture_retention_days int NOT NULL
        CONSTRAINT llm_org_settings_retention_check CHECK (capture_retention_days BETWEEN 1 AND 365),
    capture_redact boolean NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Requests that came with an `idempotency-key`. Neither the key nor the body is here, only keyed digests.
CREATE TABLE llm_idempotency_keys (
    org_id uuid NOT NULL
        CONSTRAINT llm_idempotency_keys_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    -- Of whose key it is, the route and the key.
    key_digest bytea NOT NULL,
    body_digest bytea NOT NULL,
    -- Which of the runs under this key: one that has lost its claim changes nothing any more.
    attempt uuid NOT NULL,
    state text NOT NULL
        CONSTRAINT llm_idempotency_keys_state_check CHECK (state IN ('running', 'finished', 'too_large')),
    -- Of a running one: whoever runs it is taken for dead after this.
    lease_until timestamptz NOT NULL,
    sealed_reply bytea,
    expires_at timestamptz NOT NULL,
    CONSTRAINT llm_idempotency_keys_pkey PRIMARY KEY (org_id, key_digest),
    CONSTRAINT llm_idempotency_keys_reply_check CHECK ((state = 'finished') = (sealed_reply IS NOT NULL))
);
CREATE INDEX llm_idempotency_keys_expiry_idx ON llm_idempotency_keys (expires_at);

CREATE TABLE llm_cached_replies (
    org_id uuid NOT NULL
        CONSTRAINT llm_cached_replies_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    request_digest bytea NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    sealed_reply bytea NOT NULL,
    stored_at timestamptz NOT NULL,
    CONSTRAINT llm_cached_replies_pkey PRIMARY KEY (org_id, request_digest)
);
CREATE INDEX llm_cached_replies_age_idx ON llm_cached_replies (org_id, stored_at);

CREATE TABLE llm_captures (
    org_id uuid NOT NULL
        CONSTRAINT llm_captures_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    -- As in llm_requests.
    request_id uuid NOT NULL,
    captured_at timestamptz NOT NULL,
    status int NOT NULL,
    content_type text,
    -- The reply came to its end; false: the client left, or the provider broke off.
    is_whole boolean NOT NULL,
    is_redacted boolean NOT NULL,
    request_truncated boolean NOT NULL,
    reply_truncated boolean NOT NULL,
    sealed_request bytea NOT NULL,
    sealed_reply bytea NOT NULL,
    CONSTRAINT llm_captures_pkey PRIMARY KEY (org_id, request_id)
);
CREATE INDEX llm_captures_age_idx ON llm_captures (org_id, captured_at);

-- Null: a provider was asked. Of what was served from elsewhere nothing is billed.
ALTER TABLE llm_requests ADD COLUMN served_from text
    CONSTRAINT llm_requests_served_from_check CHECK (served_from = 'cache');
