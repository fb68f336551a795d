-- Artifacts: source maps, scripts and debug files of projects. Contents lie in the object store (crates/crashes/src/
-- artifacts/store.rs); here is what they are, and what is found by what.

-- Objects of the store that nothing refers to. An upload writes its name here first and takes it out when its row
-- is there, so that what is cut off half-way is found and removed.
CREATE TABLE crash_loose_objects (
    location text CONSTRAINT crash_loose_objects_pkey PRIMARY KEY,
    -- Not before.
    remove_after timestamptz NOT NULL
);
CREATE INDEX crash_loose_objects_due_idx ON crash_loose_objects (remove_after);

-- Pieces of uploads, until they are put together; by their SHA-1.
CREATE TABLE crash_chunks (
    org_id uuid NOT NULL CONSTRAINT crash_chunks_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    sha1 bytea NOT NULL CONSTRAINT crash_chunks_sha1_check CHECK (octet_length(sha1) = 20),
    location text NOT NULL,
    size integer NOT NULL,
    -- Last sent or asked for.
    touched_at timestamptz NOT NULL,
    CONSTRAINT crash_chunks_pkey PRIMARY KEY (org_id, sha1)
);
CREATE INDEX crash_chunks_age_idx ON crash_chunks (touched_at);

-- Contents. Two artifacts of an organisation with the same content share one.
CREATE TABLE crash_blobs (
    org_id uuid NOT NULL CONSTRAINT crash_blobs_org_fkey REFERENCES organisations (id) ON DELETE CASCADE,
    sha256 bytea NOT NULL CONSTRAINT crash_blobs_sha256_check CHECK (octet_length(sha256) = 32),
    sha1 bytea NOT NULL CONSTRAINT crash_blobs_sha1_check CHECK (octet_length(sha1) = 20),
    location text NOT NULL,
    size bigint NOT NULL,
    -- How many artifacts have it.
    refs integer NOT NULL DEFAULT 0 CONSTRAINT crash_blobs_refs_check CHECK (refs >= 0),
    touched_at timestamptz NOT NULL,
    CONSTRAINT crash_blobs_pkey PRIMARY KEY (org_id, sha256)
);
CREATE INDEX crash_blobs_sha1_idx ON crash_blobs (org_id, sha1);
CREATE INDEX crash_blobs_unused_idx ON crash_blobs (touched_at) WHERE refs = 0;

