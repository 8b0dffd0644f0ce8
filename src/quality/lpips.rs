//! Perceptual distance: Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a
//! Perceptual Metric", CVPR 2018, as version 0.1 of the authors' package `lpips` computes it.
//!
//! Frames in -1 to 1 are shifted and scaled for each colour and go through a network. Of each of its feature maps, every pixel's
//! channels are divided by their length; the squared differences are weighted by the map's head, summed over channels, averaged
//! over pixels, and summed over maps. The network is an ONNX model that puts out the maps in order; it begins behind the scaling.

use std::path::{Path, PathBuf};

use ndarray::{Array4, ArrayD, ArrayView3, ArrayViewD, Axis, Zip};

use crate::runtime::{Denoiser, ElementType, RuntimeError, Session, Tensor};

/// What is taken from red, green and blue in -1 to 1, and what the rest is divided by: the statistics of ImageNet.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];
/// The published networks halve so often that smaller frames leave nothing of the last map, on which ONNX Runtime 1.31 divides
/// by zero and ends the process: what is smaller is refused before.
pub const LPIPS_SIDE: usize = 32;
/// Is added to lengths, so that a pixel without features stays one.
const LEAST_LENGTH: f64 = 1e-10;

/// The linear heads: for each feature map the weights of its channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Heads {
    path: PathBuf,
    weights: Vec<Vec<f64>>,
}

impl Heads {
    /// The heads among the arrays of a file: `lin0`, `lin1`, … in the order of the feature maps, with anything behind a dot, as
    /// the package's own files have it (`lin0.model.1.weight`). Other arrays are left alone; `path` names the file in errors.
    ///
    /// # Errors
    /// [`LpipsError::Heads`] where there is none, one is missing or a weight is not finite.
    pub fn new(path: &Path, arrays: impl IntoIterator<Item = (String, ArrayD<f64>)>) -> Result<Heads, LpipsError> {
        let refuse = |reason: String| LpipsError::Heads {
            path: path.to_owned(),
            reason,
        };
        let mut found: Vec<(usize, Vec<f64>)> = Vec::new();
        for (name, array) in arrays {
            let Some(number) = head_number(&name) else { continue };
            let weights: Vec<f64> = array.into_iter().collect();
            if !weights.iter().all(|weight| weight.is_finite()) {
                return Err(refuse(format!("`{name}` has a weight that is not a finite number")));
            }
            found.push((number, weights));
        }
        found.sort_by_key(|(number, _)| *number);
        if found.is_empty() {
            return Err(refuse("it has no array named `lin0`, `lin1`, …".to_owned()));
        }
        for (place, (number, _)) in found.iter().enumerate() {
            if *number != place {
                return Err(refuse(format!(
                    "its heads are not numbered from `lin0` on: `lin{place}` is missing or there twice"
                )));
            }
        }
        Ok(Heads {
            path: path.to_owned(),
            weights: found.into_iter().map(|(_, weights)| weights).collect(),
        })
    }
}

/// The number of the head that an array's name says.
fn head_number(name: &str) -> Option<usize> {
    let numbered = name.strip_prefix("lin")?;
    let number = numbered.split_once('.').map_or(numbered, |(number, _)| number);
    number.parse().ok()
}

/// A network and its heads, ready to measure.
#[derive(Debug)]
pub struct Lpips {
    network: Denoiser,
    input: String,
    element_type: ElementType,
    maps: Vec<String>,
    heads: Heads,
}

impl Lpips {
    /// Puts an open network and its heads together.
    ///
    /// # Errors
    /// [`LpipsError::Network`] where the network has not one input for RGB pictures, or not a feature map for each head.
    pub fn new(session: Session, heads: Heads) -> Result<Lpips, LpipsError> {
        let refuse = |reason: String| LpipsError::Network {
            model: session.model().to_owned(),
            reason,
        };
        let [input] = session.inputs() else {
            return Err(refuse(format!("it has {} inputs", session.inputs().len())));
        };
        let pictures = matches!(input.shape.as_slice(), [None | Some(1), None | Some(3), _, _]);
        let Some(element_type) = input.element_type.filter(|_| pictures) else {
            return Err(refuse(format!("its input `{}` is {}", input.name, input.description)));
        };
        let outputs = session.outputs();
        if outputs.len() != heads.weights.len() {
            return Err(refuse(format!(
                "it puts out {} feature maps, and {} has {} heads",
                outputs.len(),
                heads.path.display(),
                heads.weights.len()
            )));
        }
        for (output, weights) in outputs.iter().zip(&heads.weights) {
            let channels = output.shape.get(1).copied().flatten();
            if output.shape.len() != 4 || channels.is_some_and(|channels| channels != weights.len() as i64) {
                return Err(refuse(format!(
                    "its output `{}` is {}, and the head for it has {} channels",
                    output.name,
                    output.description,
                    weights.len()
                )));
            }
        }
        Ok(Lpips {
            input: input.name.clone(),
            element_type,
            maps: outputs.iter().map(|output| output.name.clone()).collect(),
            network: Denoiser::plain(session),
            heads,
        })
    }

