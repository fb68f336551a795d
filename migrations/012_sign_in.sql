-- Ways in: sessions, identities at providers, and the short-lived things of each way to sign in.
-- Every secret is here as its SHA-256 only, or not at all.

-- When the person last proved to receive mail there. Accounts are linked by an address only when it is set.
ALTER TABLE users ADD COLUMN email_verified_at timestamptz;

-- A signed-in browser or command-line client. Ended ones are deleted; the audit log remembers them.
CREATE TABLE user_sessions (
    id uuid CONSTRAINT user_sessions_pkey PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT user_sessions_user_fkey REFERENCES users (id),
    kind text NOT NULL CONSTRAINT user_sessions_kind_check CHECK (kind IN ('web', 'cli')),
    secret_sha256 bytea NOT NULL CONSTRAINT user_sessions_secret_key UNIQUE,
    -- How it came to be: a provider's name, magic_link, set_up or device.
    method text NOT NULL,
    -- What a command-line client calls itself.
    client text,
    user_agent text,
    ip text,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    -- Moves on with use, up to the last day that it may live at all.
    expires_at timestamptz NOT NULL,
    last_expires_at timestamptz NOT NULL
);
CREATE INDEX user_sessions_user_idx ON user_sessions (user_id, created_at DESC, id DESC);
CREATE INDEX user_sessions_expiry_idx ON user_sessions (expires_at);

-- A person as a provider knows them. Never found by e-mail address.
CREATE TABLE identities (
    id uuid CONSTRAINT identities_pkey PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT identities_user_fkey REFERENCES users (id),
    provider text NOT NULL,
    -- Subjects are unique at their issuer only: a provider that is pointed elsewhere knows other people.
    issuer text NOT NULL,
    subject text NOT NULL,
    -- What the provider last said, for people to tell their identities apart.
    email text,
    login text,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    CONSTRAINT identities_subject_key UNIQUE (provider, issuer, subject)
);
CREATE INDEX identities_user_idx ON identities (user_id);

-- Sign-ins under way at a provider. Nonce and PKCE verifier are derived from the state and the
-- browser's cookie, so that they are not here at all.
CREATE TABLE oauth_states (
    state_sha256 bytea CONSTRAINT oauth_states_pkey PRIMARY KEY,
    browser_sha256 bytea NOT NULL,
    provider text NOT NULL,
    redirect_to text NOT NULL,
    -- Set when a signed-in user connects an identity.
    user_id uuid CONSTRAINT oauth_states_user_fkey REFERENCES users (id),
    expires_at timestamptz NOT NULL
);
CREATE INDEX oauth_states_expiry_idx ON oauth_states (expires_at);

CREATE TABLE magic_links (
    id uuid CONSTRAINT magic_links_pkey PRIMARY KEY,
    email text NOT NULL,
    token_sha256 bytea NOT NULL CONSTRAINT magic_links_token_key UNIQUE,
    -- Of the code together with the browser's cookie: nobody finds the code by trying all of them.
    code_sha256 bytea NOT NULL,
    browser_sha256 bytea NOT NULL,
    redirect_to text NOT NULL,
    ip text NOT NULL,
    user_agent text,
    wrong_codes integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX magic_links_email_idx ON magic_links (email);
CREATE INDEX magic_links_browser_idx ON magic_links (browser_sha256);
CREATE INDEX magic_links_expiry_idx ON magic_links (expires_at);

-- RFC 8628. The token itself is made when an approved one is polled.
CREATE TABLE device_grants (
    id uuid CONSTRAINT device_grants_pkey PRIMARY KEY,
    device_sha256 bytea NOT NULL CONSTRAINT device_grants_device_key UNIQUE,
    user_code_sha256 bytea NOT NULL CONSTRAINT device_grants_user_code_key UNIQUE,
    client text NOT NULL,
    ip text NOT NULL,
    user_agent text,
    status text NOT NULL DEFAULT 'pending'
        CONSTRAINT device_grants_status_check CHECK (status IN ('pending', 'approved', 'denied')),
    user_id uuid CONSTRAINT device_grants_user_fkey REFERENCES users (id),
    interval_secs integer NOT NULL,
    polled_at timestamptz,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX device_grants_expiry_idx ON device_grants (expires_at);

-- Tokens for one WebSocket each; what they stand for is the credential that asked.
CREATE TABLE ws_tokens (
    token_sha256 bytea CONSTRAINT ws_tokens_pkey PRIMARY KEY,
    via text NOT NULL,
    -- Null: the development user.
    credential_sha256 bytea,
    expires_at timestamptz NOT NULL
);
CREATE INDEX ws_tokens_expiry_idx ON ws_tokens (expires_at);

-- Links that make the first admin.
CREATE TABLE setup_tokens (
    token_sha256 bytea CONSTRAINT setup_tokens_pkey PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
