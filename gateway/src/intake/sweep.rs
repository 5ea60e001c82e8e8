//! What comes first after a start: the spool as a crash may have left it.

use gantry_store::spool::{Spool, SpoolError};

/// Removes unfinished files. Entries that count are found by the drain.
pub fn sweep(spool: &Spool) -> Result<(), SpoolError> {
    let swept = spool.sweep()?;
    if swept.removed > 0 || !swept.entries.is_empty() {
        tracing::info!(waiting = swept.entries.len(), unfinished = swept.removed, "spool swept");
    }
    Ok(())
}
