-- What an organisation calls its models: a name, and who is asked for it.

CREATE TABLE llm_routes (
    org_id uuid NOT NULL CONSTRAINT llm_routes_org_fkey REFERENCES organisations (id),
    name text NOT NULL,
    enabled boolean NOT NULL,
    -- In the order in which they were given: {provider, model, weight, priority}. Only ever read whole.
    targets jsonb NOT NULL CONSTRAINT llm_routes_targets_check CHECK (jsonb_typeof(targets) = 'array'),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT llm_routes_pkey PRIMARY KEY (org_id, name)
);
