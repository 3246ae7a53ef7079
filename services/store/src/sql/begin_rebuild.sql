-- Has every entity published again, from the first one. Called at connect and by the operator.
update repair set rebuild_after = 0
