//! One remote node: how it is reached, what it takes, sending to it, and proof that it holds what it took.

pub mod capabilities;
pub mod connect;
pub mod flow;
pub mod held;
pub mod library;
pub mod link;
pub mod proof;
pub mod reporter;
pub mod store_scu;
pub mod transcode;

pub use connect::connect;
