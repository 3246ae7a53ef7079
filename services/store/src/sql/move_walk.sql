-- Ends a step of the walk that began at $3: it goes on at $2, or is over (null). Called by the processor. One row.
update pipeline set walked_to = $2, leased_until = null where fingerprint = $1 and walked_to = $3
