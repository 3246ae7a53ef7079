//! The scheduler role: periodic tasks, each run by one host at a time in the whole installation.
