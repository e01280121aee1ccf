//! `dqrm serve` over sockets: the page, predictions, whatever clients may send.

mod client;
mod hostile;
mod infer;
mod life;
mod pages;
