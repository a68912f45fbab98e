-- serves: 0007
--
-- Events that are appended within another statement, such as the one that stores a checkpoint.
--
-- Why: a thread's checkpoint and what is told of it are there both, or neither, and take one round
-- trip together.
--
-- The function is one for its snapshots: each of its statements sees what was committed while the one
-- before waited, so it finds an aggregate's next version whatever others append meanwhile. Its
-- events come sorted by aggregate, so two that append to the same ones can't wait for each other.
--
-- Locks: none of what was there before.

create type {schema}.pgsaga_new_event as (
  -- Of the call that they are stored with.
  session_id uuid,
  is_dependent boolean,
  -- As in agent_events.
  tenant_id text,
  aggregate_id text,
  aggregate_type text,
  event_id text,
  event_type text,
  event_data jsonb,
  correlation_id text,
  causation_id text,
  checkpoint_id text,
  happened_at timestamptz
);

create function {schema}.pgsaga_append_each(events {schema}.pgsaga_new_event[]) returns integer
  language plpgsql volatile
  set search_path from current
as $$
declare
  own_tx constant xid8 := pg_catalog.pg_current_xact_id();
  now_era integer;
  given pgsaga_new_event;
  stored integer := 0;
begin
  select l.era into now_era
  from (
    select e.era, e.system_identifier from event_eras e order by e.era desc limit 1
  ) l
  join pg_catalog.pg_control_system() c on c.system_identifier = l.system_identifier;
  if now_era is null then
    insert into event_eras (era, system_identifier)
    select coalesce((select max(e.era) from event_eras e), 0) + 1, c.system_identifier
    from pg_catalog.pg_control_system() c
    on conflict (era) do nothing;
    select max(e.era) into now_era from event_eras e;
  end if;
  foreach given in array events loop
    loop
      insert into agent_events (
        tenant_id, aggregate_id, aggregate_type, version, era, tx, event_id, event_type, event_data,
        correlation_id, causation_id, session_id, checkpoint_id, timestamp
      )
      select
        given.tenant_id, given.aggregate_id, given.aggregate_type, coalesce(s.version, 0) + 1,
        now_era, greatest(own_tx, s.tx), given.event_id, given.event_type, given.event_data,
        given.correlation_id, given.causation_id, given.session_id, given.checkpoint_id,
        given.happened_at
      from (select) one
      left join lateral (
        select e.version, case when e.era = now_era then e.tx end as tx
        from agent_events e
        where e.tenant_id = given.tenant_id and e.aggregate_id = given.aggregate_id
          and e.aggregate_type = given.aggregate_type
        order by e.version desc
        limit 1
      ) s on true
      where not exists (
        select from agent_events k
        where k.tenant_id = given.tenant_id and k.event_id = given.event_id
      )
      on conflict do nothing;
      if found then
        stored := stored + 1;
        exit;
      end if;
      -- It is there already; or else somebody appended the version meanwhile.
      exit when exists (
        select from agent_events k
        where k.tenant_id = given.tenant_id and k.event_id = given.event_id
      );
    end loop;
  end loop;
  return stored;
end
$$;

comment on function {schema}.pgsaga_append_each({schema}.pgsaga_new_event[]) is
  'Appends each of the events to its aggregate, behind whatever is there, but for those whose ids '
  'are there; gives how many it appended.';
