-- What is known of a stream, and the floor, as read_stream.sql and read_floor.sql give them. Called by the processor's commit after its locks:
-- what was forgotten before them is below the floor. Index: snapshots_unswept.
select streams.revision_offset, offset_since, created, last_sequence, last_stored, earlier_since, earlier_offsets, resets, published,
  floor.revision, least(floor.revision, (select min(begun) - 1 from snapshots where state in ('open', 'sweeping')))
from floor
left join streams on streams.name = $1
