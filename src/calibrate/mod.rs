//! Rules that come from measurement: how much each site changes from step to step, what broadcasting costs a clip, and the
//! rules that are best for what was measured.
//!
//! [`Drift`] reduces the values of a site, as they come, to a few numbers a step. [`Form`] is a way to patch a model, with
//! one or more [`Arm`]s whose windows are free, and [`Grid`] the windows of a run. What each arm costs alone in each window is
//! measured, in one run or several, and becomes a [`Cell`];
//! [`frontier`] combines cells, taking their errors to add, into the choices that are best at each time.

mod drift;
mod form;
mod grid;
mod record;
mod search;

pub use drift::{Change, Drift, KindCurve, kind_curves, stable_share};
pub use form::{Arm, Form};
pub use grid::Grid;
pub use record::{
    CALIBRATION_FORMAT, Calibration, Judged, JudgedClip, JudgedRules, Measured, Point, PointRun, RunRecord, SiteDrift,
};
pub use search::{Cell, Choice, frontier};
