//! Finds, fetches, starts and stops PostgreSQL and nats-server on this machine.
