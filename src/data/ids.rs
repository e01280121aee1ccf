//! From categories to row numbers, and the bytes that a run keeps to repeat the mapping.
//!
//! # Bytes
//!
//! Little endian, nothing between the parts:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `DQRM-IDS` |
//! | 4 | version, 1 |
//! | 4 | kind: 0 modulo, 1 dictionary, 2 direct (the key is the row) |
//! | 4 | tables K, at most 65536 |
//! | 4 | zero |
//! | 8 | most rows a dictionary's table may have; 0 means no limit (always 0 for the others) |
//! | 8 K | modulo and direct: rows of each table; dictionary: number of keys n of each table |
//! | 8 Σ n | dictionary only: the keys, table by table, in first-seen order |
//! | 8 | XXH3-64 of everything before |

use super::Block;
use super::raw::RawBlock;
use crate::config::{Ids, MAX_TABLES};
use crate::error::{Error, Result};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"DQRM-IDS";
const VERSION: u32 = 1;
/// Bytes before the counts.
pub const HEADER: usize = 32;
/// Keys of one table; row numbers are 32 bits wide and row 0 is kept.
const MAX_KEYS: u64 = u32::MAX as u64 - 1;

/// How the keys of K tables become rows.
#[derive(Debug, Clone)]
pub struct Mapper {
    kind: Kind,
    /// Rows of each table.
    rows: Vec<u64>,
}

#[derive(Debug, Clone)]
enum Kind {
    Modulo,
    Direct,
    Dictionary { tables: Vec<Dictionary>, max_rows: Option<u64> },
}

/// Keys in first-seen order, and where to find each.
#[derive(Clone, Default)]
struct Dictionary {
    keys: Vec<u64>,
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dictionary").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Dictionary {
    fn find(&self, key: u64) -> Option<u32> {
        self.places.find(self.hasher.hash_one(key), |&place| self.keys[place as usize] == key).copied()
    }

    /// The key's place, where it is put at the end if it is new; `None` when no place is left.
    fn learn(&mut self, key: u64) -> Option<u32> {
        let (keys, hasher) = (&mut self.keys, &self.hasher);
        let hash = hasher.hash_one(key);
        match self.places.entry(hash, |&p| keys[p as usize] == key, |&p| hasher.hash_one(keys[p as usize])) {
            Entry::Occupied(place) => Some(*place.get()),
            Entry::Vacant(_) if keys.len() as u64 >= MAX_KEYS => None,
            Entry::Vacant(free) => {
                let place = keys.len() as u32;
                free.insert(place);
                keys.push(key);
                Some(place)
            }
        }
    }
}

/// Row of the `seen`-th key (0 for a key that was never seen, else counted from 1) in a table of
/// at most `max_rows` rows: row 0 is kept for unseen keys, the others share what is left.
pub(super) fn capped(seen: u32, max_rows: Option<u64>) -> u32 {
    match max_rows {
        Some(0 | 1) => 0,
        Some(cap) if seen as u64 >= cap => 1 + ((seen as u64 - 1) % (cap - 1)) as u32,
        _ => seen,
    }
}

/// Which kind of mapping begins with `bytes`, and the limit on the rows of a dictionary. Reads the first
/// [`HEADER`] bytes only.
///
/// # Errors
/// Bytes that begin as no mapping does.
pub fn kind(bytes: &[u8]) -> Result<(Ids, Option<u64>)> {
    let (words, _) = bytes.as_chunks::<4>();
    let word = |i: usize| u32::from_le_bytes(words[i]);
    if bytes.len() < HEADER || !bytes.starts_with(MAGIC) || word(2) != VERSION || word(3) > 2 {
        return Err(Error::Data("id mapping: its first bytes are not those of a mapping".into()));
    }
    let cap = u64::from(word(6)) | u64::from(word(7)) << 32;
    let kind = [Ids::Modulo, Ids::Dictionary, Ids::Direct][word(3) as usize];
    Ok((kind, (cap > 0).then_some(cap)))
}

/// One table of a mapping.
pub(super) struct Learner<'a> {
    /// `None` when ids are rows.
    table: Option<&'a mut Dictionary>,
    rows: &'a mut u64,
    cap: u64,
    modulo: bool,
}

