//! Whether an operation has effects: one type for every dry run.

/// Whether an operation takes effect or is only evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The operation takes effect: it is written, counted and reported.
    #[default]
    Live,
    /// The outcome is computed and returned; nothing is written, counted or reported.
    DryRun,
}

impl Mode {
    /// Whether effects are suppressed.
    pub fn is_dry_run(self) -> bool {
        self == Self::DryRun
    }
}
