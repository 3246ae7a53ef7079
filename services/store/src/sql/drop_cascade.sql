-- A removal has come to its end. Called by the commit of its last step. Index: primary key.
delete from cascade where entity_id = $1 and step = $2
