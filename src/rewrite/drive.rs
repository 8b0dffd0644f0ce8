//! How the flags of a patched model come about: fed by the host, or looked up by the step.

use super::{PLAN_KEY, Patched, RewriteError};
use crate::graph::NewNode;
use crate::onnx::messages::{DataType, TensorProto, TensorShapeProto, TensorType, TypeProto, ValueInfoProto};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The input that takes the number of the step, counted from 0, where [`Drive::Step`] drives.
pub const STEP_INPUT: &str = "pab.step";

/// What tells a patched model which rules broadcast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drive {
    /// A `bool` scalar input for each rule. Any run, any scheduler.
    #[default]
    Flags,
    /// One `int64` scalar input, [`STEP_INPUT`]; the model holds a table of its schedule. One scheduler and number of
    /// steps, and the host needs to know nothing of rules.
    Step,
}

impl fmt::Display for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Drive::Flags => "flags",
            Drive::Step => "step",
        })
    }
}

/// Replaces the flags of a model that [`super::switch`] made by tables of its plan's schedule.
///
/// For each rule an initializer `pab.schedule.<rule>` (`bool`, `[steps]`), and instead of its flag input the value
/// `pab.flag.<rule>` = `Gather(pab.schedule.<rule>, pab.step)`. ONNX Runtime refuses a step outside the table
/// (`Gather`: "indices element out of data bounds"); a negative one counts from the end, as `Gather` does.
///
/// # Errors
/// [`RewriteError::NoSchedule`] where the plan has none, [`RewriteError::Graph`] where names of the new values are taken.
pub fn drive_by_step(patched: Patched) -> Result<Patched, RewriteError> {
    let Patched { mut model, mut plan } = patched;
    let schedule = plan.schedule.as_ref().filter(|schedule| schedule.steps() > 0);
    let schedule = schedule.ok_or(RewriteError::NoSchedule)?;
    let step = model.graph.add_input(scalar(STEP_INPUT, DataType::Int64))?;
    // The look-ups stand at the front of the file, where all switches are behind them.
    let front = model.graph.nodes().next().map(|(node, _)| model.graph.position(node));
    let mut flags = Vec::with_capacity(plan.rules.len());
    for (rule, steps) in plan.rules.iter().zip(&schedule.broadcast) {
        let table = model.graph.add_initializer(TensorProto {
            name: Some(format!("pab.schedule.{}", rule.name)),
            data_type: Some(DataType::Bool as i32),
            dims: vec![steps.len() as i64],
            int32_data: steps.iter().map(|broadcast| i32::from(*broadcast)).collect(),
            ..TensorProto::default()
        })?;
        let name = format!("pab.flag.{}", rule.name);
        let lookup = model.graph.add_node(NewNode {
            operator: "Gather".to_owned(),
            name: format!("pab.lookup.{}", rule.name),
            inputs: vec![Some(table), Some(step)],
            outputs: vec![name.clone()],
            after: front,
            ..NewNode::default()
        })?;
        if let (Some(flag), Some(found)) = (model.graph.find(&rule.flag), model.graph.node(lookup).output(0)) {
            model.graph.replace_uses(flag, found);
        }
        flags.push(name);
    }
    model
        .graph
        .remove_unused_inputs(|name| plan.rules.iter().any(|rule| rule.flag == name));
    for (rule, flag) in plan.rules.iter_mut().zip(flags) {
        rule.flag = flag;
    }
    plan.drive = Drive::Step;
    model.set_metadata(PLAN_KEY, plan.to_json()?);
    Ok(Patched { model, plan })
}

fn scalar(name: &str, element_type: DataType) -> ValueInfoProto {
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: Some(element_type as i32),
                shape: Some(TensorShapeProto { dim: Vec::new() }),
            }),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}
