//! Whether an operation takes effect: the type that every dry run uses.

/// Whether an operation takes effect or is only evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The operation takes effect: its outcome is written, counted and reported.
    #[default]
    Live,
    /// The operation only returns its outcome: nothing is written, counted or reported.
    DryRun,
}

impl Mode {
    /// Whether effects are suppressed.
    pub fn is_dry_run(self) -> bool {
        self == Self::DryRun
    }
}
