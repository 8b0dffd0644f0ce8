//! What exporters call a module, for people. Never used to recognize anything.

use crate::graph::{Graph, Node, NodeId};

/// The dotted names of the modules that a node is in, from the outermost to its own: `transformer_blocks.0`,
/// `transformer_blocks.0.attn1`. Lists of modules (`transformer_blocks`) are none.
fn scopes(node: &Node) -> Option<Vec<String>> {
    let scopes = match node.metadata("pkg.torch.onnx.name_scopes") {
        Some(list) => dynamo(list)?,
        None => torchscript(node.name())?,
    };
    Some(scopes).filter(|scopes| !scopes.is_empty())
}

/// `['', 'transformer_blocks.0', 'transformer_blocks.0.attn1', 'matmul']`: the last one is the node itself.
fn dynamo(list: &str) -> Option<Vec<String>> {
    let mut names: Vec<&str> = list.split('\'').skip(1).step_by(2).collect();
    names.pop()?;
    Some(
        names
            .into_iter()
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

/// `/transformer_blocks.0/attn1/MatMul`: the last part is the node itself.
fn torchscript(name: &str) -> Option<Vec<String>> {
    let (module, _) = name.strip_prefix('/')?.rsplit_once('/')?;
    let ends = module.match_indices('/').map(|(at, _)| at).chain([module.len()]);
    Some(
        ends.filter_map(|end| module.get(..end))
            .map(|scope| scope.replace('/', "."))
            .collect(),
    )
}

/// The same, from the name of a weight or bias that a node reads: optimizers name nodes anew, and keep parameters. An
/// index belongs to the name before it.
fn parameter(graph: &Graph, node: &Node) -> Option<Vec<String>> {
    let mut constants = node
        .inputs()
        .flatten()
        .filter(|input| graph.value(*input).initializer().is_some());
    let module = constants.find_map(|constant| {
        let name = graph.value(constant).name();
        name.strip_suffix(".bias").or_else(|| name.strip_suffix(".weight"))
    })?;
    let mut scopes: Vec<String> = Vec::new();
    let mut ends = module.match_indices('.').map(|(at, _)| at).chain([module.len()]);
    while let Some(name) = ends.next().and_then(|end| module.get(..end)) {
        let index = name.rsplit('.').next().is_some_and(|part| part.parse::<u32>().is_ok());
        if index {
            scopes.pop();
        }
        scopes.push(name.to_owned());
    }
    Some(scopes)
}

/// The innermost module that all `nodes` with a known module are in, in the parts of its dotted name.
///
/// Nodes that name no module are placed by their parameters, as far as that does not speak against the others.
pub(super) fn common(graph: &Graph, nodes: &[NodeId]) -> Option<Vec<String>> {
    let nodes = || nodes.iter().map(|id| graph.node(*id));
    let named: Vec<Vec<String>> = nodes().filter_map(scopes).collect();
    let placed = nodes().filter(|node| scopes(node).is_none());
    let placed = placed.filter_map(|node| parameter(graph, node));
    let module = innermost(named.iter().cloned().chain(placed)).or_else(|| innermost(named.iter().cloned()))?;
    Some(module.split('.').map(str::to_owned).collect())
}

/// The last scope that all have.
fn innermost(mut all: impl Iterator<Item = Vec<String>>) -> Option<String> {
    let mut common = all.next()?;
    for other in all {
        let same = common.iter().zip(&other).take_while(|(a, b)| a == b).count();
        common.truncate(same);
    }
    common.pop()
}

/// Dotted names of the modules, without wrappers that all of them are in (`m.transformer_blocks.0` becomes
/// `transformer_blocks.0`). A list of blocks is no wrapper, even where there is only one.
pub(super) fn dotted(modules: Vec<Option<Vec<String>>>) -> Vec<Option<String>> {
    let mut wrappers: Option<Vec<String>> = None;
    for module in modules.iter().flatten() {
        let plain = module.iter().zip(module.iter().skip(1)).take_while(|(name, next)| {
            let index = |text: &str| text.chars().all(|letter| letter.is_ascii_digit());
            !index(name) && !index(next)
        });
        let plain: Vec<String> = plain.map(|(name, _)| name.clone()).collect();
        wrappers = Some(match wrappers {
            None => plain,
            Some(wrappers) => {
                let same = wrappers.iter().zip(&plain).take_while(|(a, b)| a == b).count();
                wrappers.into_iter().take(same).collect()
            }
        });
    }
    let skip = wrappers.map_or(0, |wrappers| wrappers.len());
    modules
        .into_iter()
        .map(|module| module.map(|module| module.get(skip..).unwrap_or_default().join(".")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(dotted: &str) -> Option<Vec<String>> {
        Some(dotted.split('.').map(str::to_owned).collect())
    }

    #[test]
    fn wrappers_are_left_out_and_block_lists_are_not() {
        let found = dotted(vec![module("m.blocks.0.attn1"), None, module("m.temporal.0.attn1")]);
        assert_eq!(
            found,
            [Some("blocks.0.attn1".into()), None, Some("temporal.0.attn1".into())]
        );
        assert_eq!(
            dotted(vec![module("blocks.0.attn"), module("blocks.1.attn")])[1],
            Some("blocks.1.attn".into())
        );
    }

    #[test]
    fn both_exporters_name_modules_alike() {
        let scopes = "['', 'transformer_blocks.0', 'transformer_blocks.0.attn1', 'matmul']";
        let expected = vec![
            "transformer_blocks.0".to_owned(),
            "transformer_blocks.0.attn1".to_owned(),
        ];
        assert_eq!(dynamo(scopes), Some(expected.clone()));
        assert_eq!(torchscript("/transformer_blocks.0/attn1/MatMul"), Some(expected));
        assert_eq!(torchscript("node_1"), None);
        assert_eq!(dynamo("[]"), None);
    }
}
