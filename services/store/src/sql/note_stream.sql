-- Notes how far a stream was seen. Called at each connect and by the scheduler; never goes back.
insert into streams (name, created, last_sequence, last_stored)
values ($1, $2, $3, $4)
on conflict (name) do update set
  created = excluded.created,
  last_sequence = excluded.last_sequence,
  last_stored = excluded.last_stored
where (streams.created = excluded.created and streams.last_sequence < excluded.last_sequence)
   -- It was missing, and was made anew.
   or (streams.created = 0 and streams.last_sequence <= excluded.last_sequence)
