-- Background jobs: what is known of each, and the history of their runs.

CREATE TABLE jobs (
    id text CONSTRAINT jobs_pkey PRIMARY KEY,
    enabled boolean NOT NULL DEFAULT true,
    -- The newest scheduled instant that was taken; the next one follows from it and the interval.
    last_slot timestamptz NOT NULL,
    -- Runs that failed or were abandoned since the last that succeeded.
    consecutive_failures integer NOT NULL DEFAULT 0
        CONSTRAINT jobs_consecutive_failures_check CHECK (consecutive_failures >= 0),
    last_failure_at timestamptz
);

CREATE TABLE job_runs (
    id uuid CONSTRAINT job_runs_pkey PRIMARY KEY,
    job_id text NOT NULL CONSTRAINT job_runs_job_fkey REFERENCES jobs (id),
    -- The instant it was due; for a manual run that at which somebody asked.
    slot timestamptz NOT NULL,
    trigger text NOT NULL CONSTRAINT job_runs_trigger_check CHECK (trigger IN ('schedule', 'manual', 'retry')),
    replica text NOT NULL,
    status text NOT NULL DEFAULT 'running'
        CONSTRAINT job_runs_status_check CHECK (status IN ('running', 'succeeded', 'failed', 'cancelled', 'abandoned')),
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    duration_ms bigint,
    items_handled bigint NOT NULL DEFAULT 0,
    error text,
    -- Renewed while it runs; past it the run is abandoned, whoever notices first.
    lease_until timestamptz NOT NULL,
    CONSTRAINT job_runs_finished_check CHECK ((status = 'running') = (finished_at IS NULL))
)
-- Rows are few and change twice: keep the visibility map fresh.
WITH (autovacuum_vacuum_scale_factor = 0.01);
-- A slot runs once, however many replicas there are.
CREATE UNIQUE INDEX job_runs_slot_key ON job_runs (job_id, slot) WHERE trigger = 'schedule';
-- One run of a job at a time, over all replicas.
CREATE UNIQUE INDEX job_runs_running_key ON job_runs (job_id) WHERE status = 'running';
CREATE INDEX job_runs_history_idx ON job_runs (job_id, started_at DESC, id DESC);
