-- Notes an entity's last emission. Called by the commit of a read; the entity is locked. Index: primary key.
update entities set emitted = $2 where id = $1
