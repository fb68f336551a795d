-- Rules by which people are told of issues, and what they were told.

CREATE TABLE crash_alert_rules (
    id uuid CONSTRAINT crash_alert_rules_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    name text NOT NULL,
    -- When, of which events, and to whom: see crates/crashes/src/alerts/model.rs.
    condition jsonb NOT NULL,
    kind text NOT NULL
        CONSTRAINT crash_alert_rules_kind_check CHECK (kind IN ('new_issue', 'regression', 'frequency', 'session_share')),
    filters jsonb NOT NULL,
    actions jsonb NOT NULL,
    -- It does not speak again of the same within this time.
    min_interval_minutes integer NOT NULL
        CONSTRAINT crash_alert_rules_interval_check CHECK (min_interval_minutes BETWEEN 0 AND 10080),
    enabled boolean NOT NULL,
    snoozed_until timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT crash_alert_rules_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);
CREATE INDEX crash_alert_rules_project_idx ON crash_alert_rules (org_id, project_id, created_at, id);

-- What was told, or held back.
CREATE TABLE crash_alerts (
    id uuid CONSTRAINT crash_alerts_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    rule_id uuid NOT NULL CONSTRAINT crash_alerts_rule_fkey REFERENCES crash_alert_rules (id) ON DELETE CASCADE,
    -- None: it is about the project.
    issue_id uuid,
    title text NOT NULL,
    outcome text NOT NULL
        CONSTRAINT crash_alerts_outcome_check CHECK (outcome IN ('sent', 'held_back', 'test')),
    -- In crate notify's queue.
    deliveries uuid[] NOT NULL,
    at timestamptz NOT NULL
);
CREATE INDEX crash_alerts_project_idx ON crash_alerts (org_id, project_id, at DESC, id DESC);
CREATE INDEX crash_alerts_rule_idx ON crash_alerts (rule_id, issue_id, at DESC);
CREATE INDEX crash_alerts_age_idx ON crash_alerts USING brin (at);

-- How many alerts a project had in an hour.
CREATE TABLE crash_alert_budgets (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    hour timestamptz NOT NULL,
    used integer NOT NULL,
    CONSTRAINT crash_alert_budgets_pkey PRIMARY KEY (project_id, hour),
    CONSTRAINT crash_alert_budgets_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);

-- Events of the last minutes are counted once a minute.
CREATE INDEX crash_events_received_idx ON crash_events USING brin (received_at) WITH (pages_per_range = 16);
