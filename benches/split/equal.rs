//! Every export over ranks against the whole.

use super::ranks::{Export, Form, RULES, compare};
use pab_patch::attention::Kind;
use pab_patch::shard::Mesh;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// One export over one mesh.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub model: String,
    /// The kinds of its attentions.
    pub kinds: String,
    pub mesh: String,
    /// What tokens are divided along.
    pub factor: String,
    /// The largest difference as it is, with switches, and as static graphs.
    pub worst: Vec<f32>,
    /// The same with switches where ranks keep their latents, and bytes of a step that computes, one that broadcasts
    /// attention, and one that broadcasts everything.
    pub kept: Option<(f32, Vec<u64>)>,
    /// The same bytes where latents are gathered.
    pub sent: Vec<u64>,
    /// Why latents are gathered in every step.
    pub gathered: Option<String>,
    /// Why it is refused, or what went wrong.
    pub refused: Option<String>,
}

pub fn run(folders: &[String]) {
    let mut rows: Vec<Row> = match super::file("equal").exists() {
        true => super::kept("equal"),
        false => Vec::new(),
    };
    for path in super::exports(folders) {
        let name = super::name(&path);
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
        // Half precision rounds otherwise in every fused kernel; the others are made from exports that are here too.
        if name.contains("fp16") || folder == "processed" || folder == "pixart_quantized" {
            continue;
        }
        let export = match Export::find(&path, RULES) {
            Ok(export) => Arc::new(export),
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let mut meshes: Vec<Mesh> = [2, 3, 4, 8].into_iter().map(Mesh::sequence).collect();
        if ["latte.", "stdit3.", "cogvideox"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            for sequence in [1, 2] {
                meshes.push(Mesh {
                    tensor: 2,
                    ..Mesh::sequence(sequence)
                });
            }
        }
        for mesh in meshes {
            let row = row(&export, &name, mesh);
            let state = match &row.refused {
                Some(reason) => reason.clone(),
                None => format!("{:?} {:?} {:?}", row.worst, row.sent, row.kept),
            };
            println!("{name} over {mesh}: {} {state}", row.factor);
            // Exports may be compared folder by folder.
            rows.retain(|other| (&other.model, &other.mesh) != (&row.model, &row.mesh));
            rows.push(row);
            super::keep("equal", &rows);
        }
    }
}

fn row(export: &Arc<Export>, name: &str, mesh: Mesh) -> Row {
    let mut kinds: Vec<&str> = export
        .sites
        .sites
        .iter()
        .map(|site| site.kind)
        .filter(|kind| *kind != Kind::Mlp)
        .map(Kind::word)
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut row = Row {
        model: name.to_owned(),
        kinds: kinds.join(", "),
        mesh: mesh.to_string(),
        factor: String::new(),
        worst: Vec::new(),
        kept: None,
        sent: Vec::new(),
        gathered: None,
        refused: None,
    };
    let split = match export.split(&mesh, false) {
        Ok(split) => split,
        Err(error) => {
            row.refused = Some(error.to_string());
            return row;
        }
    };
    let factors = split
        .axes
        .iter()
        .map(|axis| axis.factor.map_or("weights", |factor| factor.word()));
    row.factor = factors.collect::<Vec<_>>().join(", ");
    for form in [Form::Plain, Form::Switch, Form::Variants] {
        match compare(export, split.clone(), form) {
            Ok(compared) => {
                row.worst.push(compared.worst);
                if form == Form::Switch {
                    row.sent = compared.sent[..3].to_vec();
                }
            }
            Err(error) => {
                row.refused = Some(format!("{form:?}: {error}"));
                return row;
            }
        }
    }
    if mesh.sequence < 2 {
        return row;
    }
    match export.split(&mesh, true) {
        Ok(split) if split.latents.is_some() => match compare(export, split, Form::Switch) {
            Ok(compared) => row.kept = Some((compared.worst, compared.sent[..3].to_vec())),
            Err(error) => row.refused = Some(format!("latents kept: {error}")),
        },
        Ok(split) => row.gathered = split.gathered.map(|reason| reason.to_string()),
        Err(error) => row.refused = Some(format!("latents kept: {error}")),
    }
    row
}
