-- What is known of a stream. Called at each connect.
select revision_offset, offset_since, previous_offset, created, last_sequence, last_stored from streams where name = $1
