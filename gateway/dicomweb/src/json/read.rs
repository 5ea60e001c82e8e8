//! JSON to a tree: what partners answer, and the metadata of STOW-RS.
//!
//! More is understood than written: lower-case tags, a VR left out where the dictionary has one, plain strings for person
//! names, numbers for strings and the reverse.

use std::borrow::Cow;

use dicom_core::Tag;
use gantry_deidentify::data_set::DataSet;

use super::GROUPS;
use super::lexer::Lexer;
use crate::place::Step;
use crate::read::{Builder, Limits, Members, Object, Raw, ReadError, Wrong, once};

/// Reads one data set.
pub fn read_one(bytes: &[u8], limits: &Limits) -> Result<Object, ReadError> {
    Reader::run(bytes, limits, |reader| {
        let object = reader.object()?;
        reader.lexer.end()?;
        Ok(object)
    })
}

/// Reads an array of data sets, as searches and metadata are answered; one that stands alone counts as an array of one.
pub fn read_many(bytes: &[u8], limits: &Limits) -> Result<Vec<Object>, ReadError> {
    Reader::run(bytes, limits, |reader| {
        let mut objects = Vec::new();
        if reader.lexer.peek()? == b'{' {
            objects.push(reader.object()?);
        } else {
            reader.lexer.expect(b'[')?;
            while reader.lexer.next(objects.is_empty(), b']')? {
                objects.push(reader.object()?);
            }
        }
        reader.lexer.end()?;
        Ok(objects)
    })
}

struct Reader<'a> {
    lexer: Lexer<'a>,
    builder: Builder,
}

impl<'a> Reader<'a> {
    fn run<T>(
        bytes: &'a [u8],
        limits: &Limits,
        read: impl FnOnce(&mut Self) -> Result<T, Wrong>,
    ) -> Result<T, ReadError> {
        let builder = Builder::new(bytes, limits)?;
        let lexer = Lexer::new(bytes).map_err(|(at, fault)| builder.error(at, fault.into()))?;
        let mut reader = Self { lexer, builder };
        read(&mut reader).map_err(|wrong| reader.builder.error(reader.lexer.at, wrong))
    }

    fn object(&mut self) -> Result<Object, Wrong> {
        self.builder.begin()?;
        self.lexer.expect(b'{')?;
        let mut set = DataSet::default();
        let mut first = true;
        while self.lexer.next(first, b'}')? {
            first = false;
            let name = self.lexer.name()?;
            self.attribute(&name, &mut set)?;
        }
        self.builder.end(set)
    }

    /// Reads the object of one attribute. What is wrong with its value is reported where the object begins.
    fn attribute(&mut self, name: &str, set: &mut DataSet) -> Result<(), Wrong> {
        let tag = self.builder.attribute(name)?;
        let begin = self.lexer.at;
        let members = self.members(tag)?;
        let end = std::mem::replace(&mut self.lexer.at, begin);
        self.builder.attribute_end(tag, members, set)?;
        self.lexer.at = end;
        Ok(())
    }

    fn members(&mut self, tag: Tag) -> Result<Members<'a>, Wrong> {
        let mut members = Members::default();
        self.lexer.expect(b'{')?;
        let mut first = true;
        while self.lexer.next(first, b'}')? {
            first = false;
            match &*self.lexer.name()? {
                "vr" => {
                    let vr = self.lexer.string()?.parse().map_err(|_| Wrong::Vr)?;
                    once(&mut members.vr, vr)?;
                }
                "Value" => {
                    let values = self.values(tag)?;
                    once(&mut members.values, values)?;
                }
                "InlineBinary" => {
                    let text = self.lexer.string()?;
                    once(&mut members.inline, text)?;
                }
                "BulkDataURI" => {
                    let uri = self.lexer.string()?;
                    once(&mut members.uri, uri)?;
                }
                _ => self.lexer.skip()?,
            }
        }
        Ok(members)
    }

    fn values(&mut self, tag: Tag) -> Result<Vec<Raw<'a>>, Wrong> {
        if self.lexer.peek()? == b'n' {
            self.lexer.literal("null")?;
            return Ok(Vec::new());
        }
        self.lexer.expect(b'[')?;
        let mut values = Vec::new();
        while self.lexer.next(values.is_empty(), b']')? {
            self.builder.count_value()?;
            let item = u32::try_from(values.len() + 1).unwrap_or(u32::MAX);
            values.push(match self.lexer.peek()? {
                b'n' => self.lexer.literal("null").map(|()| Raw::Null)?,
                b'"' => Raw::Text(self.lexer.string()?),
                b'{' => self.name_or_item(Step { sequence: tag, item })?,
                _ => Raw::Number(self.lexer.number()?),
            });
        }
        Ok(values)
    }

    /// A person name has names of groups, an item has tags.
    fn name_or_item(&mut self, step: Step) -> Result<Raw<'a>, Wrong> {
        self.builder.enter(step)?;
        self.lexer.expect(b'{')?;
        let mut name: Option<[Option<Cow<'a, str>>; 3]> = None;
        let mut set = DataSet::default();
        let mut first = true;
        while self.lexer.next(first, b'}')? {
            first = false;
            let member = self.lexer.name()?;
            if let Some(group) = GROUPS.iter().position(|group| *group == member) {
                let text = match self.lexer.peek()? {
                    b'n' => self.lexer.literal("null").map(|()| Cow::Borrowed(""))?,
                    _ => self.lexer.string()?,
                };
                if let Some(group) = name.get_or_insert_default().get_mut(group) {
                    once(group, text)?;
                }
            } else {
                self.attribute(&member, &mut set)?;
            }
        }
        self.builder.leave();
        match name {
            _ if first => Ok(Raw::Empty),
            Some(groups) if set.elements.is_empty() => {
                Ok(Raw::Name(Box::new(groups.map(Option::unwrap_or_default))))
            }
            Some(_) => Err(Wrong::Value),
            None => self.builder.in_order(set).map(Raw::Item),
        }
    }
}
