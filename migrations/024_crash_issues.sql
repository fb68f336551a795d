-- What people do with issues: who did what, events that follow a merge, and the order that lists are read in.

-- Resolved in the next release: none that is not newer than this one brings it back.
ALTER TABLE crash_issues ADD COLUMN resolved_after_release text;

-- Who did what to an issue, and what was said of it.
CREATE TABLE crash_issue_activity (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT crash_issue_activity_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    issue_id uuid NOT NULL CONSTRAINT crash_issue_activity_issue_fkey REFERENCES crash_issues (id) ON DELETE CASCADE,
    at timestamptz NOT NULL,
    -- As `resolved`, `assigned`, `regressed`, `comment`.
    action text NOT NULL,
    -- None: the server itself did it.
    actor_id uuid,
    -- As it was called then.
    actor_name text,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX crash_issue_activity_list_idx ON crash_issue_activity (org_id, issue_id, id DESC);

-- Events that are still to follow their hash to another issue, or into nothing: with many of them that
-- takes a while. Lists look here, too, so that they are right in the meantime.
CREATE TABLE crash_event_moves (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT crash_event_moves_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    from_issue uuid NOT NULL,
    -- None: they are deleted.
    to_issue uuid,
    hash bytea NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT crash_event_moves_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);
CREATE INDEX crash_event_moves_from_idx ON crash_event_moves (org_id, from_issue);
CREATE INDEX crash_event_moves_to_idx ON crash_event_moves (org_id, to_issue) WHERE to_issue IS NOT NULL;

-- What is open is what most look at, and the least of all there is.
CREATE INDEX crash_issues_open_idx ON crash_issues (org_id, project_id, last_seen DESC, id DESC)
    WHERE merged_into IS NULL AND status IN ('unresolved', 'regressed');
-- All projects of an organisation.
CREATE INDEX crash_issues_org_idx ON crash_issues (org_id, last_seen DESC, id DESC) WHERE merged_into IS NULL;
CREATE INDEX crash_issues_assigned_idx ON crash_issues (org_id, assigned_to, last_seen DESC)
    WHERE assigned_to IS NOT NULL;
CREATE INDEX crash_issues_wake_idx ON crash_issues (ignored_until)
    WHERE status = 'ignored' AND ignored_until IS NOT NULL;
CREATE INDEX crash_issues_merged_idx ON crash_issues (org_id, merged_into) WHERE merged_into IS NOT NULL;

-- How common a value of a tag is decides whether a list is read in order or from the tag.
CREATE STATISTICS crash_issue_tags_values (mcv) ON org_id, project_id, key, value FROM crash_issue_tags;
