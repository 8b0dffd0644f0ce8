//! One broken model for each rule, and sound ones beside them.

use super::{Violation, validate};
use crate::onnx::messages::{
    AttributeProto, AttributeType, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, TensorProto, TensorType, TypeProto, ValueInfoProto,
};

fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        input: owned(inputs),
        output: owned(outputs),
        op_type: Some(operator.to_owned()),
        ..NodeProto::default()
    }
}

fn value(name: &str) -> ValueInfoProto {
    let tensor_type = Some(TensorType {
        elem_type: Some(1),
        shape: None,
    });
    let r#type = Some(TypeProto {
        tensor_type,
        ..TypeProto::default()
    });
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type,
        ..ValueInfoProto::default()
    }
}

fn constant(name: &str) -> TensorProto {
    TensorProto {
        data_type: Some(1),
        name: Some(name.to_owned()),
        float_data: vec![1.0],
        ..TensorProto::default()
    }
}

fn graph(inputs: &[&str], node: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    GraphProto {
        node,
        name: Some("g".to_owned()),
        input: inputs.iter().map(|name| value(name)).collect(),
        output: outputs.iter().map(|name| value(name)).collect(),
        ..GraphProto::default()
    }
}

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    }
}

fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        graph: Some(graph),
        opset_import: vec![import("", 20), import("local", 1)],
        ..ModelProto::default()
    }
}

fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

/// `x → a → y`, changed by `change`.
fn changed(change: impl FnOnce(&mut ModelProto)) -> ModelProto {
    let mut proto = model(graph(
        &["x"],
        vec![node("Neg", &["x"], &["a"]), node("Abs", &["a"], &["y"])],
        &["y"],
    ));
    change(&mut proto);
    proto
}

fn nodes(list: Vec<NodeProto>) -> ModelProto {
    model(graph(&["x"], list, &["y"]))
}

#[test]
fn a_sound_model_passes() {
    validate(&changed(|_| ())).unwrap();
}

/// Asserts that a model breaks this rule at a place with this text.
macro_rules! breaks {
    ($proto:expr, $place:literal, $rule:pat) => {
        let error = validate(&$proto).unwrap_err();
        assert!(matches!(error.violation, $rule), "{error}");
        assert_eq!(error.place, $place);
    };
}

#[test]
fn versions_and_imports() {
    breaks!(
        changed(|proto| proto.ir_version = None),
        "model",
        Violation::NoIrVersion
    );
    breaks!(
        changed(|proto| proto.ir_version = Some(15)),
        "model",
        Violation::IrVersion(15)
    );
    breaks!(changed(|proto| proto.graph = None), "model", Violation::NoGraph);
    breaks!(changed(|proto| proto.opset_import.clear()), "model", Violation::NoOpset);
    breaks!(
        changed(|proto| proto.opset_import.push(import("ai.onnx", 19))),
        "model",
        Violation::OpsetTwice(_)
    );
    breaks!(
        changed(|proto| proto.opset_import.push(import("z", 0))),
        "model",
        Violation::OpsetVersion { .. }
    );
    let mut foreign = node("Fancy", &["x"], &["y"]);
    foreign.domain = Some("elsewhere".to_owned());
    foreign.name = Some("fancy_1".to_owned());
    breaks!(
        nodes(vec![foreign]),
        "graph `g`, node 0 `fancy_1` (Fancy)",
        Violation::NotImported(_)
    );
    let mut long = node("Neg", &["x"], &["y"]);
    long.domain = Some("ai.onnx".to_owned());
    validate(&nodes(vec![long])).unwrap();
}

