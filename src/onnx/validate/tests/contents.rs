//! Attributes, initializers and sparse tensors.

use super::{Violation, breaks, changed, constant, node, nodes, validate, with};
use crate::onnx::messages::{AttributeProto, AttributeType, SparseTensorProto, TensorProto};

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