impl Learner<'_> {
    #[cfg(feature = "cli")]
    /// Keys known so far; 0 when ids are rows.
    pub(super) fn known(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.keys.len())
    }

    /// Appends the id of each of `keys`: its row, or in a dictionary its place in first-seen order, counted from
    /// 1 and without the limit on rows, after it was added if it is new. `number` is the table's, for messages.
    ///
    /// # Errors
    /// More keys than row numbers.
    pub(super) fn learn(&mut self, number: usize, keys: &[u64], ids: &mut Vec<u32>) -> Result<()> {
        let Some(table) = &mut self.table else {
            let rows = *self.rows;
            // a direct key beyond the table is refused by all that look it up
            ids.extend(keys.iter().map(|&key| if self.modulo { (key % rows) as u32 } else { key.min(u64::from(u32::MAX)) as u32 }));
            return Ok(());
        };
        ids.reserve(keys.len());
        for &key in keys {
            let Some(place) = table.learn(key) else {
                return Err(Error::Data(format!(
                    "table {number} has more than {MAX_KEYS} distinct categories; take ids modulo (data.ids = \"modulo\")"
                )));
            };
            ids.push(place + 1);
        }
        *self.rows = (table.keys.len() as u64 + 1).min(self.cap).max(1);
        Ok(())
    }
}

impl Mapper {
    /// Row = key modulo the table's rows. Rows are kept between 1 and 2^32 - 1.
    pub fn modulo(rows: &[u64]) -> Mapper {
        Mapper { kind: Kind::Modulo, rows: rows.iter().map(|&r| r.clamp(1, u32::MAX as u64)).collect() }
    }

    /// Row = key; [`Mapper::limits`] says which keys there are. Rows are kept between 1 and 2^32 - 1.
    pub fn direct(rows: &[u64]) -> Mapper {
        Mapper { kind: Kind::Direct, ..Mapper::modulo(rows) }
    }

    /// The number of keys that each table knows, where any other key is an error.
    pub fn limits(&self) -> Option<&[u64]> {
        matches!(self.kind, Kind::Direct).then_some(&self.rows)
    }

    /// Rows in first-seen order, still without any key: row 0 is for keys never seen, the first
    /// key seen gets row 1. With `max_rows`, the n-th key (from 1) gets row
    /// `1 + (n - 1) % (max_rows - 1)`, so that no table grows larger.
    pub fn dictionary(tables: usize, max_rows: Option<u64>) -> Mapper {
        Mapper { kind: Kind::Dictionary { tables: vec![Dictionary::default(); tables], max_rows }, rows: vec![1; tables] }
    }

    /// A dictionary that knows `words` of each table, spelled as `id_text = "text"` reads them: word number w (from 0) has row w + 1.
    ///
    /// # Errors
    /// A word that stands twice in its table.
    pub fn of_words(words: &[Vec<String>]) -> Result<Mapper> {
        let mut mapper = Mapper::dictionary(words.len(), None);
        for (number, (mut learner, words)) in mapper.learners().zip(words).enumerate() {
            let keys: Vec<u64> = words.iter().map(|word| xxh3_64(word.as_bytes())).collect();
            let mut rows = Vec::with_capacity(keys.len());
            learner.learn(number, &keys, &mut rows)?;
            if let Some((word, _)) = words.iter().zip(&rows).zip(1..).find(|((_, row), place)| **row != *place).map(|(found, _)| found) {
                return Err(Error::Data(format!("table {number} has the word `{word}` twice")));
            }
        }
        Ok(mapper)
    }

    /// True when keys have rows in first-seen order, false for modulo.
    pub fn is_dictionary(&self) -> bool {
        matches!(self.kind, Kind::Dictionary { .. })
    }

    #[cfg(feature = "cli")]
    /// The limit on a dictionary's rows.
    pub(super) fn max_rows(&self) -> Option<u64> {
        match &self.kind {
            Kind::Modulo | Kind::Direct => None,
            Kind::Dictionary { max_rows, .. } => *max_rows,
        }
    }

    /// Tables K.
    pub fn tables(&self) -> usize {
        self.rows.len()
    }

    /// Rows of each table.
    pub fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// Keys each table has seen; 0 for modulo.
    pub fn known(&self) -> Vec<u64> {
        match &self.kind {
            Kind::Modulo | Kind::Direct => vec![0; self.rows.len()],
            Kind::Dictionary { tables, .. } => tables.iter().map(|t| t.keys.len() as u64).collect(),
        }
    }

