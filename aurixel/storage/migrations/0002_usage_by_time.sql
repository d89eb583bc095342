-- Reading an account's records in the order they happened, from any instant on.
CREATE INDEX usage_by_time ON usage (account, at_ms, request_id);
