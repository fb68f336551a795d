-- no-transaction
-- Threads that say to which trace they belong.
CREATE INDEX CONCURRENTLY IF NOT EXISTS threads_trace_idx
    ON threads (org_id, (extra ->> 'trace_id')) WHERE extra ->> 'trace_id' IS NOT NULL;