#[test]
fn names_and_order() {
    breaks!(
        nodes(vec![node("Neg", &["x"], &["y"]), node("Abs", &["x"], &["y"])]),
        "graph `g`, node 1 (Abs)",
        Violation::Duplicate(_)
    );
    breaks!(
        nodes(vec![node("Neg", &["x"], &["x", "y"])]),
        "graph `g`, node 0 (Neg)",
        Violation::Duplicate(_)
    );
    breaks!(
        nodes(vec![node("Neg", &["q"], &["y"])]),
        "graph `g`, node 0 (Neg)",
        Violation::Undefined(_)
    );
    breaks!(
        nodes(vec![node("Abs", &["a"], &["y"]), node("Neg", &["x"], &["a"])]),
        "graph `g`, node 0 (Abs)",
        Violation::NotSorted { .. }
    );
    breaks!(
        nodes(vec![
            node("Abs", &["b"], &["a"]),
            node("Neg", &["a"], &["b"]),
            node("Abs", &["b"], &["y"])
        ]),
        "graph `g`, node 0 (Abs)",
        Violation::Cycle { .. }
    );
    breaks!(
        nodes(vec![node("Neg", &["y"], &["y"])]),
        "graph `g`, node 0 (Neg)",
        Violation::Cycle { .. }
    );
    breaks!(
        nodes(vec![node("", &["x"], &["y"])]),
        "graph `g`, node 0 ()",
        Violation::NoOperator
    );
    breaks!(nodes(vec![]), "graph `g`", Violation::OutputUndefined(_));
    breaks!(
        model(graph(&["x"], vec![], &["x", "x"])),
        "graph `g`",
        Violation::OutputTwice(_)
    );
    breaks!(
        model(graph(&["x", "x"], vec![], &["x"])),
        "graph `g`",
        Violation::Duplicate(_)
    );
    breaks!(
        model(graph(&["x", ""], vec![], &["x"])),
        "graph `g`",
        Violation::NoName("an input")
    );
    // Left-out inputs and outputs have empty names.
    validate(&nodes(vec![node("Clip", &["x", "", "x"], &["y", "", ""])])).unwrap();
}

