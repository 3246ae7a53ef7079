-- Drops outbox rows whose requests the stitchers have acknowledged. Called by the scheduler.
delete from outbox where sequence <= $1
