//! What goes wrong between workers.
