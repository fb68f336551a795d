-- Larger attachments lie in the object store of artifacts; `content` is then empty.
ALTER TABLE crash_attachments ADD COLUMN location text;
CREATE TRIGGER crash_attachments_loosen AFTER DELETE ON crash_attachments
    FOR EACH ROW WHEN (OLD.location IS NOT NULL) EXECUTE FUNCTION crash_objects_loosen();
