//! The only crate with SQL: statements and transactions on the truth in PostgreSQL.
