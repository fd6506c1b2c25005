//! The SQLite repository.
