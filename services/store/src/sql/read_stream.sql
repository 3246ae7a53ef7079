-- What is known of a stream. Called at each connect.
select revision_offset, offset_since, created, last_sequence, last_stored, earlier_since, earlier_offsets, resets, published
from streams
where name = $1