    /// The distance of two frames `[channels, height, width]` with values in [0, 1] and 1 (grey) or 3 channels: 0 where they are
    /// equal.
    ///
    /// # Errors
    /// [`LpipsError::Small`] for frames below [`LPIPS_SIDE`], [`LpipsError::Runtime`] where the network does not run,
    /// [`LpipsError::Network`] where what it puts out is not what its heads are for.
    pub fn of_frame(&mut self, reference: ArrayView3<'_, f32>, other: ArrayView3<'_, f32>) -> Result<f64, LpipsError> {
        for (_, height, width) in [reference.dim(), other.dim()] {
            if height.min(width) < LPIPS_SIDE {
                return Err(LpipsError::Small { width, height });
            }
        }
        let (reference, other) = (self.maps_of(reference)?, self.maps_of(other)?);
        let mut distance = 0.0;
        for ((reference, other), weights) in reference.iter().zip(&other).zip(&self.heads.weights) {
            let of_map = distance_of_maps(reference.view(), other.view(), weights);
            distance += of_map.ok_or_else(|| {
                self.refuse(format!(
                    "a feature map has shape {:?}, and the head for it has {} channels",
                    reference.shape(),
                    weights.len()
                ))
            })?;
        }
        if distance.is_finite() {
            Ok(distance)
        } else {
            Err(self.refuse("its feature maps are not finite numbers".to_owned()))
        }
    }

    fn maps_of(&mut self, frame: ArrayView3<'_, f32>) -> Result<Vec<ArrayD<f32>>, LpipsError> {
        let input = Tensor::from_array(scaled(frame)).cast(self.element_type);
        let mut outputs = self.network.step(&[(&self.input, &input)], &[])?;
        let mut maps = Vec::with_capacity(self.maps.len());
        for name in &self.maps {
            if let Some(place) = outputs.iter().position(|(found, _)| found == name) {
                maps.push(outputs.swap_remove(place).1.into_f32());
            }
        }
        Ok(maps)
    }

    fn refuse(&self, reason: String) -> LpipsError {
        LpipsError::Network {
            model: self.network.session().model().to_owned(),
            reason,
        }
    }
}

/// A frame as the network takes it, `[1, 3, height, width]`.
fn scaled(frame: ArrayView3<'_, f32>) -> Array4<f32> {
    let (channels, height, width) = frame.dim();
    Array4::from_shape_fn((1, 3, height, width), |(_, colour, y, x)| {
        let value = frame
            .get((colour.min(channels.saturating_sub(1)), y, x))
            .copied()
            .unwrap_or(0.0);
        let (shift, scale) = (SHIFT.get(colour).unwrap_or(&0.0), SCALE.get(colour).unwrap_or(&1.0));
        (2.0 * value - 1.0 - shift) / scale
    })
}

/// The distance that a head sees in two maps `[1, channels, height, width]`; `None` where they do not fit each other or the head.
fn distance_of_maps(reference: ArrayViewD<'_, f32>, other: ArrayViewD<'_, f32>, weights: &[f64]) -> Option<f64> {
    let maps = |map: ArrayViewD<'_, f32>| {
        let map = map.into_dimensionality::<ndarray::Ix4>().ok()?;
        (map.len_of(Axis(0)) == 1).then(|| map.index_axis(Axis(0), 0).mapv(f64::from))
    };
    let (reference, other) = (maps(reference)?, maps(other)?);
    let fit = reference.shape() == other.shape() && reference.len_of(Axis(0)) == weights.len();
    if !fit || reference.is_empty() {
        return None;
    }
    let lengths = |map: &ndarray::Array3<f64>| {
        let squares = map.mapv(|value| value * value).sum_axis(Axis(0));
        squares.mapv(|square| square.sqrt() + LEAST_LENGTH)
    };
    let (length, other_length) = (lengths(&reference), lengths(&other));
    let channels = reference.outer_iter().zip(other.outer_iter()).zip(weights);
    let sum: f64 = channels
        .map(|((reference, other), weight)| {
            let squares = Zip::from(&reference).and(&other).and(&length).and(&other_length).fold(
                0.0,
                |sum, reference, other, length, other_length| {
                    let difference = reference / length - other / other_length;
                    sum + difference * difference
                },
            );
            squares * weight
        })
        .sum();
    Some(sum / length.len() as f64)
}

