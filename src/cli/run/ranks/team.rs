//! One rank at work, and its way to the others.

use super::options::{Carrier, RankOptions};
use super::part::Part;
use super::parts::{Opening, Parts};
use super::report::RanksReport;
use super::threads::Crew;
use crate::cli::Failure;
use crate::cli::args::SessionOptions;
use crate::cli::run::Batch;
use crate::cli::run::stages::Transformers;
use crate::cli::run::watch::Watch;
use crate::cli::session::runtime_options;
use crate::cli::terminal::Terminal;
use crate::collective::{Communicator, Group, Nccl, gather};
use crate::generation::{Conditioning, Generator};
use crate::rewrite::split::{LATENTS_KEY, RankLatents};
use crate::runtime::devices::cpu;
use crate::runtime::{Options, Provider};
use std::sync::Arc;

/// A rank.
pub struct Team {
    pub communicator: Arc<dyn Communicator>,
    /// What carries the tensors of the model; the communicator itself, unless there is a faster way.
    pub carrier: Arc<dyn Communicator>,
    pub parts: Arc<Parts>,
    /// How it opens its part.
    pub session: Options,
    /// Where rank 0 leads threads: its way to tell them what they do next.
    pub crew: Option<Crew>,
    /// Where ranks are processes.
    #[cfg(feature = "mpi")]
    pub processes: Option<Arc<crate::collective::Processes>>,
}

/// How rank `place` of `ranks` on this host opens its part: with its share of the cores and a device of its own, where nobody says.
pub fn session_options(options: &SessionOptions, place: usize, ranks: usize) -> Options {
    let mut session = runtime_options(options);
    session
        .threads
        .get_or_insert_with(|| (cpu().physical_cores / ranks.max(1)).max(1));
    if session.provider != Provider::Cpu {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        session.device_index = session.device_index.saturating_add(place);
    }
    session
}

/// What carries the model's tensors between ranks that `host` connects.
pub fn carrier(
    options: &RankOptions,
    session: &Options,
    host: Arc<dyn Communicator>,
) -> Result<Arc<dyn Communicator>, Failure> {
    match options.communicator {
        Carrier::Host => Ok(host),
        Carrier::Nccl if session.provider != Provider::Cuda => Err(Failure::Usage(
            "--communicator nccl moves tensors from GPU to GPU; give --device cuda, or leave it out".to_owned(),
        )),
        Carrier::Nccl => Ok(Nccl::over(host, options.patience())?),
    }
}

impl Team {
    /// Tells ranks that are processes which prompts' clips are to be made; threads are told when they open their parts.
    pub fn agree(&self, prompts: &[usize]) -> Result<Vec<usize>, Failure> {
        if self.crew.is_some() {
            return Ok(prompts.to_vec());
        }
        let own = serde_json::to_vec(prompts).unwrap_or_default();
        let told = gather(&*self.communicator, &own)?
            .into_iter()
            .next()
            .unwrap_or_default();
        let agreed: Vec<usize> = serde_json::from_slice(&told).unwrap_or_default();
        if agreed.is_empty() {
            self.leave()?;
        }
        Ok(agreed)
    }

    /// Opens this rank's part, and tells what of the latents it keeps, where it does; rank 0 of threads has all others do so,
    /// too, and waits for them.
    pub fn open(
        &self,
        batch: &Batch,
        prompts: &[usize],
        conditionings: &[Conditioning],
        terminal: &Terminal,
    ) -> Result<(Generator, Option<Part>), Failure> {
        let mesh = self.communicator.mesh();
        let copies = conditionings.iter().map(Conditioning::copies).min();
        let clips = copies.map_or(usize::MAX, |copies| copies * usize::from(batch.options.batch));
        if clips < mesh.size(Group::Guidance) {
            return Err(Failure::Usage(format!(
                "the batch is {clips}, and {} ranks were to divide it: use fewer with --guidance-ranks, or a --guidance other \
                 than 1",
                mesh.size(Group::Guidance)
            )));
        }
        if let Some(crew) = &self.crew {
            crew.open(prompts, conditionings);
        }
        let given = batch.source.given();
        let scheduler = batch.config.scheduler_for(&batch.settings)?;
        let opening = Opening {
            communicator: &self.carrier,
            options: &self.session,
            form: batch.options.form,
            given: &given,
            timesteps: scheduler.timesteps(),
            latent: &batch.source.latent.in_model(usize::from(batch.options.batch)),
            conditionings,
            terminal,
        };
        let mut generator = self.parts.open(&opening)?;
        let latents = generator.session().metadata(LATENTS_KEY);
        let latents = latents.and_then(|text| serde_json::from_str::<RankLatents>(&text).ok());
        let part = latents.map(|latents| Part::new(latents, self.communicator.clone()));
        generator.count_timesteps_in(batch.source.timestep_unit());
        generator.stop_on(terminal.stop().clone());
        if part.is_some() {
            // Rank 0 does not see the whole of them.
            generator.show_samples(batch.options.every_step);
        }
        if let Some(crew) = &self.crew {
            crew.wait_until_open(&*self.communicator);
        }
        Ok((generator, part))
    }

    /// The next clip begins.
    pub fn begin_clip(&self) {
        if let Some(crew) = &self.crew {
            crew.begin_clip();
        }
    }

    /// All steps of all ranks are done; afterwards no rank waits for another.
    pub fn end(&self, watch: &Watch) -> Result<RanksReport, Failure> {
        // Behind the steps stands what put the clip together.
        let behind = watch.gathered().unwrap_or(0);
        let own = watch.sent().iter().chain([&behind]);
        let own: Vec<u8> = own.flat_map(|bytes| bytes.to_le_bytes()).collect();
        let all = gather(&*self.communicator, &own)?;
        self.leave()?;
        let of_rank = |bytes: &Vec<u8>| {
            let (steps, _) = bytes.as_chunks::<8>();
            let mut steps: Vec<u64> = steps.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
            let behind = steps.pop().unwrap_or(0);
            (steps, behind)
        };
        let (sent, behind): (Vec<Vec<u64>>, Vec<u64>) = all.iter().map(of_rank).unzip();
        let gathered = watch.gathered().map(|_| behind.as_slice());
        let kind = if self.crew.is_some() { "threads" } else { "processes" };
        let mesh = self.communicator.mesh().axes();
        Ok(RanksReport::new(kind, mesh, self.session.threads, &sent, gathered))
    }

    fn leave(&self) -> Result<(), Failure> {
        #[cfg(feature = "mpi")]
        if let Some(processes) = &self.processes {
            processes.end()?;
        }
        Ok(())
    }

    /// Makes the clips that rank 0 makes, and shows nothing of them. `begin` waits for rank 0 to begin a clip, and says whether
    /// there is one.
    pub fn follow(
        &self,
        batch: &Batch,
        prompts: &[usize],
        conditionings: &[Conditioning],
        opened: impl FnOnce(),
        begin: impl Fn() -> bool,
        terminal: &Terminal,
    ) -> Result<(), Failure> {
        let (generator, part) = self.open(batch, prompts, conditionings, terminal)?;
        let mut transformers = Transformers::only(generator);
        opened();
        let mut watch = Watch::new(false);
        watch.count(Some(self.carrier.clone()));
        for (prompt, conditioning) in prompts.iter().zip(conditionings) {
            if !begin() {
                return Ok(());
            }
            watch.clip(*prompt, 1);
            batch.clip(
                *prompt,
                conditioning,
                &mut transformers,
                part.as_ref(),
                &mut watch,
                terminal,
            )?;
        }
        self.end(&watch).map(drop)
    }
}
