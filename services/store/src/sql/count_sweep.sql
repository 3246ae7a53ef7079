-- How many claims of a source a snapshot would withdraw, and how many it would leave. Called by a processor once a snapshot. Reads all claims.
select count(*) filter (where newest < $2), count(*) filter (where newest >= $2)
from claims where source = $1 and present
