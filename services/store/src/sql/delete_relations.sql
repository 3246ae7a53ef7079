-- Withdraws what entities said of others. Called by the processor's commit; their entities are locked. Index: relations(originator_id).
delete from relations
using unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) as gone (originator_id, subject_id, type, target_ref)
where relations.originator_id = gone.originator_id
  and relations.subject_id = gone.subject_id
  and relations.type = gone.type
  and relations.target_ref = gone.target_ref
