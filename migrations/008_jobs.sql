-- Jobs: fencing by term, alerts, and what is kept of old runs.

ALTER TABLE jobs
    -- Raised by each claim: whoever holds a lower one has been overtaken.
    ADD COLUMN term bigint NOT NULL DEFAULT 0,
    -- Since when the admins know that it keeps failing; null again once it succeeds.
    ADD COLUMN alerted_at timestamptz;

ALTER TABLE job_runs
    ADD COLUMN term bigint NOT NULL DEFAULT 0,
    -- The slot that was taken before this one: nobody took those in between. Null for one that was not
    -- taken from the schedule; missed_slots is what servers before this version counted.
    ADD COLUMN previous_slot timestamptz;

-- What old runs came to, per job and day (UTC) on which they started.
CREATE TABLE job_run_days (
    job_id text NOT NULL CONSTRAINT job_run_days_job_fkey REFERENCES jobs (id),
    day date NOT NULL,
    runs bigint NOT NULL,
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    abandoned bigint NOT NULL,
    -- Runs that were a further attempt at their slot.
    retried bigint NOT NULL,
    items_handled bigint NOT NULL,
    total_duration_ms bigint NOT NULL,
    max_duration_ms bigint NOT NULL,
    CONSTRAINT job_run_days_pkey PRIMARY KEY (job_id, day),
    CONSTRAINT job_run_days_runs_check CHECK (runs = succeeded + failed + cancelled + abandoned)
);
