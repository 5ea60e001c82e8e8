//! One pass over an encoded data set.
