-- How far the rebuild is; no row: none is going on. Called by the scheduler, which holds the row while it asks for some.
select rebuild_after from repair where rebuild_after is not null for update
