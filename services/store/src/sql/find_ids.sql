-- The numbers of refs. Called before the processor's commit, with all refs that it will name. Index: entities(ref). No locks.
select ref, id from entities where ref = any($1::text[])
