-- Takes the next step of the walk under a pipeline, for half a minute; gives where it begins. Called by the processor. One row.
update pipeline set leased_until = clock_timestamp() + interval '30 seconds'
where fingerprint = $1 and walked_to is not null and (leased_until is null or leased_until < clock_timestamp())
returning walked_to
