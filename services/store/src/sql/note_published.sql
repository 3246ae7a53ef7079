-- Notes that an outbox row stands in the stitch stream. Called by the processor after the broker's confirmation. Not waiting for the disk: a row
-- that counts as unpublished once more is published again, and changes nothing.
with relaxed as (select set_config('synchronous_commit', 'off', true))
update outbox set sequence = $2 from relaxed where id = $1
