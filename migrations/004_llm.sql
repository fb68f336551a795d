-- The LLM proxy: provider credentials, and one row for each request.

-- The secret is sealed (envelope encryption, crate vault), bound to this row's id.
CREATE TABLE llm_credentials (
    id uuid CONSTRAINT llm_credentials_pkey PRIMARY KEY,
    provider text NOT NULL,
    name text NOT NULL,
    sealed_secret bytea NOT NULL,
    last_four text NOT NULL,
    disabled_at timestamptz,
    created_at timestamptz NOT NULL,
    CONSTRAINT llm_credentials_name_key UNIQUE (provider, name)
);

-- Tokens by class: the four input classes and output do not
-- overlap, except that reasoning is part of output. Null: the provider did not say.
CREATE TABLE llm_requests (
    id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    org_id uuid NOT NULL,
    user_id uuid,
    api_key_id uuid,
    thread_id uuid,
    weaver_id uuid,
    tags text[] NOT NULL DEFAULT '{}',
    request_id text NOT NULL,
    operation text NOT NULL,
    provider text NOT NULL,
    credential_id uuid,
    model text NOT NULL,
    response_model text,
    upstream_request_id text,
    streamed boolean NOT NULL,
    outcome text NOT NULL CONSTRAINT llm_requests_outcome_check CHECK (outcome IN ('succeeded', 'failed', 'cancelled')),
    -- What the client got; null when it left before an answer.
    status int,
    error_code text,
    input_tokens bigint,
    output_tokens bigint,
    cache_read_tokens bigint,
    cache_write_5m_tokens bigint,
    cache_write_1h_tokens bigint,
    reasoning_tokens bigint,
    -- Billionths of a US dollar; null when the tokens or the price are not known.
    cost_nanousd bigint,
    latency_ms double precision NOT NULL,
    first_token_ms double precision,
    request_bytes bigint NOT NULL,
    response_bytes bigint NOT NULL,
    CONSTRAINT llm_requests_pkey PRIMARY KEY (id, started_at)
) PARTITION BY RANGE (started_at);
CREATE TABLE llm_requests_default PARTITION OF llm_requests DEFAULT;
CREATE INDEX llm_requests_org_idx ON llm_requests (org_id, started_at DESC, id DESC);
CREATE INDEX llm_requests_thread_idx ON llm_requests (org_id, thread_id, started_at DESC) WHERE thread_id IS NOT NULL;
