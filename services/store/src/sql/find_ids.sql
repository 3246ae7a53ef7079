-- The numbers of refs that others are named by. Called by the processor's commit. Index: entities(ref). No locks.
select ref, id from entities where ref = any($1::text[])
