-- Cron monitoring: monitored jobs, what is known of each in each environment, runs, and failures in a row.

-- Keys of the form /ping/<key>/<slug>. Shown once; the digest is what is kept.
CREATE TABLE cron_ping_keys (
    id uuid CONSTRAINT cron_ping_keys_pkey PRIMARY KEY,
    org_id uuid NOT NULL CONSTRAINT cron_ping_keys_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    -- Monitors that are made through the key belong to it.
    project_id uuid,
    name text NOT NULL,
    digest bytea NOT NULL CONSTRAINT cron_ping_keys_digest_key UNIQUE,
    created_at timestamptz NOT NULL,
    CONSTRAINT cron_ping_keys_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);
CREATE INDEX cron_ping_keys_org_idx ON cron_ping_keys (org_id, created_at DESC, id DESC);

CREATE TABLE cron_monitors (
    id uuid CONSTRAINT cron_monitors_pkey PRIMARY KEY,
    org_id uuid NOT NULL CONSTRAINT cron_monitors_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    project_id uuid,
    slug text NOT NULL CONSTRAINT cron_monitors_slug_check CHECK (slug ~ '^[a-z0-9_-]{1,100}$'),
    name text NOT NULL,
    description text,
    -- crates/crons/src/schedule.rs.
    schedule jsonb NOT NULL,
    timezone text NOT NULL,
    margin_secs integer NOT NULL CONSTRAINT cron_monitors_margin_check CHECK (margin_secs > 0),
    max_runtime_secs integer CONSTRAINT cron_monitors_max_runtime_check CHECK (max_runtime_secs > 0),
    min_runtime_secs integer CONSTRAINT cron_monitors_min_runtime_check CHECK (min_runtime_secs > 0),
    failure_threshold integer NOT NULL CONSTRAINT cron_monitors_failure_check CHECK (failure_threshold BETWEEN 1 AND 720),
    recovery_threshold integer NOT NULL CONSTRAINT cron_monitors_recovery_check CHECK (recovery_threshold BETWEEN 1 AND 720),
    tags text[] NOT NULL,
    paused_at timestamptz,
    muted_until timestamptz,
    mute_windows jsonb NOT NULL,
    -- Whom to tell, and how: crates/crons/src/alerts.rs.
    alerts jsonb NOT NULL,
    -- The secret of its ping URL; it lets in pings, and nothing out.
    ping_key uuid NOT NULL CONSTRAINT cron_monitors_ping_key UNIQUE,
    badge_key text NOT NULL CONSTRAINT cron_monitors_badge_key UNIQUE,
    -- api, ping, sdk, internal.
    made_by text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT cron_monitors_slug_key UNIQUE (org_id, slug),
    CONSTRAINT cron_monitors_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE SET NULL (project_id)
);
CREATE INDEX cron_monitors_list_idx ON cron_monitors (org_id, created_at DESC, id DESC);
CREATE INDEX cron_monitors_project_idx ON cron_monitors (org_id, project_id) WHERE project_id IS NOT NULL;

