//! Rules that are wider than a site: for spans of blocks, and for guidance.

use super::build::of_cache;
use super::forecast::Shared;
use super::halved::{BatchAxes, Guided};
use super::plan::{Plan, SiteKind, SitePlan, WideKind};
use super::switch::differences;
use super::{Choice, Halves, RewriteError, SwitchOptions, facts, guidance, span};
use crate::attention::{Cut, Sites, Span};
use crate::axes::{Axes, Size};
use crate::graph::{Graph, ModelGraph, NodeId, ValueId};
use crate::onnx::messages::DataType;
use crate::onnx::tensor::element_bits;
use crate::rules::{CutPoint, Match, Rule, Rules, Strategy};
use crate::shard::Group;
use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

/// A span that a rule leaves out.
#[derive(Clone, Debug)]
pub struct SpanChoice {
    /// `span.<rule>`, with a number behind it where the rule has several.
    pub name: String,
    /// The rule, as an index of [`Rules::rules`].
    pub rule: usize,
    /// The span.
    pub span: Span,
    /// How many finite differences are cached beside what it adds to each stream.
    pub differences: usize,
    /// What the drift of an adaptive rule is told by: that of its first site.
    pub indicator: Option<Cut>,
}

impl SpanChoice {
    /// Leaves what the decision is computed from outside: it stands before the switch.
    pub(super) fn leave_indicator(&mut self, graph: &Graph) {
        if let Some(indicator) = &self.indicator {
            let before = before(graph, indicator.value);
            self.span.nodes.retain(|node| !before.contains(node));
        }
    }
}

/// The rule that leaves out half of the batch.
#[derive(Clone, Debug)]
pub struct GuidanceChoice {
    /// `guidance.<rule>`.
    pub name: String,
    /// The rule, as an index of [`Rules::rules`].
    pub rule: usize,
    /// Inputs and outputs that have both halves.
    pub halves: Halves,
    /// Where the batch is in what other rules could cache.
    pub batch_axes: BatchAxes,
}

/// What rules leave out beside sites.
#[derive(Clone, Debug, Default)]
pub struct Wide {
    /// Spans of blocks, in the order of the rules.
    pub spans: Vec<SpanChoice>,
    /// Guidance.
    pub guidance: Option<GuidanceChoice>,
    /// By the names of sites, what the drift of adaptive rules for sites could be told by. Empty where there is no such rule.
    pub indicators: BTreeMap<String, Cut>,
    /// Of a graph that is one rank's: the axes of the mesh along which ranks agree before an adaptive rule decides.
    pub agreeing: Vec<Group>,
}

impl Wide {
    /// What the rules for spans and for guidance leave out.
    ///
    /// Every run of blocks that follow each other and that a rule matches is a span. A rule that names kinds or modules
    /// matches the blocks that have such a site.
    ///
    /// # Errors
    /// [`RewriteError::Span`] and [`RewriteError::NoBlocks`] where a rule's blocks cannot be left out as one,
    /// [`RewriteError::Kept`] where an earlier rule keeps one of their sites,
    /// [`RewriteError::Guidance`] where the batch cannot be halved, [`RewriteError::GuidanceBeside`] for guidance beside
    /// forecasts, [`RewriteError::AdaptiveBeside`] beside adaptive rules.
    pub fn select(model: &ModelGraph, axes: &Axes, sites: &Sites, rules: &Rules) -> Result<Wide, RewriteError> {
        let mut wide = Wide::default();
        for (index, rule) in rules.rules.iter().enumerate() {
            match rule.strategy() {
                Some(Strategy::Residual | Strategy::ResidualForecast { .. }) => {
                    wide.add_spans(model, axes, sites, rules, index, rule)?
                }
                Some(Strategy::Guidance) => wide.add_guidance(model, axes, rules, index, rule)?,
                _ => {}
            }
        }
        wide.finish(model, axes, sites, rules);
        Ok(wide)
    }

    /// What a plan leaves out, found again in its original. `rules` are those of [`super::planned_rules`].
    ///
    /// # Errors
    /// Those of [`Wide::select`].
    pub fn planned(
        model: &ModelGraph,
        axes: &Axes,
        sites: &Sites,
        rules: &Rules,
        plan: &Plan,
    ) -> Result<Wide, RewriteError> {
        let mut wide = Wide::default();
        for site in &plan.sites {
            let Some(rule) = rules.rules.get(site.rule) else {
                continue;
            };
            match site.kind {
                SiteKind::Module(_) => {}
                SiteKind::Wide(WideKind::Span) => {
                    let blocks = site.block..=site.last_block.unwrap_or(site.block);
                    let choice = Wide::span(model, axes, sites, (site.rule, rule), site.name.clone(), blocks)?;
                    wide.spans.push(choice);
                }
                SiteKind::Wide(WideKind::Guidance) => wide.add_guidance(model, axes, rules, site.rule, rule)?,
            }
        }
        wide.finish(model, axes, sites, rules);
        Ok(wide)
    }

