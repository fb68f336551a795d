-- Releases and environments that sessions named, each pair once: how many are new in a day is bounded, for
-- whoever has a key of a project can make them up. What is over it is counted as `(other)`.
CREATE TABLE app_session_names (
    project_id uuid NOT NULL,
    release text NOT NULL,
    environment text NOT NULL,
    first_seen timestamptz NOT NULL,
    org_id uuid NOT NULL,
    CONSTRAINT app_session_names_pkey PRIMARY KEY (project_id, release, environment),
    CONSTRAINT app_session_names_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);
CREATE INDEX app_session_names_new_idx ON app_session_names (project_id, first_seen);

INSERT INTO app_session_names (project_id, release, environment, first_seen, org_id)
SELECT project_id, release, environment, first_started, org_id
  FROM app_session_releases WHERE environment <> '';
