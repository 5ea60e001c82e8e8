//! One remote node: how it is reached, what it takes, and sending to it.

pub mod capabilities;
pub mod connect;
pub mod link;
pub mod store_scu;
pub mod transcode;

pub use connect::connect;
