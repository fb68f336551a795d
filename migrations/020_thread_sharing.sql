-- Read-only links to threads, and what an organisation wants done with what it stores.

-- One link a thread: a new one takes the old one's place.
CREATE TABLE thread_shares (
    org_id uuid NOT NULL,
    thread_id uuid NOT NULL,
    -- SHA-256 of the token in the link.
    token_hash bytea NOT NULL CONSTRAINT thread_shares_token_key UNIQUE,
    created_by uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    -- What is shown ends with this message; null: it goes on with the thread.
    through_seq bigint,
    -- What looks like a secret is masked in what is shown.
    redact boolean NOT NULL,
    CONSTRAINT thread_shares_pkey PRIMARY KEY (org_id, thread_id),
    CONSTRAINT thread_shares_thread_fkey
        FOREIGN KEY (org_id, thread_id) REFERENCES threads (org_id, id) ON DELETE CASCADE
);

CREATE TABLE thread_settings (
    org_id uuid CONSTRAINT thread_settings_pkey PRIMARY KEY
        CONSTRAINT thread_settings_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    -- What looks like a secret is masked before anything is stored.
    redact_secrets boolean NOT NULL,
    updated_at timestamptz NOT NULL
);
