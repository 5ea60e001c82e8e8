//! Against a reference that decodes every pixel to a number, changes numbers, and encodes them again.

use dicom_core::{Tag, VR};
use proptest::prelude::*;

use super::*;
use crate::data_set::{Element, read};

#[derive(Clone, Debug)]
struct Case {
    photometric: &'static str,
    samples: u16,
    allocated: u16,
    stored: u16,
    high_bit: u16,
    signed: bool,
    by_plane: bool,
    rows: u16,
    columns: u16,
    frames: u32,
    pixel_data: Tag,
}

const PALETTE: [[u8; 3]; 5] =
    [[200, 200, 200], [0, 40, 0], [90, 0, 0], [0, 0, 99], [255, 255, 255]];
/// By luminance: blue, the brightest by number, is the darkest.
const DARKEST: u64 = 3;

impl Case {
    fn data_set(&self) -> DataSet {
        let mut set = DataSet::default();
        let mut number =
            |tag, number: u16| set.put(Element::new(tag, VR::US, number.to_le_bytes()));
        number(tags::ROWS, self.rows);
        number(tags::COLUMNS, self.columns);
        number(tags::SAMPLES_PER_PIXEL, self.samples);
        number(tags::BITS_ALLOCATED, self.allocated);
        number(tags::BITS_STORED, self.stored);
        number(tags::HIGH_BIT, self.high_bit);
        number(tags::PIXEL_REPRESENTATION, self.signed.into());
        number(tags::PLANAR_CONFIGURATION, self.by_plane.into());
        set.put(Element::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, self.photometric));
        set.put(Element::new(tags::NUMBER_OF_FRAMES, VR::IS, self.frames.to_string()));
        if self.photometric == "PALETTE COLOR" {
            for (nth, [descriptor, data]) in [
                [
                    tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                    tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                ],
                [
                    tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                    tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                ],
                [
                    tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                    tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                ],
            ]
            .into_iter()
            .enumerate()
            {
                set.put(Element::new(descriptor, VR::US, [5, 0, 0, 0, 8, 0]));
                let entries: Vec<u8> = PALETTE.iter().map(|entry| entry[nth]).collect();
                set.put(Element::new(data, VR::OW, entries));
            }
        }
        set
    }

    fn image(&self) -> Image {
        Image::of(&self.data_set(), self.pixel_data).unwrap()
    }

    /// Where the bits of a sample of a pixel are.
    fn position(&self, frame: u64, sample: u64, y: u64, x: u64) -> u64 {
        let (rows, columns) = (u64::from(self.rows), u64::from(self.columns));
        let (samples, allocated) = (u64::from(self.samples), u64::from(self.allocated));
        let cell = if self.photometric.ends_with("422") {
            // Y0 Y1 Cb Cr for each pair.
            let pair = (frame * rows + y) * columns / 2 + x / 2;
            pair * 4 + if sample == 0 { x % 2 } else { sample + 1 }
        } else if self.by_plane {
            ((frame * samples + sample) * rows + y) * columns + x
        } else {
            ((frame * rows + y) * columns + x) * samples + sample
        };
        cell * allocated
    }

    fn black(&self, sample: u64) -> u64 {
        let stored = if self.allocated == 1 { 1 } else { self.stored };
        let (all, half) = ((1_u64 << stored.min(63)) - 1, 1_u64 << (stored - 1));
        match (self.photometric, sample) {
            _ if self.pixel_data != tags::PIXEL_DATA => 0,
            ("MONOCHROME1", _) if self.signed => half - 1,
            ("MONOCHROME1", _) => all,
            // The most negative.
            ("MONOCHROME2", _) if self.signed => half,
            ("PALETTE COLOR", _) => DARKEST,
            ("YBR_FULL" | "YBR_FULL_422", 1 | 2) => half,
            ("YBR_PARTIAL_422", 0) => 16,
            ("YBR_PARTIAL_422", _) => 128,
            _ => 0,
        }
    }

    fn reference(&self, pixels: &[u8], boxes: &[Area], length: usize) -> Vec<u8> {
        let mut out = pixels.to_vec();
        let bit = |bytes: &[u8], at: u64| u64::from(bytes[(at / 8) as usize] >> (at % 8) & 1);
        let put = |out: &mut [u8], at: u64, bit: u64| {
            let byte = &mut out[(at / 8) as usize];
            *byte = *byte & !(1 << (at % 8)) | (bit as u8) << (at % 8);
        };
        let low = u64::from(self.high_bit + 1 - self.stored);
        let shared = self.photometric.ends_with("422");
        for frame in 0..u64::from(self.frames) {
            for (y, x) in
                (0..self.rows.into()).flat_map(|y| (0..self.columns.into()).map(move |x| (y, x)))
            {
                let hit = |x: u64| {
                    boxes.iter().any(|area| {
                        (u64::from(area.x)..u64::from(area.x) + u64::from(area.width)).contains(&x)
                            && (u64::from(area.y)..u64::from(area.y) + u64::from(area.height))
                                .contains(&y)
                    })
                };
                let hit = hit(x) || shared && hit(x ^ 1);
                for sample in 0..u64::from(self.samples) {
                    let at = self.position(frame, sample, y, x);
                    if hit {
                        for nth in 0..u64::from(self.stored) {
                            put(&mut out, at + low + nth, self.black(sample) >> nth & 1);
                        }
                    }
                    let sign = bit(&out, at + u64::from(self.high_bit));
                    for nth in
                        (0..low).chain(u64::from(self.high_bit) + 1..u64::from(self.allocated))
                    {
                        let fill = if self.signed && nth > low { sign } else { 0 };
                        put(&mut out, at + nth, fill);
                    }
                }
            }
        }
        let bits = self.image().frame_bits() * u64::from(self.frames);
        for at in bits..length as u64 * 8 {
            put(&mut out, at, 0);
        }
        out
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let base = Case {
        photometric: "MONOCHROME2",
        samples: 1,
        allocated: 8,
        stored: 8,
        high_bit: 7,
        signed: false,
        by_plane: false,
        rows: 5,
        columns: 6,
        frames: 3,
        pixel_data: tags::PIXEL_DATA,
    };
    let depths =
        [(1, 1, 0), (8, 8, 7), (8, 6, 5), (8, 7, 7), (16, 16, 15), (16, 12, 11), (16, 10, 13)]
            .into_iter()
            .chain([(16, 8, 7), (32, 32, 31), (32, 24, 23), (32, 20, 30)]);
    for (allocated, stored, high_bit) in depths {
        for (photometric, samples) in [
            ("MONOCHROME1", 1),
            ("MONOCHROME2", 1),
            ("PALETTE COLOR", 1),
            ("RGB", 3),
            ("YBR_FULL", 3),
            ("YBR_FULL_422", 3),
            ("YBR_PARTIAL_422", 3),
        ] {
            let shared = photometric.ends_with("422");
            let partial = photometric == "YBR_PARTIAL_422" && stored != 8;
            let shallow = photometric == "PALETTE COLOR" && stored < 3;
            if samples == 3 && allocated == 1 || partial || shallow {
                continue;
            }
            for frames in [1, 3] {
                for signed in [false, true].into_iter().take(if samples == 1 { 2 } else { 1 }) {
                    if signed && (photometric == "PALETTE COLOR" || allocated == 1) {
                        continue;
                    }
                    for by_plane in
                        [false, true].into_iter().take(if samples > 1 && !shared { 2 } else { 1 })
                    {
                        let depth = Case { allocated, stored, high_bit, ..base.clone() };
                        cases.push(Case {
                            photometric,
                            samples,
                            signed,
                            by_plane,
                            frames,
                            ..depth
                        });
                    }
                }
            }
        }
    }
    for (allocated, pixel_data) in
        [(32, tags::FLOAT_PIXEL_DATA), (64, tags::DOUBLE_FLOAT_PIXEL_DATA)]
    {
        cases.push(Case {
            allocated,
            stored: allocated,
            high_bit: allocated - 1,
            pixel_data,
            ..base.clone()
        });
    }
    // Rows and frames that begin inside a byte.
    cases.push(Case { allocated: 1, stored: 1, high_bit: 0, columns: 7, ..base.clone() });
    cases
}

fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn value_length(image: &Image) -> usize {
    (image.length().unwrap() as usize).next_multiple_of(2)
}

fn whole(case: &Case, boxes: &[Area], pixels: &mut [u8]) -> Blacked {
    let length = pixels.len() as u64;
    let mut native = Native::new(&case.data_set(), &case.image(), boxes, length).unwrap();
    native.feed(0, pixels).unwrap();
    native.finish().unwrap()
}

#[test]
fn every_pixel_in_a_box_is_black_and_no_other_has_changed() {
    let boxes: [&[Area]; 4] = [
        &[Area { x: 0, y: 0, width: 6, height: 2 }],
        &[Area { x: 1, y: 1, width: 1, height: 3 }, Area { x: 3, y: 0, width: 2, height: 2 }],
        &[
            Area { x: 4, y: 3, width: 99, height: u32::MAX },
            Area { x: 77, y: 0, width: 1, height: 1 },
        ],
        &[],
    ];
    let cases = cases();
    assert!(cases.len() > 90, "{}", cases.len());
    for case in cases {
        for (nth, boxes) in boxes.iter().enumerate() {
            let length = value_length(&case.image());
            let original = noise(length, nth as u32);
            let mut pixels = original.clone();

            let blacked = whole(&case, boxes, &mut pixels);

            assert!(pixels == case.reference(&original, boxes, length), "{case:?} {boxes:?}");
            assert_eq!(blacked.frames, if boxes.is_empty() { 0 } else { case.frames });
        }
    }
}

