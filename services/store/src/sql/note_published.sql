-- Notes that an outbox row stands in the stitch stream, if that is still the one into which it was published. Called by the processor after the
-- broker's confirmation. Not waiting for the disk: a row that counts as unpublished once more is published again, and changes nothing.
-- Lock order: streams before outbox, as in reset_stream.sql and unpublish.sql, of which one comes after the other so.
with relaxed as (select set_config('synchronous_commit', 'off', true)),
stream as (update streams set published = greatest(published, $2) where name = $3 and resets = $4 returning name)
update outbox set sequence = $2 from relaxed, stream where id = $1
