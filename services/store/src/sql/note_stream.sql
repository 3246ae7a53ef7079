-- Notes how far a stream was seen. Called at each connect and by the scheduler; never goes back.
insert into streams (name, created, last_sequence, last_stored)
values ($1, $2, $3, $4)
on conflict (name) do update set last_sequence = excluded.last_sequence, last_stored = excluded.last_stored
where streams.created = excluded.created and streams.last_sequence < excluded.last_sequence