#[test]
fn an_image_of_another_length_is_refused_and_what_lies_behind_it_goes() {
    let case = cases().into_iter().find(|case| case.samples == 1 && case.allocated == 8).unwrap();
    let length = case.image().length().unwrap();
    let new = |length| Native::new(&case.data_set(), &case.image(), &[], length).map(drop);

    assert!(matches!(new(length - 1), Err(BlackenError::Image(ImageError::Length { .. }))));
    assert!(matches!(new(length + 30), Err(BlackenError::Image(ImageError::Length { .. }))));
    let shared = cases().into_iter().find(|case| case.photometric == "YBR_FULL_422").unwrap();
    // As many as there would be if chrominance were not shared.
    let full = u64::from(shared.rows) * u64::from(shared.columns) * 3 * u64::from(shared.frames);
    let error = Native::new(&shared.data_set(), &shared.image(), &[], full).unwrap_err();
    assert!(matches!(error, BlackenError::Image(ImageError::Length { .. })));

    let mut pixels = vec![7; length as usize + 9];
    let blacked = whole(&case, &[], &mut pixels);
    assert_eq!(blacked.trailing_bytes, 9);
    assert!(pixels[length as usize..].iter().all(|byte| *byte == 0));
    assert!(pixels[..length as usize].iter().all(|byte| *byte == 7));
}

#[test]
fn what_has_no_black_of_its_own_is_refused() {
    let base = cases().into_iter().find(|case| case.photometric == "RGB").unwrap();
    let boxes = [Area { x: 0, y: 0, width: 1, height: 1 }];
    for photometric in ["YBR_RCT", "YBR_ICT", "YBR_PARTIAL_420", "CMYK", "", "MONOCHROME2"] {
        let case = Case { photometric, ..base.clone() };
        let length = case.image().length().unwrap();
        let new = |boxes| Native::new(&case.data_set(), &case.image(), boxes, length).map(drop);

        assert_eq!(new(&boxes), Err(BlackenError::Photometric), "{photometric}");
    }
    let mut palette = cases().into_iter().find(|case| case.photometric == "PALETTE COLOR").unwrap();
    let mut set = palette.data_set();
    set.elements.retain(|element| element.tag != tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA);
    palette.frames = 1;
    let length = palette.image().length().unwrap();
    let error = Native::new(&set, &palette.image(), &boxes, length).unwrap_err();
    assert!(matches!(error, BlackenError::Palette(_)));

    let odd = cases().into_iter().find(|case| case.photometric == "YBR_FULL_422").unwrap();
    let odd = Case { columns: 5, ..odd };
    let length = odd.image().length().unwrap();
    assert!(Native::new(&odd.data_set(), &odd.image(), &boxes, length).is_err());
}

#[test]
fn attributes_that_contradict_each_other_are_refused() {
    let base = cases().into_iter().find(|case| case.allocated == 16).unwrap();
    for case in [
        Case { allocated: 12, ..base.clone() },
        Case { stored: 17, ..base.clone() },
        Case { stored: 0, ..base.clone() },
        Case { high_bit: 16, ..base.clone() },
        Case { stored: 12, high_bit: 10, ..base.clone() },
        Case { rows: 0, ..base.clone() },
        Case { frames: 0, ..base.clone() },
        Case { samples: 3, allocated: 1, stored: 1, high_bit: 0, ..base.clone() },
    ] {
        assert!(Image::of(&case.data_set(), case.pixel_data).is_err(), "{case:?}");
    }
}

#[test]
fn pieces_come_in_order_and_all_of_them() {
    let case = &cases().into_iter().find(|case| case.allocated == 16).unwrap();
    let length = value_length(&case.image()) as u64;
    let mut native = Native::new(&case.data_set(), &case.image(), &[], length).unwrap();

    native.feed(0, &mut [0; 4]).unwrap();

    let again = native.feed(0, &mut [0; 4]);
    assert_eq!(again, Err(BlackenError::Disorder { expected: 4, found: 0 }));
    assert_eq!(native.finish(), Err(BlackenError::Unfinished { expected: length, found: 4 }));
}

