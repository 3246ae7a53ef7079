-- Takes back the refresh keys of a claim that are not named any more. Called by the commit of a read. Index: refresh_keys_claim.
delete from refresh_keys where entity_id = $1 and source = $2 and not (key = any($3::text[]))
