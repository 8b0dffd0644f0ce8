//! What a prediction takes for granted, in words.

use super::device::Device;
use super::link::Link;
use super::run::Run;

/// Everything that is assumed, a line each.
pub fn assumptions(run: &Run, device: &Device, link: &Link) -> Vec<String> {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let tera = |rate: f64| format!("{} T", short(rate / 1e12));
    let mut lines = vec![
        format!(
            "{}: {}FLOP/s in 16 bits, {}FLOP/s in 32, {} GB/s of memory ({})",
            device.name,
            tera(device.products.f16),
            tera(device.products.f32),
            short(device.bandwidth / 1e9),
            device.source
        ),
        format!(
            "products get {} of the peak, kernels {} of the bandwidth, and each takes {} µs at least",
            percent(device.product_efficiency),
            percent(device.bandwidth_efficiency),
            short(device.kernel * 1e6)
        ),
        "every node is a kernel that reads its inputs from memory and writes its outputs there, and takes the longer of its \
         operations and its bytes; nothing overlaps; views and sizes are free, and what only weights go into is computed \
         beforehand"
            .to_owned(),
    ];
    lines.push(match device.attention {
        Some(attention) => format!(
            "the core of an attention is one kernel that keeps the scores on the chip, at {} of the peak, in tiles of {} \
             queries and {} keys",
            percent(attention.efficiency),
            attention.queries,
            attention.keys
        ),
        None => "the core of an attention runs as the graph has it, with the scores in memory".to_owned(),
    });
    if let Some(rate) = device.functions {
        lines.push(format!(
            "functions and norms give at most {} G elements a second",
            short(rate / 1e9)
        ));
    }
    lines.extend([
        "each rank has the largest part that sizes which do not divide leave it; weights are whole on every rank; what no \
         divided axis goes into is computed by all"
            .to_owned(),
        "an all-to-all takes (N-1)/N² of its tensor out of each of N ranks: two around an attention that mixes the divided \
         axis (dsp), or four (ulysses, and attention over all tokens); none around the others, and none in what is broadcast"
            .to_owned(),
        format!(
            "a rank sends {} GB/s to the {} of its node and {} GB/s to others, exchanges get {} of that and take {} µs at least, \
             and nothing is computed meanwhile",
            short(link.bandwidth / 1e9),
            link.node,
            short(link.between / 1e9),
            percent(link.efficiency),
            short(link.latency * 1e6)
        ),
        "a broadcast value is read where it lies, keeping it costs nothing, and forecasts' own arithmetic is not counted"
            .to_owned(),
        "a clip is its denoising steps: text encoder, VAE, scheduler and the gathering of the finished latent are not counted"
            .to_owned(),
        "memory is weights, caches and the largest set of values that are alive at once; no workspace, no fragments".to_owned(),
    ]);
    match run.works().uncounted {
        0 => {}
        nodes => lines.push(format!(
            "{nodes} nodes are left out: their operators have no axis rule, or hold graphs of their own"
        )),
    }
    lines
}

/// Three digits at most behind what matters: `989`, `3350`, `0.05`.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 1.0 => 1,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}
