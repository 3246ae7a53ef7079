-- The floor. Called after the entities are locked: what was forgotten before the lock is below it.
select revision from floor
