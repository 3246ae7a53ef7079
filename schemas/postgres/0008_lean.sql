-- An outbox row lives for seconds: to compress its list of entities costs more than the disk that it takes.
alter table outbox alter column entity_ids set storage external;

-- From here on contents.body is the processed entity's JSON behind a line that says where things stand in it; a body without the line is read as well.
