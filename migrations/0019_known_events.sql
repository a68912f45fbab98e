-- serves: 0007
--
-- Events of steps are stored without a look for their ids before, since the insert tells.
--
-- Why: of a few rows the planner takes the primary key for as good as the ids' index, and a
-- connection that kept such a plan went through all of the tenant's events for each one.
--
-- Locks: none of what was there before.

create or replace function {schema}.pgsaga_append_each(events {schema}.pgsaga_new_event[]) returns integer
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
      on conflict do nothing;
      if found then
        stored := stored + 1;
        exit;
      end if;
      -- It is there already; or else somebody appended the version meanwhile.
      exit when exists (
        select from (
          select k.tenant_id, k.event_id
          from agent_events k
          where (k.tenant_id, k.event_id) >= (given.tenant_id, given.event_id)
          order by k.tenant_id, k.event_id
          limit 1
        ) k
        where k.tenant_id = given.tenant_id and k.event_id = given.event_id
      );
    end loop;
  end loop;
  return stored;
end
$$;
