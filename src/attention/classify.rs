//! What kind of attention it is, from what its queries and keys count.

use super::kind::Kind;
use crate::axes::{Dimension, Label, Labels};

/// The kind of an attention whose queries and keys count these; or why it cannot be told.
///
/// Keys over height and width mix space, keys over frames mix time, keys over both mix everything; text keys are
/// cross attention unless the queries are text too; keys over text and latent together are joint attention.
pub(super) fn classify(query: &Dimension, key: &Dimension) -> Result<Kind, String> {
    let space = Labels::of([Label::Height, Label::Width]);
    let latent = space.with(Label::Frames).with(Label::Tokens);
    let text = Labels::of([Label::Text]);
    let labels = key.labels();
    if key.is_one() {
        return Err("its key axis has size 1, so it mixes nothing".into());
    }
    if !key.is_labelled() {
        return Err(format!("its key axis ({key}) is not followed back to the inputs"));
    }
    if !labels.is_within(latent.union(text)) {
        return Err(format!("its key axis mixes {labels}"));
    }
    let of_latent = labels.intersection(latent);
    match (of_latent.is_empty(), labels.contains(Label::Text)) {
        (false, true) => Ok(Kind::Joint),
        (true, _) if !query.is_labelled() => {
            Err(format!("its query axis ({query}) is not followed back to the inputs"))
        }
        (true, _) if query.labels().is_within(text) && !query.labels().is_empty() => Ok(Kind::Text),
        (true, _) => Ok(Kind::Cross),
        (false, false) if query.labels().contains(Label::Text) && query.labels().is_within(text) => {
            Err("text attends to the latent, which is none of the kinds".into())
        }
        (false, false) if labels.is_within(space) => Ok(Kind::Spatial),
        (false, false) if labels == Labels::of([Label::Frames]) => Ok(Kind::Temporal),
        (false, false) => Ok(Kind::Full),
    }
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
        assert_eq!(classify(&text, &text), Ok(Kind::Text));
        assert_eq!(classify(&joint, &joint), Ok(Kind::Joint));
        assert!(classify(&space, &axis(&[Batch])).is_err());
        assert!(classify(&text, &space).is_err());
    }

    #[test]
    fn a_key_axis_without_labels_is_not_guessed() {
        let unlabelled = Dimension::unlabelled(Size::number(16));
        assert!(classify(&axis(&[Label::Height]), &unlabelled).is_err());
        assert!(classify(&unlabelled, &axis(&[Label::Text])).is_err());
        assert!(classify(&Dimension::ONE, &Dimension::ONE).is_err());
    }
}
