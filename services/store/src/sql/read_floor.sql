-- The floor, and up to where events may be settled for good: not beyond the beginning of a snapshot that is still to be swept.
-- Called after the entities are locked: what was forgotten before the lock is below it. Index: snapshots_unswept.
select revision, least(revision, (select min(begun) - 1 from snapshots where state in ('open', 'sweeping'))) from floor
