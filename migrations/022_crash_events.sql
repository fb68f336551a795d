-- Events: taken as they come into crash_raw and crash_queue by one statement, then processed by any server
-- into crash_events, which is only ever added to.

-- What came, masked and compressed. By the day it came.
CREATE TABLE crash_raw (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    event_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    -- Zstandard of JSON.
    payload bytea NOT NULL,
    -- What surrounded it: address, user agent, sdk, key.
    delivery jsonb NOT NULL,
    CONSTRAINT crash_raw_pkey PRIMARY KEY (project_id, event_id, received_at)
) PARTITION BY RANGE (received_at);
CREATE TABLE crash_raw_default PARTITION OF crash_raw DEFAULT;
ALTER TABLE crash_raw ALTER COLUMN payload SET STORAGE EXTERNAL;

-- What is still to be processed. A row goes when its event is in crash_events.
CREATE TABLE crash_queue (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT crash_queue_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    event_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    -- True: it was processed before, and is to be once more.
    again boolean NOT NULL DEFAULT false,
    attempts integer NOT NULL DEFAULT 0,
    claimed_until timestamptz,
    -- Why it is not tried any more.
    parked_reason text,
    parked_at timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
-- What nobody has had yet, in the order that it came; and what somebody has, or had: again when the lease is over.
CREATE INDEX crash_queue_fresh_idx ON crash_queue (id) WHERE parked_at IS NULL AND claimed_until IS NULL;
CREATE INDEX crash_queue_claimed_idx ON crash_queue (claimed_until)
    WHERE parked_at IS NULL AND claimed_until IS NOT NULL;
CREATE INDEX crash_queue_parked_idx ON crash_queue (org_id, project_id, id) WHERE parked_at IS NOT NULL;

-- Which ids a project has had: an event that is sent twice counts once.
CREATE TABLE crash_event_ids (
    project_id uuid NOT NULL,
    event_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    CONSTRAINT crash_event_ids_pkey PRIMARY KEY (project_id, event_id)
);
CREATE INDEX crash_event_ids_age_idx ON crash_event_ids USING brin (received_at);

CREATE TABLE crash_issues (
    id uuid CONSTRAINT crash_issues_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    -- With the project's prefix: its short id.
    number bigint NOT NULL,
    title text NOT NULL,
    culprit text,
    kind text,
    value text,
    level text NOT NULL
        CONSTRAINT crash_issues_level_check CHECK (level IN ('fatal', 'error', 'warning', 'info', 'debug')),
    platform text,
    status text NOT NULL DEFAULT 'unresolved'
        CONSTRAINT crash_issues_status_check CHECK (status IN ('unresolved', 'resolved', 'ignored', 'regressed')),
    priority text NOT NULL DEFAULT 'medium'
        CONSTRAINT crash_issues_priority_check CHECK (priority IN ('high', 'medium', 'low')),
    resolved_at timestamptz,
    resolved_by uuid,
    -- The release that it is resolved in; an older one does not bring it back.
    resolved_in_release text,
    ignored_until timestamptz,
    times_regressed integer NOT NULL DEFAULT 0,
    regressed_at timestamptz,
    regressed_in_release text,
    assigned_to uuid CONSTRAINT crash_issues_assigned_fkey REFERENCES users (id) ON DELETE SET NULL,
    -- Its events were moved to this one.
    merged_into uuid,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    first_release text,
    last_release text,
    event_count bigint NOT NULL DEFAULT 0,
    user_count bigint NOT NULL DEFAULT 0,
    -- A sketch of the distinct users, see crates/crashes/src/users.rs.
    users bytea NOT NULL DEFAULT '',
    -- Of title, culprit, kind and value: what free text is searched in.
    tsv tsvector NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT crash_issues_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE,
    CONSTRAINT crash_issues_number_key UNIQUE (project_id, number)
) WITH (fillfactor = 80);
CREATE INDEX crash_issues_last_idx ON crash_issues (org_id, project_id, last_seen DESC, id DESC);
CREATE INDEX crash_issues_first_idx ON crash_issues (org_id, project_id, first_seen DESC, id DESC);
CREATE INDEX crash_issues_events_idx ON crash_issues (org_id, project_id, event_count DESC, id DESC);
CREATE INDEX crash_issues_users_idx ON crash_issues (org_id, project_id, user_count DESC, id DESC);
CREATE INDEX crash_issues_tsv_idx ON crash_issues USING gin (org_id, project_id, tsv);

-- Which issue events of a hash belong to; several hashes may lead to one issue.
CREATE TABLE crash_grouping_hashes (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    hash bytea NOT NULL CONSTRAINT crash_grouping_hashes_check CHECK (octet_length(hash) = 16),
    issue_id uuid NOT NULL CONSTRAINT crash_grouping_hashes_issue_fkey REFERENCES crash_issues (id) ON DELETE CASCADE,
    -- The issue that it made or joined by itself, for an unmerge.
    own_issue_id uuid NOT NULL,
    algorithm text NOT NULL,
    -- Why: the parts that were hashed.
    components jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT crash_grouping_hashes_pkey PRIMARY KEY (project_id, hash)
);
CREATE INDEX crash_grouping_hashes_issue_idx ON crash_grouping_hashes (issue_id);

-- Processed events. By the day they came; the raw form has what is not here.
CREATE TABLE crash_events (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    event_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    issue_id uuid NOT NULL,
    hash bytea NOT NULL,
    -- When it happened, by our clock.
    at timestamptz NOT NULL,
    level text NOT NULL,
    title text NOT NULL,
    release text,
    dist text,
    environment text,
    platform text,
    transaction text,
    user_label text,
    trace_id text,
    session_id text,
    thread_id uuid,
    tags jsonb NOT NULL DEFAULT '{}',
    -- What processing found out: frames with their symbols, what was missing, errors. Zstandard of JSON.
    processed bytea NOT NULL,
    CONSTRAINT crash_events_pkey PRIMARY KEY (project_id, event_id, received_at)
) PARTITION BY RANGE (received_at);
CREATE TABLE crash_events_default PARTITION OF crash_events DEFAULT;
ALTER TABLE crash_events ALTER COLUMN processed SET STORAGE EXTERNAL;
CREATE INDEX crash_events_issue_idx ON crash_events (org_id, issue_id, received_at DESC, event_id DESC);
CREATE INDEX crash_events_trace_idx ON crash_events (org_id, trace_id) WHERE trace_id IS NOT NULL;

-- Events of an issue by the hour, and by environment ('' is none).
CREATE TABLE crash_issue_hours (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    issue_id uuid NOT NULL CONSTRAINT crash_issue_hours_issue_fkey REFERENCES crash_issues (id) ON DELETE CASCADE,
    hour timestamptz NOT NULL,
    environment text NOT NULL,
    events bigint NOT NULL,
    CONSTRAINT crash_issue_hours_pkey PRIMARY KEY (issue_id, hour, environment)
) WITH (fillfactor = 80);
CREATE INDEX crash_issue_hours_project_idx ON crash_issue_hours (org_id, project_id, hour);

-- Values of tags (release, environment, level, user and others are tags, too), counted per issue.
CREATE TABLE crash_issue_tags (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    issue_id uuid NOT NULL CONSTRAINT crash_issue_tags_issue_fkey REFERENCES crash_issues (id) ON DELETE CASCADE,
    key text NOT NULL,
    value text NOT NULL,
    events bigint NOT NULL,
    last_seen timestamptz NOT NULL,
    CONSTRAINT crash_issue_tags_pkey PRIMARY KEY (issue_id, key, value)
) WITH (fillfactor = 80);
CREATE INDEX crash_issue_tags_value_idx ON crash_issue_tags (org_id, project_id, key, value, issue_id);

-- Created on sight.
CREATE TABLE crash_releases (
    id uuid CONSTRAINT crash_releases_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    version text NOT NULL,
    -- Sorts as semantic versions do, where it is one; see crates/crashes/src/release/order.rs.
    sort_key text,
    created_at timestamptz NOT NULL,
    first_event timestamptz,
    last_event timestamptz,
    events bigint NOT NULL DEFAULT 0,
    released_at timestamptz,
    url text,
    CONSTRAINT crash_releases_version_key UNIQUE (project_id, version),
    CONSTRAINT crash_releases_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 80);
-- New issues of a project by the hour: those beyond its limit are folded into one.
CREATE TABLE crash_new_issues (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    hour timestamptz NOT NULL,
    issues integer NOT NULL,
    CONSTRAINT crash_new_issues_pkey PRIMARY KEY (project_id, hour),
    CONSTRAINT crash_new_issues_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);

-- Which files the events of an issue lack: what an upload makes worth processing anew.
CREATE TABLE crash_missing_files (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    -- A debug id, or the address of a script.
    wanted text NOT NULL,
    issue_id uuid NOT NULL CONSTRAINT crash_missing_files_issue_fkey REFERENCES crash_issues (id) ON DELETE CASCADE,
    last_seen timestamptz NOT NULL,
    CONSTRAINT crash_missing_files_pkey PRIMARY KEY (project_id, wanted, issue_id)
);
CREATE INDEX crash_missing_files_issue_idx ON crash_missing_files (issue_id);

-- What alerts are to be told of, written with what it tells; a row goes when it was looked at.
CREATE TABLE crash_alert_signals (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT crash_alert_signals_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    issue_id uuid NOT NULL,
    event_id uuid NOT NULL,
    kind text NOT NULL CONSTRAINT crash_alert_signals_kind_check CHECK (kind IN ('new', 'regressed')),
    at timestamptz NOT NULL
);

-- Files that came with events.
CREATE TABLE crash_attachments (
    id uuid CONSTRAINT crash_attachments_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    event_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    name text NOT NULL,
    content_type text,
    kind text NOT NULL,
    size bigint NOT NULL,
    sha256 bytea NOT NULL,
    content bytea NOT NULL,
    -- A file that is sent twice is there once.
    CONSTRAINT crash_attachments_once_key UNIQUE (project_id, event_id, kind, name, sha256)
);
ALTER TABLE crash_attachments ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX crash_attachments_age_idx ON crash_attachments (project_id, received_at);

-- What users say of events.
CREATE TABLE crash_feedback (
    id uuid CONSTRAINT crash_feedback_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    event_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    name text,
    email text,
    message text NOT NULL,
    CONSTRAINT crash_feedback_message_check CHECK (length(message) <= 4096)
);
-- Not the message itself: an index holds no text so long.
CREATE UNIQUE INDEX crash_feedback_once_key ON crash_feedback (project_id, event_id, md5(message));
CREATE INDEX crash_feedback_age_idx ON crash_feedback (project_id, received_at);

CREATE INDEX crash_releases_list_idx ON crash_releases (org_id, project_id, created_at DESC, id DESC);

DO $$
DECLARE
    day date := (now() AT TIME ZONE 'UTC')::date;
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['crash_raw', 'crash_events'] LOOP
        FOR n IN 0..7 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                parent || '_' || to_char(day + n, 'YYYY_MM_DD'), parent,
                (day + n)::text || ' 00:00:00+00', (day + n + 1)::text || ' 00:00:00+00');
        END LOOP;
    END LOOP;
END $$;
