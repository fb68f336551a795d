-- The credential pool: credentials of several kinds, and their state.

ALTER TABLE llm_credentials
    ADD COLUMN kind text NOT NULL DEFAULT 'api_key'
        CONSTRAINT llm_credentials_kind_check CHECK (kind IN ('api_key', 'oauth', 'google_service_account', 'workload_identity')),
    -- What of it is no secret: where tokens come from, the client's id.
    ADD COLUMN config jsonb NOT NULL DEFAULT '{}',
    -- Counts the changes by people, so that a refusal of what was there before disables nothing.
    ADD COLUMN version bigint NOT NULL DEFAULT 0,
    -- The access token in force, sealed as the secret is; a rotated refresh token replaces the secret in the
    -- same statement.
    ADD COLUMN sealed_token bytea,
    ADD COLUMN token_expires_at timestamptz,
    -- Counts the tokens: a new one is stored only over that which it was asked for with.
    ADD COLUMN generation bigint NOT NULL DEFAULT 0,
    -- One replica asks for a new token at a time, until this moment by the database's clock.
    ADD COLUMN refreshing_until timestamptz,
    ADD COLUMN refreshing_by uuid,
    -- By whom, when `disabled_at` is set: an admin, the provider (401, 403), or its token endpoint.
    ADD COLUMN disabled_by text CONSTRAINT llm_credentials_disabled_by_check CHECK (disabled_by IN ('admin', 'provider', 'token_endpoint')),
    ADD COLUMN disabled_reason text,
    ADD COLUMN cooling_until timestamptz,
    ADD COLUMN last_error text,
    ADD COLUMN last_error_at timestamptz,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();

UPDATE llm_credentials SET disabled_by = 'admin' WHERE disabled_at IS NOT NULL;
