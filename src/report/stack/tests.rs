//! A stack as a graph and as a page.

use super::*;
use std::collections::BTreeSet;

/// What a hostile model would call things.
const HOSTILE: &str = "</code><script>alert('\"x\"')</script>&\\\n\u{202e}";

fn branch(name: &str, kind: &'static str, module: &str) -> Branch {
    Branch {
        name: name.to_owned(),
        kind,
        module: Some(module.to_owned()),
        axes: Some("[batch·frames, height·width, channels]".to_owned()),
        heads: Some(4),
        flops: 1.5e6,
        share: 0.125,
        cache_bytes: Some(4096),
        rule: Some("slow".to_owned()),
        cuts: vec![BranchCut {
            point: "output",
            part: Some("text".to_owned()),
            value: format!("{name}_out"),
            element_type: "float16".to_owned(),
            shape: "[16*batch, 64, 128]".to_owned(),
            bytes: Some(4096),
        }],
        nodes: vec![
            BranchNode {
                name: format!("/{module}/MatMul"),
                operator: "MatMul".to_owned(),
                core: false,
            },
            BranchNode {
                name: format!("/{module}/Softmax"),
                operator: "Softmax".to_owned(),
                core: true,
            },
        ],
    }
}

fn stack() -> Stack {
    Stack {
        title: "model.onnx".to_owned(),
        facts: vec![("rules".to_owned(), "preset pab".to_owned())],
        blocks: vec![
            StackBlock {
                module: Some("blocks.0".to_owned()),
                branches: vec![
                    branch("spatial.0", "spatial", "blocks.0.attn1"),
                    branch("cross.0", "cross", "blocks.0.attn2"),
                ],
            },
            StackBlock {
                module: None,
                branches: vec![Branch {
                    name: "mlp.0".to_owned(),
                    kind: "mlp",
                    ..Branch::default()
                }],
            },
        ],
        notes: vec![StackNote {
            subject: "Softmax `s`".to_owned(),
            reason: "its key axis mixes batch".to_owned(),
            advice: "report it".to_owned(),
        }],
        opaque: vec![("com.acme:Magic".to_owned(), 3)],
    }
}

/// The stack with [`HOSTILE`] wherever a name of the model goes.
fn hostile() -> Stack {
    let mut stack = stack();
    let text = || HOSTILE.to_owned();
    stack.title = text();
    stack.facts.push((text(), text()));
    stack.opaque.push((text(), 1));
    stack.notes.push(StackNote {
        subject: text(),
        reason: text(),
        advice: text(),
    });
    for block in &mut stack.blocks {
        block.module = Some(text());
        for branch in &mut block.branches {
            branch.name.push_str(HOSTILE);
            branch.module = Some(text());
            branch.axes = Some(text());
            branch.rule = Some(text());
            for cut in &mut branch.cuts {
                (cut.value, cut.shape, cut.element_type) = (text(), text(), text());
                cut.part = Some(text());
            }
            for node in &mut branch.nodes {
                (node.name, node.operator) = (text(), text());
            }
        }
    }
    stack
}

/// The tags of a page in order, with everything between `<style>` or `<script>` and its end left out. Fails where a `<`
/// begins no tag, where an attribute has no quotes, or where tags do not nest.
fn tags(page: &str) -> Vec<String> {
    const EMPTY: [&str; 4] = ["!doctype", "meta", "input", "br"];
    let (mut tags, mut open) = (Vec::new(), Vec::new());
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        let name = tag.split_whitespace().next().unwrap_or_default();
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "at </{name}>"),
            None if EMPTY.contains(&name) => {}
            None => {
                assert!(name.chars().all(|letter| letter.is_ascii_alphanumeric()), "<{tag}>");
                open.push(name);
            }
        }
        tags.push(tag.to_owned());
        if matches!(name, "style" | "script") {
            rest = &rest[rest.find(&format!("</{name}>")).expect("it ends")..];
        }
    }
    assert_eq!(open, [] as [&str; 0]);
    tags
}

#[test]
fn the_graph() {
    insta::assert_snapshot!(stack().dot());
}

