//! Where a pipeline of two transformers passes from the one for much noise to the one for little, as Wan 2.2 has it.

use super::{Folder, PipelineError};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The components that make the steps, in their order.
pub const TRANSFORMERS: [&str; 2] = ["transformer", "transformer_2"];

/// Classes with two transformers.
const CLASSES: &[&str] = &["WanPipeline"];

/// The key of the index.
const KEY: &str = "boundary_ratio";

/// How far below a transformer's folder a file of it stands at most: `transformer/patched/model.onnx`.
const DEPTH: usize = 2;

/// The boundary of a pipeline: steps at its timestep and above are the first transformer's, those below the second's.
#[derive(Clone, Debug, PartialEq)]
pub struct Boundary {
    /// The boundary's timestep as a share of those that the scheduler was trained with.
    ratio: f64,
    index: PathBuf,
}

impl Boundary {
    /// The boundary of a pipeline; none where one transformer makes all steps.
    ///
    /// # Errors
    /// [`PipelineError::File`] where the index has no number from 0 to 1 there, or no second transformer beside it.
    pub fn of(folder: &Folder) -> Result<Option<Boundary>, PipelineError> {
        let Some(ratio) = folder.index_value(KEY) else {
            return Ok(None);
        };
        if !folder.family().is_ok_and(|family| CLASSES.contains(&family.class)) {
            return Ok(None);
        }
        let refuse = |reason: String| PipelineError::File {
            path: folder.index_path(),
            reason,
        };
        let ratio = ratio.as_f64().filter(|ratio| (0.0..=1.0).contains(ratio));
        let ratio = ratio.ok_or_else(|| {
            refuse(format!(
                "`{KEY}` has to be a number from 0 to 1, or null where one transformer makes all steps; save the pipeline again \
                 with diffusers"
            ))
        })?;
        if let Some(missing) = TRANSFORMERS.iter().find(|component| folder.is_without(component)) {
            return Err(refuse(format!(
                "`{KEY}` has two transformers take turns, and `{missing}` is null; write `{KEY}`: null where `transformer` makes \
                 all steps"
            )));
        }
        Ok(Some(Boundary {
            ratio,
            index: folder.index_path(),
        }))
    }

    /// The boundary as a share of the timesteps that the scheduler was trained with.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ratio
    }

    /// The pipeline's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.index.parent().unwrap_or(&self.index)
    }

    /// The steps of each transformer in a run through `timesteps`, where the scheduler was trained with `trained`.
    ///
    /// # Errors
    /// [`PipelineError::Boundary`] where the run comes back above the boundary once it was below.
    pub fn parts(&self, timesteps: &[f64], trained: u32) -> Result<[Range<usize>; 2], PipelineError> {
        // diffusers compares in single precision.
        let boundary = (self.ratio * f64::from(trained)) as f32;
        let is_above = |timestep: &f64| *timestep as f32 >= boundary;
        let first = timesteps.iter().take_while(|timestep| is_above(timestep)).count();
        let mut rest = timesteps.iter().enumerate().skip(first);
        if let Some((step, timestep)) = rest.find(|(_, timestep)| is_above(timestep)) {
            return Err(PipelineError::Boundary {
                index: self.index.clone(),
                boundary: f64::from(boundary),
                step,
                timestep: *timestep,
            });
        }
        Ok([0..first, first..timesteps.len()])
    }
}

/// A file as the transformer that it is of a pipeline with two.
#[derive(Clone, Debug, PartialEq)]
pub struct OneOfTwo {
    /// The pipeline's class.
    pub class: String,
    /// Which it is, as an index into [`TRANSFORMERS`].
    pub place: usize,
    /// Where the pipeline passes from one to the other.
    pub boundary: Boundary,
}