    /// What depends on all rules together.
    fn finish(&mut self, model: &ModelGraph, axes: &Axes, sites: &Sites, rules: &Rules) {
        let adaptive = |rule: &&Rule| rule.action.as_ref().is_some_and(|action| action.adaptive.is_some());
        let by_site = |rule: &Rule| rule.strategy().is_some_and(Strategy::is_by_site);
        if rules.rules.iter().filter(adaptive).any(by_site) {
            let found = sites.sites.iter().enumerate().filter_map(|(place, site)| {
                let indicator = sites.indicator(&model.graph, axes, place)?;
                Some((site.name.clone(), indicator))
            });
            self.indicators = found.collect();
        }
        let streams = self.spans.iter().flat_map(|choice| &choice.span.streams);
        let exits: Vec<ValueId> = streams.map(|stream| stream.exit.value).collect();
        if let Some(choice) = &mut self.guidance {
            choice.batch_axes = BatchAxes::of(axes, sites, exits, &choice.halves.batch);
        }
    }

    /// How many spans and halves there are.
    pub fn count(&self) -> usize {
        self.spans.len() + usize::from(self.guidance.is_some())
    }

    /// Whether rule `rule` leaves something out.
    pub fn has(&self, rule: usize) -> bool {
        let guidance = self.guidance.iter().map(|guidance| guidance.rule);
        self.spans
            .iter()
            .map(|span| span.rule)
            .chain(guidance)
            .any(|index| index == rule)
    }

