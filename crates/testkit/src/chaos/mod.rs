//! Things to break a server with, and a ledger to see what was lost.
