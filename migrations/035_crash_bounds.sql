-- What anybody who has a DSN can make rows of has an end.

-- Environments of a project: those beyond its limit are counted as one.
CREATE TABLE crash_environments (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    name text NOT NULL,
    -- To the hour.
    last_seen timestamptz NOT NULL,
    CONSTRAINT crash_environments_pkey PRIMARY KEY (project_id, name),
    CONSTRAINT crash_environments_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);
INSERT INTO crash_environments (org_id, project_id, name, last_seen)
SELECT h.org_id, h.project_id, h.environment, max(h.hour)
  FROM crash_issue_hours h JOIN crash_projects p ON p.org_id = h.org_id AND p.id = h.project_id
 WHERE h.environment <> '' GROUP BY 1, 2, 3;

-- New releases of the hour, beside the new issues.
ALTER TABLE crash_new_issues ADD COLUMN releases integer NOT NULL DEFAULT 0;
-- Made by an event, and nobody has said anything of it since: goes with its last event.
ALTER TABLE crash_releases ADD COLUMN on_sight boolean NOT NULL DEFAULT false;
CREATE INDEX crash_releases_on_sight_idx ON crash_releases (project_id, last_event) WHERE on_sight;

-- Events that were folded into the notice of too many new issues have the notice's hash: they follow it.
UPDATE crash_events e SET hash = n.hash
  FROM crash_grouping_hashes n
 WHERE n.hash = 'loom-many-issues'::bytea AND e.org_id = n.org_id AND e.issue_id = n.issue_id AND e.project_id = n.project_id
   AND NOT EXISTS (SELECT FROM crash_grouping_hashes o WHERE o.project_id = e.project_id AND o.hash = e.hash);

-- Is an event to be processed again already?
CREATE INDEX crash_queue_again_idx ON crash_queue (project_id, event_id) WHERE again;

-- Values of tags by their beginning, whatever the case: `user.id:77*`.
CREATE INDEX crash_issue_tags_prefix_idx
    ON crash_issue_tags (org_id, project_id, key, lower(value) text_pattern_ops, issue_id);

-- Where webhooks of features lead may be a secret, as with Slack: sealed (crate vault, bound to the row's id);
-- `url` then has scheme and host only. Rows from before are sealed when a server starts.
ALTER TABLE webhooks ADD COLUMN sealed_url bytea;
