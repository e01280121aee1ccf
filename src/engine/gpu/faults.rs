//! What goes wrong on a device while nobody waits for it: its loss, errors of single commands. It is said at the
//! next opportunity, instead of results that mean nothing.

use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// The first thing that went wrong on a device.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<Mutex<Option<String>>>);

impl Faults {
    /// From now on.
    pub(super) fn watch(device: &wgpu::Device) -> Faults {
        let faults = Faults::default();
        let (lost, error) = (faults.clone(), faults.clone());
        device.set_device_lost_callback(move |reason, text| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost.note(format!("the device was lost ({}); load the model again", text.trim()));
            }
        });
        device.on_uncaptured_error(Arc::new(move |e| error.note(format!("the device refused a command: {e}"))));
        faults
    }

    pub(super) fn note(&self, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
    }

    /// Lets callbacks of the device run, and waits as `how` says.
    pub(super) fn poll(&self, device: &wgpu::Device, how: wgpu::PollType) -> Result<()> {
        let polled = device.poll(how).map(|_| ()).map_err(|e| Error::Device(format!("the device stopped answering: {e}")));
        self.check().and(polled)
    }

    /// Whether all went well so far.
    pub(super) fn check(&self) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), |text| Err(Error::Device(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_stays() {
        let faults = Faults::default();
        assert!(faults.check().is_ok());
        faults.clone().note("first".into());
        faults.note("second".into());
        assert_eq!(faults.check().unwrap_err().to_string(), "first");
    }
}
