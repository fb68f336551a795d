-- Accounts of the LLM proxy: what else a request used, prices of an organisation's own, sums by the hour
-- and day, and partitions by the day.

ALTER TABLE llm_requests
    -- Searches of the web that the provider made for the reply.
    ADD COLUMN web_searches bigint,
    -- What the provider said: standard, batch, flex, priority…; null when it said nothing.
    ADD COLUMN service_tier text,
    -- False: the reply broke off before the provider's last count, and the tokens are those seen until then.
    ADD COLUMN usage_complete boolean NOT NULL DEFAULT true,
    -- The order in which rows were stored, by which sums are taken: a request is stored when it ends, long
    -- after rows that began later. 0: stored before there was an order.
    ADD COLUMN seq bigint NOT NULL DEFAULT 0;
CREATE SEQUENCE llm_requests_seq;
ALTER TABLE llm_requests ALTER COLUMN seq SET DEFAULT nextval('llm_requests_seq');
CREATE INDEX llm_requests_seq_idx ON llm_requests (seq, org_id);
-- A member's own rows in the log.
CREATE INDEX llm_requests_user_idx ON llm_requests (org_id, user_id, started_at DESC, id DESC);

-- Who takes the sums must know that no smaller number is still to come: writers hold this lock shared
-- until they commit, and the sums are up to what was given out while nobody held it.
CREATE FUNCTION llm_requests_in_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7521, 1);
    RETURN NULL;
END $$;
CREATE TRIGGER llm_requests_in_order BEFORE INSERT ON llm_requests
    FOR EACH STATEMENT EXECUTE FUNCTION llm_requests_in_order();

-- Up to which row the sums go.
CREATE TABLE llm_usage_progress (
    id boolean CONSTRAINT llm_usage_progress_pkey PRIMARY KEY DEFAULT true
        CONSTRAINT llm_usage_progress_id_check CHECK (id),
    rolled_up_to bigint NOT NULL
);
INSERT INTO llm_usage_progress (rolled_up_to) VALUES (-1);

-- Sums by the hour and by the day (UTC). Each request is in one row of each dimension, for its organisation
-- and once more for its user.
CREATE TABLE llm_usage_sums (
    org_id uuid NOT NULL,
    -- All of the organisation: the nil UUID. Else a user, or (the max UUID) all that is nobody's.
    scope uuid NOT NULL,
    grain text NOT NULL CONSTRAINT llm_usage_sums_grain_check CHECK (grain IN ('hour', 'day')),
    dimension text NOT NULL CONSTRAINT llm_usage_sums_dimension_check
        CHECK (dimension IN ('all', 'model', 'user', 'api_key', 'thread', 'weaver', 'tag')),
    at timestamptz NOT NULL,
    -- Of the dimension: an id, a tag, or provider/model; empty for all, and for what has none.
    key text NOT NULL,
    requests bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    -- Rows whose tokens are not the provider's last count, and rows with tokens that have no price.
    incomplete bigint NOT NULL,
    unpriced bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cache_read_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    web_searches bigint NOT NULL,
    cost_nanousd bigint NOT NULL,
    -- Histograms, see crates/llm-proxy/src/usage_sums/sketch.rs.
    latency bytea NOT NULL,
    first_token bytea NOT NULL,
    CONSTRAINT llm_usage_sums_pkey PRIMARY KEY (org_id, scope, grain, dimension, at, key)
) WITH (fillfactor = 70);
-- For the clean-up.
CREATE INDEX llm_usage_sums_at_idx ON llm_usage_sums (grain, dimension, at);

CREATE TABLE llm_prices (
    id uuid CONSTRAINT llm_prices_pkey PRIMARY KEY,
    org_id uuid NOT NULL CONSTRAINT llm_prices_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    provider text NOT NULL,
    model text NOT NULL,
    -- US dollars per million tokens; searches per thousand.
    input double precision NOT NULL,
    output double precision NOT NULL,
    cache_read double precision,
    cache_write_5m double precision,
    cache_write_1h double precision,
    web_searches double precision,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT llm_prices_model_key UNIQUE (org_id, provider, model)
);

-- Days to come; the job makes the next ones. What was stored before stays in the default partition, which
-- the clean-up empties by age.
DO $$
DECLARE
    day date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    FOR n IN 0..7 LOOP
        IF NOT EXISTS (SELECT FROM llm_requests_default
                        WHERE started_at >= (day + n) AT TIME ZONE 'UTC') THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF llm_requests FOR VALUES FROM (%L) TO (%L)',
                'llm_requests_' || to_char(day + n, 'YYYY_MM_DD'),
                (day + n)::text || ' 00:00:00+00', (day + n + 1)::text || ' 00:00:00+00');
        END IF;
    END LOOP;
END $$;
