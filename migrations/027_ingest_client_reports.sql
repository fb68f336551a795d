-- What SDKs say that they did not send: counted, so that whoever looks for a lost event sees why.

CREATE TABLE ingest_client_reports (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    -- The day, in UTC, on which they said it.
    day date NOT NULL,
    category text NOT NULL,
    reason text NOT NULL,
    quantity bigint NOT NULL,
    CONSTRAINT ingest_client_reports_pkey PRIMARY KEY (project_id, day, category, reason),
    CONSTRAINT ingest_client_reports_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 80);
CREATE INDEX ingest_client_reports_age_idx ON ingest_client_reports (day);
