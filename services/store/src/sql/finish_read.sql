-- Gives a due row back after a read: due again when it is time, or at once if somebody asked in between.
-- Called by the commit of a read, and alone where nothing has changed. Index: primary key.
update reads set
  leased_until = null,
  lane = case when asked > $4 then lane else 'scheduled' end,
  due_at = case when asked > $4 then due_at else clock_timestamp() + make_interval(secs => $5) end,
  failures = $6,
  notes = $7
where entity_id = $1 and source = $2 and lease = $3
