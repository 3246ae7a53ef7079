-- Orphans whose time is over. Called by processors. Index: entities_orphans.
select ref from entities
where orphan_since is not null and orphan_since <= clock_timestamp() - make_interval(secs => $1)
order by orphan_since
limit $2
