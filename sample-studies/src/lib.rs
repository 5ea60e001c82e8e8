//! sample-studies