-- What is known of a monitor in an environment. Whoever changes anything of it locks this row first, several
-- of them in the order of the key.
CREATE TABLE cron_environments (
    monitor_id uuid NOT NULL CONSTRAINT cron_environments_monitor_fkey REFERENCES cron_monitors (id) ON DELETE CASCADE,
    name text NOT NULL,
    org_id uuid NOT NULL,
    -- Of the last run that was judged: unknown, healthy, failing, missed, timeout.
    health text NOT NULL DEFAULT 'unknown',
    last_checkin_id uuid,
    last_checkin_at timestamptz,
    last_status text,
    -- The run that is waited for, and until when; none while paused.
    expected_at timestamptz,
    due_at timestamptz,
    -- The end of the newest run that was judged: what is older changes nothing here.
    judged_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    successes integer NOT NULL DEFAULT 0,
    incident_id uuid,
    CONSTRAINT cron_environments_pkey PRIMARY KEY (monitor_id, name)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX cron_environments_due_idx ON cron_environments (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX cron_environments_org_idx ON cron_environments (org_id);

-- Runs by the id that their job gave them: those in progress, and for two days those that ended, so that what
-- is told twice is known.
CREATE TABLE cron_runs (
    monitor_id uuid NOT NULL,
    environment text NOT NULL,
    run_key uuid NOT NULL,
    -- False: the job gave none.
    given boolean NOT NULL,
    checkin_id uuid NOT NULL,
    checkin_at timestamptz NOT NULL,
    started_at timestamptz,
    -- When it was last heard of.
    seen_at timestamptz NOT NULL,
    -- None when it has ended.
    deadline_at timestamptz,
    ended_at timestamptz,
    -- How it ended.
    outcome text,
    CONSTRAINT cron_runs_pkey PRIMARY KEY (monitor_id, environment, run_key),
    CONSTRAINT cron_runs_environment_fkey FOREIGN KEY (monitor_id, environment)
        REFERENCES cron_environments (monitor_id, name) ON DELETE CASCADE
);
CREATE INDEX cron_runs_open_idx ON cron_runs (monitor_id, environment, checkin_at DESC) WHERE deadline_at IS NOT NULL;
CREATE INDEX cron_runs_due_idx ON cron_runs (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX cron_runs_ended_idx ON cron_runs (ended_at) WHERE ended_at IS NOT NULL;

-- One row for each run: told by its job, or by us when it did not.
CREATE TABLE cron_checkins (
    -- A UUIDv7 whose time is `at`.
    id uuid NOT NULL,
    -- When it began as far as that is known; of a missed one when it was expected. Whole milliseconds.
    at timestamptz NOT NULL,
    org_id uuid NOT NULL,
    monitor_id uuid NOT NULL,
    environment text NOT NULL,
    run_key uuid,
    status text NOT NULL CONSTRAINT cron_checkins_status_check
        CHECK (status IN ('in_progress', 'ok', 'error', 'missed', 'timeout', 'unknown', 'log')),
    -- Why it has this status when that is not what its job said.
    reason text,
    source text NOT NULL,
    expected_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    received_at timestamptz NOT NULL,
    duration_ms bigint,
    exit_code smallint,
    output text,
    -- Its end came after it was given up.
    late boolean NOT NULL DEFAULT false,
    release text,
    trace_id text,
    CONSTRAINT cron_checkins_pkey PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE TABLE cron_checkins_default PARTITION OF cron_checkins DEFAULT;
CREATE INDEX cron_checkins_list_idx ON cron_checkins (org_id, monitor_id, at DESC, id DESC);

-- Failures in a row, from the one that reached the threshold to the recovery.
CREATE TABLE cron_incidents (
    id uuid CONSTRAINT cron_incidents_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    monitor_id uuid NOT NULL CONSTRAINT cron_incidents_monitor_fkey REFERENCES cron_monitors (id) ON DELETE CASCADE,
    environment text NOT NULL,
    -- Of the check-in that opened it.
    status text NOT NULL,
    reason text,
    checkin_id uuid NOT NULL,
    -- Since when it is not well: the time of the run that failed.
    began_at timestamptz NOT NULL,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    -- When somebody was first told, and how often.
    told_at timestamptz,
    told integer NOT NULL DEFAULT 0,
    -- When it is to be told next; none when it is not.
    tell_at timestamptz,
    -- The event for the project that is still to be handed over, and when it was.
    event_id uuid,
    event_sent_at timestamptz
);
CREATE INDEX cron_incidents_list_idx ON cron_incidents (org_id, monitor_id, opened_at DESC, id DESC);
CREATE INDEX cron_incidents_tell_idx ON cron_incidents (tell_at) WHERE tell_at IS NOT NULL;
CREATE INDEX cron_incidents_event_idx ON cron_incidents (opened_at) WHERE event_id IS NOT NULL AND event_sent_at IS NULL;
CREATE UNIQUE INDEX cron_incidents_open_key ON cron_incidents (monitor_id, environment) WHERE closed_at IS NULL;

-- When somebody last looked what is due: one row.
CREATE TABLE cron_sweeps (
    id boolean CONSTRAINT cron_sweeps_pkey PRIMARY KEY DEFAULT true CONSTRAINT cron_sweeps_one CHECK (id),
    swept_at timestamptz NOT NULL
);

-- When nobody was there to look: what should have been heard of then is not known.
CREATE TABLE cron_gaps (
    from_at timestamptz CONSTRAINT cron_gaps_pkey PRIMARY KEY,
    to_at timestamptz NOT NULL
);
