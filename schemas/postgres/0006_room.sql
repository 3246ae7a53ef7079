-- Room for what a row becomes: both are inserted with the ref and filled in once, soon after. Where the new version finds room on its page, no
-- index is touched, and the old one goes without a vacuum.
alter table entities set (fillfactor = 45);
alter table stitch_states set (fillfactor = 30);

-- A body of up to 8 KB stays in its row as it is: to compress it costs more than the disk that it takes.
alter table contents set (toast_tuple_target = 8160);
