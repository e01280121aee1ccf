//! Reads from a device: copied in the order of submissions, mapped when the device has come so far, collected later.

use super::super::{Local, Reading};
use super::faults::Faults;
use super::load::make_buffer;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::engine::gpu::{GpuEngine, adapters};
    use crate::plan::View;
    use crate::plan::schedule::Schedule;
    use pollster::block_on;

    fn engine() -> Option<(GpuEngine, View)> {
        let found = block_on(adapters()).into_iter().next();
        assert!(found.is_some() || std::env::var("DQRM_REQUIRE_GPU").as_deref() != Ok("1"), "DQRM_REQUIRE_GPU=1, but there is no adapter");
        let adapter = found?;
        let case = crate::ops::cases().into_iter().find(|case| case.name.starts_with("copy of")).unwrap();
        let view = case.checks[0].0;
        Some((block_on(GpuEngine::load(&adapter, Schedule::new(case.plan, &adapter.limits).unwrap())).unwrap(), view))
    }

    /// What a read gives, asked until it answers.
    fn asked(reading: &mut dyn Reading) -> Result<Vec<u32>> {
        while !reading.ready()? {
            std::thread::yield_now();
        }
        reading.words()
    }

    fn waited(reading: &mut dyn Reading) -> Result<Vec<u32>> {
        block_on(reading.wait())?;
        reading.words()
    }

    #[test]
    fn landings_are_used_again() {
        let Some((mut engine, view)) = engine() else { return };
        let kept = |engine: &GpuEngine| engine.landings.0.borrow().iter().map(wgpu::Buffer::size).collect::<Vec<_>>();
        let small = View { len: 1, ..view };
        for _ in 0..3 {
            let mut two = [engine.begin_read(&[view, small]).unwrap(), engine.begin_read(&[small]).unwrap()];
            assert!(kept(&engine).is_empty());
            two.iter_mut().for_each(|reading| assert!(waited(&mut **reading).is_ok()));
            let mut sizes = kept(&engine);
            sizes.sort_unstable();
            assert_eq!(sizes, [4, 4 * view.len as u64 + 4]);
            let kept_buffers = engine.landings.0.borrow().clone();
            drop(waited(&mut *engine.begin_read(&[view, small]).unwrap()).unwrap());
            assert!(engine.landings.0.borrow().iter().all(|l| kept_buffers.contains(l)), "another one was made");
        }
        // where there are too many, the smallest goes
        let mut many: Vec<_> = (1..=KEPT).map(|len| engine.begin_read(&[View { len, ..view }]).unwrap()).collect();
        many.push(engine.begin_read(&[view]).unwrap());
        many.iter_mut().for_each(|reading| assert!(waited(&mut **reading).is_ok()));
        assert!(kept(&engine).len() == KEPT && kept(&engine).contains(&(4 * view.len as u64)) && !kept(&engine).contains(&4));
    }

    #[test]
    fn words_are_given_once_and_not_before_they_are_there() {
        let Some((mut engine, view)) = engine() else { return };
        let mut reading = engine.begin_read(&[view]).unwrap();
        assert!(reading.words().unwrap_err().to_string().contains("before they were there"));
        assert_eq!(asked(&mut *reading).unwrap().len(), view.len);
        assert!(reading.words().unwrap_err().to_string().contains("or twice"));
        assert!(reading.ready().unwrap());
    }

    #[test]
    fn a_lost_device_is_an_error_of_reads_begun_before_and_after() {
        for take in [asked, waited] {
            let Some((mut engine, view)) = engine() else { return };
            let mut before = engine.begin_read(&[view]).unwrap();
            engine.faults.note("the device was lost (test)".into());
            let mut after = engine.begin_read(&[view]).unwrap();
            for reading in [&mut before, &mut after] {
                assert_eq!(take(&mut **reading).unwrap_err().to_string(), "the device was lost (test)");
            }
            assert_eq!(block_on(engine.read(view)).unwrap_err().to_string(), "the device was lost (test)");
        }
    }

    #[test]
    fn reads_of_a_closed_device_end() {
        for take in [asked, waited] {
            let Some((mut engine, view)) = engine() else { return };
            let mut before = engine.begin_read(&[view]).unwrap();
            engine.device.destroy();
            // what was submitted before may still have come
            assert!(take(&mut *before).is_err_and(|e| !e.to_string().is_empty()) || before.ready().is_ok());
            let after = engine.begin_read(&[view]).and_then(|mut reading| take(&mut *reading));
            assert!(after.is_err(), "a closed device gave {after:?}");
        }
    }
}
