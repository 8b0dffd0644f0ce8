//! Which factor is divided: every one that the residual streams have is tried, and what sends least in a run is taken.

use super::error::ShardError;
use super::facts::Facts;
use super::flow::{Alternative, Flow, Follower, Wanted};
use super::kept::{Gathered, Units};
use super::labelled::{along, latent, thin_latent};
use super::mesh::Group;
use super::placement::Placement;
use super::score::{Candidate, Score, unevenness};
use super::share::{Branches, Shares};
use crate::attention::{Kind, Site, Sites};
use crate::axes::{Label, Labels};
use crate::graph::{Graph, NodeId, ValueId};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// The factor that the residual streams are divided along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// Frames: spatial attention is local.
    Frames,
    /// Rows and columns of a frame: temporal attention is local.
    Space,
    /// All tokens, those of text too where they attend together.
    Tokens,
    /// Clips, or the halves of guidance.
    Batch,
}

impl Factor {
    /// The word used in settings and tables.
    pub fn word(self) -> &'static str {
        match self {
            Factor::Frames => "frames",
            Factor::Space => "space",
            Factor::Tokens => "tokens",
            Factor::Batch => "batch",
        }
    }

    /// What stays together, in the order in which it is tried: where latents are to be kept, whole frames and rows of patches come
    /// first, since these alone are a range of the latent. Otherwise the more there is to divide, the evener the parts.
    fn units(self, sites: &Sites, keep: bool) -> Vec<Option<Units>> {
        let is_joint = sites.sites.iter().any(|site| site.kind == Kind::Joint);
        match self {
            Factor::Space if keep => vec![Some(Units::Rows), None],
            Factor::Tokens if keep && is_joint => vec![Some(Units::Frames), Some(Units::Rows), None],
            _ => vec![None],
        }
    }

    /// What parts count.
    fn divided(self, units: Option<Units>) -> Labels {
        let unit = match units {
            None => return self.labels(),
            Some(Units::Frames) => Label::Frames,
            Some(Units::Rows) => Label::Height,
        };
        match self {
            Factor::Tokens => Labels::of([unit, Label::Text]),
            _ => Labels::of([unit]),
        }
    }

    fn labels(self) -> Labels {
        match self {
            Factor::Frames => Labels::of([Label::Frames]),
            Factor::Space => Labels::of([Label::Height, Label::Width]),
            Factor::Tokens => latent().with(Label::Text),
            Factor::Batch => Labels::of([Label::Batch]),
        }
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A flow that was chosen, and how.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    /// What the residual streams are divided along.
    pub factor: Option<Factor>,
    pub alternatives: Vec<Alternative>,
    pub flow: Flow,
    /// Why the latent is gathered, where it was to be kept.
    pub gathered: Option<Gathered>,
    /// What was compared: each factor that can be divided, with its best order.
    pub candidates: Vec<Candidate>,
}

/// What is wanted of a division; what is left open is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preference {
    /// What the residual streams are divided along.
    pub factor: Option<Factor>,
    /// What an attention that mixes this factor is divided along instead; where that cannot be, what comes behind it in
    /// the order of [`Alternative`].
    pub attention: Option<Alternative>,
    /// Whether each rank keeps its part of the latent from step to step, where the model lets it.
    pub keep: bool,
}

