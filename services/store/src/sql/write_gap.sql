-- Notes what a stream lost: of events, those above the floor. Called with reset_stream.sql. $4: the sequence up to which it still has what
-- it had; $5: the offset that it had until now; null: its loss is made good.
insert into gaps (stream, known_sequence, found_sequence, lost_at_most)
values ($1, $2, $3, coalesce(greatest(0, $2 - greatest($4, (select revision from floor) - $5)), 0))
