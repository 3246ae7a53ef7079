-- Notes the highest message that a processor has taken of a stream, before it takes effect: so that a stream that went back below it is known to
-- have done so; unless the stream was lost since. Called by the processor before its commit, alone. Not waiting for the disk: what is committed later is on
-- disk with it.
with relaxed as (select set_config('synchronous_commit', 'off', true))
update streams set last_sequence = $2, last_stored = $3 from relaxed where name = $1 and last_sequence < $2 and resets = $4
