-- Whether the lease on a due row is still ours, and its content the same. Called by the commit of a read, after the entities are locked.
select asked from reads where entity_id = $1 and source = $2 and lease = $3 and hash = $4 for update
