-- Drops outbox rows whose requests the stitchers have acknowledged, if the stream is still the one in which they have. Called by the scheduler,
-- mostly in vain: then nothing is locked. Lock order: streams before outbox.
with stream as (
  select from streams where name = $2 and resets = $3 and exists (select from outbox where sequence <= $1) for share
)
delete from outbox using stream where sequence <= $1