    /// The row of `key`; unseen keys of a dictionary have row 0.
    pub fn row(&self, table: usize, key: u64) -> u32 {
        match &self.kind {
            Kind::Modulo => (key % self.rows[table]) as u32,
            Kind::Direct => key.min(u64::from(u32::MAX)) as u32, // one beyond the table is refused by all that look it up
            Kind::Dictionary { tables, max_rows } => tables[table].find(key).map_or(0, |place| capped(place + 1, *max_rows)),
        }
    }

    /// The row of `key` for modulo and direct; for a dictionary the key's place in first-seen order, counted
    /// from 1 and without the limit on rows, after it was added if it is new.
    ///
    /// # Errors
    /// More keys than row numbers.
    #[cfg(test)]
    pub(super) fn learn(&mut self, table: usize, key: u64) -> Result<u32> {
        let mut ids = Vec::with_capacity(1);
        match self.learners().nth(table) {
            Some(mut learner) => learner.learn(table, &[key], &mut ids)?,
            None => return Err(Error::Data(format!("there is no table {table}"))),
        }
        Ok(ids[0])
    }

    /// The tables one by one, for threads that learn the keys of one each.
    pub(super) fn learners(&mut self) -> impl Iterator<Item = Learner<'_>> {
        let modulo = matches!(self.kind, Kind::Modulo);
        let (mut tables, cap) = match &mut self.kind {
            Kind::Dictionary { tables, max_rows } => (Some(tables.iter_mut()), max_rows.unwrap_or(u64::MAX)),
            Kind::Modulo | Kind::Direct => (None, u64::MAX),
        };
        self.rows.iter_mut().map(move |rows| match &mut tables {
            Some(tables) => Learner { table: tables.next(), rows, cap, modulo: false },
            None => Learner { table: None, rows, cap, modulo },
        })
    }

    #[cfg(feature = "cli")]
    /// The keys of a dictionary's table in first-seen order; none for the others.
    pub(super) fn keys(&self, table: usize) -> &[u64] {
        match &self.kind {
            Kind::Modulo | Kind::Direct => &[],
            Kind::Dictionary { tables, .. } => &tables[table].keys,
        }
    }

    #[cfg(feature = "cli")]
    /// Forgets all but the first `known` keys of each table; modulo stays as it is.
    pub(super) fn truncate(&mut self, known: &[u64]) {
        let Kind::Dictionary { tables, max_rows } = &mut self.kind else { return };
        for ((dictionary, &n), rows) in tables.iter_mut().zip(known).zip(&mut self.rows) {
            dictionary.keys.truncate(n as usize);
            dictionary.keys.shrink_to_fit();
            dictionary.places.retain(|&mut place| (place as u64) < n);
            *rows = (dictionary.keys.len() as u64 + 1).min(max_rows.unwrap_or(u64::MAX)).max(1);
        }
    }

    /// Appends raw rows to `block`. Labels are taken over only where all rows have one.
    ///
    /// # Errors
    /// Rows with another number of tables.
    pub fn map(&self, raw: &RawBlock, block: &mut Block) -> Result<()> {
        let k_count = self.tables();
        if raw.offsets.len() != raw.samples * k_count + 1 {
            return Err(Error::Data(format!("{} bags in {} rows do not fit {k_count} tables", raw.offsets.len() - 1, raw.samples)));
        }
        for (i, bag) in raw.offsets.windows(2).enumerate() {
            block.ids.extend(raw.keys[bag[0] as usize..bag[1] as usize].iter().map(|&key| self.row(i % k_count, key)));
            block.end_bag();
        }
        block.dense.extend_from_slice(&raw.dense);
        let labelled = block.labels.len() == block.samples && raw.labels.iter().all(Option::is_some);
        if labelled {
            block.labels.extend(raw.labels.iter().flatten());
        } else {
            block.labels.clear();
        }
        block.samples += raw.samples;
        Ok(())
    }

    /// The mapping as bytes; the layout is in the [module's](self) text.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, cap, counts) = match &self.kind {
            Kind::Modulo => (0u32, 0, self.rows.clone()),
            Kind::Direct => (2, 0, self.rows.clone()),
            Kind::Dictionary { max_rows, .. } => (1, max_rows.unwrap_or(0), self.known()),
        };
        let mut bytes = MAGIC.to_vec();
        for word in [VERSION, kind, self.rows.len() as u32, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(cap.to_le_bytes());
        bytes.extend(counts.iter().flat_map(|c| c.to_le_bytes()));
        if let Kind::Dictionary { tables, .. } = &self.kind {
            bytes.reserve(8 * counts.iter().sum::<u64>() as usize + 8);
            tables.iter().for_each(|t| bytes.extend(t.keys.iter().flat_map(|key| key.to_le_bytes())));
        }
        let sum = xxh3_64(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// The mapping that [`Mapper::to_bytes`] wrote.
    ///
    /// # Errors
    /// Bytes that are anything else; every length is checked before memory is taken for it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Mapper> {
        let fail = |text: String| Err(Error::Data(format!("id mapping: {text}")));
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes.len() < HEADER + 8 {
            return fail(format!("{} bytes are too few, the smallest has {}", bytes.len(), HEADER + 8));
        }
        if &bytes[..8] != MAGIC {
            return fail(format!("begins with `{}`, not with `DQRM-IDS`", bytes[..8].escape_ascii()));
        }
        let (version, kind, k_count, zero, cap) = (word(8), word(12), word(16) as usize, word(20), long(24));
        if version != VERSION {
            return fail(format!("has version {version}; this program reads version {VERSION}"));
        }
        if kind > 2 || k_count > MAX_TABLES || zero != 0 || (kind != 1 && cap != 0) {
            return fail(format!("has kind {kind}, {k_count} tables, padding {zero}, limit {cap}; that is no mapping"));
        }
        let body = bytes.len() - 8;
        if body < HEADER + 8 * k_count {
            return fail(format!("{} bytes are too few for {k_count} tables", bytes.len()));
        }
        let counts: Vec<u64> = (0..k_count).map(|k| long(HEADER + 8 * k)).collect();
        let keys = if kind != 1 { 0 } else { counts.iter().fold(0u64, |sum, &n| sum.saturating_add(n)) };
        let needed = keys.checked_mul(8).and_then(|n| n.checked_add((HEADER + 8 * k_count) as u64));
        if needed != Some(body as u64) {
            return fail(format!("{keys} keys of {k_count} tables do not fit {} bytes", bytes.len()));
        }
        if xxh3_64(&bytes[..body]) != long(body) {
            return fail("the checksum does not match; the bytes were altered or cut".into());
        }
        let low = u64::from(kind != 1);
        if let Some(k) = counts.iter().position(|&n| n < low || n > MAX_KEYS + low) {
            return fail(format!("table {k} has {} entries; {low} to {} are possible", counts[k], MAX_KEYS + low));
        }
        if kind != 1 {
            return Ok(if kind == 0 { Mapper::modulo(&counts) } else { Mapper::direct(&counts) });
        }
        let mut mapper = Mapper::dictionary(k_count, (cap > 0).then_some(cap));
        let mut at = HEADER + 8 * k_count;
        let mut ids = Vec::new();
        for ((k, &n), mut learner) in counts.iter().enumerate().zip(mapper.learners()) {
            let keys: Vec<u64> = (0..n as usize).map(|i| long(at + 8 * i)).collect();
            ids.clear();
            learner.learn(k, &keys, &mut ids)?;
            if let Some(i) = ids.iter().zip(1u32..).position(|(&id, place)| id != place) {
                return fail(format!("key {} stands twice in table {k}", keys[i]));
            }
            at += 8 * keys.len();
        }
        Ok(mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionary(cap: Option<u64>) -> Mapper {
        let mut mapper = Mapper::dictionary(2, cap);
        for key in [7, 9, 7, 0, u64::MAX, 5] {
            mapper.learn(0, key).unwrap();
        }
        mapper.learn(1, 9).unwrap();
        mapper
    }

    #[test]
    fn keys_get_rows_in_first_seen_order_and_row_0_is_kept() {
        let m = dictionary(None);
        assert_eq!(m.rows(), [6, 2]);
        assert_eq!([7, 9, 0, u64::MAX, 5, 6].map(|key| m.row(0, key)), [1, 2, 3, 4, 5, 0]);
        assert_eq!((m.row(1, 9), m.row(1, 7)), (1, 0));
    }

    #[test]
    fn words_have_rows_in_the_order_given() {
        let words = |list: &[&str]| list.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let m = Mapper::of_words(&[words(&["red", "", "blue"]), words(&[])]).unwrap();
        let row = |word: &str| m.row(0, crate::data::fields::key(word.as_bytes(), crate::config::IdText::Text).unwrap());
        assert_eq!((m.rows(), ["red", "", "blue", "Red"].map(row)), (&[4, 1][..], [1, 2, 3, 0]));
        let error = Mapper::of_words(&[words(&["a"]), words(&["b", "c", "b"])]).unwrap_err().to_string();
        assert_eq!(error, "table 1 has the word `b` twice");
    }

    #[test]
    fn a_limit_on_rows_folds_late_keys() {
        let m = dictionary(Some(4));
        assert_eq!(m.rows(), [4, 2]);
        assert_eq!([7, 9, 0, u64::MAX, 5, 6].map(|key| m.row(0, key)), [1, 2, 3, 1, 2, 0]);
        let m = dictionary(Some(1));
        assert_eq!((m.rows(), m.row(0, 7)), (&[1, 1][..], 0));
        let m = dictionary(Some(6));
        assert_eq!(m.row(0, 5), 5, "five keys and row 0 just fit");
    }

    #[test]
    fn truncation_forgets_the_latest_keys() {
        let mut m = dictionary(None);
        m.truncate(&[2, 0]);
        assert_eq!((m.rows(), m.known()), (&[3, 1][..], vec![2, 0]));
        assert_eq!([7, 9, 0, 5].map(|key| m.row(0, key)), [1, 2, 0, 0]);
        assert_eq!(m.learn(0, 5).unwrap(), 3);
    }

    #[test]
    fn bytes_bring_back_the_mapping() {
        for m in [
            dictionary(None),
            dictionary(Some(4)),
            Mapper::modulo(&[3, u32::MAX as u64]),
            Mapper::direct(&[3, 9]),
            Mapper::dictionary(0, None),
        ] {
            let back = Mapper::from_bytes(&m.to_bytes()).unwrap();
            let wanted = if m.limits().is_some() { Ids::Direct } else { [Ids::Modulo, Ids::Dictionary][usize::from(m.is_dictionary())] };
            assert_eq!(kind(&m.to_bytes()[..HEADER]).unwrap(), (wanted, m.max_rows()));
            assert_eq!((back.to_bytes(), back.rows(), back.known()), (m.to_bytes(), m.rows(), m.known()));
            for key in (0..10).chain([u64::MAX]).filter(|_| m.tables() > 0) {
                assert_eq!(back.row(0, key), m.row(0, key));
            }
        }
    }

    /// A correct mapping with bytes replaced and the checksum made right again.
    fn forged(m: &Mapper, at: usize, with: &[u8]) -> String {
        let mut bytes = m.to_bytes();
        bytes[at..at + with.len()].copy_from_slice(with);
        let body = bytes.len() - 8;
        let sum = xxh3_64(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum.to_le_bytes());
        Mapper::from_bytes(&bytes).unwrap_err().to_string()
    }

    #[test]
    fn every_cut_and_every_altered_byte_is_noticed() {
        let bytes = dictionary(Some(9)).to_bytes();
        (0..bytes.len()).for_each(|n| assert!(Mapper::from_bytes(&bytes[..n]).is_err(), "cut at {n}"));
        for i in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[i] ^= 0x41;
            assert!(Mapper::from_bytes(&altered).is_err(), "byte {i}");
        }
        assert!(kind(&bytes[..HEADER - 1]).is_err() && kind(&[7; HEADER]).is_err());
        assert!(Mapper::from_bytes(&[bytes, vec![0]].concat()).is_err());
    }

    #[test]
    fn each_lie_is_named() {
        let (d, m) = (dictionary(None), Mapper::modulo(&[3, 4]));
        for (mapper, at, with, says) in [
            (&d, 0, &b"PK"[..], "begins with `PK"),
            (&d, 8, &[2][..], "version 2"),
            (&d, 12, &[7][..], "kind 7"),
            (&d, 12, &[0][..], "do not fit"),
            (&d, 16, &[0xff; 4][..], "4294967295 tables"),
            (&d, 16, &[0xff, 0xff, 0, 0][..], "too few for 65535 tables"),
            (&d, 20, &[1][..], "padding 1"),
            (&d, 32, &[0xff; 8][..], "do not fit"),
            (&d, 32, &(1u64 << 61).to_le_bytes()[..], "do not fit"),
            (&d, 48, &9u64.to_le_bytes()[..], "key 9 stands twice in table 0"),
            (&m, 24, &[1][..], "limit 1"),
            (&m, 32, &[0; 8][..], "table 0 has 0 entries"),
            (&m, 40, &[0xff; 8][..], "table 1 has 18446744073709551615 entries"),
        ] {
            let error = forged(mapper, at, with);
            assert!(error.contains(says), "{error} does not say {says}");
        }
    }
}
