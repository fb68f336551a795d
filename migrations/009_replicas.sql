-- The servers that run on this database. Each writes its own row while it serves; a row whose server
-- went without a word is removed by the others.
CREATE TABLE replicas (
    id         uuid        NOT NULL CONSTRAINT replicas_pkey PRIMARY KEY,
    -- As in job_runs: host and process.
    name       text        NOT NULL,
    version    text        NOT NULL,
    -- Where the others reach it; null when it listens for itself alone.
    address    text,
    started_at timestamptz NOT NULL,
    last_seen  timestamptz NOT NULL
);
