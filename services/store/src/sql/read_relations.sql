-- What these entities said of others until now. Called by the processor's commit. Index: relations(originator_id).
select originator_id, subject_id, type, target_ref from relations where originator_id = any($1::bigint[])