#[test]
fn the_banner_of_an_ultrasound_goes_and_echoes_stay() {
    let study = sample_studies::ultrasound(11);
    let instance = &study.instances[0];
    let parsed = read(&instance.transfer_syntax_uid.parse().unwrap(), &instance.data_set).unwrap();
    let value = parsed.pixel_data.unwrap().value;
    let original = &instance.data_set[value.start as usize..value.end as usize];
    let image = Image::of(&parsed.data_set, tags::PIXEL_DATA).unwrap();
    let library = crate::pixels::mask::Library::built_in();
    let found = library.find(&parsed.data_set).unwrap();
    let mut pixels = original.to_vec();

    let length = pixels.len() as u64;
    let mut native = Native::new(&parsed.data_set, &image, &found.boxes, length).unwrap();
    for (nth, piece) in pixels.chunks_mut(1000).enumerate() {
        native.feed(nth as u64 * 1000, piece).unwrap();
    }
    native.finish().unwrap();

    let banner = usize::from(sample_studies::ULTRASOUND_BANNER_ROWS);
    let at = |bytes: &[u8], y: usize, x: usize| bytes[(y * 640 + x) * 3..][..3].to_vec();
    assert!(original[..banner * 640 * 3].iter().any(|byte| *byte != 0));
    assert!(pixels[..banner * 640 * 3].iter().all(|byte| *byte == 0));
    for (y, x) in (0..480).flat_map(|y| (0..640).map(move |x| (y, x))) {
        let inside = (40..=599).contains(&x) && (banner..=469).contains(&y);
        let expected = if inside { at(original, y, x) } else { vec![0; 3] };
        assert_eq!(at(&pixels, y, x), expected, "{x},{y}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_of_any_size_give_what_the_whole_gives(
        nth in any::<prop::sample::Index>(),
        areas in prop::collection::vec((0..8_u32, 0..7_u32, 0..9_u32, 0..9_u32), 0..4),
        cuts in prop::collection::vec(1..40_usize, 1..30),
        seed: u32,
    ) {
        let cases = cases();
        let case = nth.get(&cases);
        let boxes: Vec<Area> =
            areas.into_iter().map(|(x, y, width, height)| Area { x, y, width, height }).collect();
        let original = noise(value_length(&case.image()), seed);
        let mut expected = original.clone();
        let blacked = whole(case, &boxes, &mut expected);

        let mut pieces = original;
        let length = pieces.len() as u64;
        let mut native = Native::new(&case.data_set(), &case.image(), &boxes, length).unwrap();
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < pieces.len() {
            let end = (at + cuts.next().unwrap()).min(pieces.len());
            native.feed(at as u64, &mut pieces[at..end]).unwrap();
            at = end;
        }

        prop_assert_eq!(native.finish().unwrap(), blacked);
        prop_assert!(pieces == expected);
    }

    #[test]
    fn no_attributes_panic(
        numbers in prop::collection::vec(prop_oneof![0..40_u16, any::<u16>()], 9),
        photometric in prop::sample::select(vec!["MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL_422", "?"]),
        frames in "[0-9]{0,3}",
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut set = DataSet::default();
        let attributes = [
            tags::ROWS, tags::COLUMNS, tags::SAMPLES_PER_PIXEL, tags::BITS_ALLOCATED, tags::BITS_STORED,
            tags::HIGH_BIT, tags::PIXEL_REPRESENTATION, tags::PLANAR_CONFIGURATION,
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
        ];
        for (tag, number) in attributes.into_iter().zip(&numbers) {
            set.put(Element::new(tag, VR::US, number.to_le_bytes()));
        }
        set.put(Element::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, photometric));
        set.put(Element::new(tags::NUMBER_OF_FRAMES, VR::IS, frames));
        if let Ok(image) = Image::of(&set, tags::PIXEL_DATA) {
            let area = Area { x: numbers[0].into(), y: 1, width: u32::MAX, height: 3 };
            for length in [bytes.len() as u64, image.length().unwrap_or(0)] {
                if let Ok(mut native) = Native::new(&set, &image, &[area], length) {
                    let cut = cut.index(bytes.len() + 1);
                    let (front, back) = bytes.split_at_mut(cut);
                    let _ = native.feed(0, front);
                    let _ = native.feed(cut as u64, back);
                    let _ = native.finish();
                }
            }
        }
    }
}
