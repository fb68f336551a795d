-- Mail and webhooks: who is called, and one row for each thing that is sent.

-- Whom to call. Without an organisation it is the installation's own, for its alerts.
CREATE TABLE webhooks (
    id uuid CONSTRAINT webhooks_pkey PRIMARY KEY,
    org_id uuid CONSTRAINT webhooks_org_fkey REFERENCES organisations (id),
    name text NOT NULL,
    url text NOT NULL,
    -- Signs what is sent; sealed (envelope encryption, crate vault), bound to this row's id.
    sealed_secret bytea NOT NULL,
    -- What it wants to hear of; empty for everything.
    kinds text[] NOT NULL DEFAULT '{}',
    enabled boolean NOT NULL DEFAULT true,
    -- Why it was switched off when nobody did it by hand.
    disabled_reason text,
    -- Deliveries in a row that were given up.
    failures int NOT NULL DEFAULT 0,
    created_by uuid CONSTRAINT webhooks_created_by_fkey REFERENCES users (id),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX webhooks_org_idx ON webhooks (org_id, created_at, id);

-- The queue and, for a month, the log.
CREATE TABLE deliveries (
    id uuid CONSTRAINT deliveries_pkey PRIMARY KEY,
    org_id uuid,
    kind text NOT NULL,
    -- What an alert is about: while one waits, a second of the same kind and key is not queued.
    key text,
    channel text NOT NULL CONSTRAINT deliveries_channel_check CHECK (channel IN ('mail', 'webhook')),
    webhook_id uuid CONSTRAINT deliveries_webhook_fkey REFERENCES webhooks (id) ON DELETE SET NULL,
    -- An e-mail address, or scheme and host of a webhook: its path may be a secret.
    target text NOT NULL,
    subject text NOT NULL,
    state text NOT NULL DEFAULT 'pending'
        CONSTRAINT deliveries_state_check CHECK (state IN ('pending', 'delivering', 'delivered', 'failed', 'expired')),
    -- Attempts begun; whoever records a result names the one it was.
    attempt int NOT NULL DEFAULT 0,
    -- When somebody has to look at it: pending for the next attempt, delivering because the lease ends.
    due_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    -- Of no use afterwards. What has it holds a secret, and is erased as soon as it ends, however.
    expires_at timestamptz,
    finished_at timestamptz,
    -- By which way it went: smtp, outbox, http.
    via text,
    status_code int,
    last_error text,
    -- What is sent; sealed, bound to this row's id; gone when it was sent.
    sealed_payload bytea
);
CREATE INDEX deliveries_due_idx ON deliveries (channel, due_at, id) WHERE state IN ('pending', 'delivering');
CREATE INDEX deliveries_time_idx ON deliveries (created_at DESC, id DESC);
CREATE INDEX deliveries_state_idx ON deliveries (state, created_at DESC, id DESC);
CREATE INDEX deliveries_webhook_idx ON deliveries (webhook_id) WHERE webhook_id IS NOT NULL;