#[test]
fn names_cannot_end_their_string_in_the_graph() {
    let dot = hostile().dot();
    assert!(!dot.contains('\u{202e}'));
    // Without what is escaped, quotes come in pairs in every line, and no name stands outside of them.
    for line in dot.lines() {
        let plain = line.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(plain.matches('"').count() % 2, 0, "{line}");
        let outside: String = plain.split('"').step_by(2).collect();
        assert!(!outside.contains("script"), "{line}");
    }
}

#[test]
fn the_page_has_everything() {
    let page = stack().html();
    let tags = tags(&page);
    for site in ["spatial.0", "cross.0", "mlp.0"] {
        assert!(
            tags.iter().any(|tag| tag.contains(&format!("id=\"site-{site}\""))),
            "{site}"
        );
        assert!(page.contains(&format!("<b>{site}</b>")), "{site}");
    }
    for text in [
        "<title>model.onnx</title>",
        "block 0 <code>blocks.0</code>",
        "[batch·frames, height·width, channels]",
        "1.50 MFLOP",
        "12.5 %",
        "4.00 KiB",
        "<td>output, text</td><td><code>spatial.0_out</code></td><td>float16</td><td><code>[16*batch, 64, 128]</code></td>",
        "<li class=\"core\"><span>Softmax</span> <code>/blocks.0.attn1/Softmax</code></li>",
        "Rule: slow. Heads: 4.",
        "<strong>Softmax `s`</strong>: its key axis mixes batch. <em>report it</em>",
        "<strong>com.acme:Magic</strong>",
    ] {
        assert!(page.contains(text), "{text} is not in:\n{page}");
    }
    assert_eq!(page.matches("<details ").count(), 3);
}

#[test]
fn the_page_needs_nothing_else() {
    let page = stack().html().to_lowercase();
    for word in ["http:", "https:", "//", "url(", "@import", "src=", "href=", "fetch("] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("content=\"default-src 'none';"));
}

#[test]
fn names_stay_text_in_the_page() {
    let page = hostile().html();
    let names = |page: &str| -> BTreeSet<String> {
        let first = |tag: &String| tag.split_whitespace().next().unwrap_or_default().to_owned();
        tags(page).iter().map(first).collect()
    };
    assert_eq!(names(&page), names(&stack().html()));
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains('\u{202e}') && !page.contains("alert('"));
    assert!(page.contains("&lt;script&gt;alert(&#39;&quot;x&quot;&#39;)&lt;/script&gt;&amp;\\"));
}

#[test]
fn a_model_without_sites_has_a_page_too() {
    let page = Stack::default().html();
    tags(&page);
    assert!(page.contains("Nothing: every attention is a branch above."));
    assert!(Stack::default().dot().ends_with("}\n"));
}

#[test]
fn a_large_model_fits_on_a_page() {
    let block = |index: usize| StackBlock {
        module: Some(format!("blocks.{index}")),
        branches: vec![
            branch(&format!("joint.{index}"), "joint", &format!("blocks.{index}.attn")),
            branch(&format!("mlp.{index}"), "mlp", &format!("blocks.{index}.mlp")),
        ],
    };
    let mut stack = stack();
    stack.blocks = (0..100).map(block).collect();
    for branch in stack.blocks.iter_mut().flat_map(|block| &mut block.branches) {
        branch.nodes = std::iter::repeat_n(branch.nodes.clone(), 50).flatten().collect();
    }
    let page = stack.html();
    tags(&page);
    assert_eq!(page.matches("<details ").count(), 200);
    assert!(page.len() < 4 << 20, "{} bytes", page.len());
    assert_eq!(stack.dot().matches("shape=box").count(), 200);
}

#[test]
fn every_kind_has_its_colour() {
    let style = include_str!("../html/base.css");
    for kind in crate::attention::Kind::ALL {
        let colour = COLOURS.iter().find(|(known, _)| *known == kind.word()).unwrap().1;
        assert!(style.contains(&format!("--{kind}: {colour};")), "{kind}");
        assert!(
            style.contains(&format!(".{kind} {{ --kind: var(--{kind}); }}")),
            "{kind}"
        );
    }
    assert_eq!(colour("spatial"), COLOURS[0].1);
    assert_eq!(colour("none of them"), COLOURS[7].1);
}
