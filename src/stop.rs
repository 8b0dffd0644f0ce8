//! The wish to stop, told to what takes long.
//!
//! Whoever works in steps looks at it between them, and gives up what is not finished as after any error: temporary files
//! go, what is finished stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether someone wants the work at hand to stop. Clones share the wish.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks everyone who holds a clone to stop. It cannot be taken back.
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether that was asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// The place between two steps.
    ///
    /// # Errors
    /// [`Stopped`] where it was asked for.
    pub fn check(&self) -> Result<(), Stopped> {
        match self.is_asked() {
            true => Err(Stopped),
            false => Ok(()),
        }
    }

    /// The flag itself, for a handler of signals.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// The work was given up because that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped before it was done, as was asked for")]
pub struct Stopped;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_wish() {
        let stop = Stop::default();
        let other = stop.clone();
        assert_eq!(other.check(), Ok(()));
        stop.ask();
        assert_eq!(other.check(), Err(Stopped));
        assert_eq!(Stop::default().check(), Ok(()));
    }
}
