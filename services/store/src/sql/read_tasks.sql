-- Who runs what. Called by the operator's status.
select name, case when held_until > now() then holder end as holder, runs,
       extract(epoch from now() - last_run)::double precision as seconds_ago, last_error
from tasks
order by name
