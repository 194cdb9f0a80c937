//! What names a series: a name with its tags sorted and without duplicates, and the bytes that stand for it on the wire
//! and on disk.

use std::fmt;
use std::sync::Arc;

/// The longest series name, bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// The most tags that a series may be given, duplicates counted.
pub const TAGS_MAX: usize = 64;
/// The longest tag, bytes.
pub const TAG_BYTES_MAX: usize = 1024;

/// A series' number within one store; smaller than the number of series that the store knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u32);

impl SeriesId {
    /// The number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A series: its name, and its tags in byte order, each once. Compared by its parts, so the name `a,b=1` without tags
/// is not the name `a` with the tag `b=1`. Cloning shares the text.
///
/// ```
/// use slung_model::SeriesKey;
/// let key = SeriesKey::new("temp", ["sensor=1", "env=prod", "sensor=1"])?;
/// assert_eq!(key.tags().collect::<Vec<_>>(), ["env=prod", "sensor=1"]);
/// # Ok::<(), slung_model::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The name, then each tag with a [`SEPARATOR`] before it. The separator sorts below every other character and is
    /// refused in names and tags, so comparing the text is comparing the parts.
    text: Arc<str>,
    /// Follows from the text, as the next one does; kept so that the parts need not be counted. 1 to
    /// [`NAME_BYTES_MAX`].
    name_bytes: u16,
    /// At most [`TAGS_MAX`].
    tag_count: u16,
}

const SEPARATOR: char = '\0';

/// Why a name with tags is no series key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A series needs a name.
    #[error("the series name is empty")]
    EmptyName,
    /// The name is longer than [`NAME_BYTES_MAX`].
    #[error("the series name has {0} bytes, at most {NAME_BYTES_MAX} are allowed")]
    NameTooLong(usize),
    /// More than [`TAGS_MAX`] tags; the number may be only the first that is too many.
    #[error("{0} tags, at most {TAGS_MAX} are allowed")]
    TooManyTags(usize),
    /// A tag is longer than [`TAG_BYTES_MAX`].
    #[error("tag {index} has {bytes} bytes, at most {TAG_BYTES_MAX} are allowed")]
    TagTooLong {
        /// Which tag, from 0.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// NUL or another control character in the name or a tag.
    #[error("control character U+{character:04X} in {place}", place = Place(*.tag))]
    ControlCharacter {
        /// Which tag, from 0; `None` for the name.
        tag: Option<usize>,
        /// The character's code point.
        character: u32,
    },
}

/// Why bytes are no series key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the key does.
    #[error("the series key is cut short: {need} bytes are needed, {have} are there")]
    Short {
        /// Bytes that the key needs at least.
        need: usize,
        /// Bytes that there are.
        have: usize,
    },
    /// The name or a tag is not UTF-8.
    #[error("the series key is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// The first bad byte, from the start of the key.
        at: usize,
    },
    /// The parts make no key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

struct Place(Option<usize>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("the series name"),
            Some(index) => write!(f, "tag {index}"),
        }
    }
}

impl SeriesKey {
    /// The key of that name and those tags, in any order.
    ///
    /// # Errors
    /// [`KeyError`] says which limit of the wire format is not kept.
    pub fn new<T: AsRef<str>>(name: &str, tags: impl IntoIterator<Item = T>) -> Result<Self, KeyError> {
        if name.is_empty() {
            return Err(KeyError::EmptyName);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(KeyError::NameTooLong(name.len()));
        }
        refuse_control(name, None)?;
        let tags: Vec<T> = tags.into_iter().take(TAGS_MAX + 1).collect();
        if tags.len() > TAGS_MAX {
            return Err(KeyError::TooManyTags(tags.len()));
        }
        let mut sorted: Vec<&str> = Vec::with_capacity(tags.len());
        for (index, tag) in tags.iter().map(AsRef::as_ref).enumerate() {
            if tag.len() > TAG_BYTES_MAX {
                return Err(KeyError::TagTooLong { index, bytes: tag.len() });
            }
            refuse_control(tag, Some(index))?;
            sorted.push(tag);
        }
        sorted.sort_unstable();
        sorted.dedup();
        let mut text = String::with_capacity(name.len() + sorted.iter().map(|tag| 1 + tag.len()).sum::<usize>());
        text.push_str(name);
        for tag in &sorted {
            text.push(SEPARATOR);
            text.push_str(tag);
        }
        Ok(Self { text: text.into(), name_bytes: as_u16(name.len()), tag_count: as_u16(sorted.len()) })
    }

