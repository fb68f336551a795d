-- Runs that are told to stop from another replica: the one that runs them sees it at its next look.
-- Attempts: a run that may go well soon is tried again, on whichever replica.

ALTER TABLE job_runs
    ADD COLUMN cancel_requested_at timestamptz,
    ADD COLUMN attempt integer NOT NULL DEFAULT 1
        CONSTRAINT job_runs_attempt_check CHECK (attempt >= 1),
    -- Slots before its own that nobody took, as while no server was up.
    ADD COLUMN missed_slots integer NOT NULL DEFAULT 0
        CONSTRAINT job_runs_missed_slots_check CHECK (missed_slots >= 0);

ALTER TABLE jobs
    -- The next attempt at a slot that was run and not done; all three or none.
    ADD COLUMN retry_at timestamptz,
    ADD COLUMN retry_slot timestamptz,
    ADD COLUMN retry_attempt integer,
    ADD CONSTRAINT jobs_retry_check CHECK (num_nulls(retry_at, retry_slot, retry_attempt) IN (0, 3));
