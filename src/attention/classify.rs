//! What kind of attention it is, from what its queries and keys count.

use super::kind::Kind;
use crate::axes::{Dimension, Label, Labels};

/// The kind of an attention whose queries and keys count these; or why it cannot be told.
///
/// Keys over height and width mix space, keys over frames mix time, keys over both mix everything, where the queries
/// count the same. Sizes may differ: keys and values may be compressed. Text keys are cross attention where the latent
/// asks, alone or with the text beside it (Vchitect's blocks), and text attention where the text alone does; keys over text
/// and latent together are joint attention.
pub(super) fn classify(query: &Dimension, key: &Dimension) -> Result<Kind, String> {
    let space = Labels::of([Label::Height, Label::Width]);
    let time = Labels::of([Label::Frames]);
    let latent = space.union(time).with(Label::Tokens);
    let text = Labels::of([Label::Text]);
    let (asked, asking) = (known("key", key)?, known("query", query)?);
    if !asked.is_within(latent.union(text)) {
        return Err(format!("its key axis mixes {asked}"));
    }
    let of = |labels: Labels| {
        (
            !labels.intersection(latent).is_empty(),
            !labels.intersection(text).is_empty(),
        )
    };
    match (of(asked), of(asking)) {
        ((true, true), _) if asking.is_within(latent.union(text)) => Ok(Kind::Joint),
        ((false, true), (true, _)) if asking.is_within(latent.union(text)) => Ok(Kind::Cross),
        ((false, true), _) if asking == text => Ok(Kind::Text),
        ((true, false), _) if asking == asked => Ok(match asked {
            labels if labels.is_within(space) => Kind::Spatial,
            labels if labels == time => Kind::Temporal,
            _ => Kind::Full,
        }),
        _ => Err(format!(
            "queries over {asking} attend to keys over {asked}, which is none of the kinds"
        )),
    }
}

/// What the axis of the queries or keys counts.
fn known(which: &str, axis: &Dimension) -> Result<Labels, String> {
    if axis.is_one() {
        return Err(format!(
            "its {which} axis has size 1, so it cannot be told what it counts"
        ));
    }
    // Learned tokens beside text and latent (AuraFlow's registers) change nothing about what meets.
    let labels = axis.labels();
    let has_text = labels.contains(Label::Text);
    let is_joint = has_text && labels != Labels::of([Label::Text]) && axis.disputed().is_empty();
    if !axis.is_labelled() && !is_joint {
        return Err(format!("its {which} axis ({axis}) is not followed back to the inputs"));
    }
    Ok(axis.labels())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axes::Size;

    fn axis(labels: &[Label]) -> Dimension {
        let parts: Vec<Dimension> = labels
            .iter()
            .map(|label| Dimension::axis(*label, Size::number(4)))
            .collect();
        Dimension::product(&parts)
    }

    #[test]
    fn kinds_are_told_from_what_keys_and_queries_count() {
        use Label::{Batch, Frames, Height, Text, Tokens, Width};
        let space = axis(&[Height, Width]);
        let clip = axis(&[Frames, Height, Width]);
        let text = axis(&[Text]);
        let joint = Dimension::joined(vec![text.clone(), clip.clone()]);
        assert_eq!(classify(&space, &space), Ok(Kind::Spatial));
        assert_eq!(classify(&axis(&[Frames]), &axis(&[Frames])), Ok(Kind::Temporal));
        assert_eq!(classify(&clip, &clip), Ok(Kind::Full));
        assert_eq!(classify(&axis(&[Tokens]), &axis(&[Tokens])), Ok(Kind::Full));
        assert_eq!(classify(&space, &text), Ok(Kind::Cross));
        assert_eq!(classify(&joint, &text), Ok(Kind::Cross));
        assert_eq!(classify(&text, &text), Ok(Kind::Text));
        assert_eq!(classify(&joint, &joint), Ok(Kind::Joint));
        assert_eq!(classify(&text, &joint), Ok(Kind::Joint));
        assert_eq!(classify(&clip, &joint), Ok(Kind::Joint));
        assert!(classify(&space, &axis(&[Batch])).is_err());
    }

    #[test]
    fn queries_that_count_something_else_than_the_keys_are_no_kind() {
        use Label::{Batch, Channels, Frames, Height, Text, Tokens, Width};
        let space = axis(&[Height, Width]);
        let time = axis(&[Frames]);
        let clip = axis(&[Frames, Height, Width]);
        let text = axis(&[Text]);
        let joint = Dimension::joined(vec![text.clone(), clip.clone()]);
        for (query, key) in [
            (&time, &space),
            (&space, &time),
            (&space, &clip),
            (&clip, &space),
            (&axis(&[Tokens]), &space),
            (&text, &space),
            (&joint, &space),
            (&axis(&[Channels]), &text),
            (&axis(&[Batch, Height]), &text),
            (&axis(&[Batch]), &joint),
        ] {
            let reason = classify(query, key).unwrap_err();
            assert!(reason.contains("none of the kinds"), "{query} {key}: {reason}");
        }
        let unlabelled = Dimension::unlabelled(Size::number(16));
        for key in [&space, &time, &clip, &text, &joint] {
            assert!(classify(&unlabelled, key).unwrap_err().contains("not followed back"));
            assert!(classify(&Dimension::ONE, key).unwrap_err().contains("size 1"));
        }
    }

    #[test]
    fn compressed_keys_are_of_the_same_tokens() {
        let small = Dimension::product(&[
            Dimension::axis(Label::Height, Size::number(2)),
            Dimension::axis(Label::Width, Size::number(2)),
        ]);
        assert_eq!(
            classify(&axis(&[Label::Height, Label::Width]), &small),
            Ok(Kind::Spatial)
        );
    }

    #[test]
    fn a_key_axis_without_labels_is_not_guessed() {
        let unlabelled = Dimension::unlabelled(Size::number(16));
        assert!(classify(&axis(&[Label::Height]), &unlabelled).is_err());
        assert!(classify(&unlabelled, &axis(&[Label::Text])).is_err());
        assert!(classify(&Dimension::ONE, &Dimension::ONE).is_err());
    }
}
