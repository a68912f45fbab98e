-- serves: 0007
--
-- A time some seconds after another, as a function that is immutable.
--
-- Why: `timestamptz + interval` counts as stable, since an interval may have months and days.
-- Where the tables are distributed by Citus, an UPDATE that sets a column by it is refused.
-- Seconds know no time zone. It is plpgsql, since a function in SQL would be inlined, and with
-- that be the operator again.
--
-- Locks: none.

create function {schema}.pgsaga_after(at timestamptz, seconds double precision)
  returns timestamptz
  language plpgsql immutable strict parallel safe
as $$
begin
  return at + seconds * interval '1 second';
end
$$;

comment on function {schema}.pgsaga_after(timestamptz, double precision) is
  'The time that many seconds later; immutable, as Citus wants it in UPDATE and ON CONFLICT.';
