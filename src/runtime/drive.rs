//! What a step feeds so that a patched model knows what to broadcast: its flags, or the number of the step.

use serde::{Deserialize, Serialize};

use super::{element::ElementType, error::RuntimeError, session::Session, step::Feedback, tensor::Tensor};

/// The schedule that a model holds itself, so that it is driven by the number of the step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTable {
    /// The name of the `int64` scalar input that takes the number of the step.
    pub input: String,
    /// For each step one flag for each rule: `true` broadcasts.
    pub flags: Vec<Vec<bool>>,
}

impl Feedback {
    /// The inputs that drive the model, and the type that each must have.
    pub(super) fn driving_inputs(&self) -> Vec<(&str, ElementType)> {
        match &self.steps {
            Some(table) => vec![(table.input.as_str(), ElementType::Int64)],
            None => {
                let flags = self.flags.iter();
                flags.map(|flag| (flag.as_str(), ElementType::Bool)).collect()
            }
        }
    }

    /// Values for [`Self::driving_inputs`] that make the model broadcast the rules of `flags`.
    ///
    /// # Errors
    /// [`RuntimeError::Inputs`] where the model holds a schedule that has no such step.
    pub(super) fn driving_values(
        &self,
        session: &Session,
        flags: &[bool],
    ) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let Some(table) = &self.steps else {
            let values = flags.iter().map(|flag| Tensor::scalar(*flag));
            return Ok(self.flags.iter().cloned().zip(values).collect());
        };
        // Steps with the same flags are the same to the model.
        match table.flags.iter().position(|step| step == flags) {
            Some(step) => Ok(vec![(table.input.clone(), Tensor::scalar(step as i64))]),
            None => Err(RuntimeError::Inputs {
                model: session.model().to_path_buf(),
                reason: format!(
                    "none of the {} steps that the model holds broadcasts just these rules ({flags:?}); patch the \
                     original with the scheduler and number of steps of this run, or with --drive flags",
                    table.flags.len()
                ),
            }),
        }
    }
}
