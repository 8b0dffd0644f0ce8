//! Values of every element type, in every field that may hold them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::data;
use crate::onnx::messages::{DataType, TensorProto};
use crate::onnx::tensor::{TensorFault, byte_length, check, element_count};
use crate::onnx::{Model, OnnxError, Weights};

#[test]
fn typed_and_raw_fields_hold_the_same_values() {
    let model = Model::load(&data("every_type.onnx")).unwrap();
    let tensors = &model.proto.graph.as_ref().unwrap().initializer;
    let by_name: BTreeMap<&str, &TensorProto> = tensors.iter().map(|tensor| (tensor.name(), tensor)).collect();
    let weights = model.weights();
    let mut types = 0;
    for (name, typed) in by_name
        .iter()
        .filter(|(name, _)| name.ends_with(".typed") && !name.starts_with("empty"))
    {
        if name.starts_with("string") {
            assert_eq!(weights.strings(typed).unwrap(), ["a".as_bytes(), "ß".as_bytes()]);
            continue;
        }
        let raw = by_name[name.replace(".typed", ".raw").as_str()];
        assert!(typed.raw_data.is_none() && raw.raw_data.is_some(), "{name}");
        assert_eq!(weights.bytes(typed).unwrap(), weights.bytes(raw).unwrap(), "{name}");
        types += 1;
    }
    assert_eq!(types, 27);
    assert_eq!(weights.floats(by_name["scalar.raw"]).unwrap(), [7.0]);
    assert_eq!(weights.floats(by_name["empty.typed"]).unwrap(), [0.0; 0]);
}

#[test]
fn values_are_those_that_the_python_package_wrote() {
    let model = Model::load(&data("every_type.onnx")).unwrap();
    let tensors = &model.proto.graph.as_ref().unwrap().initializer;
    let reals: &[(&str, [f64; 5])] = &[
        ("float", [0.5, -1.25, 3.0, f64::from(1e-30f32), 65504.0]),
        ("double", [0.5, -1.25, 3.0, 1e-300, 65504.0]),
        ("float16", [0.5, -1.25, 3.0, 0.0, 65504.0]),
        ("bfloat16", [0.5, -1.25, 3.0, 0.0, 256.0]),
        ("float8e4m3fn", [0.5, -1.25, 3.0, 0.0, 448.0]),
        ("float8e4m3fnuz", [0.5, -1.25, 3.0, 0.0, 240.0]),
        ("float8e5m2", [0.5, -1.25, 3.0, 0.0, 57344.0]),
        ("float8e5m2fnuz", [0.5, -1.25, 3.0, 0.0, 57344.0]),
        ("float8e8m0", [0.5, 1.0, 2.0, 4.0, 1024.0]),
        ("float4e2m1", [0.5, -1.5, 3.0, 0.0, 6.0]),
        ("float6e2m3", [0.5, -1.25, 3.0, 0.125, 7.5]),
        ("float6e3m2", [0.5, -1.25, 3.0, 0.0625, 28.0]),
    ];
    let integers: &[(&str, [i64; 5])] = &[
        ("int8", [-128, -1, 0, 1, 127]),
        ("int16", [-32768, -1, 0, 1, 32767]),
        ("int32", [i64::from(i32::MIN), -1, 0, 1, i64::from(i32::MAX)]),
        ("int64", [i64::MIN, -1, 0, 1, i64::MAX]),
        ("uint8", [0, 1, 2, 128, 255]),
        ("uint16", [0, 1, 2, 32768, 65535]),
        ("uint32", [0, 1, 2, 1 << 31, (1 << 32) - 1]),
        ("uint64", [0, 1, 2, 1 << 62, i64::MAX]),
        ("bool", [1, 0, 1, 1, 0]),
        ("int4", [-8, -1, 0, 1, 7]),
        ("uint4", [0, 1, 2, 8, 15]),
        ("int2", [-2, -1, 0, 1, -2]),
        ("uint2", [0, 1, 2, 3, 1]),
    ];
    let find = |name: &str, form: &str| {
        tensors
            .iter()
            .find(|tensor| tensor.name() == format!("{name}.{form}"))
            .unwrap()
    };
    for form in ["typed", "raw"] {
        for (name, expected) in reals {
            assert_eq!(
                model.weights().floats(find(name, form)).unwrap(),
                expected,
                "{name}.{form}"
            );
            assert!(model.weights().integers(find(name, form)).is_err(), "{name}.{form}");
        }
        for (name, expected) in integers {
            assert_eq!(
                model.weights().integers(find(name, form)).unwrap(),
                expected,
                "{name}.{form}"
            );
            assert_eq!(
                model.weights().floats(find(name, form)).unwrap(),
                expected.map(|value| value as f64)
            );
        }
        for name in ["complex64", "complex128"] {
            assert!(model.weights().floats(find(name, form)).is_err());
        }
    }
}

