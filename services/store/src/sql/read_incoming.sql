-- What others say of these entities. Called by the stitcher after its locks. Index: relations(subject_id).
select subject_id, type, target_ref from relations where subject_id = any($1::bigint[])
