//! The node: its parts, built in the order that an instance meets them.
