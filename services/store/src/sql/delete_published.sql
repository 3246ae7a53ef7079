-- Drops outbox rows whose requests the stitchers have acknowledged, if the stream is still the one in which they have. Called by the scheduler.
-- Lock order: streams before outbox.
with stream as (select from streams where name = $2 and resets = $3 for share)
delete from outbox using stream where sequence <= $1
