//! What Mangrove replicates.

pub mod bucket;
pub mod chunk;
pub mod definition;
pub mod displaced;
pub mod document;
pub mod feed;
pub mod frontier;
pub mod id;
pub mod path;
pub mod persist;
pub mod policy;
pub mod registers;
pub mod replica;
pub mod rows;
pub mod section;
pub mod stability;
pub mod stamp;
pub mod standing;
pub mod time;
pub mod tree;
pub mod value;
pub mod selector;
