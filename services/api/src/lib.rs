//! The read contract: code generated from proto/, conversions between entities and messages, the status table.