/// The flow that sends least, among those that are preferred.
pub(super) fn choose(
    graph: &Graph,
    facts: &Facts<'_>,
    sites: &Sites,
    group: Group,
    ranks: usize,
    preference: Preference,
    shares: &Shares,
) -> Result<Chosen, ShardError> {
    const SEQUENCE: [Factor; 3] = [Factor::Frames, Factor::Space, Factor::Tokens];
    let factors: &[Factor] = match (&preference.factor, group) {
        (Some(factor), _) => std::slice::from_ref(factor),
        (None, Group::Guidance) => &[Factor::Batch],
        (None, _) => &SEQUENCE,
    };
    use Alternative::{Heads, Queries, Tokens};
    let orders: &[&[Alternative]] = match preference.attention {
        None => &[&[Tokens, Heads, Queries], &[Heads, Queries]],
        Some(Tokens) => &[&[Tokens, Heads, Queries]],
        Some(Heads) => &[&[Heads, Queries]],
        Some(Queries) => &[&[Queries]],
    };
    let branches = Branches::find(graph, sites, shares);
    let mut best: Option<(Score, Chosen)> = None;
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut refused: Option<ShardError> = None;
    for factor in factors {
        // Why whole frames or rows of patches do not do.
        let mut coarse: Option<Gathered> = None;
        for units in factor.units(sites, preference.keep) {
            let labels = factor.divided(units);
            let pins = match (pins(graph, facts, sites, (*factor, units), ranks), units) {
                (Ok(pins), _) => pins,
                (Err(error), Some(units)) => {
                    if let ShardError::TooFew { size: count, .. } = error {
                        coarse = coarse.or(Some(Gathered::Few { units, count, ranks }));
                    }
                    continue;
                }
                (Err(error), None) => {
                    // Of the factors that streams do not have the last one is told: tokens, which most have.
                    match (&refused, &error) {
                        (Some(ShardError::Stuck { .. } | ShardError::TooFew { .. }), ShardError::NoFactor { .. }) => {}
                        _ => refused = Some(error),
                    }
                    continue;
                }
            };
            for order in orders {
                let wanted = Wanted {
                    ranks,
                    pins: pins.clone(),
                    ambient: vec![labels],
                    cores: cores(sites),
                    alternatives: order.to_vec(),
                    demands: HashMap::new(),
                    may_add_up: false,
                };
                let follower = Follower {
                    graph,
                    facts,
                    wanted: &wanted,
                    branches: &branches,
                };
                let mut flow = follower.follow()?;
                let mut gathered = preference.keep.then(|| follower.keep(&mut flow).err()).flatten();
                if units.is_some() && gathered.is_some() {
                    coarse = coarse.or(gathered);
                    continue;
                }
                if let Some(error) = in_the_way(graph, sites, &flow, *factor)? {
                    // What stands in the way of the factor that fits best is told.
                    if units.is_none() {
                        refused = Some(error);
                    }
                    continue;
                }
                if gathered == Some(Gathered::NoAxis) {
                    gathered = coarse.clone().or(gathered);
                }
                let score = Score {
                    gathers: gathered.is_some(),
                    bytes: follower.total_cost(&flow),
                    unevenness: unevenness(&wanted),
                };
                let candidate = Candidate {
                    factor: *factor,
                    bytes: score.bytes,
                    gathers: score.gathers,
                };
                candidate.compete(&mut candidates);
                if best.as_ref().is_none_or(|(other, _)| score.is_better_than(other)) {
                    let alternatives = order.to_vec();
                    let chosen = Chosen {
                        factor: Some(*factor),
                        alternatives,
                        flow,
                        gathered,
                        candidates: Vec::new(),
                    };
                    best = Some((score, chosen));
                }
            }
        }
    }
    match (best, refused) {
        (Some((_, chosen)), _) => Ok(Chosen { candidates, ..chosen }),
        (None, Some(error)) => Err(error),
        (None, None) => Err(ShardError::NoStreams),
    }
}

/// The flow that divides weights: heads of attentions and hidden channels of feed-forwards. Streams are whole.
pub(super) fn divide_weights(
    graph: &Graph,
    facts: &Facts<'_>,
    sites: &Sites,
    ranks: usize,
    shares: &Shares,
) -> Result<Chosen, ShardError> {
    let branches = Branches::find(graph, sites, shares);
    let mut wanted = Wanted {
        ranks,
        pins: HashMap::new(),
        ambient: Vec::new(),
        cores: HashSet::new(),
        alternatives: Vec::new(),
        demands: HashMap::new(),
        may_add_up: true,
    };
    let order = graph.topological_order()?;
    let mut place = vec![0; graph.node_bound()];
    for (index, id) in order.iter().enumerate() {
        place[id.index()] = index;
    }
    for site in &sites.sites {
        wanted.pins.extend(pinned(site).map(|value| (value, None)));
        let mut core = site.core.clone();
        core.sort_by_key(|id| place[id.index()]);
        let demand = {
            let follower = Follower {
                graph,
                facts,
                wanted: &wanted,
                branches: &branches,
            };
            match site.kind {
                Kind::Mlp => core.iter().rev().find_map(|id| follower.hidden(*id)),
                _ => core.iter().find_map(|id| {
                    let step = follower.core(&follower.operation(*id), Alternative::Heads)?;
                    Some((*id, step.needs))
                }),
            }
        };
        wanted.demands.extend(demand);
    }
    if wanted.demands.is_empty() {
        return Err(ShardError::Weights { ranks });
    }
    let follower = Follower {
        graph,
        facts,
        wanted: &wanted,
        branches: &branches,
    };
    let flow = follower.follow()?;
    Ok(Chosen {
        factor: None,
        alternatives: Vec::new(),
        flow,
        gathered: None,
        candidates: Vec::new(),
    })
}

