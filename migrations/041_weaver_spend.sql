-- What weavers spend on models, and the budgets that they were made with.

-- All that was asked with the token or for the account of a weaver, added in the transaction that stores the
-- requests' rows.
CREATE TABLE llm_weaver_costs (
    org_id uuid NOT NULL,
    weaver_id uuid NOT NULL,
    requests bigint NOT NULL,
    nanousd bigint NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT llm_weaver_costs_pkey PRIMARY KEY (org_id, weaver_id)
);
CREATE INDEX llm_weaver_costs_last_idx ON llm_weaver_costs (last_at);

-- The budget of a weaver is for its whole life: kind is `weaver_budget`, the window begins with 1970.
ALTER TABLE llm_limit_uses DROP CONSTRAINT llm_limit_uses_measure_check;
ALTER TABLE llm_limit_uses ADD CONSTRAINT llm_limit_uses_measure_check
    CHECK (measure IN ('requests', 'tokens', 'concurrent', 'day', 'month', 'life'));

-- Whether the cluster holds weavers to their network class, as the last canary found.
CREATE TABLE weaver_network_checks (
    installation text CONSTRAINT weaver_network_checks_pkey PRIMARY KEY,
    -- enforced, not_enforced, unknown.
    result text NOT NULL CONSTRAINT weaver_network_checks_result_check
        CHECK (result IN ('enforced', 'not_enforced', 'unknown')),
    detail text NOT NULL,
    checked_at timestamptz NOT NULL
);
