//! `gantry init`: a working node from nothing.