#[test]
fn types_of_values() {
    let typed = |kind: Option<TypeProto>| changed(|proto| proto.graph.as_mut().unwrap().input[0].r#type = kind);
    let tensor = |elem_type| Some(TensorType { elem_type, shape: None });
    breaks!(typed(None), "graph `g`", Violation::NoType { what: "input", .. });
    breaks!(typed(Some(TypeProto::default())), "graph `g`", Violation::NoType { .. });
    for number in [None, Some(0), Some(29), Some(-1)] {
        let kind = TypeProto {
            tensor_type: tensor(number),
            ..TypeProto::default()
        };
        breaks!(typed(Some(kind)), "graph `g`", Violation::ElementType { .. });
    }
    let both = TypeProto {
        tensor_type: tensor(Some(1)),
        opaque_type: Some(Default::default()),
        ..TypeProto::default()
    };
    breaks!(typed(Some(both)), "graph `g`", Violation::ManyTypes(_));
}

#[test]
fn nested_graphs_see_what_is_defined_before_them() {
    let branch = |inner: Vec<NodeProto>| {
        with(
            node("If", &["x"], &["y"]),
            body("then_branch", graph(&[], inner, &["t"])),
        )
    };
    validate(&nodes(vec![branch(vec![node("Neg", &["x"], &["t"])])])).unwrap();
    // The names of one branch are free again in the other.
    let mut two = branch(vec![node("Neg", &["x"], &["t"])]);
    two.attribute.push(body(
        "else_branch",
        graph(&[], vec![node("Abs", &["x"], &["t"])], &["t"]),
    ));
    validate(&nodes(vec![two.clone(), node("Neg", &["x"], &["t"])])).unwrap();
    breaks!(
        nodes(vec![node("Neg", &["x"], &["t"]), two]),
        "graph `g`, node 1 (If), attribute `then_branch`, graph `g`, node 0 (Neg)",
        Violation::Shadows(_)
    );
    breaks!(
        nodes(vec![
            branch(vec![node("Neg", &["later"], &["t"])]),
            node("Neg", &["x"], &["later"])
        ]),
        "graph `g`, node 0 (If), attribute `then_branch`, graph `g`, node 0 (Neg)",
        Violation::NotSorted { .. }
    );
    breaks!(
        nodes(vec![branch(vec![node("Neg", &["y"], &["t"])])]),
        "graph `g`, node 0 (If), attribute `then_branch`, graph `g`, node 0 (Neg)",
        Violation::Cycle { .. }
    );
    // The cycle goes through a captured value.
    breaks!(
        nodes(vec![
            node("Abs", &["y"], &["a"]),
            branch(vec![node("Neg", &["a"], &["t"])])
        ]),
        "graph `g`, node 0 (Abs)",
        Violation::Cycle { .. }
    );
    let outer = with(
        node("If", &["x"], &["y"]),
        body("then_branch", graph(&[], vec![], &["x"])),
    );
    breaks!(
        nodes(vec![outer]),
        "graph `g`, node 0 (If), attribute `then_branch`, graph `g`",
        Violation::OutputUndefined(_)
    );
    let shadowing = with(
        node("Loop", &["x"], &["y"]),
        body("body", graph(&["x"], vec![], &["x"])),
    );
    breaks!(
        nodes(vec![shadowing]),
        "graph `g`, node 0 (Loop), attribute `body`, graph `g`",
        Violation::Shadows(_)
    );
    let mut deep = graph(&[], vec![node("Neg", &["x"], &["t"])], &["t"]);
    for level in 0..70 {
        let name = format!("t{level}");
        deep = graph(
            &[],
            vec![with(node("If", &["x"], &[&name]), body("then_branch", deep))],
            &[&name],
        );
    }
    let error = validate(&nodes(vec![with(
        node("If", &["x"], &["y"]),
        body("then_branch", deep),
    )]))
    .unwrap_err();
    assert!(matches!(error.violation, Violation::TooDeep(64)), "{error}");
}

#[test]
fn attributes_hold_what_they_say() {
    let number = AttributeProto {
        name: Some("alpha".to_owned()),
        r#type: Some(AttributeType::Float as i32),
        f: Some(0.0),
        ..AttributeProto::default()
    };
    let checked = |attribute: AttributeProto| nodes(vec![with(node("Elu", &["x"], &["y"]), attribute)]);
    let place = "graph `g`, node 0 (Elu)";
    let broken = |attribute: AttributeProto| {
        let error = validate(&checked(attribute)).unwrap_err();
        assert_eq!(error.place, place);
        error.violation
    };
    validate(&checked(number.clone())).unwrap();
    // Left out is zero, as writers that know no presence have it.
    validate(&checked(AttributeProto {
        f: None,
        ..number.clone()
    }))
    .unwrap();
    assert!(matches!(
        broken(AttributeProto {
            name: None,
            ..number.clone()
        }),
        Violation::NoName("an attribute")
    ));
    for kind in [None, Some(0), Some(15)] {
        assert!(matches!(
            broken(AttributeProto {
                r#type: kind,
                ..number.clone()
            }),
            Violation::AttributeType { .. }
        ));
    }
    assert!(matches!(
        broken(AttributeProto {
            i: Some(1),
            ..number.clone()
        }),
        Violation::AttributeValue(_)
    ));
    assert!(matches!(
        broken(AttributeProto {
            r#type: Some(2),
            ..number.clone()
        }),
        Violation::AttributeValue(_)
    ));
    let tensor = AttributeProto {
        r#type: Some(4),
        f: None,
        ..number.clone()
    };
    assert!(matches!(broken(tensor.clone()), Violation::AttributeValue(_)));
    validate(&checked(AttributeProto {
        t: Some(constant("")),
        ..tensor.clone()
    }))
    .unwrap();
    let torn = TensorProto {
        dims: vec![2],
        ..constant("")
    };
    assert!(matches!(
        broken(AttributeProto {
            t: Some(torn),
            ..tensor
        }),
        Violation::Tensor { .. }
    ));
    let reference = AttributeProto {
        ref_attr_name: Some("beta".to_owned()),
        f: None,
        ..number.clone()
    };
    assert!(matches!(broken(reference), Violation::AttributeReference { .. }));
    let twice = with(with(node("Elu", &["x"], &["y"]), number.clone()), number);
    breaks!(
        nodes(vec![twice]),
        "graph `g`, node 0 (Elu)",
        Violation::AttributeTwice(_)
    );
}

#[test]
fn initializers_fit() {
    let held = |tensors: Vec<TensorProto>| changed(|proto| proto.graph.as_mut().unwrap().initializer = tensors);
    validate(&held(vec![constant("w")])).unwrap();
    // The default value of an input.
    validate(&held(vec![constant("x")])).unwrap();
    breaks!(
        held(vec![constant("w"), constant("w")]),
        "graph `g`",
        Violation::Duplicate(_)
    );
    breaks!(
        held(vec![constant("x"), constant("x")]),
        "graph `g`",
        Violation::Duplicate(_)
    );
    breaks!(
        held(vec![constant("a")]),
        "graph `g`, node 0 (Neg)",
        Violation::Duplicate(_)
    );
    breaks!(
        held(vec![constant("")]),
        "graph `g`",
        Violation::NoName("an initializer")
    );
    breaks!(
        held(vec![TensorProto {
            dims: vec![2],
            ..constant("w")
        }]),
        "graph `g`",
        Violation::Tensor { .. }
    );
    let outside = TensorProto {
        data_location: Some(1),
        float_data: Vec::new(),
        ..constant("w")
    };
    breaks!(held(vec![outside]), "graph `g`", Violation::External { .. });
    let mut old = held(vec![constant("w")]);
    old.ir_version = Some(3);
    breaks!(old, "graph `g`", Violation::InitializerNotInput(_));
}

#[test]
fn sparse_tensors_fit() {
    let sparse = |dims: Vec<i64>, indices: Vec<i64>| {
        let count = indices.len() as i64;
        let values = TensorProto {
            dims: vec![count],
            float_data: vec![1.0; indices.len()],
            ..constant("s")
        };
        let indices = TensorProto {
            dims: vec![count],
            data_type: Some(7),
            int64_data: indices,
            ..TensorProto::default()
        };
        changed(|proto| {
            let sparse = SparseTensorProto {
                values: Some(values),
                indices: Some(indices),
                dims,
            };
            proto.graph.as_mut().unwrap().sparse_initializer.push(sparse);
        })
    };
    validate(&sparse(vec![4], vec![0, 3])).unwrap();
    breaks!(sparse(vec![], vec![0, 3]), "graph `g`", Violation::Sparse { .. });
    breaks!(sparse(vec![-4], vec![0]), "graph `g`", Violation::Sparse { .. });
    let mut misfit = sparse(vec![4], vec![0, 3]);
    let graph = misfit.graph.as_mut().unwrap();
    graph.sparse_initializer[0].indices.as_mut().unwrap().dims = vec![1, 2];
    breaks!(misfit, "graph `g`", Violation::Sparse { .. });
}

/// A function `local.name(a) -> b` with this body.
fn function(name: &str, body: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: Some(name.to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: body,
        opset_import: vec![import("", 20), import("local", 1)],
        domain: Some("local".to_owned()),
        ..FunctionProto::default()
    }
}

fn call(name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        domain: Some("local".to_owned()),
        ..node(name, inputs, outputs)
    }
}