fn tensor(element: DataType, dims: &[i64]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(element as i32),
        ..TensorProto::default()
    }
}

#[test]
fn wrong_descriptions_are_refused() {
    let short = TensorProto {
        float_data: vec![1.0; 5],
        ..tensor(DataType::Float, &[2, 3])
    };
    assert!(matches!(
        check(&short),
        Err(TensorFault::Length {
            needed: 24,
            found: 20,
            ..
        })
    ));
    let huge = tensor(DataType::Float, &[i64::MAX, i64::MAX]);
    assert!(matches!(check(&huge), Err(TensorFault::TooManyElements(_))));
    // The elements fit 64 bits, their bytes do not.
    let bytes = tensor(DataType::Complex128, &[i64::MAX]);
    assert!(matches!(byte_length(&bytes), Err(TensorFault::TooManyElements(_))));
    // Nothing at all, in whatever order the sizes stand.
    assert_eq!(element_count(&tensor(DataType::Float, &[i64::MAX, i64::MAX, 0])), Ok(0));
    let negative = tensor(DataType::Float, &[3, -1]);
    assert!(matches!(
        check(&negative),
        Err(TensorFault::NegativeDimension { axis: 1, size: -1 })
    ));
    let both = TensorProto {
        raw_data: Some(vec![0; 4].into()),
        float_data: vec![1.0],
        ..tensor(DataType::Float, &[1])
    };
    assert_eq!(check(&both), Err(TensorFault::TwoFields));
    assert_eq!(
        check(&TensorProto {
            data_type: Some(99),
            ..both.clone()
        }),
        Err(TensorFault::UnknownType(99))
    );
    assert_eq!(
        check(&TensorProto {
            data_type: None,
            ..both
        }),
        Err(TensorFault::UnknownType(0))
    );
    let wrong_field = TensorProto {
        int64_data: vec![1],
        ..tensor(DataType::Float, &[1])
    };
    assert!(matches!(
        check(&wrong_field),
        Err(TensorFault::Length {
            needed: 4,
            found: 0,
            ..
        })
    ));
}

#[test]
fn the_tensor_is_named_in_errors() {
    let large = TensorProto {
        uint64_data: vec![u64::MAX],
        name: Some("blocks.3.weight".to_owned()),
        ..tensor(DataType::Uint64, &[])
    };
    let error = Weights::default().integers(&large).unwrap_err();
    assert!(matches!(
        error,
        OnnxError::Tensor {
            fault: TensorFault::TooLarge(u64::MAX),
            ..
        }
    ));
    assert!(error.to_string().contains("blocks.3.weight"));
    assert_eq!(Weights::default().floats(&large).unwrap(), [u64::MAX as f64]);
}

proptest! {
    #[test]
    fn small_integers_round_trip_through_packing(codes in prop::collection::vec(-8i64..8, 0..40)) {
        let packed = codes.chunks(2).map(|pair| {
            let [low, high] = [pair[0], pair.get(1).copied().unwrap_or(0)].map(|code| (code & 15) as u8);
            low | high << 4
        });
        let raw = TensorProto { raw_data: Some(packed.collect()), ..tensor(DataType::Int4, &[codes.len() as i64]) };
        prop_assert_eq!(Weights::default().integers(&raw).unwrap(), codes);
    }

    #[test]
    fn any_tensor_gives_values_or_an_error(
        data_type in -1i32..30, dims in prop::collection::vec(-1i64..5, 0..4), raw in prop::option::of(prop::collection::vec(any::<u8>(), 0..70)),
        int32_data in prop::collection::vec(any::<i32>(), 0..20), float_data in prop::collection::vec(any::<f32>(), 0..5),
    ) {
        let raw_data = raw.map(Into::into);
        let tensor = TensorProto { data_type: Some(data_type), dims, raw_data, int32_data, float_data, ..TensorProto::default() };
        let weights = Weights::default();
        let count = element_count(&tensor).map(|count| count as usize);
        if let Ok(bytes) = weights.bytes(&tensor) {
            prop_assert_eq!(bytes.len() as u64, byte_length(&tensor).unwrap());
        }
        if let Ok(values) = weights.integers(&tensor) {
            prop_assert_eq!(Ok(values.len()), count.clone());
        }
        if let Ok(values) = weights.floats(&tensor) {
            prop_assert_eq!(Ok(values.len()), count);
        }
    }
}
