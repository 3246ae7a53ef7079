-- What these entities said of others until now. Called by the processor's commit. Index: relations(originator_id).
select relations.originator_id, relations.subject_id, subject.ref, relations.type, relations.target_ref
from relations
join entities subject on subject.id = relations.subject_id
where relations.originator_id = any($1::bigint[])
