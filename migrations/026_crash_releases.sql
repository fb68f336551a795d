-- Releases: what they are made of, and where they were brought to.

ALTER TABLE crash_releases ADD COLUMN started_at timestamptz;
ALTER TABLE crash_releases ADD COLUMN ref text;

CREATE TABLE crash_release_commits (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    release_id uuid NOT NULL
        CONSTRAINT crash_release_commits_release_fkey REFERENCES crash_releases (id) ON DELETE CASCADE,
    -- 0 is the newest.
    position integer NOT NULL,
    sha text NOT NULL,
    message text,
    author_name text,
    author_email text,
    at timestamptz,
    repository text,
    -- Paths that it touched.
    files text[] NOT NULL DEFAULT '{}',
    CONSTRAINT crash_release_commits_pkey PRIMARY KEY (release_id, position),
    CONSTRAINT crash_release_commits_sha_key UNIQUE (release_id, sha)
);

CREATE TABLE crash_deploys (
    id uuid CONSTRAINT crash_deploys_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    release_id uuid NOT NULL
        CONSTRAINT crash_deploys_release_fkey REFERENCES crash_releases (id) ON DELETE CASCADE,
    environment text NOT NULL,
    name text,
    url text,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX crash_deploys_release_idx ON crash_deploys (release_id, finished_at DESC, id DESC);

-- Counts of issues by release.
CREATE INDEX crash_issues_first_release_idx ON crash_issues (project_id, first_release) WHERE first_release IS NOT NULL;
CREATE INDEX crash_issues_regressed_release_idx ON crash_issues (project_id, regressed_in_release)
    WHERE regressed_in_release IS NOT NULL;
CREATE INDEX crash_issues_resolved_release_idx ON crash_issues (project_id, resolved_in_release)
    WHERE resolved_in_release IS NOT NULL;
