//! Patient data, kept from log lines by its type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something about a patient. It cannot be printed: `Debug` says `[patient data]`, and there is no `Display`.
#[derive(Clone, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Phi<T>(T);

impl<T> Phi<T> {
    /// Marks a value as patient data.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for those who are allowed to see it: a signed-in person's page, an authorised partner's response.
    pub fn reveal(&self) -> &T {
        &self.0
    }

    /// The value, taken out.
    pub fn into_revealed(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Phi<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[patient data]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_slip_into_a_log_line() {
        assert_eq!(format!("{:?}", Some(Phi::new("SMITH^ANNA"))), "Some([patient data])");
    }
}
