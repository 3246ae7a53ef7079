-- Moves the checker on, and counts. Called by the scheduler.
update repair set checked_after = $1, rounds = rounds + $2, mended = mended + $3
