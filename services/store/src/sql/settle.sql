-- Records how far the event stream is settled, if it is still the one in which it is; never lowers it. Called by the scheduler, before anything
-- is purged. Lock order: streams before floor.
with stream as (select from streams where name = $2 and resets = $3 for share)
update floor set
  forget_through = case when noted_at < now() - interval '1 minute' then noted else forget_through end,
  noted = case when noted_at < now() - interval '1 minute' then revision else noted end,
  noted_at = case when noted_at < now() - interval '1 minute' then now() else noted_at end,
  revision = greatest(revision, $1)
from stream
where revision < $1 or (forget_through < revision and noted_at < now() - interval '1 minute')