    /// The series' name.
    pub fn name(&self) -> &str {
        &self.text[..usize::from(self.name_bytes)]
    }

    /// The tags in byte order, each once.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = &str> {
        // Without tags there is no separator behind the name.
        let rest = self.text.get(usize::from(self.name_bytes) + 1..).unwrap_or_default();
        Tags { rest, left: usize::from(self.tag_count) }
    }

    /// Whether it carries exactly that tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags().any(|own| own == tag)
    }

    /// Appends the key's bytes: name length and tag count as u16, the name, then each tag with its length as u16 before
    /// it; little-endian. It is the tail of an event in the ingest wire format, and the key in the log.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name_bytes.to_le_bytes());
        out.extend_from_slice(&self.tag_count.to_le_bytes());
        out.extend_from_slice(self.name().as_bytes());
        for tag in self.tags() {
            out.extend_from_slice(&as_u16(tag.len()).to_le_bytes());
            out.extend_from_slice(tag.as_bytes());
        }
    }

    /// Reads a key from the front of `bytes`, and says how many bytes it took. The tags may come in any order.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are short, not UTF-8 or break a limit.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), DecodeError> {
        let name_length = usize::from(read_u16(bytes, 0)?);
        let tag_count = usize::from(read_u16(bytes, 2)?);
        if name_length > NAME_BYTES_MAX {
            return Err(KeyError::NameTooLong(name_length).into());
        }
        if tag_count > TAGS_MAX {
            return Err(KeyError::TooManyTags(tag_count).into());
        }
        let name = read_str(bytes, 4, name_length)?;
        let mut at = 4 + name_length;
        let mut tags = Vec::with_capacity(tag_count);
        for index in 0..tag_count {
            let length = usize::from(read_u16(bytes, at)?);
            if length > TAG_BYTES_MAX {
                return Err(KeyError::TagTooLong { index, bytes: length }.into());
            }
            tags.push(read_str(bytes, at + 2, length)?);
            at += 2 + length;
        }
        Ok((Self::new(name, tags)?, at))
    }
}

/// The name, then the tags in braces: `temp{env=prod,sensor=1}`. For people; see [`SeriesKey::encode`] for machines.
impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{", self.name())?;
        for (index, tag) in self.tags().enumerate() {
            write!(f, "{}{tag}", if index == 0 { "" } else { "," })?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags: Vec<&str> = self.tags().collect();
        f.debug_struct("SeriesKey").field("name", &self.name()).field("tags", &tags).finish()
    }
}

struct Tags<'a> {
    rest: &'a str,
    /// How many tags `rest` holds: an empty rest may be no tag, or one that is empty.
    left: usize,
}

impl<'a> Iterator for Tags<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        let (tag, rest) = self.rest.split_once(SEPARATOR).unwrap_or((self.rest, ""));
        self.rest = rest;
        Some(tag)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Tags<'_> {}

fn as_u16(length: usize) -> u16 {
    u16::try_from(length).expect("every limit of a key is below 65,536")
}

fn refuse_control(text: &str, tag: Option<usize>) -> Result<(), KeyError> {
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(KeyError::ControlCharacter { tag, character: c.into() }),
        None => Ok(()),
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Result<u16, DecodeError> {
    match bytes.get(at..at + 2) {
        Some(&[low, high]) => Ok(u16::from_le_bytes([low, high])),
        _ => Err(DecodeError::Short { need: at + 2, have: bytes.len() }),
    }
}

fn read_str(bytes: &[u8], at: usize, length: usize) -> Result<&str, DecodeError> {
    let part = bytes.get(at..at + length).ok_or(DecodeError::Short { need: at + length, have: bytes.len() })?;
    std::str::from_utf8(part).map_err(|error| DecodeError::NotUtf8 { at: at + error.valid_up_to() })
}
