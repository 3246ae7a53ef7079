-- The newest gaps. Called by the operator's status.
select stream, extract(epoch from clock_timestamp() - found_at)::double precision, known_sequence, found_sequence, lost_at_most
from gaps
order by id desc
limit $1