impl OneOfTwo {
    /// What `model` is by the folders that it stands in; none where it is no such transformer.
    #[must_use]
    pub fn of_file(model: &Path) -> Option<OneOfTwo> {
        let model = std::path::absolute(model).ok()?;
        let above = model.ancestors().skip(1).take(DEPTH);
        above.into_iter().find_map(|component| {
            let name = component.file_name()?.to_str()?;
            let place = TRANSFORMERS.iter().position(|transformer| *transformer == name)?;
            let folder = Folder::open(component.parent()?).ok()?;
            Some(OneOfTwo {
                class: folder.class().to_owned(),
                place,
                boundary: Boundary::of(&folder).ok()??,
            })
        })
    }

    /// Its own of the timesteps of a run, where the scheduler was trained with `trained`.
    ///
    /// # Errors
    /// As [`Boundary::parts`].
    pub fn own(&self, timesteps: &[f64], trained: u32) -> Result<Vec<f64>, PipelineError> {
        let part = self.boundary.parts(timesteps, trained)?.into_iter().nth(self.place);
        let own = part.and_then(|part| timesteps.get(part));
        Ok(own.unwrap_or_default().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(index: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("model_index.json"), index).unwrap();
        root
    }

    fn boundary(index: &str) -> Result<Option<Boundary>, PipelineError> {
        Boundary::of(&Folder::open(pipeline(index).path())?)
    }

    #[test]
    fn steps_part_at_the_boundary_as_in_diffusers() {
        let boundary = boundary(r#"{"_class_name": "WanPipeline", "boundary_ratio": 0.9}"#);
        let boundary = boundary.unwrap().unwrap();
        for (timesteps, first) in [
            (&[999.0, 901.0, 900.0, 899.0, 3.0][..], 3),
            (&[899.0, 3.0], 0),
            (&[999.0], 1),
            (&[], 0),
        ] {
            assert_eq!(
                boundary.parts(timesteps, 1000).unwrap(),
                [0..first, first..timesteps.len()]
            );
        }
        assert_eq!(boundary.parts(&[460.0, 449.0], 500).unwrap(), [0..1, 1..2]);
        let error = boundary.parts(&[950.0, 800.0, 901.0], 1000).unwrap_err().to_string();
        assert!(error.contains("step 2") && error.contains("--scheduler"), "{error}");
    }

    #[test]
    fn indices_without_a_boundary_have_none_and_damaged_ones_are_refused() {
        for index in [
            r#"{"_class_name": "WanPipeline"}"#,
            r#"{"_class_name": "WanPipeline", "boundary_ratio": null}"#,
            r#"{"_class_name": "LattePipeline", "boundary_ratio": 0.5}"#,
        ] {
            assert_eq!(boundary(index).unwrap(), None, "{index}");
        }
        for (more, part) in [
            (r#""boundary_ratio": 1.5"#, "from 0 to 1"),
            (r#""boundary_ratio": "x""#, "from 0 to 1"),
            (
                r#""boundary_ratio": 0.5, "transformer_2": [null, null]"#,
                "`transformer_2` is null",
            ),
        ] {
            let error = boundary(&format!(r#"{{"_class_name": "WanPipeline", {more}}}"#)).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("model_index.json") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn files_are_known_by_the_folders_that_they_stand_in() {
        let root = pipeline(r#"{"_class_name": "WanPipeline", "boundary_ratio": 0.5}"#);
        for (file, place) in [
            ("transformer/model.onnx", Some(0)),
            ("transformer_2/patched/model.onnx", Some(1)),
            ("vae_decoder/model.onnx", None),
            ("model.onnx", None),
        ] {
            let found = OneOfTwo::of_file(&root.path().join(file));
            assert_eq!(found.as_ref().map(|found| found.place), place, "{file}");
            let own = found.map(|found| found.own(&[900.0, 500.0, 100.0], 1000).unwrap());
            let expected = place.map(|place| [vec![900.0, 500.0], vec![100.0]][place].clone());
            assert_eq!(own, expected, "{file}");
        }
    }
}
