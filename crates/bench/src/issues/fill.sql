-- Issues and events of a project over 30 days; a few issues have most of the events. In braces is what is put in.
CREATE TEMP TABLE template ON COMMIT DROP AS
    SELECT processed, payload, delivery FROM crash_events JOIN crash_raw USING (project_id, event_id, received_at)
     WHERE event_id = '{event}';
DELETE FROM crash_issues WHERE project_id = '{project}';
DELETE FROM crash_events WHERE project_id = '{project}';
DELETE FROM crash_raw WHERE project_id = '{project}';
CREATE TEMP TABLE words ON COMMIT DROP AS
    SELECT n, (ARRAY['order','cart','user','token','queue','cache','price','stock','mail','image','thread','socket',
                     'ledger','route','index','batch','frame','query','report','session'])[1 + n % 20]
              || substr(md5(n::text), 1, 1 + n % 4) AS word FROM generate_series(0, 1999) n;
CREATE UNIQUE INDEX ON words (n);
CREATE TEMP TABLE made ON COMMIT DROP AS
    SELECT g.n, gen_random_uuid() AS id, decode(md5('{project}' || g.n), 'hex') AS hash,
           (ARRAY['ValueError','TypeError','KeyError','HTTPError','TimeoutError','ConnectionError'])[1 + g.n % 6] AS kind,
           (SELECT string_agg(word, ' ') FROM words w
             WHERE w.n IN (g.n % 2000, g.n % 299, g.n % 37, g.n * 31 % 2000)) AS value,
           'shop/' || (SELECT word FROM words w WHERE w.n = g.n % 500) || '.py in step_' || g.n % 97 AS culprit
      FROM generate_series(1, {issues}) g(n);
CREATE TEMP TABLE sent ON COMMIT DROP AS
    SELECT m.n, m.id AS issue, m.hash, m.kind, m.value, e.k,
           now() - interval '30 days' * power(random(), 1.5) AS at, e.k % 5000 AS person,
           CASE WHEN e.k % 10 < 8 THEN 'production' ELSE 'staging' END AS environment,
           '1.' || (e.k % 20) || '.0' AS release
      FROM (SELECT k, 1 + floor({issues} * power(random(), 3))::int AS n FROM generate_series(1, {events}) k) e
      JOIN made m ON m.n = e.n;
INSERT INTO crash_issues (id, org_id, project_id, number, title, culprit, kind, value, level, status, priority, platform,
       assigned_to, first_seen, last_seen, first_release, last_release, event_count, user_count, tsv, created_at, updated_at)
SELECT m.id, '{org}', '{project}', m.n, m.kind || ': ' || m.value, m.culprit, m.kind, m.value,
       (ARRAY['error','error','error','error','error','error','error','warning','warning','fatal'])[1 + m.n / 10 % 10],
       (ARRAY['unresolved','unresolved','unresolved','unresolved','unresolved','unresolved','regressed','resolved','resolved','ignored'])[1 + m.n % 10],
       (ARRAY['medium','medium','high','low'])[1 + m.n % 4], 'python',
       CASE WHEN m.n % 10 = 3 THEN '{user}'::uuid END,
       s.first, s.last, '1.0.0', '1.19.0', s.events, s.users,
       to_tsvector('simple', m.kind || ' ' || regexp_replace(m.kind, '([a-z])([A-Z])', '\1 \2', 'g') || ' ' || m.value || ' ' || replace(m.culprit, '/', ' ')), s.first, s.last
  FROM made m JOIN (SELECT n, min(at) AS first, max(at) AS last, count(*) AS events, count(DISTINCT person) AS users
                      FROM sent GROUP BY n) s ON s.n = m.n;
INSERT INTO crash_grouping_hashes (org_id, project_id, hash, issue_id, own_issue_id, algorithm, components, created_at)
SELECT org_id, project_id, m.hash, m.id, m.id, 'loom-1', '[]', now() FROM made m JOIN crash_issues i ON i.id = m.id;
INSERT INTO crash_events (org_id, project_id, event_id, received_at, issue_id, hash, at, level, title, release, environment,
       platform, user_label, tags, processed)
SELECT '{org}', '{project}', gen_random_uuid(), s.at, s.issue, s.hash, s.at, 'error', s.kind || ': ' || s.value, s.release,
       s.environment, 'python', 'id:' || s.person,
       jsonb_build_object('level', 'error', 'environment', s.environment, 'release', s.release, 'user', 'id:' || s.person,
           'server_name', 'web-' || s.k % 12, 'region', (ARRAY['eu','us','ap'])[1 + s.k % 3], 'route', '/checkout/' || s.n % 400,
           'browser', 'Firefox ' || s.k % 30, 'os', (ARRAY['Linux','Windows','macOS'])[1 + s.k % 3], 'handled', 'no'),
       x.processed
  FROM sent s, template x;
INSERT INTO crash_raw (org_id, project_id, event_id, received_at, payload, delivery)
SELECT org_id, project_id, event_id, received_at, x.payload, x.delivery
  FROM (SELECT DISTINCT ON (issue_id) org_id, project_id, event_id, received_at FROM crash_events
         WHERE project_id = '{project}' ORDER BY issue_id, received_at DESC, event_id DESC) e,
       template x;
INSERT INTO crash_issue_hours (org_id, project_id, issue_id, hour, environment, events)
SELECT '{org}', '{project}', issue, date_trunc('hour', at), environment, count(*) FROM sent GROUP BY 3, 4, 5;
INSERT INTO crash_issue_tags (org_id, project_id, issue_id, key, value, events, last_seen)
SELECT '{org}', '{project}', issue_id, key, value, events, last FROM (
    SELECT issue_id, t.key, t.value, count(*) AS events, max(at) AS last,
           row_number() OVER (PARTITION BY issue_id, t.key ORDER BY min(at)) AS place
      FROM crash_events e CROSS JOIN LATERAL jsonb_each_text(e.tags) t
     WHERE e.project_id = '{project}' GROUP BY 1, 2, 3) counted
 WHERE place <= 200;
INSERT INTO crash_releases (id, org_id, project_id, version, created_at, first_event, last_event, events)
SELECT gen_random_uuid(), '{org}', '{project}', release, min(at), min(at), max(at), count(*) FROM sent GROUP BY release;
