//! What a rule does at the steps at which it broadcasts.

use super::adaptive::Adaptive;
use super::timing::Timing;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a rule does with its sites, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// What takes the place of computing.
    pub strategy: Strategy,
    /// At which steps it may.
    pub timing: Timing,
    /// What decides of these steps; without it all of them broadcast.
    pub adaptive: Option<Adaptive>,
}

/// What takes the place of computing at a step that broadcasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "snake_case")]
pub enum Strategy {
    /// The value that was computed last.
    #[default]
    Reuse,
    /// A forecast of the value from those computed last.
    Forecast {
        /// How many differences it goes by.
        order: ForecastOrder,
    },
    /// The change that a span of blocks made to the residual stream when it was computed last.
    Residual,
    /// A forecast of that change from how it changed when it was computed last.
    ResidualForecast {
        /// How many differences it goes by.
        order: ForecastOrder,
    },
    /// The difference that guidance makes, as it was computed last.
    Guidance,
}

/// How many finite differences a forecast goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum ForecastOrder {
    /// Along a line.
    #[default]
    First,
    /// Along a parabola.
    Second,
}

impl Strategy {
    /// The key of a rule that asks for it.
    pub fn key(self) -> &'static str {
        match self {
            Strategy::Reuse => "broadcast",
            Strategy::Forecast { .. } => "forecast",
            Strategy::Residual | Strategy::ResidualForecast { .. } => "residual",
            Strategy::Guidance => "guidance",
        }
    }

    /// Whether it is for spans of blocks.
    pub fn is_by_span(self) -> bool {
        matches!(self, Strategy::Residual | Strategy::ResidualForecast { .. })
    }

    /// Whether each site of a rule has caches of its own. Otherwise the rule is for whole spans of blocks, or for the
    /// model.
    pub fn is_by_site(self) -> bool {
        matches!(self, Strategy::Reuse | Strategy::Forecast { .. })
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strategy::Reuse => f.write_str("reuse"),
            Strategy::Forecast { order } => write!(f, "forecast of order {}", i64::from(*order)),
            Strategy::Residual => f.write_str("residual"),
            Strategy::ResidualForecast { order } => write!(f, "residual, forecast of order {}", i64::from(*order)),
            Strategy::Guidance => f.write_str("guidance"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.strategy {
            Strategy::Reuse => self.timing.fmt(f)?,
            strategy => write!(f, "{strategy}, {}", self.timing)?,
        }
        match &self.adaptive {
            Some(adaptive) => write!(f, ", {adaptive}"),
            None => Ok(()),
        }
    }
}

impl From<ForecastOrder> for i64 {
    fn from(order: ForecastOrder) -> i64 {
        match order {
            ForecastOrder::First => 1,
            ForecastOrder::Second => 2,
        }
    }
}

impl TryFrom<i64> for ForecastOrder {
    type Error = UnknownOrder;

    fn try_from(order: i64) -> Result<Self, UnknownOrder> {
        match order {
            1 => Ok(ForecastOrder::First),
            2 => Ok(ForecastOrder::Second),
            _ => Err(UnknownOrder(order)),
        }
    }
}

/// A number that is no order of a forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no order of a forecast: orders are 1 and 2")]
pub struct UnknownOrder(pub i64);
