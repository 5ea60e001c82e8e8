//! Parameters of a rendering (PS3.18 8.3.5.1).

use thiserror::Error;

use crate::qido::decoded;

/// The longest side of a viewport, in pixels.
const LONGEST_SIDE: u32 = 8192;

/// How a picture shall look.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Which values are shown from black to white; `None`: those that the image names.
    pub window: Option<Window>,
    /// How large, and which part; `None`: all of it, as it is.
    pub viewport: Option<Viewport>,
    /// Quality of JPEG, 1 to 100.
    pub quality: u8,
}

impl Default for View {
    fn default() -> Self {
        Self { window: None, viewport: None, quality: 90 }
    }
}

/// A window (PS3.3 C.11.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Window Center (0028,1050).
    pub center: f64,
    /// Window Width (0028,1051), at least 1 for [`Function::Linear`] and above 0 for the others.
    pub width: f64,
    /// VOI LUT Function (0028,1056).
    pub function: Function,
}

/// VOI LUT Function (PS3.3 C.11.2.1.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Function {
    /// LINEAR
    Linear,
    /// LINEAR_EXACT
    LinearExact,
    /// SIGMOID
    Sigmoid,
}

impl Window {
    /// `None` where the width is none.
    pub fn new(center: f64, width: f64, function: Function) -> Option<Self> {
        let least = if function == Function::Linear { width >= 1.0 } else { width > 0.0 };
        (center.is_finite() && width.is_finite() && least).then_some(Self {
            center,
            width,
            function,
        })
    }

    /// What is made of a value: 0 to 255.
    pub fn apply(&self, value: f64) -> u8 {
        let Self { center, width, .. } = *self;
        let share = match self.function {
            Function::Linear if width <= 1.0 => f64::from(u8::from(value > center - 0.5)),
            Function::Linear => (value - (center - 0.5)) / (width - 1.0) + 0.5,
            Function::LinearExact => (value - center) / width + 0.5,
            Function::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
        };
        super::byte(share * 255.0)
    }
}

/// A viewport.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Viewport {
    /// Pixels from left to right, at most 8192.
    pub width: u32,
    /// Pixels from top to bottom, likewise.
    pub height: u32,
    /// Which part of the image: its left and upper edge, its width and height. `None`: all of it.
    pub part: Option<(u32, u32, u32, u32)>,
}

/// Why they are no parameters of a rendering; answered with 400.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum BadView {
    /// Not `center,width,function`.
    #[error(
        "window is not center,width,function, the function linear, linear-exact or sigmoid (PS3.18 8.3.5.1.4)"
    )]
    Window,
    /// Not `width,height` or `width,height,x,y,width,height`.
    #[error(
        "viewport is not width,height or width,height,x,y,width,height in pixels (PS3.18 8.3.5.1.3)"
    )]
    Viewport,
    /// Not 1 to 100.
    #[error("quality is not a number from 1 to 100")]
    Quality,
    /// Nothing is burnt into a picture.
    #[error("annotation is not supported: nothing is written into a picture")]
    Annotation,
}

impl View {
    /// Reads what stands behind the question mark of a URL. What means nothing here is passed over: it is for others.
    pub fn parse(query: &str) -> Result<Self, BadView> {
        let mut view = Self::default();
        for (name, value) in query.split('&').filter_map(|one| one.split_once('=')) {
            let value = decoded(value);
            let value = value.as_deref();
            match name {
                "window" => view.window = Some(value.and_then(window).ok_or(BadView::Window)?),
                "viewport" => {
                    view.viewport = Some(value.and_then(viewport).ok_or(BadView::Viewport)?);
                }
                "quality" => {
                    let quality = value.and_then(|value| value.parse().ok());
                    view.quality =
                        quality.filter(|it| (1..=100).contains(it)).ok_or(BadView::Quality)?;
                }
                "annotation" => return Err(BadView::Annotation),
                _ => {}
            }
        }
        Ok(view)
    }
}

fn window(text: &str) -> Option<Window> {
    let mut parts = text.split(',');
    let mut number = || parts.next()?.trim().parse::<f64>().ok();
    let (center, width) = (number()?, number()?);
    let function = match parts.next() {
        None | Some("linear") => Function::Linear,
        Some("linear-exact") => Function::LinearExact,
        Some("sigmoid") => Function::Sigmoid,
        Some(_) => return None,
    };
    if parts.next().is_some() {
        return None;
    }
    Window::new(center, width, function)
}

fn viewport(text: &str) -> Option<Viewport> {
    let numbers: Option<Vec<u32>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    let side = |side: u32| (1..=LONGEST_SIDE).contains(&side).then_some(side);
    match numbers?.as_slice() {
        [width, height] => {
            Some(Viewport { width: side(*width)?, height: side(*height)?, part: None })
        }
        [width, height, x, y, part_width, part_height] => Some(Viewport {
            width: side(*width)?,
            height: side(*height)?,
            part: Some((*x, *y, *part_width, *part_height)),
        }),
        _ => None,
    }
}
