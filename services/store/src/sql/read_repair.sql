-- How far repair is. Called by the checker and by the operator's status.
select rebuild_after is not null, checked_after, rounds, mended from repair