    /// The element types of what is cached.
    pub(super) fn element_types(&self) -> impl Iterator<Item = DataType> + '_ {
        self.cached().map(|(_, element_type, _)| element_type)
    }

    /// What is cached: the rule as an index, the element type and the sizes of each value.
    pub(super) fn cached(&self) -> impl Iterator<Item = (usize, DataType, &[Size])> + '_ {
        let of_spans = self.spans.iter().flat_map(|choice| {
            let exits = choice.span.streams.iter().map(|stream| &stream.exit);
            let caches = exits.flat_map(|exit| std::iter::repeat_n(exit, 1 + choice.differences));
            caches.map(|exit| (choice.rule, exit.element_type, exit.shape.as_slice()))
        });
        let of_guidance = self.guidance.iter().flat_map(|choice| {
            let outputs = choice.halves.outputs.iter();
            outputs.map(|output| (choice.rule, output.element_type, output.half.as_slice()))
        });
        of_spans.chain(of_guidance)
    }

    /// Bytes of the caches of rule `rule`, an index of [`Rules::rules`].
    pub fn cache_bytes(&self, rule: usize, options: &SwitchOptions) -> Size {
        let of_rule = self.cached().filter(|(of, ..)| *of == rule);
        of_rule.fold(Size::number(0), |sum, (_, element_type, shape)| {
            let bits = element_bits(options.element_type(element_type)).unwrap_or(0);
            &sum + &(&Size::product(shape) * &Size::number(i64::from(bits / 8)))
        })
    }

    /// What the drift of rule `rule`, number `index` of the rules, is told by.
    ///
    /// # Errors
    /// [`RewriteError::NoIndicator`] where its first site or span has nothing of the kind.
    pub(super) fn indicator<'c>(
        &'c self,
        index: usize,
        rule: &Rule,
        choices: &'c [Choice<'_>],
    ) -> Result<&'c Cut, RewriteError> {
        let (site, found) = self.first_indicator(index, choices);
        found.ok_or_else(|| RewriteError::NoIndicator {
            rule: rule.name.clone(),
            line: rule.line,
            site: site.to_owned(),
        })
    }

    /// The name of the first span or site of a rule, and what its drift is told by.
    fn first_indicator<'c>(&'c self, index: usize, choices: &'c [Choice<'_>]) -> (&'c str, Option<&'c Cut>) {
        if let Some(span) = self.spans.iter().find(|span| span.rule == index) {
            return (&span.name, span.indicator.as_ref());
        }
        let site = choices.iter().find(|choice| choice.rule == index);
        let name = site.map_or("", |choice| choice.site.name.as_str());
        (name, self.indicators.get(name))
    }

    /// Bytes of what the drift of rule `index` is told by; 0 where the rule is not adaptive.
    pub fn indicator_bytes(&self, index: usize, rules: &Rules, choices: &[Choice<'_>]) -> Size {
        let action = rules.rules.get(index).and_then(|rule| rule.action.as_ref());
        let adaptive = action.is_some_and(|action| action.adaptive.is_some());
        let found = adaptive.then(|| self.first_indicator(index, choices).1).flatten();
        found.map_or(Size::number(0), |indicator| {
            let bits = element_bits(indicator.element_type).unwrap_or(0);
            &Size::product(&indicator.shape) * &Size::number(i64::from(bits / 8))
        })
    }

    /// The sites within spans, each with the rule that leaves it out, both as indices.
    pub fn claims(&self) -> Vec<(usize, usize)> {
        let spans = self.spans.iter();
        spans
            .flat_map(|choice| choice.span.sites.iter().map(|site| (*site, choice.rule)))
            .collect()
    }

    fn add_spans(
        &mut self,
        model: &ModelGraph,
        axes: &Axes,
        sites: &Sites,
        rules: &Rules,
        index: usize,
        rule: &Rule,
    ) -> Result<(), RewriteError> {
        let layers = sites.layers(&model.graph);
        let count = layers.last().map_or(0, |last| last + 1);
        let runs = runs(&rule.select, sites, &layers, count);
        if runs.is_empty() {
            return Err(RewriteError::NoBlocks {
                rule: rule.name.clone(),
                line: rule.line,
                count,
            });
        }
        let several = runs.len() > 1;
        for (number, blocks) in runs.into_iter().enumerate() {
            let name = match several {
                true => format!("span.{}.{number}", rule.name),
                false => format!("span.{}", rule.name),
            };
            let choice = Wide::span(model, axes, sites, (index, rule), name, blocks)?;
            Wide::refuse_kept(&choice.span, sites, rules, index, rule)?;
            self.spans.push(choice);
        }
        Ok(())
    }

    /// The span of `blocks`, which rule number `index` leaves out.
    fn span(
        model: &ModelGraph,
        axes: &Axes,
        sites: &Sites,
        (index, rule): (usize, &Rule),
        name: String,
        blocks: RangeInclusive<usize>,
    ) -> Result<SpanChoice, RewriteError> {
        let (first, last) = (*blocks.start(), *blocks.end());
        let span = sites.span(model, axes, blocks).map_err(|error| RewriteError::Span {
            rule: rule.name.clone(),
            line: rule.line,
            first,
            last,
            error,
        })?;
        let indicator = rule
            .action
            .as_ref()
            .and_then(|action| action.adaptive.as_ref())
            .and_then(|_| span.sites.first())
            .and_then(|site| sites.indicator(&model.graph, axes, *site));
        let mut choice = SpanChoice {
            name,
            rule: index,
            span,
            differences: rule.strategy().map_or(0, differences),
            indicator,
        };
        choice.leave_indicator(&model.graph);
        Ok(choice)
    }

    /// Refuses a span with a site that an earlier rule wants computed. All else is seen by [`Rules::assign`].
    fn refuse_kept(span: &Span, sites: &Sites, rules: &Rules, index: usize, rule: &Rule) -> Result<(), RewriteError> {
        for (site, facts) in facts(sites, None).enumerate() {
            let keeps = |other: &&Rule| other.action.is_none() && other.claims(&facts.facts).unwrap_or(false);
            let mut earlier = rules.rules.iter().take(index);
            if let Some(other) = earlier.find(keeps).filter(|_| span.sites.contains(&site)) {
                return Err(RewriteError::Kept {
                    site: facts.name.to_owned(),
                    keeping: other.name.clone(),
                    keeping_line: other.line,
                    rule: rule.name.clone(),
                    line: rule.line,
                });
            }
        }
        Ok(())
    }

    fn add_guidance(
        &mut self,
        model: &ModelGraph,
        axes: &Axes,
        rules: &Rules,
        index: usize,
        rule: &Rule,
    ) -> Result<(), RewriteError> {
        let forecasts = |other: &&Rule| {
            let strategy = other.strategy();
            matches!(
                strategy,
                Some(Strategy::Forecast { .. } | Strategy::ResidualForecast { .. })
            )
        };
        if let Some(other) = rules.rules.iter().find(forecasts) {
            return Err(RewriteError::GuidanceBeside {
                guidance: rule.name.clone(),
                line: rule.line,
                other: other.name.clone(),
                other_line: other.line,
            });
        }
        let decided = |other: &&Rule| other.action.as_ref().is_some_and(|action| action.adaptive.is_some());
        if let Some(other) = rules.rules.iter().find(decided) {
            return Err(RewriteError::AdaptiveBeside {
                guidance: rule.name.clone(),
                line: rule.line,
                other: other.name.clone(),
                other_line: other.line,
            });
        }
        let halves = Halves::find(model, axes).map_err(|error| RewriteError::Guidance {
            rule: rule.name.clone(),
            line: rule.line,
            error,
        })?;
        self.guidance = Some(GuidanceChoice {
            name: format!("guidance.{}", rule.name),
            rule: index,
            halves,
            batch_axes: BatchAxes::default(),
        });
        Ok(())
    }

    /// What tells the halves of the batch apart, for guidance and what stands beside it: spans, and sites with these cuts.
    pub(super) fn guided<'c>(
        &'c self,
        graph: &mut Graph,
        choice: &GuidanceChoice,
        rules: &Rules,
        flags: &[(usize, ValueId)],
        cuts: impl IntoIterator<Item = &'c Cut>,
    ) -> Result<Guided, RewriteError> {
        let (_, flag) = flag_of(flags, &choice.name, choice.rule)?;
        let rule = rules.rules.get(choice.rule).map_or("", |rule| rule.name.as_str());
        let streams = self.spans.iter().flat_map(|choice| &choice.span.streams);
        let exits = streams.map(|stream| &stream.exit);
        Guided::add(graph, choice, rule, flag, cuts.into_iter().chain(exits))
    }

    /// Wraps all of them, each by the flag of its rule, and adds them to the plan. `flags` are those of the plan's rules,
    /// each with the index of its rule in the file, `shared` what their values share where they forecast; `guided` is that of
    /// [`Wide::guided`].
    pub(super) fn wrap(
        &self,
        graph: &mut Graph,
        flags: &[(usize, ValueId)],
        shared: &[Option<&Shared>],
        guided: Option<&Guided>,
        options: &SwitchOptions,
        plan: &mut Plan,
    ) -> Result<(), RewriteError> {
        for choice in &self.spans {
            let caches = span::caches_of(choice, guided, options)?;
            let (place, flag) = flag_of(flags, &choice.name, choice.rule)?;
            let inputs = add_inputs(graph, &caches)?;
            let shared = shared.get(place).copied().flatten();
            span::wrap(graph, choice, flag, &caches, &inputs, guided, shared)?;
            plan.sites.push(SitePlan {
                name: choice.name.clone(),
                kind: SiteKind::Wide(WideKind::Span),
                block: *choice.span.blocks.start(),
                last_block: Some(*choice.span.blocks.end()),
                module: None,
                rule: place,
                cut: CutPoint::default(),
                caches,
            });
        }
        if let Some((choice, guided)) = self.guidance.as_ref().zip(guided) {
            let caches = guidance::caches_of(choice, options)?;
            let (place, _) = flag_of(flags, &choice.name, choice.rule)?;
            let inputs = add_inputs(graph, &caches)?;
            guidance::wrap(graph, choice, guided, &caches, &inputs)?;
            plan.sites.push(SitePlan {
                name: choice.name.clone(),
                kind: SiteKind::Wide(WideKind::Guidance),
                block: 0,
                last_block: None,
                module: None,
                rule: place,
                cut: CutPoint::default(),
                caches,
            });
        }
        Ok(())
    }
}

