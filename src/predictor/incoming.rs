//! A packed model that comes in pieces and goes straight to a device: of the tables' codes nothing but a piece is ever held.

use super::{Predictor, upload};
use crate::config::Device;
use crate::error::{Error, Result};
use crate::packed::{Packed, Parts};
use crate::plan::View;

/// After this many bytes of codes the device is waited for, so that what is under way does not pile up.
const UNDER_WAY: usize = 16 << 20;

/// A packed model on its way to a device.
#[derive(Debug)]
pub struct Incoming {
    name: String,
    device: Device,
    batch: usize,
    max_binding: u64,
    parts: Parts,
    loading: Option<Loading>,
}

/// A predictor whose tables are being filled.
#[derive(Debug)]
struct Loading {
    predictor: Predictor,
    /// The buffer that is being filled, and its words that are there.
    shard: usize,
    filled: usize,
    /// The beginning of a word.
    rest: Vec<u8>,
    since_wait: usize,
}

impl Incoming {
    /// A file of `size` bytes, called `name` in messages, for a device and batches of up to `batch` samples. Nothing is
    /// taken from the device before the header has come.
    ///
    /// # Errors
    /// A size that this computer cannot address.
    pub fn new(name: &str, size: u64, device: Device, batch: usize) -> Result<Incoming> {
        let size = usize::try_from(size).map_err(|_| Error::Data(format!("`{name}` has {size} bytes, more than fit here")))?;
        Ok(Incoming { name: name.into(), device, batch, max_binding: u64::MAX, parts: Parts::new(size), loading: None })
    }

    /// The same with tables cut into bindings of at most `max_binding` bytes, even where the device allows more.
    pub fn cut(self, max_binding: u64) -> Incoming {
        Incoming { max_binding, ..self }
    }

    /// Bytes that have come.
    pub fn received(&self) -> usize {
        self.parts.received()
    }

    /// Takes the next bytes and waits, now and then, until the device has taken them.
    ///
    /// # Errors
    /// A header that cannot be used or does not fit the device, as soon as it is there; more bytes than announced; a lost device.
    pub async fn push(&mut self, piece: &[u8]) -> Result<()> {
        let codes = self.parts.push(piece).map_err(|reason| named(&self.name, reason))?;
        if let (None, Some(outline)) = (&self.loading, self.parts.outline()) {
            let (predictor, _) = Predictor::open(outline, None, &self.device, self.batch, self.max_binding).await?;
            self.loading = Some(Loading { predictor, shard: 0, filled: 0, rest: Vec::new(), since_wait: 0 });
        }
        match &mut self.loading {
            Some(loading) if !codes.is_empty() => loading.take(&piece[codes]).await,
            _ => Ok(()),
        }
    }

    /// The model, once everything has come: the predictor, and the file without the tables' codes.
    ///
    /// # Errors
    /// Bytes that are missing or were altered.
    pub fn finish(self) -> Result<(Predictor, Packed)> {
        let name = self.name;
        let packed = self.parts.finish().map_err(|reason| named(&name, reason))?;
        let Some(mut loading) = self.loading else { return Err(named(&name, "has no header".into())) };
        loading.end()?;
        loading.predictor.upload_scales(&packed)?;
        loading.predictor.upload_layers(&packed)?;
        Ok((loading.predictor, packed))
    }
}

fn named(name: &str, reason: String) -> Error {
    Error::Data(format!("`{name}` {reason}"))
}

impl Loading {
    /// Writes the next bytes of the codes; shards begin at multiples of four bytes.
    async fn take(&mut self, mut codes: &[u8]) -> Result<()> {
        self.since_wait += codes.len();
        if !self.rest.is_empty() {
            let missing = (4 - self.rest.len()).min(codes.len());
            self.rest.extend_from_slice(&codes[..missing]);
            codes = &codes[missing..];
            if self.rest.len() < 4 {
                return Ok(());
            }
            let word = upload::words(&self.rest);
            self.rest.clear();
            self.write(&word)?;
        }
        let whole = codes.len() / 4 * 4;
        self.rest.extend_from_slice(&codes[whole..]);
        self.write(&upload::words(&codes[..whole]))?;
        if self.since_wait >= UNDER_WAY {
            self.since_wait = 0;
            let first = View { len: 1, ..self.predictor.recorded.shards[0] };
            self.predictor.engine.read(first).await?;
        }
        Ok(())
    }

    /// Fills the last word up with zeros.
    fn end(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.rest);
        self.write(&upload::words(&rest))?;
        // Checksums are those of the bytes that came; this is about those that went on.
        if self.shard < self.predictor.recorded.shards.len() {
            return Err(Error::Data("not all codes reached the device, because of an earlier error; load the model again".into()));
        }
        Ok(())
    }

    fn write(&mut self, mut words: &[u32]) -> Result<()> {
        while !words.is_empty() {
            let Some(&view) = self.predictor.recorded.shards.get(self.shard) else {
                return Err(Error::Data("there are more codes than the tables have".into()));
            };
            let now = words.len().min(view.len - self.filled);
            let at = View { offset: view.offset + self.filled, len: now, ..view };
            self.predictor.engine.write(at, &words[..now])?;
            (self.filled, words) = (self.filled + now, &words[now..]);
            if self.filled == view.len {
                (self.shard, self.filled) = (self.shard + 1, 0);
            }
        }
        Ok(())
    }
}
