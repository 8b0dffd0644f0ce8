//! What a run would take on devices that are not here: time, communication and memory, predicted from the graph alone.
//!
//! Each node that stays at run time is a kernel ([`Work`]): so many operations, so many bytes of weights and activations
//! ([`Class`] says which count). A [`Device`] turns that into seconds by a roofline with stated efficiencies, a [`Split`]
//! says which part of it each of several ranks has and what ranks send each other (closed formulas), and a [`Link`] turns
//! bytes into seconds. Which nodes a step has follows from rules and schedule, as in the patched model. Weights are never
//! read: shapes are enough, so a graph whose data file is missing is as good as a whole model.
//!
//! Everything that is assumed is said by [`assumptions`].

mod assumption;
mod device;
mod extent;
mod link;
mod memory;
mod operator;
mod run;
mod split;
mod work;

#[cfg(test)]
mod tests;

pub use assumption::assumptions;
pub use device::{Attention, DEVICES, Device, DeviceError, Rates};
pub use extent::Extents;
pub use link::Link;
pub use memory::Memory;
pub use operator::Class;
pub use run::{ClassFigures, Figures, Forecast, Run};
pub use split::{Exchange, Method, ShardedAxis, Split};
pub use work::{PredictError, Work, Works};
