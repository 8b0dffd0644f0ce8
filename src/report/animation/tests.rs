//! What was written is decoded again.

use std::fs::File;
use std::io::BufReader;

use image::AnimationDecoder;
use image::codecs::gif::GifDecoder;
use ndarray::Array4;

use super::*;

fn decoded(path: &Path) -> Vec<Frame> {
    GifDecoder::new(BufReader::new(File::open(path).unwrap()))
        .unwrap()
        .into_frames()
        .collect_frames()
        .unwrap()
}

/// A red pixel that moves right over blue.
fn moving() -> Array4<f32> {
    Array4::from_shape_fn((3, 4, 5, 6), |(channel, frame, y, x)| match channel {
        0 if x == frame && y == 2 => 1.0,
        2 if x != frame || y != 2 => 1.0,
        _ => 0.0,
    })
}

#[test]
fn a_clip_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.gif");
    write_animation(&path, moving().view(), FramesPerSecond::new(8).unwrap(), 3).unwrap();
    let frames = decoded(&path);
    assert_eq!(frames.len(), 4);
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(frame.buffer().dimensions(), (18, 15));
        assert_eq!(frame.delay().numer_denom_ms(), (130, 1));
        assert_eq!(frame.buffer().get_pixel(index as u32 * 3 + 1, 7).0, [255, 0, 0, 255]);
        assert_eq!(frame.buffer().get_pixel(index as u32 * 3 + 3, 7).0, [0, 0, 255, 255]);
    }
    // The Netscape extension with a count of 0: for ever.
    let bytes = std::fs::read(&path).unwrap();
    let place = bytes.windows(11).position(|window| window == b"NETSCAPE2.0").unwrap();
    assert_eq!(bytes[place + 11..place + 15], [3, 1, 0, 0]);
}

#[test]
fn pairs_stand_beside_each_other_below_their_captions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.gif");
    let (original, patched) = (moving(), Array4::from_elem((3, 4, 5, 6), 0.5_f32));
    let pair = Pair {
        caption: "",
        original: original.view(),
        patched: patched.view(),
    };
    write_pairs(&path, &[pair; 3], FramesPerSecond::new(50).unwrap(), 20).unwrap();
    let frames = decoded(&path);
    assert_eq!(frames.len(), 4);
    let grid = Grid::new(&[""; 3], (6, 5), 20).unwrap();
    assert_eq!(grid.columns, 1);
    let frame = frames[1].buffer();
    assert_eq!(frame.dimensions(), (GAP + 242 + GAP, 24 + GAP + 3 * (100 + GAP)));
    assert_eq!(frames[1].delay().numer_denom_ms(), (20, 1));
    let top = GAP + grid.heading + 100 + GAP;
    assert_eq!(frame.get_pixel(GAP + 25, top + 45).0, [255, 0, 0, 255]);
    assert_eq!(frame.get_pixel(GAP + 45, top + 45).0, [0, 0, 255, 255]);
    assert_eq!(frame.get_pixel(GAP + 120 + SEPARATOR, top).0, [128, 128, 128, 255]);
    assert_eq!(frame.get_pixel(GAP + 120, top).0, [24, 24, 27, 255]);
    let light = |left: u32| {
        let area = (GAP..GAP + 14).flat_map(|y| (left..left + 120).map(move |x| (x, y)));
        area.filter(|&(x, y)| frame.get_pixel(x, y).0[0] > 200).count()
    };
    assert!(light(GAP) > 200 && light(GAP + 122) > 200);
}

#[test]
fn captions_take_a_line_of_their_own() {
    let plain = Grid::new(&[""; 16], (32, 32), 4).unwrap();
    let captioned = Grid::new(&["a red circle"; 16], (32, 32), 4).unwrap();
    assert_eq!((captioned.cell.1 - plain.cell.1, captioned.columns), (24, 4));
}

#[test]
fn captions_are_of_one_size_and_headings_fit() {
    let mut captions = ["short", "a caption that is too long to be enlarged", ""];
    let small = Grid::new(&captions, (32, 32), 4).unwrap();
    assert_eq!((small.caption_scale, small.pane), (1, (128, 128)));
    captions[1] = "short too";
    assert_eq!(Grid::new(&captions, (32, 32), 4).unwrap().caption_scale, 2);
    let narrow = Grid::new(&captions, (32, 32), 1).unwrap();
    assert_eq!(
        (narrow.caption_scale, narrow.pane),
        (1, (font::text_width("original", 1), 32))
    );
}

#[test]
fn what_cannot_be_shown_is_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.gif");
    let rate = FramesPerSecond::new(8).unwrap();
    let (clip, other) = (moving(), Array4::zeros((3, 4, 5, 5)));
    let pair = Pair {
        caption: "",
        original: clip.view(),
        patched: other.view(),
    };
    let message = write_pairs(&path, &[pair], rate, 2).unwrap_err().to_string();
    assert!(
        message.contains("[3, 4, 5, 5]") && message.contains("[3, 4, 5, 6]"),
        "{message}"
    );
    assert!(matches!(
        write_pairs(&path, &[], rate, 2),
        Err(ReportError::Clip { .. })
    ));
    assert!(matches!(
        write_animation(&path, clip.view(), rate, 20_000),
        Err(ReportError::PictureSize { .. })
    ));
    assert!(matches!(
        write_animation(&path, clip.view(), rate, u32::MAX),
        Err(ReportError::PictureSize { .. })
    ));
    assert!(matches!(FramesPerSecond::new(0), Err(ReportError::FrameRate(0))));
    assert!(FramesPerSecond::new(51).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
