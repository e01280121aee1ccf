//! The one error type of the crate. Every variant carries the facts a reader needs: what was
//! asked, what was found, what to do about it.

use std::path::PathBuf;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with the facts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be used: a wrong value, an unknown key, shapes that do not fit.
    #[error("{0}")]
    Config(String),

    /// Reading or writing a file failed.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was tried: `read`, `write`, `create` ….
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// A line of a data file that does not follow the schema.
    #[error("{file}, line {line}, column {column}: {reason}")]
    Row {
        /// The file as the user named it.
        file: String,
        /// Line number, the first is 1.
        line: u64,
        /// Column number, the first is 1; 0 when the whole line is meant.
        column: usize,
        /// What was found and what was expected.
        reason: String,
    },

    /// Data that is readable but cannot be used: no rows, no positives, an unknown layout.
    #[error("{0}")]
    Data(String),

    /// A checkpoint or weight file that is damaged or belongs to another model.
    #[error("`{path}`: {reason}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected.
        reason: String,
    },

    /// A shader's text that cannot be used in place of a kernel's: every place with its line.
    #[error("{0}")]
    Shader(String),

    /// A plan that breaks a rule (a bug in the code that recorded it, or an impossible shape).
    #[error("plan: {0}")]
    Plan(String),

    /// The model does not fit the adapter.
    #[error("{what}: needs {needed} bytes, but {limit_name} of `{adapter}` is {limit} ({over} too much); {hint}", over = needed - limit)]
    Limit {
        /// The buffer or table that is too big.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Name of the limit as WebGPU spells it.
        limit_name: &'static str,
        /// The adapter's value, in bytes.
        limit: u64,
        /// The adapter's name.
        adapter: String,
        /// What to do.
        hint: &'static str,
    },

    /// No device of the kind asked for.
    #[error("{0}")]
    Device(String),

    /// The loss stopped being a number.
    #[error("the loss became {loss} at step {step}; the first buffer that is not finite is {buffer}. {kept}")]
    NotFinite {
        /// Step number, the first is 0.
        step: u64,
        /// The value of the loss.
        loss: f32,
        /// Name of the buffer, and how many of its values are not finite.
        buffer: String,
        /// Which checkpoint was kept, and what to try.
        kept: String,
    },

    /// Another worker is gone, silent, or speaks of another job.
    #[error("rank {rank} {reason} (step {step}, {phase}). {kept}")]
    Peer {
        /// The other worker.
        rank: usize,
        /// What happened, to read after its rank.
        reason: String,
        /// The step this worker was at; the first is 0.
        step: u64,
        /// What it was doing: `row gradients`, `checkpoint` ….
        phase: &'static str,
        /// Which checkpoint is left, and what to do.
        kept: String,
    },

    /// The workers of a job did not find each other, or do not belong together.
    #[error("{0}")]
    Rendezvous(String),

    /// The workers' replicas of the model are not the same any more.
    #[error("replicas differ after step {step}: `{tensor}` of rank {rank} is not that of rank 0. {kept}")]
    Replica {
        /// Steps done.
        step: u64,
        /// The first tensor that differs.
        tensor: String,
        /// The first rank whose tensor differs from rank 0's.
        rank: usize,
        /// Which checkpoint is left, and what to do.
        kept: String,
    },

    /// The run was stopped by the user; everything was saved.
    #[error("{0}")]
    Interrupted(String),
}

impl Error {
    /// An [`Error::Io`] for `path`, to use with `map_err`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }
}
