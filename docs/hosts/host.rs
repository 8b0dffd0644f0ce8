//! A minimal host of a patched Latte export in Rust: needs only the crates `ort` and `serde_json`.
//!
//! ```sh
//! export ORT_DYLIB_PATH=…/libonnxruntime.so
//! cargo run --example host -- patched/model.onnx samples.bin      # switch form; the plan says what drives it
//! cargo run --example host -- variants/variants.json samples.bin  # variant form
//! ```
//!
//! It knows the names of the model's own inputs, the names that begin with `pab.`, and the plan, nothing else. Where your
//! host has noise, text and a scheduler, this one has [`numbers`] and [`scheduler_step`]. Batch 2, 5 tokens of text where
//! the model leaves these open.

#![allow(clippy::unwrap_used)] // Short, for reading.

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, ValueType};
use serde_json::Value;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

const LATENT: &str = "hidden_states";
const TIMESTEP: &str = "timestep";
const TEXT: &str = "encoder_hidden_states";
const PREDICTION: &str = "sample";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, output] = arguments.as_slice() else {
        return Err("usage: host MODEL.onnx|variants.json OUTPUT".into());
    };
    let library = std::env::var_os("ORT_DYLIB_PATH").ok_or("set ORT_DYLIB_PATH to ONNX Runtime's library")?;
    let environment = ort::init_from(library)?.build()?;
    let mut host = Host::open(&environment, Path::new(path))?;
    let own = |name: &str| host.sessions[0].inputs().iter().find(|port| port.name() == name);
    let latent_shape = shape_of(own(LATENT).ok_or("no latent input")?);
    let timestep_shape = shape_of(own(TIMESTEP).ok_or("no timestep input")?);
    let text_shape = own(TEXT).map(shape_of);
    let mut latent = numbers(&latent_shape, 1);
    let mut file = std::fs::File::create(output)?;
    for (step, timestep) in host.timesteps.clone().into_iter().enumerate() {
        let timesteps = vec![timestep as i64; timestep_shape.iter().product::<i64>() as usize];
        let mut feeds: HashMap<String, DynValue> = HashMap::new();
        feeds.insert(
            LATENT.into(),
            Tensor::from_array((latent_shape.clone(), latent.clone()))?.into_dyn(),
        );
        feeds.insert(
            TIMESTEP.into(),
            Tensor::from_array((timestep_shape.clone(), timesteps))?.into_dyn(),
        );
        if let Some(shape) = &text_shape {
            feeds.insert(
                TEXT.into(),
                Tensor::from_array((shape.clone(), numbers(shape, 2)))?.into_dyn(),
            );
        }
        let (shape, prediction) = host.step(step, feeds)?;
        scheduler_step(&shape, &prediction, &latent_shape, &mut latent);
        for number in &latent {
            file.write_all(&number.to_le_bytes())?;
        }
    }
    Ok(())
}

/// Runs steps and hands on what the model feeds back to itself.
struct Host {
    sessions: Vec<Session>,
    variant_of_step: Vec<usize>,
    timesteps: Vec<f64>,
    /// For each output that is fed back, the input that takes it.
    input_of: HashMap<String, String>,
    /// By the name of the input; what is missing is zeros.
    caches: HashMap<String, DynValue>,
    plan: Option<Value>,
}

impl Host {
    fn open(environment: &Environment, path: &Path) -> Result<Host, Failure> {
        if path.extension().is_some_and(|extension| extension == "json") {
            let index: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
            let files = list(&index["variants"]).iter().map(|variant| text(&variant["file"]));
            let sessions = files.map(|file| open_session(environment, &path.with_file_name(file)));
            return Ok(Host {
                sessions: sessions.collect::<Result<_, _>>()?,
                variant_of_step: list(&index["steps"])
                    .iter()
                    .map(|step| step.as_u64().unwrap() as usize)
                    .collect(),
                timesteps: timesteps(&index["timesteps"]),
                input_of: pairs(list(&index["fed_back"])),
                caches: HashMap::new(),
                plan: None,
            });
        }
        let session = open_session(environment, path)?;
        let plan: Value = serde_json::from_str(&session.metadata()?.custom("pab.plan").ok_or("no plan")?)?;
        let mut input_of = HashMap::new();
        for site in list(&plan["sites"]) {
            input_of.extend(pairs(list(&site["caches"])));
        }
        for rule in list(&plan["rules"]).iter().filter(|rule| rule["state"].is_object()) {
            input_of.extend(pairs(std::slice::from_ref(&rule["state"])));
        }
        Ok(Host {
            sessions: vec![session],
            variant_of_step: vec![0; list(&plan["schedule"]["broadcast"][0]).len()],
            timesteps: timesteps(&plan["schedule"]["timesteps"]),
            input_of,
            caches: HashMap::new(),
            plan: Some(plan),
        })
    }

