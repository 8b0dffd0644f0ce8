//! Sizes in pixels, and packing there and back.

use super::*;
use crate::runtime::ElementType;

fn port(shape: &[Option<i64>], symbols: &[&str]) -> Port {
    Port {
        name: "hidden_states".into(),
        element_type: Some(ElementType::Float32),
        description: String::new(),
        shape: shape.to_vec(),
        symbols: symbols.iter().map(|symbol| (*symbol).to_owned()).collect(),
    }
}

const FACTORS: Factors = Factors { pixels: 8, frames: 4 };

fn asked(frames: usize, height: usize, width: usize) -> PixelSize {
    PixelSize {
        height: Some(height),
        width: Some(width),
        frames: Some(frames),
    }
}

fn shape(port: &Port, layout: Layout, size: PixelSize) -> Result<Vec<usize>, String> {
    let shape = LatentShape::new(port, layout, size, FACTORS, &BTreeMap::new());
    shape.map(|shape| shape.noise).map_err(|error| error.to_string())
}

#[test]
fn pixels_become_latents_in_the_familys_order() {
    let open = ["batch", "a", "b", "c", "d"];
    let video = port(&[None, Some(16), None, None, None], &open);
    assert_eq!(
        shape(&video, Layout::ChannelsFirst, asked(9, 64, 96)).unwrap(),
        [1, 16, 3, 8, 12]
    );
    let frames_first = port(&[None, None, Some(16), None, None], &open);
    assert_eq!(
        shape(&frames_first, Layout::FramesFirst, asked(9, 64, 96)).unwrap(),
        [1, 3, 16, 8, 12]
    );
    let image = port(&[None, Some(4), None, None], &open);
    assert_eq!(
        shape(&image, Layout::ChannelsFirst, asked(1, 64, 96)).unwrap(),
        [1, 4, 8, 12]
    );
    let packed = port(&[None, None, Some(128)], &open);
    assert_eq!(
        shape(&packed, Layout::Packed, asked(9, 64, 96)).unwrap(),
        [1, 128, 3, 8, 12]
    );
    let patches = port(&[None, None, Some(64)], &open);
    assert_eq!(
        shape(&patches, Layout::Patches, asked(1, 64, 96)).unwrap(),
        [1, 16, 8, 12]
    );
}

#[test]
fn patches_there_and_back_change_nothing() {
    let patches = port(&[None, Some(6), Some(8)], &["", "", ""]);
    let shape = |size| LatentShape::new(&patches, Layout::Patches, size, FACTORS, &BTreeMap::new());
    let latent = shape(asked(1, 32, 48)).unwrap();
    assert_eq!((latent.noise(), latent.tokens()), (&[1, 2, 4, 6][..], Some(6)));
    let noise = ArrayD::from_shape_fn(IxDyn(&[1, 2, 4, 6]), |index| {
        (1..4).fold(0, |number, axis| 10 * number + index[axis]) as f32
    });
    let model = latent.to_model(noise.clone());
    // The second token: rows 0 and 1, columns 2 and 3, of each channel.
    let second: Vec<f32> = model.slice(ndarray::s![0, 1, ..]).to_vec();
    assert_eq!(second, [2.0, 3.0, 12.0, 13.0, 102.0, 103.0, 112.0, 113.0]);
    assert_eq!(latent.to_decoder(model), noise);
    let refused = |size| shape(size).unwrap_err().to_string();
    let error = refused(asked(1, 24, 48));
    assert!(error.contains("--height 24") && error.contains("16 and 32"), "{error}");
    let error = refused(asked(1, 32, 32));
    assert!(error.contains("4 tokens") && error.contains("made for 6"), "{error}");
    let error = refused(asked(3, 32, 48));
    assert!(error.contains("--frames 3"), "{error}");
}

#[test]
fn sizes_that_cannot_be_name_the_nearest() {
    let video = port(&[None, Some(16), None, None, Some(12)], &["batch", "", "f", "h", ""]);
    let refused = |size: PixelSize| shape(&video, Layout::ChannelsFirst, size).unwrap_err();
    let error = refused(asked(9, 60, 96));
    assert!(
        error.starts_with("--height 60") && error.contains("56 and 64"),
        "{error}"
    );
    let error = refused(asked(8, 64, 96));
    assert!(error.starts_with("--frames 8") && error.contains("5 and 9"), "{error}");
    let error = refused(asked(9, 3, 96));
    assert!(error.contains("8 and 16"), "{error}");
    let error = refused(asked(9, 64, 64));
    assert!(
        error.starts_with("--width 64") && error.contains("made for 96"),
        "{error}"
    );
    let error = refused(PixelSize::default());
    assert!(
        error.contains("the number of frames") && error.contains("--frames N"),
        "{error}"
    );
    let image = port(&[None, Some(4), Some(8), Some(8)], &["", "", "", ""]);
    assert!(
        shape(&image, Layout::ChannelsFirst, asked(5, 64, 64))
            .unwrap_err()
            .contains("made for 1")
    );
}

#[test]
fn packing_there_and_back_changes_nothing() {
    let packed = port(&[None, None, Some(2)], &["", "", ""]);
    let shape = LatentShape::new(&packed, Layout::Packed, asked(5, 8, 16), FACTORS, &BTreeMap::new()).unwrap();
    let noise = ArrayD::from_shape_fn(IxDyn(&[2, 2, 2, 1, 2]), |index| {
        (0..5).fold(0, |number, axis| 10 * number + index[axis]) as f32
    });
    let model = shape.to_model(noise.clone());
    assert_eq!(model.shape(), [2, 4, 2]);
    // The second token is the second column: channels 0 and 1 of it.
    assert_eq!((model[[1, 1, 0]], model[[1, 1, 1]]), (10001.0, 11001.0));
    assert_eq!(shape.to_decoder(model), noise);
    let first = port(&[None, Some(2), Some(3), Some(1), Some(2)], &[""; 5]);
    let shape = LatentShape::new(
        &first,
        Layout::FramesFirst,
        PixelSize::default(),
        FACTORS,
        &BTreeMap::new(),
    )
    .unwrap();
    assert_eq!(
        shape.to_decoder(ArrayD::zeros(IxDyn(&[1, 2, 3, 1, 2]))).shape(),
        [1, 3, 2, 1, 2]
    );
}
