//! Workers that train together: the same model as one worker with all the samples, the same bytes at every rank and
//! over every transport.

mod equal;
mod faults;
mod job;
mod processes;