fn add_inputs(graph: &mut Graph, caches: &[super::CachePlan]) -> Result<Vec<ValueId>, RewriteError> {
    let inputs = caches
        .iter()
        .map(|cache| graph.add_input(of_cache(&cache.input, cache)));
    Ok(inputs.collect::<Result<_, _>>()?)
}

/// Place in the plan and flag of a rule.
fn flag_of(flags: &[(usize, ValueId)], site: &str, rule: usize) -> Result<(usize, ValueId), RewriteError> {
    let found = flags.iter().enumerate().find(|(_, (index, _))| *index == rule);
    let refuse = || RewriteError::NoSuchRule {
        site: site.to_owned(),
        rule,
    };
    found.map(|(place, (_, flag))| (place, *flag)).ok_or_else(refuse)
}

/// The nodes that `value` is computed with.
fn before(graph: &Graph, value: ValueId) -> HashSet<NodeId> {
    let mut before = HashSet::new();
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        if let Some((id, node)) = graph.producer(value)
            && before.insert(id)
        {
            pending.extend(node.reads());
        }
    }
    before
}

/// The runs of blocks that `select` matches.
fn runs(select: &Match, sites: &Sites, layers: &[usize], count: usize) -> Vec<RangeInclusive<usize>> {
    let fits = |block: usize| {
        let mut within = sites.sites.iter().zip(layers).filter(|(_, layer)| **layer == block);
        select.blocks.contains(block, count)
            && within.any(|(site, _)| {
                let module = site.module.as_deref();
                let named = |pattern: &crate::rules::Pattern| module.is_some_and(|module| pattern.matches(module));
                (select.kinds.is_empty() || select.kinds.contains(&site.kind)) && select.name.as_ref().is_none_or(named)
            })
    };
    let mut runs: Vec<RangeInclusive<usize>> = Vec::new();
    for block in (0..count).filter(|block| fits(*block)) {
        match runs.last_mut() {
            Some(run) if *run.end() + 1 == block => *run = *run.start()..=block,
            _ => runs.push(block..=block),
        }
    }
    runs
}