CREATE TABLE crash_artifacts (
    id uuid CONSTRAINT crash_artifacts_pkey PRIMARY KEY,
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    sha256 bytea NOT NULL,
    kind text NOT NULL CONSTRAINT crash_artifacts_kind_check CHECK (kind IN (
        'source_map', 'minified_source', 'elf', 'mach_o', 'pe', 'pdb', 'portable_pdb', 'breakpad', 'wasm', 'proguard',
        'source_bundle', 'artifact_bundle')),
    name text NOT NULL,
    size bigint NOT NULL,
    -- '' is none.
    release text NOT NULL DEFAULT '',
    dist text NOT NULL DEFAULT '',
    uploaded_by text,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    CONSTRAINT crash_artifacts_content_key UNIQUE (project_id, sha256, release, dist, name),
    CONSTRAINT crash_artifacts_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE,
    -- Looked at when all is done: who removes an organisation removes both.
    CONSTRAINT crash_artifacts_blob_fkey FOREIGN KEY (org_id, sha256)
        REFERENCES crash_blobs (org_id, sha256) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX crash_artifacts_list_idx ON crash_artifacts (org_id, project_id, created_at DESC, id DESC);
CREATE INDEX crash_artifacts_used_idx ON crash_artifacts (last_used_at);
CREATE INDEX crash_artifacts_blob_idx ON crash_artifacts (org_id, sha256);

-- A blob knows how many artifacts have it also when a project goes, with all that is its own.
CREATE FUNCTION crash_artifacts_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE crash_blobs SET refs = refs + 1 WHERE org_id = NEW.org_id AND sha256 = NEW.sha256;
    ELSE
        UPDATE crash_blobs SET refs = refs - 1 WHERE org_id = OLD.org_id AND sha256 = OLD.sha256;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER crash_artifacts_count AFTER INSERT OR DELETE ON crash_artifacts
    FOR EACH ROW EXECUTE FUNCTION crash_artifacts_count();

-- Objects go after the rows, also those of an organisation that is removed.
CREATE FUNCTION crash_objects_loosen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO crash_loose_objects (location, remove_after) VALUES (OLD.location, '-infinity')
        ON CONFLICT (location) DO UPDATE SET remove_after = '-infinity';
    RETURN NULL;
END $$;
CREATE TRIGGER crash_blobs_loosen AFTER DELETE ON crash_blobs
    FOR EACH ROW EXECUTE FUNCTION crash_objects_loosen();
CREATE TRIGGER crash_chunks_loosen AFTER DELETE ON crash_chunks
    FOR EACH ROW EXECUTE FUNCTION crash_objects_loosen();

-- What is found in artifacts: one row for an object of a debug file (a fat one has several), and for a file of a
-- bundle.
CREATE TABLE crash_artifact_objects (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    artifact_id uuid NOT NULL
        CONSTRAINT crash_artifact_objects_artifact_fkey REFERENCES crash_artifacts (id) ON DELETE CASCADE,
    position integer NOT NULL,
    what text NOT NULL
        CONSTRAINT crash_artifact_objects_what_check CHECK (what IN ('debug', 'sources', 'mapping', 'script', 'source_map')),
    debug_id text,
    code_id text,
    arch text,
    -- symtab, debug, unwind, sources
    features text[] NOT NULL DEFAULT '{}',
    url text,
    -- The entry of the bundle; none: the file itself.
    entry text,
    -- Where the script's map is, as a bundle says it.
    source_map text,
    size bigint NOT NULL,
    CONSTRAINT crash_artifact_objects_pkey PRIMARY KEY (artifact_id, position)
);
CREATE INDEX crash_artifact_objects_debug_idx ON crash_artifact_objects (project_id, debug_id, what) WHERE debug_id IS NOT NULL;
CREATE INDEX crash_artifact_objects_code_idx ON crash_artifact_objects (project_id, code_id) WHERE code_id IS NOT NULL;
CREATE INDEX crash_artifact_objects_url_idx ON crash_artifact_objects (project_id, url) WHERE url IS NOT NULL;

-- Files that are being put together of chunks.
CREATE TABLE crash_assemblies (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    sha1 bytea NOT NULL CONSTRAINT crash_assemblies_sha1_check CHECK (octet_length(sha1) = 20),
    release text NOT NULL,
    dist text NOT NULL,
    name text NOT NULL,
    -- SHA-1 of each, one after the other.
    chunks bytea NOT NULL,
    state text NOT NULL CONSTRAINT crash_assemblies_state_check CHECK (state IN ('created', 'assembling', 'ok', 'error')),
    detail text,
    artifact_id uuid CONSTRAINT crash_assemblies_artifact_fkey REFERENCES crash_artifacts (id) ON DELETE CASCADE,
    uploaded_by text,
    -- Who works on it is gone when this has passed.
    claimed_until timestamptz,
    updated_at timestamptz NOT NULL,
    CONSTRAINT crash_assemblies_pkey PRIMARY KEY (project_id, sha1, release, dist),
    CONSTRAINT crash_assemblies_project_fkey FOREIGN KEY (org_id, project_id)
        REFERENCES crash_projects (org_id, id) ON DELETE CASCADE
);
CREATE INDEX crash_assemblies_age_idx ON crash_assemblies (updated_at);
CREATE INDEX crash_assemblies_artifact_idx ON crash_assemblies (artifact_id);