/// Why perceptual distances cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum LpipsError {
    /// The network is none that can be used.
    #[error(
        "{} is no network for LPIPS: {reason}; it has to take one RGB picture [batch, 3, height, width] and put out a feature map \
         for each head, as docs/lpips/export.py writes it",
        model.display()
    )]
    Network {
        /// The file.
        model: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The heads are none that can be used.
    #[error(
        "{} has no linear heads of LPIPS: {reason}; docs/lpips/export.py writes them from the package lpips", path.display()
    )]
    Heads {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Frames are too small for the published networks.
    #[error(
        "LPIPS needs frames of at least {LPIPS_SIDE}x{LPIPS_SIDE} pixels, these have {width}x{height}; compare larger frames, or          leave out --lpips"
    )]
    Small {
        /// Width of the frames.
        width: usize,
        /// Height of the frames.
        height: usize,
    },
    /// The network does not run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, IxDyn, arr1};
    use safetensors::SafeTensors;

    use super::super::test_clips::{cases, clips, stored};
    use super::*;
    use crate::runtime::{Options, ensure};

    fn heads(network: &str) -> Heads {
        let path = stored(network).with_extension("safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
        let arrays = tensors.into_iter().map(|(name, tensor)| {
            let values = tensor.data().chunks_exact(4);
            let values: Vec<f64> = values
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()).into())
                .collect();
            (name, ArrayD::from_shape_vec(IxDyn(&[values.len()]), values).unwrap())
        });
        Heads::new(&path, arrays).unwrap()
    }

    fn open(network: &str) -> Session {
        ensure().unwrap();
        Session::open(&stored(network), &Options::default()).unwrap()
    }

    #[test]
    fn distances_equal_those_of_the_package() {
        let cases = cases("lpips");
        for network in ["alex", "squeeze"] {
            let file = format!("{network}.onnx");
            let mut lpips = Lpips::new(open(&file), heads(&file)).unwrap();
            let cases: Vec<_> = cases.iter().filter(|case| case["network"] == network).collect();
            assert!(cases.len() >= 3);
            for case in cases {
                let (reference, other) = clips(case);
                let frames = reference.axis_iter(Axis(1)).zip(other.axis_iter(Axis(1)));
                let expected = case["frames"].as_array().unwrap();
                assert_eq!(frames.len(), expected.len());
                for ((reference, other), expected) in frames.zip(expected) {
                    let ours = lpips.of_frame(reference, other).unwrap();
                    let expected = expected.as_f64().unwrap();
                    assert!(
                        (ours - expected).abs() < 1e-5 && expected > 1e-3,
                        "{network} {ours} {expected}"
                    );
                    assert_eq!(lpips.of_frame(reference, reference).unwrap(), 0.0);
                }
            }
        }
    }

    #[test]
    fn heads_are_found_by_their_numbers() {
        let path = Path::new("heads.npz");
        let array = |value: f64| arr1(&[value]).into_dyn();
        let names = [
            "lin1.model.1.weight",
            "lins.0.model.1.weight",
            "net.slice1.0.weight",
            "lin0",
            "linear",
        ];
        let arrays = names
            .iter()
            .zip([1.0, 9.0, 9.0, 0.0, 9.0])
            .map(|(name, value)| ((*name).to_owned(), array(value)));
        assert_eq!(Heads::new(path, arrays).unwrap().weights, [[0.0], [1.0]]);
        for (names, part) in [
            (&["weight"][..], "no array named `lin0`"),
            (&["lin0", "lin2"], "`lin1` is missing"),
            (&["lin0", "lin0.weight"], "`lin1` is missing or there twice"),
        ] {
            let arrays = names.iter().map(|name| ((*name).to_owned(), array(1.0)));
            let message = Heads::new(path, arrays).unwrap_err().to_string();
            assert!(message.contains("heads.npz") && message.contains(part), "{message}");
        }
        assert!(Heads::new(path, [("lin0".to_owned(), array(f64::NAN))]).is_err());
    }

    #[test]
    fn networks_that_do_not_fit_are_refused() {
        let message = Lpips::new(open("alex.onnx"), heads("squeeze.onnx"))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("5 feature maps") && message.contains("7 heads"),
            "{message}"
        );
        let mut other = heads("alex.onnx");
        other.weights[2].pop();
        let message = Lpips::new(open("alex.onnx"), other).unwrap_err().to_string();
        assert!(message.contains("383 channels"), "{message}");
        ensure().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runtime/switch.onnx");
        let session = Session::open(&model, &Options::default()).unwrap();
        let message = Lpips::new(session, heads("alex.onnx")).unwrap_err().to_string();
        assert!(
            message.contains("switch.onnx") && message.contains("export.py"),
            "{message}"
        );
        let mut lpips = Lpips::new(open("alex.onnx"), heads("alex.onnx")).unwrap();
        let small = Array3::<f32>::zeros((3, 40, 31));
        let error = lpips.of_frame(small.view(), small.view()).unwrap_err();
        assert!(error.to_string().contains("31x40"), "{error}");
        let least = Array3::<f32>::zeros((3, LPIPS_SIDE, LPIPS_SIDE));
        assert_eq!(lpips.of_frame(least.view(), least.view()).unwrap(), 0.0);
    }
}
