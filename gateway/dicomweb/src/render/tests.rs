use dicom_core::VR;
use gantry_deidentify::data_set::Element;

use super::*;

/// An image of these cells, in words of 16 bits.
fn image(columns: u16, rows: u16, photometric: &str, stored: u16, signed: bool) -> DataSet {
    let mut set = DataSet::default();
    let mut number = |tag, value: u16| set.put(Element::new(tag, VR::US, value.to_le_bytes()));
    number(tags::ROWS, rows);
    number(tags::COLUMNS, columns);
    number(tags::SAMPLES_PER_PIXEL, if photometric.starts_with(['R', 'Y']) { 3 } else { 1 });
    number(tags::BITS_ALLOCATED, if stored > 8 { 16 } else { 8 });
    number(tags::BITS_STORED, stored);
    number(tags::HIGH_BIT, stored - 1);
    number(tags::PIXEL_REPRESENTATION, u16::from(signed));
    set.put(Element::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, photometric));
    set
}

fn words(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn shown(set: &DataSet, frame: &[u8], query: &str) -> Vec<u8> {
    let view = View::parse(query).unwrap();
    picture(set, 0, frame, &view).unwrap().as_bytes().to_vec()
}

/// A CT: 12 bits in 16 above which something else stands, in Hounsfield units by the intercept.
#[test]
fn a_window_is_applied_to_the_values_of_the_modality() {
    let mut set = image(4, 1, "MONOCHROME2", 12, false);
    set.put(Element::new(tags::RESCALE_INTERCEPT, VR::DS, "-1024"));
    set.put(Element::new(tags::RESCALE_SLOPE, VR::DS, "1"));
    set.put(Element::new(tags::WINDOW_CENTER, VR::DS, "40\\300"));
    set.put(Element::new(tags::WINDOW_WIDTH, VR::DS, "80\\1500"));
    let frame = words(&[1024, 1064, 1104, 0x7000 | 1024]);

    // PS3.3 C.11.2.1.2.1: black up to 40 - 0.5 - 79 / 2 = 0, white above 79.
    assert_eq!(shown(&set, &frame, ""), [0, 129, 255, 0]);
    assert_eq!(shown(&set, &frame, "window=40,80,linear-exact"), [0, 128, 255, 0]);
    assert_eq!(shown(&set, &frame, "window=40,80,sigmoid"), [30, 128, 225, 30]);
    assert_eq!(shown(&set, &frame, "window=40,1"), [0, 255, 255, 0]);
}

#[test]
fn what_names_no_window_is_shown_whole_without_its_padding() {
    let mut set = image(4, 1, "MONOCHROME2", 16, true);
    set.put(Element::new(tags::PIXEL_PADDING_VALUE, VR::SS, (-2000_i16).to_le_bytes()));
    let frame = words(&[-2000, -100, 0, 100]);
    assert_eq!(shown(&set, &frame, ""), [0, 0, 128, 255]);

    let mut inverted = set.clone();
    inverted.put(Element::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1"));
    assert_eq!(shown(&inverted, &frame, ""), [255, 255, 127, 0]);
    inverted.put(Element::new(tags::PRESENTATION_LUT_SHAPE, VR::CS, "IDENTITY"));
    assert_eq!(shown(&inverted, &frame, ""), [0, 0, 128, 255]);
}

#[test]
fn tables_of_modality_and_voi_are_looked_up() {
    let mut lut = DataSet::default();
    lut.put(Element::new(tags::LUT_DESCRIPTOR, VR::US, words(&[3, 10, 8])));
    lut.put(Element::new(tags::LUT_DATA, VR::OW, words(&[0, 51, 255])));
    let mut set = image(4, 1, "MONOCHROME2", 8, false);
    set.put(Element::sequence(tags::VOILUT_SEQUENCE, vec![lut]));
    assert_eq!(shown(&set, &[0, 10, 11, 200], ""), [0, 0, 51, 255]);
}

#[test]
fn each_frame_has_the_window_of_its_functional_groups() {
    let group = |center: &str| {
        let mut voi = DataSet::default();
        voi.put(Element::new(tags::WINDOW_CENTER, VR::DS, center));
        voi.put(Element::new(tags::WINDOW_WIDTH, VR::DS, "1"));
        let mut groups = DataSet::default();
        groups.put(Element::sequence(tags::FRAME_VOILUT_SEQUENCE, vec![voi]));
        groups
    };
    let mut set = image(2, 1, "MONOCHROME2", 8, false);
    let frames = vec![group("5"), group("50")];
    set.put(Element::sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frames));
    let of = |frame| picture(&set, frame, &[10, 60], &View::default()).unwrap().as_bytes().to_vec();
    assert_eq!((of(0), of(1)), (vec![255, 255], vec![0, 255]));
}

#[test]
fn colours_come_out_as_they_are() {
    let rgb = image(2, 1, "RGB", 8, false);
    assert_eq!(shown(&rgb, &[1, 2, 3, 4, 5, 6], ""), [1, 2, 3, 4, 5, 6]);
    let mut planes = rgb.clone();
    planes.put(Element::new(tags::PLANAR_CONFIGURATION, VR::US, 1_u16.to_le_bytes()));
    assert_eq!(shown(&planes, &[1, 4, 2, 5, 3, 6], ""), [1, 2, 3, 4, 5, 6]);
    let ybr = image(2, 1, "YBR_FULL", 8, false);
    assert_eq!(shown(&ybr, &[255, 128, 128, 76, 85, 255], ""), [255, 255, 255, 254, 0, 0]);
    let shared = image(2, 1, "YBR_FULL_422", 8, false);
    assert_eq!(shown(&shared, &[255, 0, 128, 128], ""), [255, 255, 255, 0, 0, 0]);

    let mut palette = image(3, 1, "PALETTE COLOR", 8, false);
    for (descriptor, data, high) in
        [(0x1101, 0x1201, 1_u8), (0x1102, 0x1202, 2), (0x1103, 0x1203, 3)]
    {
        let words = words(&[2, 7, 16]);
        palette.put(Element::new(Tag(0x0028, descriptor), VR::US, words));
        palette.put(Element::new(Tag(0x0028, data), VR::OW, [9, high, 9, high + 10]));
    }
    assert_eq!(shown(&palette, &[0, 8, 255, 0], ""), [1, 2, 3, 11, 12, 13, 11, 12, 13]);
}

#[test]
fn a_viewport_keeps_proportions_and_stays_inside() {
    let set = image(40, 20, "MONOCHROME2", 8, false);
    let frame = vec![7; 800];
    let size = |query: &str| {
        let view = View::parse(query).unwrap();
        picture(&set, 0, &frame, &view).map(|it| (it.width(), it.height()))
    };
    assert_eq!(size("viewport=20,20"), Ok((20, 10)));
    assert_eq!(size("viewport=100,10"), Ok((20, 10)));
    assert_eq!(size("viewport=10,10,30,10,10,10"), Ok((10, 10)));
    assert_eq!(size("viewport=1,1"), Ok((1, 1)));
    assert_eq!(size("viewport=10,10,31,10,10,10"), Err(RenderError::Outside));
    assert_eq!(size("viewport=10,10,4294967295,10,10,10"), Err(RenderError::Outside));
    assert_eq!(size("viewport=10,10,0,0,0,10"), Err(RenderError::Outside));
}

#[test]
fn what_a_browser_could_not_mean_is_refused() {
    for (query, expected) in [
        ("window=1", BadView::Window),
        ("window=1,0", BadView::Window),
        ("window=NaN,1", BadView::Window),
        ("window=1,2,other", BadView::Window),
        ("window=1,2,linear,3", BadView::Window),
        ("viewport=0,1", BadView::Viewport),
        ("viewport=9000,1", BadView::Viewport),
        ("viewport=1,2,3", BadView::Viewport),
        ("viewport=", BadView::Viewport),
        ("quality=0", BadView::Quality),
        ("quality=101", BadView::Quality),
        ("annotation=patient", BadView::Annotation),
    ] {
        assert_eq!(View::parse(query), Err(expected), "{query}");
    }
    assert_eq!(View::parse("accept=image/png&iccprofile=no"), Ok(View::default()));
}

#[test]
fn attributes_that_lie_take_no_memory() {
    let view = View::default();
    let large = image(65535, 65535, "MONOCHROME2", 16, false);
    assert_eq!(picture(&large, 0, &[], &view).unwrap_err(), RenderError::TooLarge);
    let short = image(4, 4, "MONOCHROME2", 16, false);
    assert_eq!(picture(&short, 0, &[0; 31], &view).unwrap_err(), RenderError::Short);
    for (tag, value) in [
        (tags::BITS_STORED, 17_u16),
        (tags::BITS_STORED, 0),
        (tags::HIGH_BIT, 16),
        (tags::BITS_ALLOCATED, 12),
        (tags::ROWS, 0),
    ] {
        let mut set = short.clone();
        set.put(Element::new(tag, VR::US, value.to_le_bytes()));
        assert_eq!(picture(&set, 0, &[0; 32], &view).unwrap_err(), RenderError::Attribute(tag));
    }
    let other = image(1, 1, "HSV", 8, false);
    assert_eq!(picture(&other, 0, &[0; 2], &view).unwrap_err(), RenderError::Photometric);
}

#[test]
fn a_png_is_lossless_and_a_jpeg_is_near() {
    let set = image(16, 16, "MONOCHROME2", 8, false);
    let frame: Vec<u8> = (0..=255).collect();
    let picture =
        picture(&set, 0, &frame, &View::parse("window=127.5,255,linear-exact").unwrap()).unwrap();
    let png = encoded(&picture, Media::Png, 90).unwrap();
    assert_eq!(image::load_from_memory(&png).unwrap().as_bytes(), frame);
    let jpeg = encoded(&picture, Media::Jpeg, 95).unwrap();
    let back = image::load_from_memory(&jpeg).unwrap().to_luma8();
    let worst = back.as_raw().iter().zip(&frame).map(|(one, other)| one.abs_diff(*other)).max();
    assert!(worst.unwrap() <= 8, "{worst:?}");
}
