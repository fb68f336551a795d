-- Loom's own organisation: what it says of itself lies there. System admins are in it as long as they are
-- that; nobody owns it.

INSERT INTO organisations (id, slug, name, is_personal, created_at)
SELECT '00000000-0000-7000-8000-000000000001',
       CASE WHEN EXISTS (SELECT FROM organisations WHERE slug = 'loom-internal')
            THEN 'loom-internal-' || substr(md5(clock_timestamp()::text), 1, 8) ELSE 'loom-internal' END,
       'Loom itself', false, now();

INSERT INTO organisation_members (org_id, user_id, role, created_at)
SELECT '00000000-0000-7000-8000-000000000001', id, 'admin', now() FROM users WHERE is_system_admin;

CREATE FUNCTION internal_organisation_members() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.is_system_admin THEN
        INSERT INTO organisation_members (org_id, user_id, role, created_at)
        VALUES ('00000000-0000-7000-8000-000000000001', NEW.id, 'admin', now())
        ON CONFLICT (org_id, user_id) DO NOTHING;
    ELSE
        DELETE FROM organisation_members
         WHERE org_id = '00000000-0000-7000-8000-000000000001' AND user_id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
-- Who was invited and is no system admin stays.
CREATE TRIGGER users_internal_organisation AFTER UPDATE OF is_system_admin ON users
    FOR EACH ROW WHEN (OLD.is_system_admin IS DISTINCT FROM NEW.is_system_admin)
    EXECUTE FUNCTION internal_organisation_members();
CREATE TRIGGER users_internal_organisation_new AFTER INSERT ON users
    FOR EACH ROW WHEN (NEW.is_system_admin)
    EXECUTE FUNCTION internal_organisation_members();

INSERT INTO crash_projects (id, org_id, slug, name, platform, short_prefix, created_at, updated_at)
SELECT gen_random_uuid(), '00000000-0000-7000-8000-000000000001', slug, name, platform, prefix, now(), now()
  FROM (VALUES ('loom-server', 'Loom server', 'rust', 'SERVER'),
               ('loom-web', 'Loom dashboard', 'javascript', 'WEB'),
               ('loom-cli', 'Loom command line', 'rust', 'CLI')) AS own (slug, name, platform, prefix);
INSERT INTO crash_project_keys (id, org_id, project_id, name, public_key, created_at)
SELECT gen_random_uuid(), org_id, id, 'Loom', replace(gen_random_uuid()::text, '-', ''), now()
  FROM crash_projects WHERE org_id = '00000000-0000-7000-8000-000000000001';
