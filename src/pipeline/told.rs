//! Inputs of a transformer that follow from sizes, texts and options, and from no encoder.

use super::{Family, LatentShape};
use crate::runtime::{Port, Tensor};
use ndarray::{Array1, Array2, Axis};

/// What an input tells the transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// How many frames the tokens of the latent are.
    Frames,
    /// How many rows.
    Height,
    /// How many columns.
    Width,
    /// The place of each token of the latent, `[tokens, 3]`: frame, row, column.
    Places,
    /// The place of each token of the text, `[tokens, 3]`: all at 0.
    TextPlaces,
    /// The scale of guidance, `[batch]`.
    Guidance,
}

/// What a run has to tell.
#[derive(Clone, Copy, Debug)]
pub struct Telling<'a> {
    /// The latent.
    pub latent: &'a LatentShape,
    /// The number of the text's tokens.
    pub text: usize,
    /// The scale of guidance.
    pub guidance: f32,
    /// Clips side by side.
    pub clips: usize,
}

impl Telling<'_> {
    /// The inputs of a pipeline's class that the model has, by name.
    #[must_use]
    pub fn inputs(&self, family: &Family, ports: &[Port]) -> Vec<(String, Tensor)> {
        let of = |(name, told): &(&str, Told)| {
            let port = ports.iter().find(|port| port.name == *name)?;
            Some((port.name.clone(), self.tensor(*told, port.shape.len())?))
        };
        family.told.iter().filter_map(of).collect()
    }

    /// The value of an input of this rank; nothing where the latent is not packed.
    fn tensor(&self, told: Told, rank: usize) -> Option<Tensor> {
        let [frames, rows, columns] = self.latent.packed_sizes()?;
        // Older exports have a batch before the tokens.
        let places = |places: Array2<f32>| match rank {
            3 => Tensor::from_array(places.insert_axis(Axis(0))),
            _ => Tensor::from_array(places),
        };
        Some(match told {
            Told::Frames => Tensor::scalar(frames as i64),
            Told::Height => Tensor::scalar(rows as i64),
            Told::Width => Tensor::scalar(columns as i64),
            Told::Places => places(Array2::from_shape_fn((frames * rows * columns, 3), |(token, axis)| {
                let place = match axis {
                    0 => token / (rows * columns),
                    1 => token / columns % rows,
                    _ => token % columns,
                };
                place as f32
            })),
            Told::TextPlaces => places(Array2::zeros((self.text, 3))),
            Told::Guidance if rank == 0 => Tensor::scalar(self.guidance),
            Told::Guidance => Tensor::from_array(Array1::from_elem(self.clips, self.guidance)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Factors, Layout, PixelSize};
    use super::*;
    use crate::runtime::ElementType;

    fn port(name: &str, shape: &[Option<i64>]) -> Port {
        Port {
            name: name.into(),
            element_type: Some(ElementType::Float32),
            description: String::new(),
            shape: shape.to_vec(),
            symbols: vec![String::new(); shape.len()],
        }
    }

    #[test]
    fn flux_is_told_places_and_guidance() {
        let family = Family::of("FluxPipeline").unwrap();
        let size = PixelSize {
            height: Some(4),
            width: Some(6),
            frames: None,
        };
        let latent = port("hidden_states", &[None, None, Some(16)]);
        let latent = LatentShape::new(&latent, Layout::Patches, size, Factors::default(), &Default::default()).unwrap();
        let telling = Telling {
            latent: &latent,
            text: 5,
            guidance: 3.5,
            clips: 2,
        };
        let ports = [
            port("img_ids", &[Some(6), Some(3)]),
            port("txt_ids", &[None, None, Some(3)]),
            port("guidance", &[None]),
        ];
        let told = telling.inputs(family, &ports);
        let numbers = |index: usize| told[index].1.as_slice::<f32>().unwrap().to_vec();
        assert_eq!(told[0].1.shape(), [6, 3]);
        // The fifth token is the second of the second row.
        assert_eq!(numbers(0)[12..15], [0.0, 1.0, 1.0]);
        assert_eq!((told[1].1.shape(), numbers(1)), (&[1, 5, 3][..], vec![0.0; 15]));
        assert_eq!(numbers(2), [3.5, 3.5]);
        // What the model does not ask for is not told.
        assert_eq!(telling.inputs(family, &ports[..1]).len(), 1);
        let ltx = Family::of("LTXPipeline").unwrap();
        let told = telling.inputs(ltx, &[port("width", &[]), port("num_frames", &[])]);
        assert_eq!(
            told.iter()
                .map(|(_, value)| value.as_slice::<i64>().unwrap()[0])
                .collect::<Vec<_>>(),
            [1, 3]
        );
    }
}
