-- Sessions of applications: what came (by the day each began), what it comes to by half hours and by
-- releases, and rules by which somebody is told.

-- Which sessions there are and when each began, so that one is one whoever sends of it, and whenever.
-- Kept a little longer than a session may be updated.
CREATE TABLE app_session_ids (
    project_id uuid NOT NULL,
    sid uuid NOT NULL,
    started timestamptz NOT NULL,
    -- Nobody has said yet when it began.
    guessed boolean NOT NULL,
    CONSTRAINT app_session_ids_pkey PRIMARY KEY (project_id, sid)
);
CREATE INDEX app_session_ids_age_idx ON app_session_ids USING brin (started);

CREATE TABLE app_sessions (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    sid uuid NOT NULL,
    started timestamptz NOT NULL,
    release text NOT NULL,
    environment text NOT NULL,
    -- 0 healthy, 1 errored, 2 unhandled, 3 abnormal, 4 crashed. It only ever rises.
    class smallint NOT NULL CONSTRAINT app_sessions_class_check CHECK (class BETWEEN 0 AND 4),
    ended boolean NOT NULL,
    errors integer NOT NULL,
    duration_ms bigint,
    -- Of the logarithmic histogram of durations, see crates/sessions/src/durations.rs.
    duration_bucket smallint,
    -- A keyed digest of who it was.
    user_hash bigint,
    -- Sessions that were counted where they ran are one row of many.
    count integer NOT NULL,
    -- What one stands for where only some are kept; one that crashed stands for itself.
    weight double precision NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT app_sessions_pkey PRIMARY KEY (project_id, sid, started)
) PARTITION BY RANGE (started);
CREATE TABLE app_sessions_default PARTITION OF app_sessions DEFAULT;
CREATE INDEX app_sessions_time_idx ON app_sessions (org_id, project_id, started DESC, sid DESC);

-- Half hours of which the sums are not what the sessions say. Only ever added to by those who write
-- sessions, in the same transaction: a sum is right for whoever sees no mark of its half hour.
CREATE TABLE app_session_marks (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT app_session_marks_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    at timestamptz NOT NULL,
    marked_at timestamptz NOT NULL
);
CREATE INDEX app_session_marks_project_idx ON app_session_marks (project_id, at);

-- Counted sessions have no id: the same again within minutes is a repeat.
CREATE TABLE app_session_batches (
    project_id uuid NOT NULL,
    hash uuid NOT NULL,
    received_at timestamptz NOT NULL,
    CONSTRAINT app_session_batches_pkey PRIMARY KEY (project_id, hash)
);
CREATE INDEX app_session_batches_age_idx ON app_session_batches USING brin (received_at);

-- Sums of half hours: days of all zones but three begin at one.
CREATE TABLE app_session_counts (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    at timestamptz NOT NULL,
    release text NOT NULL,
    environment text NOT NULL,
    healthy double precision NOT NULL,
    errored double precision NOT NULL,
    unhandled double precision NOT NULL,
    abnormal double precision NOT NULL,
    crashed double precision NOT NULL,
    -- Sessions of which a duration is known, and all durations together.
    timed double precision NOT NULL,
    duration_ms double precision NOT NULL,
    first_started timestamptz NOT NULL,
    last_started timestamptz NOT NULL,
    CONSTRAINT app_session_counts_pkey PRIMARY KEY (project_id, at, release, environment),
    CONSTRAINT app_session_counts_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);
CREATE INDEX app_session_counts_release_idx ON app_session_counts (project_id, release, at);

-- What does not add up, beside the counts: distinct users and durations. Few reads need it.
CREATE TABLE app_session_sets (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    at timestamptz NOT NULL,
    release text NOT NULL,
    environment text NOT NULL,
    -- Digests, while the sessions are kept; then sketches, see crates/sessions/src/users.rs.
    users bigint[],
    crashed_users bigint[],
    users_sketch bytea,
    crashed_sketch bytea,
    duration_buckets smallint[] NOT NULL,
    duration_counts double precision[] NOT NULL,
    CONSTRAINT app_session_sets_pkey PRIMARY KEY (project_id, at, release, environment),
    CONSTRAINT app_session_sets_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);
CREATE INDEX app_session_sets_exact_idx ON app_session_sets (at) WHERE users IS NOT NULL;

-- Releases as a whole, by environment, and over all environments (''): sums of the half hours.
CREATE TABLE app_session_releases (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    release text NOT NULL,
    environment text NOT NULL,
    healthy double precision NOT NULL,
    errored double precision NOT NULL,
    unhandled double precision NOT NULL,
    abnormal double precision NOT NULL,
    crashed double precision NOT NULL,
    timed double precision NOT NULL,
    duration_ms double precision NOT NULL,
    first_started timestamptz NOT NULL,
    last_started timestamptz NOT NULL,
    users_sketch bytea NOT NULL DEFAULT '',
    crashed_sketch bytea NOT NULL DEFAULT '',
    -- What the sketches say.
    users bigint NOT NULL DEFAULT 0,
    crashed_users bigint NOT NULL DEFAULT 0,
    CONSTRAINT app_session_releases_pkey PRIMARY KEY (project_id, release, environment),
    CONSTRAINT app_session_releases_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 80);
CREATE INDEX app_session_releases_list_idx
    ON app_session_releases (org_id, project_id, environment, first_started DESC, release DESC);

-- Who is told when a release does badly.
CREATE TABLE app_session_alerts (
    id uuid CONSTRAINT app_session_alerts_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    name text NOT NULL,
    -- crash_free_sessions and crash_free_users: below the threshold; regression: worse than the release before.
    kind text NOT NULL
        CONSTRAINT app_session_alerts_kind_check CHECK (kind IN ('crash_free_sessions', 'crash_free_users', 'regression')),
    -- Per cent; of a regression the confidence.
    threshold double precision NOT NULL
        CONSTRAINT app_session_alerts_threshold_check CHECK (threshold BETWEEN 0 AND 100),
    min_sessions integer NOT NULL
        CONSTRAINT app_session_alerts_min_check CHECK (min_sessions > 0),
    window_minutes integer NOT NULL
        CONSTRAINT app_session_alerts_window_check CHECK (window_minutes BETWEEN 30 AND 43200),
    -- Null: each release by itself, and all environments together.
    release text,
    environment text,
    emails text[] NOT NULL,
    webhook_id uuid CONSTRAINT app_session_alerts_webhook_fkey REFERENCES webhooks (id) ON DELETE SET NULL,
    enabled boolean NOT NULL,
    created_by uuid CONSTRAINT app_session_alerts_created_by_fkey REFERENCES users (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT app_session_alerts_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);
CREATE INDEX app_session_alerts_project_idx ON app_session_alerts (org_id, project_id, created_at, id);

-- What was told: a row while a release is below the bar of a rule.
CREATE TABLE app_session_alert_states (
    alert_id uuid NOT NULL
        CONSTRAINT app_session_alert_states_alert_fkey REFERENCES app_session_alerts (id) ON DELETE CASCADE,
    release text NOT NULL,
    since timestamptz NOT NULL,
    value double precision NOT NULL,
    CONSTRAINT app_session_alert_states_pkey PRIMARY KEY (alert_id, release)
);

DO $$
DECLARE
    day date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    FOR n IN 0..7 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF app_sessions FOR VALUES FROM (%L) TO (%L)',
            'app_sessions_' || to_char(day + n, 'YYYY_MM_DD'),
            (day + n)::text || ' 00:00:00+00', (day + n + 1)::text || ' 00:00:00+00');
    END LOOP;
END $$;
