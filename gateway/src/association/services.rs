//! What an accepted association may ask for: one service class a file.

pub mod find;
pub mod identifier;
pub mod retrieve;
pub mod storage;
pub mod storage_commitment;
pub mod verification;
