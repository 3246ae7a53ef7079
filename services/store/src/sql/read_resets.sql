-- How often streams were found wiped or gone back. Called by the scheduler before it looks at them; a handful of rows.
select coalesce(sum(resets), 0)::bigint from streams
