-- Runs that are told to stop from another replica: the one that runs them sees it at its next look.

ALTER TABLE job_runs ADD COLUMN cancel_requested_at timestamptz;
