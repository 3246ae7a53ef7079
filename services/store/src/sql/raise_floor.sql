-- Raises the floor, never lowers it, and notes where it was a minute ago. Called by the scheduler.
update floor set
  forget_through = case when noted_at < now() - interval '1 minute' then noted else forget_through end,
  noted = case when noted_at < now() - interval '1 minute' then revision else noted end,
  noted_at = case when noted_at < now() - interval '1 minute' then now() else noted_at end,
  revision = greatest(revision, $1)
where revision < $1 or (forget_through < revision and noted_at < now() - interval '1 minute')
