//! Which execution provider each node of an open model was given to, as ONNX Runtime recorded it.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char},
};

use ort::AsPointer;
use serde::Serialize;

use super::provider::CPU;

/// ONNX Runtime's option that makes it keep the record.
pub(super) const RECORD: &str = "session.record_ep_graph_assignment_info";

/// The nodes of one operator that run on the processor although another provider was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnProcessor {
    /// The operator, with its domain where that is not ONNX's own.
    pub operator: String,
    /// The names of the nodes; an empty one for a node without.
    pub nodes: Vec<String>,
}

/// The nodes on the processor, by operator; `None` where ONNX Runtime has no record.
pub(super) fn on_processor(session: &ort::session::Session) -> Option<Vec<OnProcessor>> {
    let mut operators: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (provider, operator, node) in assignments(session)? {
        if provider == CPU {
            operators.entry(operator).or_default().push(node);
        }
    }
    let operators = operators.into_iter();
    Some(
        operators
            .map(|(operator, nodes)| OnProcessor { operator, nodes })
            .collect(),
    )
}

/// Provider, operator and name of every node.
fn assignments(session: &ort::session::Session) -> Option<Vec<(String, String, String)>> {
    let api = ort::api();
    let mut parts = std::ptr::null();
    let mut count = 0;
    // SAFETY: the session is open and both pointers are to live variables.
    let status = unsafe { (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut parts, &raw mut count) };
    succeeded(status)?;
    let mut found = Vec::new();
    // SAFETY: the call succeeded, so `parts` points to `count` pointers that live as long as the session.
    for part in unsafe { list(parts, count) } {
        // SAFETY: as above; the text that is given lives as long as the part.
        let provider = unsafe { text(|out| (api.EpAssignedSubgraph_GetEpName)(*part, out)) }?;
        let mut nodes = std::ptr::null();
        let mut count = 0;
        // SAFETY: as above.
        succeeded(unsafe { (api.EpAssignedSubgraph_GetNodes)(*part, &raw mut nodes, &raw mut count) })?;
        // SAFETY: as above.
        for node in unsafe { list(nodes, count) } {
            // SAFETY: as above.
            let (domain, operator, name) = unsafe {
                (
                    text(|out| (api.EpAssignedNode_GetDomain)(*node, out))?,
                    text(|out| (api.EpAssignedNode_GetOperatorType)(*node, out))?,
                    text(|out| (api.EpAssignedNode_GetName)(*node, out))?,
                )
            };
            let operator = match domain.as_str() {
                "" | "ai.onnx" => operator,
                _ => format!("{domain}.{operator}"),
            };
            found.push((provider.clone(), operator, name));
        }
    }
    Some(found)
}

/// # Safety
/// `start` is null or points to `count` values that outlive the slice.
unsafe fn list<'a, T>(start: *const T, count: usize) -> &'a [T] {
    match start.is_null() {
        true => &[],
        // SAFETY: the caller's promise.
        false => unsafe { std::slice::from_raw_parts(start, count) },
    }
}

/// The text that a call gives.
///
/// # Safety
/// Where the call succeeds, it gives a text that ends in a null byte.
unsafe fn text(call: impl FnOnce(*mut *const c_char) -> ort::sys::OrtStatusPtr) -> Option<String> {
    let mut text = std::ptr::null();
    succeeded(call(&raw mut text))?;
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

fn succeeded(status: ort::sys::OrtStatusPtr) -> Option<()> {
    // SAFETY: the status was just returned by ONNX Runtime and is handed over.
    unsafe { ort::Error::result_from_status(status) }.ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_runs_on_the_processor_is_counted_by_operator() {
        crate::runtime::ensure().unwrap();
        let environment = super::super::load::environment().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runtime/switch.onnx");
        let open = |record: &str| {
            let builder = ort::session::Session::builder(environment).unwrap();
            builder
                .with_config_entry(RECORD, record)
                .unwrap()
                .commit_from_file(&model)
                .unwrap()
        };
        let found = on_processor(&open("1")).unwrap();
        assert!(
            found
                .iter()
                .any(|operator| operator.operator == "If" && operator.nodes == ["first.switch", "second.switch"]),
            "{found:?}"
        );
        assert_eq!(on_processor(&open("0")), None);
    }
}
