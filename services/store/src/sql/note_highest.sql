-- Notes the highest sequence under which something was published, unless the stream was lost since. Called by the stitcher before its commit, alone.
-- Not waiting for the disk: what is committed later is on disk with it.
with relaxed as (select set_config('synchronous_commit', 'off', true))
update streams set published = greatest(published, $2) from relaxed where name = $1 and resets = $3
