//! Reads from a device: copied in the order of submissions, mapped when the device has come so far, collected later.

use super::faults::Faults;
use super::load::make_buffer;
use crate::engine::{Local, Reading};
use crate::error::{Error, Result};
use futures_channel::oneshot::{Receiver, channel};
use std::cell::RefCell;
use std::rc::Rc;

/// Buffers that are kept, and the largest of them in bytes.
const KEPT: usize = 4;
const KEPT_SIZE: u64 = 1 << 24;

/// Buffers that reads land in, kept for the next ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Landings(Rc<RefCell<Vec<wgpu::Buffer>>>);

impl Landings {
    /// The smallest of at least `size` bytes, or a new one.
    pub(super) fn take(&self, device: &wgpu::Device, size: u64) -> wgpu::Buffer {
        let mut kept = self.0.borrow_mut();
        let fits = kept.iter().enumerate().filter(|(_, l)| l.size() >= size);
        match fits.min_by_key(|(_, l)| l.size()).map(|(i, _)| i) {
            Some(i) => kept.swap_remove(i),
            None => make_buffer(device, "readback", size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
        }
    }

    /// Keeps a buffer that is not mapped; the smallest goes where there are too many.
    fn give_back(&self, landing: wgpu::Buffer) {
        if landing.size() <= KEPT_SIZE {
            let mut kept = self.0.borrow_mut();
            kept.push(landing);
            if kept.len() > KEPT {
                let smallest = kept.iter().enumerate().min_by_key(|(_, l)| l.size()).map_or(0, |(i, _)| i);
                kept.swap_remove(smallest);
            }
        }
    }
}

type Mapped = std::result::Result<(), wgpu::BufferAsyncError>;

/// A read under way.
#[derive(Debug)]
pub(super) struct Arriving {
    device: wgpu::Device,
    faults: Faults,
    landings: Landings,
    /// Until the words were given.
    landing: Option<wgpu::Buffer>,
    /// Bytes.
    size: u64,
    index: wgpu::SubmissionIndex,
    mapped: Receiver<Mapped>,
    /// Whether the mapping succeeded, once that is known.
    outcome: Option<std::result::Result<(), String>>,
}

fn lost(text: &str) -> Error {
    Error::Device(format!("reading back from the device failed: {text}; load the model again"))
}

impl Arriving {
    /// Maps the first `size` bytes of a landing, to which submission `index` copies.
    pub(super) fn begin(
        device: &wgpu::Device,
        faults: &Faults,
        landings: &Landings,
        landing: wgpu::Buffer,
        size: u64,
        index: wgpu::SubmissionIndex,
    ) -> Arriving {
        let (sender, mapped) = channel();
        landing.map_async(wgpu::MapMode::Read, ..size, move |outcome| {
            let _ = sender.send(outcome); // nobody may want it any more
        });
        let (device, faults, landings) = (device.clone(), faults.clone(), landings.clone());
        Arriving { device, faults, landings, landing: Some(landing), size, index, mapped, outcome: None }
    }
}

impl Reading for Arriving {
    fn ready(&mut self) -> Result<bool> {
        if self.outcome.is_none() {
            self.faults.poll(&self.device, wgpu::PollType::Poll)?;
            self.outcome = match self.mapped.try_recv() {
                Ok(mapped) => mapped.map(|m| m.map_err(|e| e.to_string())),
                Err(cancelled) => Some(Err(cancelled.to_string())),
            };
        }
        self.faults.check()?;
        Ok(self.outcome.is_some())
    }

    fn wait(&mut self) -> Local<'_, Result<()>> {
        Box::pin(async move {
            if self.outcome.is_none() {
                let until = wgpu::PollType::Wait { submission_index: Some(self.index.clone()), timeout: None };
                self.faults.poll(&self.device, until)?;
                self.outcome = Some(match (&mut self.mapped).await {
                    Ok(mapped) => mapped.map_err(|e| e.to_string()),
                    Err(cancelled) => Err(cancelled.to_string()),
                });
            }
            self.faults.check()
        })
    }

    fn words(&mut self) -> Result<Vec<u32>> {
        let not_there = || Error::Plan("the words of a read were asked for before they were there, or twice".into());
        let outcome = self.outcome.as_ref().ok_or_else(not_there)?;
        outcome.as_ref().map_err(|text| lost(text))?;
        let landing = self.landing.as_ref().ok_or_else(not_there)?;
        let words = bytemuck::pod_collect_to_vec(&landing.get_mapped_range(..self.size).map_err(|e| lost(&e.to_string()))?);
        landing.unmap();
        self.landing.take().into_iter().for_each(|landing| self.landings.give_back(landing));
        Ok(words)
    }
}
