-- Moves the rebuild on; null: it is done. Called by the scheduler, which holds the row.
update repair set rebuild_after = $1
