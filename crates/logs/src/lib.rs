//! Live logs: a tracing layer, a ring of lines, and a stream for admins.
