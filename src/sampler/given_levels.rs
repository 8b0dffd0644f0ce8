//! Noise levels that a run is given instead of a number of steps, as diffusers' pipelines take `timesteps` and `sigmas`.

use super::SamplerError;

/// More levels than any run has; keeps a mistake from asking for days.
const MOST: usize = 10_000;

/// Noise levels that a run is given, falling.
#[derive(Clone, Debug, PartialEq)]
pub enum GivenLevels {
    /// The timesteps of the steps.
    Timesteps(Vec<f64>),
    /// The sigmas of the steps; of `EulerDiscreteScheduler` the one after the last step too.
    Sigmas(Vec<f64>),
}

/// What a class can be given.
struct Takes {
    class: &'static str,
    timesteps: bool,
    sigmas: bool,
}

/// The classes that can be given levels, from diffusers' `set_timesteps`.
const TAKES: &[Takes] = &[
    takes("DDPMScheduler", true, false),
    takes("LCMScheduler", true, false),
    takes("EulerDiscreteScheduler", true, true),
    takes("HeunDiscreteScheduler", true, false),
    takes("DPMSolverMultistepScheduler", true, false),
    takes("DPMSolverSinglestepScheduler", true, false),
    takes("UniPCMultistepScheduler", false, true),
    takes("FlowMatchEulerDiscreteScheduler", true, true),
];

const fn takes(class: &'static str, timesteps: bool, sigmas: bool) -> Takes {
    Takes {
        class,
        timesteps,
        sigmas,
    }
}

impl GivenLevels {
    /// The word for them.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            GivenLevels::Timesteps(_) => "timesteps",
            GivenLevels::Sigmas(_) => "sigmas",
        }
    }

    /// The numbers.
    #[must_use]
    pub fn numbers(&self) -> &[f64] {
        match self {
            GivenLevels::Timesteps(numbers) | GivenLevels::Sigmas(numbers) => numbers,
        }
    }

    /// Refuses levels that the class is not given, and numbers that are no levels.
    pub(super) fn check(&self, class: &'static str) -> Result<(), SamplerError> {
        let takes = TAKES.iter().find(|takes| takes.class == class);
        let (timesteps, sigmas) = takes.map_or((false, false), |takes| (takes.timesteps, takes.sigmas));
        let taken = match self {
            GivenLevels::Timesteps(_) => timesteps,
            GivenLevels::Sigmas(_) => sigmas,
        };
        let refuse = |reason: String| SamplerError::Given {
            word: self.word(),
            reason,
        };
        if !taken {
            let instead = match (timesteps, sigmas) {
                (true, _) => "timesteps or a number of steps",
                (false, true) => "sigmas or a number of steps",
                (false, false) => "a number of steps",
            };
            return Err(refuse(format!("{class} cannot be given them; give {instead}")));
        }
        let numbers = self.numbers();
        if numbers.is_empty() || numbers.len() > MOST {
            return Err(refuse(format!("there are {}; give 1 to {MOST}", numbers.len())));
        }
        if let Some(number) = numbers.iter().find(|number| !number.is_finite() || **number < 0.0) {
            return Err(refuse(format!("{number} is none; give numbers from 0 upwards")));
        }
        match numbers.windows(2).find(|pair| pair[0] <= pair[1]) {
            Some(pair) => Err(refuse(format!(
                "{} comes before {}; give them falling, the noisiest first",
                pair[0], pair[1]
            ))),
            None => Ok(()),
        }
    }

    /// Timesteps below `trained`, where these are such; whole ones.
    pub(super) fn whole_timesteps(&self, trained: usize) -> Result<Vec<i64>, SamplerError> {
        let timesteps = self.timesteps(trained)?;
        match timesteps.iter().find(|timestep| timestep.fract() != 0.0) {
            Some(timestep) => Err(self.refuse(format!("{timestep} is no whole number, which this scheduler needs"))),
            None => Ok(timesteps.into_iter().map(|timestep| timestep as i64).collect()),
        }
    }

    /// Timesteps below `trained`, in the precision of the steps.
    pub(super) fn timesteps(&self, trained: usize) -> Result<Vec<f64>, SamplerError> {
        match self.numbers().iter().find(|timestep| **timestep >= trained as f64) {
            Some(timestep) => Err(self.refuse(format!(
                "the model was trained on timesteps below {trained}, and {timestep} is none"
            ))),
            None => Ok(self
                .numbers()
                .iter()
                .map(|&timestep| f64::from(timestep as f32))
                .collect()),
        }
    }

    /// That these levels do not go with an option.
    pub(super) fn refuse(&self, reason: String) -> SamplerError {
        SamplerError::Given {
            word: self.word(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_is_refused_with_the_reason() {
        let timesteps = |numbers: &[f64]| GivenLevels::Timesteps(numbers.to_vec());
        let refused = |levels: GivenLevels, class: &'static str| levels.check(class).unwrap_err().to_string();
        for (levels, class, part) in [
            (timesteps(&[]), "DDPMScheduler", "there are 0"),
            (timesteps(&[f64::NAN]), "DDPMScheduler", "NaN is none"),
            (timesteps(&[5.0, -1.0]), "DDPMScheduler", "-1 is none"),
            (timesteps(&[5.0, 5.0]), "DDPMScheduler", "5 comes before 5"),
            (timesteps(&[5.0]), "DDIMScheduler", "give a number of steps"),
            (timesteps(&[5.0]), "UniPCMultistepScheduler", "give sigmas or"),
            (GivenLevels::Sigmas(vec![1.0]), "DDPMScheduler", "give timesteps or"),
        ] {
            let error = refused(levels, class);
            assert!(error.contains(part), "{error}");
        }
        assert!(timesteps(&[5.0, 0.0]).check("LCMScheduler").is_ok());
        let error = timesteps(&[1000.0]).whole_timesteps(1000).unwrap_err().to_string();
        assert!(error.contains("below 1000"), "{error}");
        let error = timesteps(&[3.5]).whole_timesteps(1000).unwrap_err().to_string();
        assert!(error.contains("3.5 is no whole number"), "{error}");
    }
}
