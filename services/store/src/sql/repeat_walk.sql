-- Has the walk begin anew when it is over: a processor with another pipeline ($1) has processed events meanwhile. Called by that processor. One row.
update pipeline set walked_to = 0 where fingerprint <> $1 and walked_to is null