#[test]
fn functions_resolve() {
    let calling = |called: NodeProto, functions: Vec<FunctionProto>| ModelProto {
        functions,
        ..nodes(vec![called])
    };
    let negate = || function("F", vec![node("Neg", &["a"], &["b"])]);
    validate(&calling(call("F", &["x"], &["y"]), vec![negate()])).unwrap();
    // Without any local function the domain's operators are the runtime's.
    validate(&calling(call("G", &["x"], &["y"]), vec![])).unwrap();
    breaks!(
        calling(call("G", &["x"], &["y"]), vec![negate()]),
        "graph `g`, node 0 (G)",
        Violation::FunctionUndefined(_)
    );
    breaks!(
        calling(call("F", &["x", "x"], &["y"]), vec![negate()]),
        "graph `g`, node 0 (F)",
        Violation::FunctionArity {
            inputs: 1,
            outputs: 1,
            ..
        }
    );
    breaks!(
        calling(call("F", &["x"], &["y"]), vec![negate(), negate()]),
        "model",
        Violation::FunctionTwice(_)
    );
    // A body does not see the graph's values.
    breaks!(
        calling(
            call("F", &["x"], &["y"]),
            vec![function("F", vec![node("Neg", &["x"], &["b"])])]
        ),
        "function `F`, node 0 (Neg)",
        Violation::Undefined(_)
    );
    breaks!(
        calling(call("F", &["x"], &["y"]), vec![function("F", vec![])]),
        "function `F`",
        Violation::OutputUndefined(_)
    );
    let itself = vec![
        function("F", vec![call("G", &["a"], &["b"])]),
        function("G", vec![call("F", &["a"], &["b"])]),
    ];
    breaks!(
        calling(call("F", &["x"], &["y"]), itself),
        "model",
        Violation::FunctionRecursive(_)
    );
    let mut other = negate();
    other.opset_import.clear();
    breaks!(
        calling(call("F", &["x"], &["y"]), vec![other]),
        "function `F`, node 0 (Neg)",
        Violation::NotImported(_)
    );
}