    /// Adds what tells the model what to broadcast; nothing to a variant, which was chosen by the step.
    fn drive(&self, step: usize, feeds: &mut HashMap<String, DynValue>) -> Result<(), Failure> {
        let scalar: [i64; 0] = [];
        match &self.plan {
            Some(plan) if plan["drive"] == "step" => {
                feeds.insert(
                    "pab.step".into(),
                    Tensor::from_array((scalar, vec![step as i64]))?.into_dyn(),
                );
            }
            Some(plan) => {
                for (rule, row) in list(&plan["rules"]).iter().zip(list(&plan["schedule"]["broadcast"])) {
                    let flag = row[step].as_bool().unwrap();
                    feeds.insert(
                        text(&rule["flag"]).into(),
                        Tensor::from_array((scalar, vec![flag]))?.into_dyn(),
                    );
                }
            }
            None => {}
        }
        Ok(())
    }

    /// The prediction of a step, and its shape.
    fn step(&mut self, step: usize, mut feeds: HashMap<String, DynValue>) -> Result<(Vec<i64>, Vec<f32>), Failure> {
        self.drive(step, &mut feeds)?;
        let session = &mut self.sessions[self.variant_of_step[step]];
        let mut values: Vec<(String, SessionInputValue<'_>)> = Vec::new();
        for port in session.inputs() {
            let name = port.name().to_owned();
            let value = match (feeds.remove(&name), self.caches.get(&name)) {
                (Some(value), _) => value.into(),
                (None, Some(cache)) => SessionInputValue::from(cache),
                (None, None) => zeros(port)?.into(),
            };
            values.push((name, value));
        }
        let outputs = session.run(values)?;
        let (shape, prediction) = outputs[PREDICTION].try_extract_tensor::<f32>()?;
        let prediction = (shape.to_vec(), prediction.to_vec());
        for (name, value) in outputs {
            if let Some(input) = self.input_of.get(name) {
                self.caches.insert(input.clone(), value);
            }
        }
        Ok(prediction)
    }
}

fn open_session(environment: &Environment, path: &Path) -> Result<Session, Failure> {
    Ok(Session::builder(environment)?.commit_from_file(path)?)
}

/// Sizes that the model leaves open may be 1 in caches: zeros stand only where nothing was computed.
fn shape_of(port: &Outlet) -> Vec<i64> {
    let ValueType::Tensor {
        shape,
        dimension_symbols,
        ..
    } = port.dtype()
    else {
        return Vec::new();
    };
    let size = |(size, symbol): (&i64, &String)| match symbol.as_str() {
        _ if *size >= 0 => *size,
        "batch" => 2,
        "text" => 5,
        _ => 1,
    };
    shape.iter().zip(dimension_symbols.iter()).map(size).collect()
}

fn zeros(port: &Outlet) -> Result<DynValue, Failure> {
    let shape = shape_of(port);
    let count = shape.iter().product::<i64>() as usize;
    match port.dtype() {
        ValueType::Tensor {
            ty: TensorElementType::Float32,
            ..
        } => Ok(Tensor::from_array((shape, vec![0.0_f32; count]))?.into_dyn()),
        other => Err(format!("`{}` is {other}: this host makes zeros of float32 only", port.name()).into()),
    }
}

/// Stands in for noise: numbers from -0.5 to 0.5 that every language makes alike.
fn numbers(shape: &[i64], seed: u64) -> Vec<f32> {
    let number = |index: u64| {
        let mixed = ((index + seed * 1_000_003) * 2_654_435_761) % (1 << 32);
        (mixed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..shape.iter().product::<i64>() as u64).map(number).collect()
}

/// Stands in for a scheduler. The prediction may have more channels (axis 1) than the latent.
fn scheduler_step(shape: &[i64], prediction: &[f32], latent_shape: &[i64], latent: &mut [f32]) {
    let clip = |shape: &[i64]| shape[1..].iter().product::<i64>() as usize;
    let clips = latent
        .chunks_mut(clip(latent_shape))
        .zip(prediction.chunks(clip(shape)));
    for (latent, prediction) in clips {
        for (latent, prediction) in latent.iter_mut().zip(prediction) {
            *latent -= 0.125 * prediction;
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn timesteps(value: &Value) -> Vec<f64> {
    list(value).iter().filter_map(Value::as_f64).collect()
}

fn pairs(caches: &[Value]) -> HashMap<String, String> {
    let pair = |cache: &Value| (text(&cache["output"]).to_owned(), text(&cache["input"]).to_owned());
    caches.iter().map(pair).collect()
}
