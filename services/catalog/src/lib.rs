//! What an entity is, what processing emits, how claims merge, how entities stitch, what a filter matches: pure functions, no clock, no I/O.
