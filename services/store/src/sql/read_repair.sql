-- How far repair is. Called by the checker and by the operator's status. A stream that is known to have gone back is repaired as soon as a processor looks at it.
select rebuild_after is not null or exists (select from streams where published = 9223372036854775807), checked_after, rounds, mended
from repair
