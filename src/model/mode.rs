//! The mode of an operation: live or a dry run. All operations that can run dry use this type.

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
