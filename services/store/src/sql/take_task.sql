-- Takes a task that no living host holds, or renews its lease and notes its last run. Called by every scheduler; one wins.
-- Gives the seconds since the last run.
insert into tasks (name, holder, held_until)
values ($1, $2, now() + make_interval(secs => $3))
on conflict (name) do update set
  holder = excluded.holder,
  held_until = excluded.held_until,
  last_run = case when $4 > 0 then now() else tasks.last_run end,
  last_error = case when $4 > 0 then $5 else tasks.last_error end,
  runs = tasks.runs + $4
where tasks.held_until < now() or tasks.holder = excluded.holder
returning extract(epoch from now() - last_run)::double precision
