-- For the clean-up by age. Rows come in the order of time, so that a block range index finds them, and
-- costs an insert next to nothing.
CREATE INDEX llm_requests_started_idx ON llm_requests USING brin (started_at);
