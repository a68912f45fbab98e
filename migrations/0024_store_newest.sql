-- serves: 0007
--
-- Items of the store are found by their key from the first row on.
--
-- Why: of a few rows the planner took the index of the newest, which has the key as its last column,
-- for as good as the primary key. A connection that kept such a plan, also the one by which the server
-- checks the items of vectors, went through all items of the namespace for each key. The index has
-- a condition now that each item meets, and that only searches for the newest say.
--
-- Locks: writes of the store wait while the index is made, some seconds for a million items.

drop index {schema}.agent_store_items_newest_idx;
create index agent_store_items_newest_idx on {schema}.agent_store_items
  (tenant_id, namespace, updated_at desc, key) where version > 0;