/// The nodes of attention cores.
fn cores(sites: &Sites) -> HashSet<NodeId> {
    let attentions = sites.sites.iter().filter(|site| site.kind != Kind::Mlp);
    attentions.flat_map(|site| site.core.iter().copied()).collect()
}

/// The values of the residual streams and what is cut, with the place where each is divided.
fn pins(
    graph: &Graph,
    facts: &Facts<'_>,
    sites: &Sites,
    (factor, units): (Factor, Option<Units>),
    ranks: usize,
) -> Result<HashMap<ValueId, Placement>, ShardError> {
    let divided = factor.divided(units);
    let mut pins = HashMap::new();
    let has_latent = |value: &ValueId| {
        let dims = facts.dimensions(*value).unwrap_or_default();
        dims.iter().any(|dim| !dim.labels().intersection(latent()).is_empty())
    };
    // Text that is refined before it meets the latent is whole on every rank.
    let joins =
        |site: &&Site| factor == Factor::Batch || site.kind != Kind::Text && site.streams.iter().any(has_latent);
    for site in sites.sites.iter().filter(joins) {
        for value in pinned(site) {
            let Some(shard) = along(facts, value, divided) else {
                return Err(ShardError::NoFactor {
                    site: site.name.clone(),
                    value: graph.value(value).name().to_owned(),
                    factor,
                });
            };
            let dims = facts.dimensions(value).unwrap_or_default();
            let dim = dims.get(shard.dim).cloned().unwrap_or_default();
            if let Some(count) = units.and(thin_latent(&dim, &shard, ranks)) {
                let size = count.as_number().unwrap_or(0);
                return Err(ShardError::TooFew { factor, size, ranks });
            }
            if shard.is_thin(ranks) {
                // Text alone is not worth dividing then: it is whole on every rank.
                let labels = dim.labels();
                if factor == Factor::Tokens && labels.intersection(latent()).is_empty() {
                    pins.insert(value, None);
                    continue;
                }
                let sizes = shard.parts.iter().filter_map(|part| part.count.as_number());
                let size = sizes.max().unwrap_or(0);
                return Err(ShardError::TooFew { factor, size, ranks });
            }
            pins.insert(value, Some(shard));
        }
    }
    match pins.is_empty() {
        true => Err(ShardError::NoStreams),
        false => Ok(pins),
    }
}

/// What of a site has to lie divided: streams, so that they never have to be exchanged, and cuts, so that nothing is sent
/// where they are broadcast.
pub(super) fn pinned(site: &Site) -> impl Iterator<Item = ValueId> + '_ {
    let streams = site.additions.iter().flat_map(|addition| {
        let after = addition.after;
        std::iter::once(addition.before).chain(after)
    });
    let cuts = std::iter::once(&site.output).chain(&site.gated);
    streams.chain(cuts.flat_map(|cuts| cuts.iter().map(|cut| cut.value)))
}

/// The first operator before the last residual addition that needs what no rank has.
fn in_the_way(graph: &Graph, sites: &Sites, flow: &Flow, factor: Factor) -> Result<Option<ShardError>, ShardError> {
    let order = graph.topological_order()?;
    let additions = sites.sites.iter().flat_map(|site| &site.additions);
    let additions: HashSet<NodeId> = additions.map(|addition| addition.node).collect();
    let last = order.iter().rposition(|id| additions.contains(id)).unwrap_or(0);
    let before: HashSet<NodeId> = order.iter().take(last).copied().collect();
    // What is only read behind the blocks does not matter.
    let stuck = flow
        .stuck
        .iter()
        .find(|id| before.contains(id) && leads_to(graph, **id, &additions));
    Ok(stuck.map(|id| ShardError::Stuck {
        node: graph.label(*id),
        factor,
    }))
}

/// Whether what a node computes reaches one of `goals`.
fn leads_to(graph: &Graph, id: NodeId, goals: &HashSet<NodeId>) -> bool {
    let mut seen = HashSet::new();
    let mut pending = vec![id];
    while let Some(id) = pending.pop() {
        if goals.contains(&id) {
            return true;
        }
        if seen.insert(id) {
            pending.extend(graph.users(id));
        }
    }
    false
}
