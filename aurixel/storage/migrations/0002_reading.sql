-- An account's records in the order they happened, from any instant on; and the nodes that are not done: the done ones,
-- one for each start of a process, only grow in number.
CREATE INDEX usage_by_time ON usage (account, at_ms, request_id);
CREATE INDEX nodes_by_state ON nodes (state, inc);
