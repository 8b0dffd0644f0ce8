//! What ranks send in a run of 50 steps, by the formula that every counted step equals (`equal.rs`).

use super::ranks::{Export, bindings};
use pab_patch::rewrite::SchedulePlan;
use pab_patch::rewrite::split::{Split, SplitOptions, split};
use pab_patch::shard::{Alternative, Factor, Mesh, Preference};
use serde::{Deserialize, Serialize};

pub const STEPS: usize = 50;

/// A model over ranks; bytes that the rank with most to send sends, for each step.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub model: String,
    pub ranks: usize,
    pub factor: String,
    pub kept: bool,
    pub switch: Vec<u64>,
    pub broadcast: Vec<u64>,
    pub ulysses: Vec<u64>,
}

pub fn run(folders: &[String]) {
    let mut rows = Vec::new();
    for path in super::exports(folders) {
        let name = super::name(&path);
        let is_one = ["latte.ts17.static", "stdit3.ts17.static", "osp10.ts17.dynamic"].contains(&name.as_str());
        if !is_one {
            continue;
        }
        let export =
            Export::find(&path, super::RANGES_2_4_6).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for ranks in [2, 4, 8] {
            for factor in [Factor::Frames, Factor::Space] {
                rows.extend(row(&export, &name, ranks, factor));
            }
        }
    }
    super::keep("bytes", &rows);
    for row in &rows {
        let sum = |steps: &[u64]| steps.iter().sum::<u64>();
        println!(
            "{} {} {} {}: {} {} {}",
            row.model,
            row.ranks,
            row.factor,
            row.kept,
            sum(&row.switch),
            sum(&row.broadcast),
            sum(&row.ulysses)
        );
    }
}

fn row(export: &Export, name: &str, ranks: usize, factor: Factor) -> Option<Row> {
    let mesh = Mesh::sequence(ranks);
    let made = |attention| {
        let sequence = Preference {
            factor: Some(factor),
            attention: Some(attention),
            keep: true,
        };
        split(
            export.model.clone(),
            &export.axes,
            &export.sites,
            &mesh,
            &SplitOptions {
                sequence,
                shares: export.shares(STEPS),
            },
        )
    };
    let switched = made(Alternative::Tokens).ok()?;
    let ulysses = made(Alternative::Heads).ok()?;
    let steps = |split: &Split, broadcast: bool| {
        let mut most = vec![0; STEPS];
        for rank in 0..ranks {
            let graph = split.at_rank(rank).unwrap();
            let patched = export.patched(graph.model, &graph.sites).unwrap();
            let traffic = split
                .traffic(&patched.model, Some(&patched.plan), rank, &bindings())
                .unwrap();
            let schedule = SchedulePlan::of_steps(&patched.plan, STEPS).unwrap();
            for (step, most) in most.iter_mut().enumerate() {
                let flags = if broadcast {
                    schedule.flags(step)
                } else {
                    vec![false; patched.plan.rules.len()]
                };
                *most = traffic.step(&flags).max(*most);
            }
        }
        most
    };
    Some(Row {
        model: name.to_owned(),
        ranks,
        factor: factor.word().to_owned(),
        kept: switched.latents.is_some(),
        switch: steps(&switched, false),
        broadcast: steps(&switched, true),
        ulysses: steps(&ulysses, false),
    })
}
