use super::*;
use crate::onnx::SaveOptions;
use crate::runtime::arena::TURN;
use std::collections::HashSet;
use std::sync::PoisonError;

fn export() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/latte.ts17.static.onnx")
}

#[test]
fn weights_stand_where_they_are_said_to() {
    let folder = tempfile::tempdir().unwrap();
    let beside = folder.path().join("beside.onnx");
    let options = SaveOptions {
        move_weights: true,
        ..SaveOptions::default()
    };
    Model::load(&export()).unwrap().save(&beside, &options).unwrap();
    for (path, others) in [(export(), 0), (beside, 1)] {
        let model = Model::load(&path).unwrap();
        let mut elsewhere = std::collections::BTreeSet::new();
        let mut found = 0;
        for tensor in &model.proto.graph.as_ref().unwrap().initializer {
            let Some(standing) = model.weights().standing(tensor).unwrap() else {
                continue;
            };
            let file = std::fs::read(&standing.path).unwrap();
            let (offset, length) = (standing.offset as usize, standing.length as usize);
            assert_eq!(file[offset..offset + length], model.weights().bytes(tensor).unwrap());
            found += 1;
            if standing.path != path.canonicalize().unwrap() {
                elsewhere.insert(standing.path);
            }
        }
        assert!(found > 20, "{found}");
        assert_eq!(elsewhere.len(), others);
    }
}

#[test]
fn sessions_are_given_the_same_matrices() {
    crate::runtime::ensure().unwrap();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut weights = SharedWeights::default();
    let options = Options {
        provider: Provider::Cpu,
        ..Options::default()
    };
    let mut open = || {
        let session = weights.open(&export(), Model::load(&export()).unwrap(), &options);
        drop(session.unwrap());
        (weights.values.len(), weights.maps.len())
    };
    let first = open();
    assert!(first.0 >= 10 && first.1 == 1, "{first:?}");
    assert_eq!(open(), first);
}

/// As a rank has those of which it has a part only.
#[test]
fn graphs_of_a_rank_share_weights_that_stand_in_no_file() {
    crate::runtime::ensure().unwrap();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = Model::load(&export()).unwrap();
    let mut proto = loaded.proto.clone();
    for tensor in &mut proto.graph.as_mut().unwrap().initializer {
        let bytes = loaded.weights().bytes(tensor).unwrap();
        if tensor.raw_data.is_some() {
            tensor.raw_data = Some(Bytes::from(bytes.to_vec()));
        }
    }
    let model = || Model::with_weights(proto.clone(), loaded.weights().clone());
    let world = crate::collective::World::new(
        crate::collective::Mesh::new(1, 1, 1).unwrap(),
        std::time::Duration::from_secs(60),
    );
    let communicator: Arc<dyn Communicator> = world.join(0).unwrap();
    let options = Options {
        provider: Provider::Cpu,
        threads: Some(1),
        ..Options::default()
    };
    let held = |graphs: RankGraphs, times: usize| {
        let mut weights = SharedWeights::default();
        let sessions = (0..times).map(|_| {
            let opened = weights.open_rank(&export(), model(), &options, &communicator, graphs);
            opened.unwrap().shares_arena()
        });
        let share: Vec<bool> = sessions.collect();
        (weights.parts.len(), share.iter().all(|shares| *shares))
    };
    let (once, shares) = held(RankGraphs::Several, 1);
    assert!(once >= 10 && shares, "{once}");
    assert_eq!(held(RankGraphs::Several, 2), (once, true));
    assert_eq!(held(RankGraphs::One, 1), (0, false));
}

#[test]
fn sizes_that_are_known_are_the_graphs_own() {
    crate::runtime::ensure().unwrap();
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/latte.ts17.dynamic.onnx");
    let mut weights = SharedWeights::default();
    weights.fix_sizes(BTreeMap::from([("batch".to_owned(), 2)]));
    let options = Options {
        provider: Provider::Cpu,
        ..Options::default()
    };
    let session = weights.open(&path, Model::load(&path).unwrap(), &options).unwrap();
    for port in session.inputs() {
        assert_eq!(port.shape[0], Some(2), "{port:?}");
    }
    assert!(session.inputs().iter().any(|port| port.shape.contains(&None)));
}

#[test]
fn a_weight_with_another_use_is_left_to_the_graph() {
    let node = |operator: &str, inputs: [&str; 2]| crate::onnx::messages::NodeProto {
        op_type: Some(operator.to_owned()),
        input: inputs.map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let graph = GraphProto {
        node: vec![
            node("MatMul", ["x", "only"]),
            node("MatMul", ["x", "both"]),
            node("Add", ["both", "y"]),
        ],
        ..GraphProto::default()
    };
    assert_eq!(kept(&graph), HashSet::from(["only".to_owned()]));
}
