-- Cron monitors: when some server was last there to be told of runs. One row, written by every server each few
-- seconds: as long as one is there, so is the service.

CREATE TABLE cron_presence (
    id boolean CONSTRAINT cron_presence_pkey PRIMARY KEY DEFAULT true CONSTRAINT cron_presence_one CHECK (id),
    alive_at timestamptz NOT NULL
) WITH (fillfactor = 50);
INSERT INTO cron_presence (alive_at) SELECT swept_at FROM cron_sweeps;
