//! Logs and metrics. Neither ever carries patient data, which its type (`Phi`) keeps out, or a peer's text unescaped.

use std::fmt;

pub mod metrics;

/// An error with all its sources, for the one place that reports it: `what: why: why that`.
pub fn chain(error: &dyn std::error::Error) -> impl fmt::Display + '_ {
    struct Chain<'a>(&'a dyn std::error::Error);
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            let mut source = self.0.source();
            while let Some(error) = source {
                write!(f, ": {error}")?;
                source = error.source();
            }
            Ok(())
        }
    }
    Chain(error)
}

/// Starts logging to standard error as configured. For programs, once; `RUST_LOG` overrules the level.
pub fn start(log: crate::config::Log) {
    use tracing_subscriber::EnvFilter;
    // sqlx reports every slow statement with its text, the runtime its inner life: neither is an operator's business.
    let default = format!("{},sqlx=warn,hyper=warn,rustls=warn", log.level.as_str().to_lowercase());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    // A second start in one process (tests) keeps the first.
    let _ = match log.format {
        crate::config::LogFormat::Json => builder.json().flatten_event(true).try_init(),
        crate::config::LogFormat::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
    };
}
