//! Verification (PS3.4 Annex A): C-ECHO.

use crate::association::dimse::CEchoRq;
use crate::association::wire::{Stream, Wire, WireError};

/// Answers a C-ECHO.
pub async fn serve<S: Stream>(
    wire: &mut Wire<S>,
    context: u8,
    request: &CEchoRq,
) -> Result<(), WireError> {
    wire.send_command(context, &request.response()).await
}
