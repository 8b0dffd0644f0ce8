//! stub
use super::Failure; use super::args::InspectOptions; use super::terminal::Terminal;
/// x
pub fn run(_: &InspectOptions, _: &Terminal) -> Result<(), Failure> { Ok(()) }
