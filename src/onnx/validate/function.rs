//! Local functions: their bodies, and the calls to them.

use std::collections::{HashMap, HashSet};

use super::graph::{Scope, check_type, named};
use super::{Checker, Step, Violation, imports};
use crate::onnx::load::canonical_domain;
use crate::onnx::messages::{FunctionProto, ModelProto, NodeProto};

/// Domain, name and overload.
type Key<'a> = (&'a str, &'a str, &'a str);

/// The functions of a model.
#[derive(Default)]
pub(super) struct Functions<'a> {
    by_key: HashMap<Key<'a>, (usize, &'a FunctionProto)>,
    domains: HashSet<&'a str>,
    /// Calls from function to function, by number.
    calls: Vec<(usize, usize)>,
    /// The function that is walked through.
    current: Option<usize>,
}

impl<'a> Functions<'a> {
    pub fn of(proto: &'a ModelProto) -> Result<Functions<'a>, Violation> {
        let mut functions = Functions::default();
        for (number, function) in proto.functions.iter().enumerate() {
            let name = named(function.name.as_deref(), "a function")?;
            let domain = canonical_domain(function.domain.as_deref().unwrap_or_default());
            let overload = function.overload.as_deref().unwrap_or_default();
            functions.domains.insert(domain);
            if functions
                .by_key
                .insert((domain, name, overload), (number, function))
                .is_some()
            {
                return Err(Violation::FunctionTwice(full_name((domain, name, overload))));
            }
        }
        Ok(functions)
    }
}

fn full_name((domain, name, overload): Key<'_>) -> String {
    let overload = if overload.is_empty() {
        String::new()
    } else {
        format!(":{overload}")
    };
    if domain.is_empty() {
        format!("{name}{overload}")
    } else {
        format!("{domain}.{name}{overload}")
    }
}

impl<'a> Checker<'a> {
    /// Checks which operator or function a node calls.
    pub(super) fn operator(&mut self, node: &'a NodeProto) -> Result<(), Violation> {
        let name = node
            .op_type
            .as_deref()
            .filter(|name| !name.is_empty())
            .ok_or(Violation::NoOperator)?;
        let domain = canonical_domain(node.domain.as_deref().unwrap_or_default());
        if !self.imports.contains_key(domain) {
            return Err(Violation::NotImported(
                if domain.is_empty() { "ai.onnx" } else { domain }.to_owned(),
            ));
        }
        let key = (domain, name, node.overload.as_deref().unwrap_or_default());
        match self.functions.by_key.get(&key) {
            Some((number, function)) => {
                let (inputs, outputs) = (function.input.len(), function.output.len());
                if node.input.len() > inputs || node.output.len() > outputs {
                    return Err(Violation::FunctionArity {
                        name: full_name(key),
                        inputs,
                        outputs,
                    });
                }
                if let Some(caller) = self.functions.current {
                    self.functions.calls.push((caller, *number));
                }
                Ok(())
            }
            // Functions may stand in for operators of the standard domain, the others of which are built in.
            None if !domain.is_empty() && self.functions.domains.contains(domain) => {
                Err(Violation::FunctionUndefined(full_name(key)))
            }
            None => Ok(()),
        }
    }

    /// Checks the bodies of all functions, and that none calls itself.
    pub(super) fn all_functions(&mut self, proto: &'a ModelProto) -> Result<(), Violation> {
        for (number, function) in proto.functions.iter().enumerate() {
            let name = function.name.as_deref().unwrap_or_default();
            self.functions.current = Some(number);
            self.within(Step::Function(name), |checker| checker.function(function))?;
        }
        match recursive(proto.functions.len(), &self.functions.calls) {
            Some(number) => {
                let name = proto.functions.get(number).and_then(|function| function.name.clone());
                Err(Violation::FunctionRecursive(name.unwrap_or_default()))
            }
            None => Ok(()),
        }
    }

    fn function(&mut self, function: &'a FunctionProto) -> Result<(), Violation> {
        self.imports = imports(&function.opset_import)?;
        self.values.clear();
        self.levels.clear();
        self.graphs += 1;
        let mut scope = Scope::of_function(self.graphs);
        let mut parameters: Vec<&str> = function.attribute.iter().map(String::as_str).collect();
        parameters.extend(
            function
                .attribute_proto
                .iter()
                .filter_map(|attribute| attribute.name.as_deref()),
        );
        let mut seen = HashSet::with_capacity(parameters.len());
        if let Some(twice) = parameters.iter().find(|name| !seen.insert(**name)) {
            return Err(Violation::AttributeTwice((*twice).to_owned()));
        }
        self.parameters = Some(parameters);
        for name in &function.input {
            self.define(named(Some(name), "an input")?, &mut scope)?;
        }
        self.attributes(&function.attribute_proto)?;
        for value in &function.value_info {
            check_type(value, value.r#type.as_ref(), true)?;
        }
        self.nodes(&function.node, &mut scope)?;
        for name in &function.output {
            if !self.values.contains_key(named(Some(name), "an output")?) {
                return Err(Violation::OutputUndefined(name.clone()));
            }
        }
        Ok(())
    }
}

/// A function on a cycle of calls, or behind one, if there is any: what remains when callers without callers are
/// taken away one after another (Kahn's algorithm).
fn recursive(count: usize, calls: &[(usize, usize)]) -> Option<usize> {
    let mut callers = vec![0usize; count];
    let mut callees = vec![Vec::new(); count];
    for (caller, callee) in calls {
        if let (Some(callers), Some(callees)) = (callers.get_mut(*callee), callees.get_mut(*caller)) {
            *callers += 1;
            callees.push(*callee);
        }
    }
    let mut free: Vec<usize> = (0..count).filter(|number| callers.get(*number) == Some(&0)).collect();
    while let Some(number) = free.pop() {
        for callee in callees.get_mut(number).map(std::mem::take).unwrap_or_default() {
            if let Some(left) = callers.get_mut(callee) {
                *left -= 1;
                if *left == 0 {
                    free.push(callee);
                }
            }
        }
    }
    callers.iter().position(|left| *left > 0)
}
