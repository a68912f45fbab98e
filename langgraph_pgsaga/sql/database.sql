-- What tells whether a transaction whose answer was lost had been committed.

-- name: begin_transaction
-- The transaction's number.
-- columns: transaction text
-- shard: all, reads no table
select pg_catalog.pg_current_xact_id()::text as transaction;

-- name: get_outcome
-- Whether the transaction is 'committed', 'aborted' or 'in progress'; null where it is long gone.
-- params: transaction text
-- columns: outcome text
-- shard: all, reads no table
select pg_catalog.pg_xact_status($1::text::pg_catalog.xid8) as outcome;
